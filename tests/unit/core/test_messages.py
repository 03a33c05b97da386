"""Messages of others, as status holds them."""

from __future__ import annotations

from finetune_operator.api.status import MESSAGE_LIMIT
from finetune_operator.core.messages import READ_LIMIT, status_message


def test_a_message_is_short_and_has_no_credentials() -> None:
    assert status_message("pull https://me:pw@host/x failed") == "pull https://***@host/x failed"
    assert status_message("x" * 10_000) == "x" * MESSAGE_LIMIT
    assert status_message("https://" + "u" * MESSAGE_LIMIT + "@host/" + "x" * READ_LIMIT).startswith("https://***@host/xxx")

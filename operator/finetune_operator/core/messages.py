"""Messages of programs and components, as status and Events hold them."""

from __future__ import annotations

from finetune_contract.redaction import redact
from finetune_operator.api.status import MESSAGE_LIMIT

READ_LIMIT = 4 * MESSAGE_LIMIT
"""Characters of a message of another component that are read. A webhook, a controller or a user's program may write any length."""


def status_message(text: str) -> str:
    """Return a message without credentials and with at most :data:`MESSAGE_LIMIT` characters."""
    return redact(text[:READ_LIMIT])[:MESSAGE_LIMIT]

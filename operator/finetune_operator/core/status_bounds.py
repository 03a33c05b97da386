"""Bounds of what a result brings into status.

The API server rejects a whole status for one value beyond a bound of the CRD, and would reject it in every later pass. So a result is
compared with the models of status, which the CRD is generated from, before it is accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from finetune_contract.codec import DocumentError
from finetune_operator.api.status import FineTuneRunStatus

_KEY_LIMIT = 64
"""Characters of a key in a message: a result can have any key."""


def require_valid(fields: Mapping[str, Any]) -> None:
    """Raise an error unless ``status`` can have these fields.

    Raises:
        DocumentError: a value is beyond a bound of the CRD. The message has the path of the value in ``status``.
    """
    try:
        FineTuneRunStatus.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        path = ".".join(_shown(part) for part in first["loc"])
        raise DocumentError(
            f"result: status.{path} would be invalid ({first['msg']}); correct the program of the stage"
        ) from None


def _shown(part: str | int) -> str:
    """Return a key or an index on one line."""
    text = str(part)
    return (text if text.isprintable() else ascii(text))[:_KEY_LIMIT]

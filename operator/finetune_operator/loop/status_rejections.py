"""Statuses that the API server rejected, by run.

A rejection may end by itself: an administrator removes a policy, or installs the CRD of the operator's release some minutes after the
operator. So only a violation of the CRD that persists ends a run.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from .cluster import RunKey
from .errors import Invalid

GRACE = timedelta(minutes=10)
"""How long the API server must reject the same fields before the run fails."""
_UNPROCESSABLE = 422
"""HTTP status of an object that violates its definition, and the default one of a denial by a policy."""
_DENIAL = re.compile(r'admission webhook "|\S+ "[^"]*" is forbidden: ')
"""Beginning of the message of a webhook or a ValidatingAdmissionPolicy, which may also name fields."""


class StatusRejections:
    """Cache of the rejected fields of each run's status, with the time of the first rejection."""

    def __init__(self) -> None:
        self._since: dict[RunKey, tuple[frozenset[str], datetime]] = {}

    def persists(self, key: RunKey, error: Invalid, now: datetime) -> bool:
        """Record a rejection. Return whether the API server has rejected the same fields for :data:`GRACE`."""
        fields = frozenset(field for field, _ in error.causes)
        before, since = self._since.get(key, (fields, now))
        since = since if before == fields else now
        self._since[key] = fields, since
        return now - since >= GRACE

    def forget(self, key: RunKey) -> None:
        """Drop the rejection of a run."""
        self._since.pop(key, None)


def violates_definition(error: Invalid) -> bool:
    """Return whether fields of the status violate the CRD: no policy or webhook denied the request."""
    fields = [field for field, _ in error.causes]
    in_status = bool(fields) and all(re.match(r"status(\W|$)", field) for field in fields)
    return error.code == _UNPROCESSABLE and in_status and not _DENIAL.match(error.message)

"""Faults of web servers and registries as stage errors."""

from __future__ import annotations

from finetune_stages.sdk import StageError
from finetune_stages.sdk.fault import causes, first_line

from .origin import Origin

_TRANSIENT = {408, 425, 429}


def is_transient(status: int) -> bool:
    """Return whether a later request may succeed where this one had this status."""
    return status >= 500 or status in _TRANSIENT


def network_fault(error: Exception, origin: Origin, subject: str) -> StageError:
    """Return the stage error for a failed request: the certificate of the server is not trusted, or the server is unreachable.

    Args:
        error: from the HTTP library.
        origin: what was requested.
        subject: beginning of the sentence, which ends with the server or the address.
    """
    detail = first_line(error, 200) if str(error) else type(error).__name__
    if any("CERTIFICATE_VERIFY_FAILED" in str(link) for link in causes(error)):
        cause = detail.partition("certificate verify failed: ")[2].partition(" (_ssl")[0] or detail  # without OpenSSL's codes
        message = f"{subject} has a certificate that is not trusted ({cause}); set its CA in {origin.repo_type}.caRef."
        return StageError(origin.untrusted, message)
    return StageError(origin.unreachable, f"{subject} is unreachable or sent an invalid response ({detail}).")

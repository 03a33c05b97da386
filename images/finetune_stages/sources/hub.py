"""Access to the Hugging Face hub: cache folders, the token, repositories, and stage errors for the hub's errors."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from finetune_contract.hosts import HUB
from finetune_stages.sdk import Context, StageError
from finetune_stages.sdk.fault import AddressNotAllowed, causes, first_line
from finetune_stages.sdk.hosts import require_allowed

from .origin import Origin
from .progress import report_note

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TOKEN_VARIABLE = "HF_TOKEN"  # noqa: S105 - the name of the variable, not a token
COMMIT = re.compile(r"[0-9a-f]{40}")
"""Form of a commit. A revision that is a commit never changes."""
_TRANSIENT = {408, 429}


def keep_caches_in(folder: Path) -> None:
    """Set the environment so that the hub's libraries cache below ``folder``. They read it once, at import."""
    os.environ["HF_HOME"] = str(folder)
    for variable in ("HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_MODULES_CACHE", "HF_ASSETS_CACHE", "HF_XET_CACHE"):
        os.environ.pop(variable, None)
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def hub_cache(context: Context) -> Path:
    """Return this attempt's folder for :func:`keep_caches_in`; it is removed with the attempt's work folder."""
    return context.path(context.layout.attempt(context.document.stage, context.attempt)) / "hub"


def token() -> str | Literal[False]:
    """Return the token for the hub; ``False`` sends none, not even one from the user's home directory."""
    return os.environ.get(TOKEN_VARIABLE, "").strip() or False


@dataclass(frozen=True)
class Repository:
    """A repository of the hub at one commit.

    Attributes:
        sizes: size of each file in bytes.
        sha256: digests of the large files, which the hub stores in LFS.
    """

    id: str
    commit: str
    sizes: dict[str, int]
    sha256: dict[str, str]


def find_repository(origin: Origin, repo_id: str, revision: str | None, context: Context) -> Repository:
    """Return the repository at the commit that a revision currently refers to, and check that the token has access.

    Raises:
        StageError: one of the reasons of ``origin``.
    """
    from huggingface_hub import HfApi

    report_note(context, f"looking up {repo_id} on the hub")
    api = HfApi(token=token())
    with hub_errors(origin, repo_id, revision):
        info = api.repo_info(repo_id, repo_type=origin.repo_type, revision=revision, timeout=30, files_metadata=True)
        if info.gated:  # anyone may list a gated repository
            _require_access(api, repo_id, origin)
    files = info.siblings or []
    return Repository(
        repo_id, str(info.sha), {file.rfilename: file.size or 0 for file in files},
        {file.rfilename: file.lfs.sha256 for file in files if file.lfs},
    )  # fmt: skip


def _require_access(api: HfApi, repo_id: str, origin: Origin) -> None:
    from huggingface_hub.errors import HfHubHTTPError

    try:
        api.auth_check(repo_id, repo_type=origin.repo_type)
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise
        # A mirror may lack this endpoint: then downloading the files shows whether access is granted.


@contextmanager
def hub_errors(origin: Origin, name: str, revision: str | None = None) -> Iterator[None]:
    """Raise errors of the hub inside as :class:`StageError` with one of the reasons of ``origin``.

    Other exceptions propagate.
    """
    try:
        yield
    except StageError:
        raise
    except Exception as error:
        fault = hub_fault(error, origin, name, revision)
        if fault is None:
            raise
        raise fault from error


def hub_fault(error: BaseException, origin: Origin, name: str, revision: str | None = None) -> StageError | None:
    """Return the stage error for an exception of the hub's libraries; ``None`` if the hub is not the cause.

    The libraries wrap exceptions: the first known one in the chain counts.
    """
    import httpx2
    from huggingface_hub import errors

    subject = f"{origin.what.capitalize()} {name}"
    for link in causes(error):
        if isinstance(link, AddressNotAllowed):
            return link.of(subject)
        if isinstance(link, errors.RevisionNotFoundError):
            return StageError(origin.not_found, f"{subject}: it has no revision {revision or 'main'}; correct the revision.")
        if isinstance(link, errors.HfHubHTTPError):
            return _status_error(link, link.response.status_code, origin, subject)
        if isinstance(link, errors.HFValidationError):
            return StageError(origin.not_found, f"{origin.field}: {name!r} is not a hub id; write <name> or <owner>/<name>.")
        if isinstance(link, errors.OfflineModeIsEnabled):
            return _offline(origin, subject)
        if _is_network(link, httpx2.TransportError, errors.FileMetadataError):
            return StageError(
                origin.unreachable, f"{subject}: {_hub()} is unreachable or sent an invalid response ({first_line(link, 200)})."
            )
    return None


def _offline(origin: Origin, subject: str) -> StageError:
    """Return the error for ``HF_HUB_OFFLINE``, which the operator sets if the configuration does not allow the host of the hub."""
    try:
        require_allowed(os.environ.get("HF_ENDPOINT") or HUB, "hubs", origin.field)
    except StageError as fault:
        return fault
    return StageError(origin.unreachable, f"{subject}: it cannot be downloaded while HF_HUB_OFFLINE is set; unset it.")


def _status_error(error: BaseException, status: int, origin: Origin, subject: str) -> StageError:
    from huggingface_hub import errors

    if status == 401 and token() and not isinstance(error, errors.RepositoryNotFoundError):
        return StageError(origin.forbidden, f"{subject}: {_hub()} does not accept the token in {TOKEN_VARIABLE}; renew it.")
    if isinstance(error, errors.GatedRepoError) or status in (401, 403):
        gated = isinstance(error, errors.GatedRepoError)
        return StageError(origin.forbidden, f"{subject}: it {_access_problem(gated)}; {_access_fix(gated)}.")
    if isinstance(error, errors.RepositoryNotFoundError) or status in (404, 410):
        hidden = f", or the owner of the token in {TOKEN_VARIABLE} may not read it" if token() else ""
        return StageError(origin.not_found, f"{subject}: it does not exist on {_hub()}{hidden}; correct {origin.field}.")
    if status >= 500 or status in _TRANSIENT:
        return StageError(origin.unreachable, f"{subject}: {_hub()} responded with status {status}.")
    return StageError(
        origin.not_found, f"{subject}: {_hub()} rejected the request with status {status} ({first_line(error, 200)})."
    )


def _access_problem(gated: bool) -> str:
    return "is gated" if gated else f"is private or does not exist on {_hub()}"


def _access_fix(gated: bool) -> str:
    terms = "accept its terms on its hub page and " if gated else ""
    if token():
        return f"{terms}check that the owner of the token in {TOKEN_VARIABLE} may read it"
    return f"{terms}set {TOKEN_VARIABLE} to a token that may read it"


def _is_network(link: BaseException, *classes: type[BaseException]) -> bool:
    if isinstance(link, (*classes, ConnectionError, TimeoutError)):
        return True
    # The hub's library has no exception class for a truncated body.
    return isinstance(link, OSError) and "Consistency check failed" in str(link)


def _hub() -> str:
    return os.environ.get("HF_ENDPOINT") or "the hub"

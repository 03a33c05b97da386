"""The Hugging Face hub: where its libraries may write, the token, and what its errors mean."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from finetune_stages.sdk import Context, StageError
from finetune_stages.sdk.fault import causes, first_line

from .origin import Origin
from .progress import report_note

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TOKEN_VARIABLE = "HF_TOKEN"  # noqa: S105 - the name of the variable, not a token
COMMIT = re.compile(r"[0-9a-f]{40}")
"""A revision of that form is a commit, and what it names never changes."""
_TRANSIENT = {408, 429}


def keep_caches_in(folder: Path) -> None:
    """Let everything that the hub's libraries cache are below ``folder``. They read this once, when they are imported."""
    os.environ["HF_HOME"] = str(folder)
    for variable in ("HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_MODULES_CACHE", "HF_ASSETS_CACHE", "HF_XET_CACHE"):
        os.environ.pop(variable, None)
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def hub_cache(context: Context) -> Path:
    """Return the folder of this attempt for :func:`keep_caches_in`; it goes with the attempt's work folder."""
    return context.path(context.layout.attempt(context.document.stage, context.attempt)) / "hub"


def token() -> str | Literal[False]:
    """Return the token to send to the hub; ``False`` sends none, not even one that the user's home holds."""
    return os.environ.get(TOKEN_VARIABLE, "").strip() or False


@dataclass(frozen=True)
class Repository:
    """A repository of the hub at one commit.

    Attributes:
        sizes: bytes of each file.
        sha256: digests of the files that the hub keeps in LFS, the large ones.
    """

    id: str
    commit: str
    sizes: dict[str, int]
    sha256: dict[str, str]


def find_repository(origin: Origin, repo_id: str, revision: str | None, context: Context) -> Repository:
    """Ask the hub which commit a revision is now, what it holds, and whether the token opens it.

    Raises:
        StageError: one of the reasons of ``origin``.
    """
    from huggingface_hub import HfApi

    report_note(context, f"asking the hub for {repo_id}")
    api = HfApi(token=token())
    with hub_errors(origin, repo_id, revision):
        info = api.repo_info(repo_id, repo_type=origin.repo_type, revision=revision, timeout=30, files_metadata=True)
        if info.gated:  # everyone may see that it is there
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
        # A mirror must not know the question: then the files give the answer.


@contextmanager
def hub_errors(origin: Origin, name: str, revision: str | None = None) -> Iterator[None]:
    """Turn what goes wrong at the hub inside into a :class:`StageError` with one of the reasons of ``origin``.

    Other exceptions pass.
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
    """Return what an exception of the hub's libraries means; ``None`` if the hub has nothing to do with it.

    They wrap each other: the first one in the chain with a meaning counts.
    """
    import httpx2
    from huggingface_hub import errors

    subject = f"{origin.what.capitalize()} {name}"
    for link in causes(error):
        if isinstance(link, errors.RevisionNotFoundError):
            return StageError(origin.not_found, f"{subject} has no revision {revision or 'main'}; correct the revision.")
        if isinstance(link, errors.HfHubHTTPError):
            return _status_error(link, link.response.status_code, origin, subject)
        if isinstance(link, errors.HFValidationError):
            return StageError(origin.not_found, f"{origin.field}: {name!r} is no hub id (name or owner/name).")
        if isinstance(link, errors.OfflineModeIsEnabled):
            return StageError(origin.unreachable, f"{subject} cannot be fetched while HF_HUB_OFFLINE is set; unset it.")
        if _is_network(link, httpx2.TransportError, errors.FileMetadataError):
            return StageError(origin.unreachable, f"{subject}: {_hub()} did not answer as it should ({first_line(link, 200)}).")
    return None


def _status_error(error: BaseException, status: int, origin: Origin, subject: str) -> StageError:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError) or status in (401, 403):
        gated = isinstance(error, errors.GatedRepoError)
        return StageError(origin.forbidden, f"{subject} {_access_problem(gated)}; {_access_fix(gated)}.")
    if isinstance(error, errors.RepositoryNotFoundError) or status in (404, 410):
        return StageError(origin.not_found, f"{subject} does not exist at {_hub()}; correct {origin.field}.")
    if status >= 500 or status in _TRANSIENT:
        return StageError(origin.unreachable, f"{subject}: {_hub()} answered with status {status}.")
    return StageError(
        origin.not_found, f"{subject}: {_hub()} refused the request with status {status} ({first_line(error, 200)})."
    )


def _access_problem(gated: bool) -> str:
    return "is gated" if gated else f"is private, or {_hub()} does not have it"


def _access_fix(gated: bool) -> str:
    terms = "accept its terms on its page and " if gated else ""
    if token():
        return f"{terms}check that the owner of the token in {TOKEN_VARIABLE} may read it"
    return f"{terms}set {TOKEN_VARIABLE} to a token that may read it"


def _is_network(link: BaseException, *classes: type[BaseException]) -> bool:
    if isinstance(link, (*classes, ConnectionError, TimeoutError)):
        return True
    # The hub's library has no class of its own for a body that ended too early.
    return isinstance(link, OSError) and "Consistency check failed" in str(link)


def _hub() -> str:
    return os.environ.get("HF_ENDPOINT") or "the hub"

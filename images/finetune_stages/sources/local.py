"""Checks that local files and directories exist and are readable."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from finetune_stages.sdk import StageError

from .origin import Origin


def require_file(path: Path, name: str, origin: Origin) -> None:
    """Check that ``path`` is a file that can be read; ``name`` is its path in messages.

    Raises:
        StageError: ``origin.not_found`` or ``origin.forbidden``.
    """
    mode = _mode(path, origin, name)
    if stat.S_ISDIR(mode):
        raise StageError(origin.not_found, f"{origin.field}: {name} is a directory; set a file.")
    if not stat.S_ISREG(mode):
        raise StageError(origin.not_found, f"{origin.field}: {name} is a device, a pipe or a socket; set a file.")
    require_readable(path, origin, name=name)


def require_directory(path: Path, name: str, origin: Origin) -> None:
    """Check that ``path`` is a directory that can be read; ``name`` is its path in messages.

    Raises:
        StageError: ``origin.not_found`` or ``origin.forbidden``.
    """
    if not stat.S_ISDIR(_mode(path, origin, name)):
        raise StageError(origin.not_found, f"{origin.field}: {name} is a file; set a directory.")
    require_readable(path, origin, os.R_OK | os.X_OK, name)


def require_readable(path: Path, origin: Origin, access: int = os.R_OK, name: str | None = None) -> None:
    """Check that this user may read ``path``; ``name`` is its path in messages.

    Raises:
        StageError: ``origin.forbidden``.
    """
    if not os.access(path, access):
        raise _forbidden(name or str(path), origin)


def _mode(path: Path, origin: Origin, name: str) -> int:
    try:
        return path.stat().st_mode
    except PermissionError as error:
        raise _forbidden(name, origin) from error
    except OSError as error:
        if path.is_symlink():
            raise StageError(
                origin.not_found, f"{origin.field}: {name} is a link that leads to no file; correct or remove it."
            ) from error
        raise _not_found(name, origin) from error


def _not_found(name: str, origin: Origin) -> StageError:
    remedy = "set one location, a directory or a glob such as ./*.jsonl" if "," in name else "correct the path"
    return StageError(origin.not_found, f"{origin.field}: there is no {origin.what} at {name}; {remedy}.")


def _forbidden(name: str, origin: Origin) -> StageError:
    return StageError(origin.forbidden, f"{origin.field}: user {os.getuid()} may not read {name}; change its mode or owner.")

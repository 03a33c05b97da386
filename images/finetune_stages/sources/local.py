"""Checks that local files and directories exist and are readable."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from finetune_stages.sdk import StageError

from .origin import Origin


def require_file(path: Path, origin: Origin) -> None:
    """Check that ``path`` is a file that can be read.

    Raises:
        StageError: ``origin.not_found`` or ``origin.forbidden``.
    """
    mode = _mode(path, origin)
    if stat.S_ISDIR(mode):
        raise StageError(origin.not_found, f"{origin.field}: {path} is a directory; set a file.")
    if not stat.S_ISREG(mode):
        raise _not_found(path, origin)
    require_readable(path, origin)


def require_directory(path: Path, origin: Origin) -> None:
    """Check that ``path`` is a directory that can be read.

    Raises:
        StageError: ``origin.not_found`` or ``origin.forbidden``.
    """
    if not stat.S_ISDIR(_mode(path, origin)):
        raise StageError(origin.not_found, f"{origin.field}: {path} is a file; set a directory.")
    require_readable(path, origin, os.R_OK | os.X_OK)


def require_readable(path: Path, origin: Origin, access: int = os.R_OK) -> None:
    """Check that this user may read ``path``.

    Raises:
        StageError: ``origin.forbidden``.
    """
    if not os.access(path, access):
        raise _forbidden(path, origin)


def _mode(path: Path, origin: Origin) -> int:
    try:
        return path.stat().st_mode
    except PermissionError as error:
        raise _forbidden(path, origin) from error
    except OSError as error:
        raise _not_found(path, origin) from error


def _not_found(path: Path, origin: Origin) -> StageError:
    return StageError(origin.not_found, f"{origin.field}: there is no {origin.what} at {path}; correct the path.")


def _forbidden(path: Path, origin: Origin) -> StageError:
    return StageError(origin.forbidden, f"{origin.field}: user {os.getuid()} may not read {path}; change its mode or owner.")

"""The inputs of ``.venv``, recorded in a stamp, which shows whether it is up to date."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from .accelerator import CHOICES, Accelerator, Choice

SOURCES = (
    "requirements/all.lock", "requirements/bootstrap.lock", "pyproject.toml", "images/build/cuda_placeholders.py",
    "hack/bootstrap/install.py",
)  # fmt: skip
"""Files that determine the environment."""
_STAMP = ".ready"


@dataclass(frozen=True)
class State:
    """The inputs of an environment.

    Attributes:
        digest: of the sources and of the Python that runs them; empty while the environment is being changed.
        accelerator: which packages it has.
        choice: what the user requested. It stays in force until another request.
    """

    digest: str
    accelerator: Accelerator
    choice: Choice = "auto"


def digest(root: Path) -> str:
    """Return the digest of the inputs of an environment for this checkout."""
    found = hashlib.sha256(sys.version.encode())
    for name in SOURCES:
        found.update(b"\0".join([b"", name.encode(), (root / name).read_bytes()]))
    return found.hexdigest()


def read(folder: Path) -> State | None:
    """Return the state of the environment in ``folder``, or ``None`` where no set-up recorded one."""
    try:
        state = State(**json.loads((folder / _STAMP).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return state if state.choice in CHOICES else None


def write(folder: Path, state: State) -> None:
    """Record the state of the environment."""
    (folder / _STAMP).write_text(json.dumps(asdict(state)) + "\n", encoding="utf-8")

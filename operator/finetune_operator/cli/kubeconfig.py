"""The contexts of a kubeconfig, to select one and to list them in messages.

The official client reads the credentials (:mod:`finetune_operator.kube.credentials`); this module reads only names.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_operator.api.kubernetes_yaml import InvalidYAML, parse

from . import exit_status
from .errors import CommandError

VARIABLE = "KUBECONFIG"
_DEFAULT = "~/.kube/config"


@dataclass(frozen=True)
class Kubeconfig:
    """The files, the names of their contexts, and the current one."""

    files: tuple[Path, ...]
    contexts: tuple[str, ...]
    current: str | None

    @property
    def description(self) -> str:
        """The files, for messages."""
        return ", ".join(map(str, self.files))

    @classmethod
    def read(cls, given: Path | None) -> Kubeconfig:
        """Read the file of ``--kubeconfig``, else the existing files of ``$KUBECONFIG``, else ``~/.kube/config``.

        Raises:
            CommandError: the given file does not exist, or a file is not a kubeconfig.
        """
        if given is not None and not given.exists():
            raise CommandError([f"--kubeconfig {given}: no such file; give an existing one."], exit_status.NO_INPUT)
        named = [given] if given else [Path(part) for part in os.environ.get(VARIABLE, _DEFAULT).split(os.pathsep) if part]
        files = tuple(path for path in (one.expanduser() for one in named) if path.exists())
        contexts: dict[str, None] = {}
        current = None
        for file in files:
            document = _load(file)
            contexts |= dict.fromkeys(str(one["name"]) for one in document.get("contexts") or ())
            current = document.get("current-context") or current  # like the official client: the last one wins
        return cls(files, tuple(contexts), current)

    def choose(self, requested: str | None) -> str | None:
        """Return the requested context or the current one, ``None`` without any kubeconfig.

        Raises:
            CommandError: the context does not exist.
        """
        known = ", ".join(self.contexts) or "none"
        if requested is not None and requested not in self.contexts:
            where = f"in {self.description}" if self.files else f"because no kubeconfig exists in ${VARIABLE} or at {_DEFAULT}"
            remedy = f"choose one of: {known}" if self.contexts else "give --kubeconfig FILE or log in (oc login)"
            raise CommandError([f"--context {requested}: no such context {where}; {remedy}."], exit_status.USAGE)
        chosen = requested or self.current
        if chosen is None and self.contexts:
            raise CommandError(
                [f"{self.description}: no current context; choose one with --context: {known}."], exit_status.USAGE
            )
        if chosen is not None and chosen not in self.contexts:
            raise CommandError(
                [f"{self.description}: the current context {chosen} does not exist; choose one with --context: {known}."],
                exit_status.USAGE,
            )
        return chosen


def _load(file: Path) -> dict[str, Any]:
    # The message must not quote the file: it may contain a token.
    broken = CommandError([f"{file}: not a kubeconfig; give a YAML file with clusters, users and contexts."])
    try:
        document = parse(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandError([f"{file}: cannot be read: {error.strerror}; give a readable file."], exit_status.NO_INPUT) from None
    except (InvalidYAML, UnicodeDecodeError):
        raise broken from None
    contexts = document.get("contexts") or () if isinstance(document, dict) else None
    if not isinstance(contexts, (list, tuple)) or not all(isinstance(one, dict) and "name" in one for one in contexts):
        raise broken
    found: dict[str, Any] = document
    return found

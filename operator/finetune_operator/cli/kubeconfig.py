"""What contexts a kubeconfig has: to choose one, and to name them to a user who chose wrong.

Who one is there is read by the official client (:mod:`finetune_operator.kube.credentials`); only names are read here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_operator.api.kubernetes_yaml import InvalidYAML, parse

from . import exitcodes
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
    def words(self) -> str:
        """How a sentence calls the files."""
        return ", ".join(map(str, self.files))

    @classmethod
    def read(cls, given: Path | None) -> Kubeconfig:
        """The file of ``--kubeconfig``, else those of ``$KUBECONFIG``, else that in the home folder; those that exist.

        Raises:
            CommandError: the given file does not exist, or one is no kubeconfig.
        """
        if given is not None and not given.exists():
            raise CommandError([f"--kubeconfig {given}: there is no such file."], exitcodes.NO_INPUT)
        named = [given] if given else [Path(part) for part in os.environ.get(VARIABLE, _DEFAULT).split(os.pathsep) if part]
        files = tuple(path for path in (one.expanduser() for one in named) if path.exists())
        contexts: dict[str, None] = {}
        current = None
        for file in files:
            document = _load(file)
            contexts |= dict.fromkeys(str(one["name"]) for one in document.get("contexts") or ())
            current = document.get("current-context") or current  # as the official client: the last one counts
        return cls(files, tuple(contexts), current)

    def choose(self, wanted: str | None) -> str | None:
        """The context of that name, or the current one; ``None`` where there is no kubeconfig at all.

        Raises:
            CommandError: there is no such context.
        """
        known = ", ".join(self.contexts) or "none"
        if wanted is not None and wanted not in self.contexts:
            where = f"in {self.words}" if self.files else f"for there is no kubeconfig: neither ${VARIABLE} nor {_DEFAULT}"
            raise CommandError([f"--context {wanted}: there is no such context {where}; there are: {known}."], exitcodes.USAGE)
        chosen = wanted or self.current
        if chosen is None and self.contexts:
            raise CommandError([f"{self.words}: has no current context: choose one with --context: {known}."], exitcodes.USAGE)
        if chosen is not None and chosen not in self.contexts:
            raise CommandError([f"{self.words}: its current context {chosen} is not in it; there are: {known}."], exitcodes.USAGE)
        return chosen


def _load(file: Path) -> dict[str, Any]:
    # No word of what is in it: it may be a token.
    broken = CommandError([f"{file}: is no kubeconfig: expected YAML with clusters, users and contexts."])
    try:
        document = parse(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandError([f"{file}: cannot be read: {error.strerror}."], exitcodes.NO_INPUT) from None
    except (InvalidYAML, UnicodeDecodeError):
        raise broken from None
    contexts = document.get("contexts") or () if isinstance(document, dict) else None
    if not isinstance(contexts, (list, tuple)) or not all(isinstance(one, dict) and "name" in one for one in contexts):
        raise broken
    found: dict[str, Any] = document
    return found

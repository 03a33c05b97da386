"""The contexts of a kubeconfig, to select one and to list them in messages.

The official client reads the credentials (:mod:`finetune_operator.kube.credentials`); this module reads no credentials.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
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
    """The files, their contexts, and the names of the current context, the clusters and the users.

    Attributes:
        looked_for: the paths of the files in messages, also of those that do not exist.
    """

    files: tuple[Path, ...]
    looked_for: str
    contexts: Mapping[str, Mapping[str, Any]]
    current: str | None
    clusters: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()

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
        variable = os.environ.get(VARIABLE)
        named = [given] if given else [Path(part) for part in (variable or _DEFAULT).split(os.pathsep) if part]
        files = tuple(path for path in (one.expanduser() for one in named) if path.exists())
        contexts: dict[str, Mapping[str, Any]] = {}
        current, clusters, users = None, set(), set()
        for file in files:
            document = _load(file)
            for entry in reversed(document["contexts"]):  # like the official client: the first one wins
                contexts.setdefault(str(entry["name"]), entry.get("context") or {})
            clusters |= {str(entry["name"]) for entry in document["clusters"]}
            users |= {str(entry["name"]) for entry in document["users"]}
            current = document.get("current-context") or current  # like the official client: the last one wins
        looked_for = ", ".join(map(str, named)) + (f" (${VARIABLE})" if variable and not given else "")
        return cls(files, looked_for, contexts, None if current is None else str(current), frozenset(clusters), frozenset(users))

    def choose(self, requested: str | None, option: str = "--context") -> str | None:
        """Return the requested context or the current one, ``None`` without any kubeconfig.

        Args:
            requested: the name of a context.
            option: the option or the variable that requests it.

        Raises:
            CommandError: the context, its cluster or its user does not exist.
        """
        known = ", ".join(self.contexts) or "none"
        if requested is not None and requested not in self.contexts:
            where = f"in {self.description}" if self.files else f"because {self.looked_for} does not exist"
            remedy = f"choose one of: {known}" if self.contexts else "give --kubeconfig FILE or log in (oc login)"
            raise CommandError([f"{option} {requested}: no such context {where}; {remedy}."], exit_status.USAGE)
        chosen = requested or self.current
        if chosen is None and self.contexts:
            raise CommandError(
                [f"{self.description}: no current context; choose one with --context: {known}."], exit_status.USAGE
            )
        if chosen is not None and chosen not in self.contexts:
            remedy = f"choose one with --context: {known}" if self.contexts else "log in (oc login)"
            raise CommandError([f"{self.description}: the current context {chosen} does not exist; {remedy}."], exit_status.USAGE)
        if chosen is not None:
            self._check(chosen)
        return chosen

    def _check(self, context: str) -> None:
        """Raise an error if a context names a cluster or a user that does not exist."""
        entry = self.contexts[context]
        for field, names in (("cluster", self.clusters), ("user", self.users)):
            name = entry.get(field)
            if name and str(name) not in names:
                problem = f"context {context} names the {field} {name}, which does not exist"
                raise CommandError([f"{self.description}: {problem}; add it, or log in again (oc login)."])


def _load(file: Path) -> dict[str, Any]:
    """Return the content of a file, with lists of contexts, clusters and users."""
    # The messages must not quote the file: it may contain a token.
    broken = CommandError([f"{file}: not a kubeconfig; give a YAML file with clusters, users and contexts."])
    try:
        document = parse(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandError([f"{file}: cannot be read: {error.strerror}; give a readable file."], exit_status.NO_INPUT) from None
    except UnicodeDecodeError:
        raise broken from None
    except InvalidYAML as error:
        where = file if error.line is None else f"{file}:{error.line}"
        raise CommandError([f"{where}: not valid YAML; correct the line, or log in again (oc login)."]) from None
    if not isinstance(document, dict) or not isinstance(document.get("current-context"), str | int | float | None):
        raise broken
    found: dict[str, Any] = {**document, **{name: document.get(name) or [] for name in _LISTS}}
    if not all(isinstance(found[name], list) and all(map(_is_named, found[name])) for name in _LISTS):
        raise broken
    if not all(isinstance(entry.get("context"), dict | None) for entry in found["contexts"]):
        raise broken
    return found


_LISTS = ("contexts", "clusters", "users")


def _is_named(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("name"), str | int | float)

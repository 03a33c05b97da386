"""Index of lm-eval's task definitions from the text of their YAML files, so that a wrong name fails at once.

lm-eval's own index parses all of its 14,000 files (6 to 20 s) and silently skips a file that it cannot parse. This index reads them
as text and parses only those that define a requested name, a member of a requested group or a task with a requested tag. A test
compares its results with lm-eval's. It does not import lm-eval, which takes seconds.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from finetune_contract import reasons
from finetune_stages.sdk import StageError

_NAME = re.compile(rb"""^["']?(task|group|class)["']?[ \t]*:[ \t]*["']?([^\s"'#\[{][^"'#\r\n]*)""", re.MULTILINE)
_INCLUDE = re.compile(rb"""^["']?include["']?[ \t]*:(.*(?:\r?\n[ \t]*-.*)*)""", re.MULTILINE)
_NO_TEMPLATES = (".py", ".pyc", ".md", ".json", ".jsonl", ".csv", ".parquet")
_LARGEST = 1 << 20
"""Bytes. Larger files are data, not definitions."""


@dataclass(frozen=True)
class Definition:
    """A YAML file merged with the files that it includes; functions are kept as names.

    Attributes:
        calls: whether one of the files has a function, even if it is not part of ``config``: lm-eval imports the function nevertheless.
    """

    path: Path
    config: dict[str, Any]
    calls: bool = False

    @property
    def is_group(self) -> bool:
        """Whether it is a group of other tasks."""
        return "group" in self.config and "class" not in self.config

    @property
    def tags(self) -> set[str]:
        """Names that select the task together with others."""
        tags = self.config.get("tag") or ()
        return set(map(str, tags)) if isinstance(tags, (list, tuple)) else {str(tags)}

    @property
    def runs_code(self) -> bool:
        """Whether it has functions, a class or an external metric, whose inputs are unknown."""
        return self.calls or "class" in self.config or _has_metric(self.config)


class TaskFiles:
    """Index of the task definitions below some directories; for a name that is defined twice, the earlier directory counts."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = {path: root for root in roots for path in _files(root)}
        self._texts = {path: _text(path) for path in self._roots}
        self._definitions: dict[Path, Definition] = {}

    @cached_property
    def _named(self) -> dict[str, Path]:
        """Tasks and groups by name."""
        found: dict[str, Path] = {}
        for path, text in self._texts.items():
            if path.suffix == ".yaml":
                names = {kind: name.strip().decode(errors="replace") for kind, name in _NAME.findall(text)}
                name = names.get(b"task") if b"class" in names else names.get(b"group") or names.get(b"task")
                if name:
                    found.setdefault(name, path)
        return found

    @property
    def names(self) -> set[str]:
        """Names of all tasks and groups."""
        return set(self._named)

    def find(self, names: Iterable[str]) -> list[Definition]:
        """Return the definitions for ``names`` (tasks, groups, tags) and for the members of groups, at any depth.

        Raises:
            StageError: ``TaskNotFound`` with similar names, ``TaskInvalid`` for a file that cannot be parsed.
        """
        found: dict[Path, Definition] = {}
        waiting, visited = [(name, "") for name in names], set[str]()
        while waiting:
            name, group = waiting.pop()
            if name in visited:
                continue
            visited.add(name)
            definitions = self._behind(name)
            if not definitions:
                raise self._not_found(name, group)
            for definition in definitions:
                found[definition.path] = definition
                if definition.is_group:
                    waiting += [(member, name) for member in self._members(definition.config)]
        return list(found.values())

    def _behind(self, name: str) -> list[Definition]:
        if name in self._named:
            return [self._parse(self._named[name])]
        mentioning = {path for path, text in self._texts.items() if name.encode() in text}
        tagged = (self._parse(path) for path in self._including(mentioning) if path.suffix == ".yaml")
        return [definition for definition in tagged if not definition.is_group and name in definition.tags]

    def _members(self, config: dict[str, Any]) -> Iterator[str]:
        """Yield the names that a group lists. A member that is defined inline, as a mapping, needs no file."""
        members = config.get("task")
        for member in members if isinstance(members, list) else ():
            if isinstance(member, str):
                yield member
            elif isinstance(member, dict):
                name = str(member.get("group") or member.get("task"))
                if name in self._named or self._behind(name):
                    yield name
                elif "group" in member:
                    yield from self._members(member)

    def _including(self, paths: set[Path]) -> list[Path]:
        """Return ``paths`` and the files that include one of them, directly or through others, in the order of the directories."""
        reached, grown = set(paths), True
        while grown:
            more = {path for path, included in self._includes.items() if path not in reached and included & reached}
            reached |= more
            grown = bool(more)
        return [path for path in self._texts if path in reached]

    @cached_property
    def _includes(self) -> dict[Path, set[Path]]:
        includes = {}
        for path, text in self._texts.items():
            found = _INCLUDE.search(text)
            if found:
                values = found[1].decode(errors="replace").replace("[", " ").replace("]", " ").replace(",", " ").split()
                names = [value.strip("\"'") for value in values if value != "-"]
                includes[path] = {Path(os.path.normpath(path.parent / name)) for name in names}
        return includes

    def _parse(self, path: Path) -> Definition:
        if path not in self._definitions:
            self._definitions[path] = Definition(path, *_load(path, self._roots[path]))
        return self._definitions[path]

    def _not_found(self, name: str, group: str) -> StageError:
        close = difflib.get_close_matches(name, self._named, n=5, cutoff=0.7)
        hint = f"did you mean {', '.join(close)}?" if close else "provide its YAML file with evaluation.taskFiles."
        where = f" (a member of the group {group})" if group else ""
        return StageError(reasons.TASK_NOT_FOUND, f"evaluation.tasks: lm-eval has no task, group or tag {name!r}{where}; {hint}")


def builtin_tasks() -> Path:
    """Return the directory of lm-eval's own definitions."""
    package = importlib.util.find_spec("lm_eval")
    if package is None or package.origin is None:
        raise StageError(reasons.ENGINE_MISSING, "image: the package lm-eval is missing; install finetune-operator[evaluation].")
    return Path(package.origin).parent / "tasks"


def _files(root: Path) -> Iterator[Path]:
    """Yield YAML files and files that they may include, in lm-eval's order.

    A mounted ConfigMap has a second copy of its files in folders whose names begin with two dots.
    """
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__pycache__")))
        yield from (Path(folder, name) for name in sorted(names) if not name.endswith(_NO_TEMPLATES))


def _text(path: Path) -> bytes:
    """Return the text of a file that may be a definition; empty for an unreadable or too large file."""
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST + 1)
    except OSError:
        return b""
    return text if len(text) <= _LARGEST else b""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML loader that reads ``!function module.name`` as text, runs no code, and reports whether there was a function."""

    calls = False

    def function(self, node: yaml.Node) -> str:
        """Return the name of a function."""
        self.calls = True
        return str(self.construct_scalar(node))


_Loader.add_constructor("!function", _Loader.function)


def _read(path: Path) -> tuple[Any, bool]:
    """Return the content of a YAML file, and whether it has a function anywhere, also in a value that another one replaces."""
    loader = _Loader(path.read_bytes())
    try:
        return loader.get_single_data(), loader.calls
    finally:
        loader.dispose()


def _has_metric(value: Any) -> bool:
    """Return whether a definition has a metric of another library."""
    if isinstance(value, dict):
        return bool(value.get("hf_evaluate")) or any(map(_has_metric, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_has_metric, value))


def _load(path: Path, root: Path, including: tuple[Path, ...] = ()) -> tuple[dict[str, Any], bool]:
    """Return a YAML file merged over the files of ``root`` that it includes, by lm-eval's rules, and whether one of them has a function.

    Raises:
        StageError: ``TaskInvalid``: the file, or one that it includes, is missing, is outside of ``root`` or is not a YAML mapping.
    """
    if path in including:
        raise StageError(reasons.TASK_INVALID, f"{path}: it includes itself; remove the include.")
    try:
        config, calls = _read(path)
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: an invalid date or number
        origin = f" (included by {including[-1]})" if including else ""
        raise StageError(reasons.TASK_INVALID, f"{path}{origin}: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise StageError(reasons.TASK_INVALID, f"{path}: it is not a YAML mapping; write a mapping with the key task or group.")
    includes = config.pop("include", ())
    merged: dict[str, Any] = {}
    names = [includes] if isinstance(includes, str) else includes
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise StageError(reasons.TASK_INVALID, f"{path}: include is {includes!r}; write the name of a file, or a list of names.")
    for name in names:
        target = Path(os.path.normpath(path.parent / name))
        if not (target.is_relative_to(root) and target.resolve().is_relative_to(root.resolve())):
            raise StageError(
                reasons.TASK_INVALID,
                f"{path}: include has {name}, which is not among the task files; add the file to the ConfigMap of evaluation.taskFiles and write"
                " its key.",
            )
        included, also_calls = _load(target, root, (*including, path))
        included.pop("task_list", None)
        merged |= included
        calls = calls or also_calls
    return merged | config, calls

"""Chat data made from the documentation of the Python that runs this: real text on every machine, nothing to download.

Two skills, each a question form of its own:

* *purpose*: "What does os.path.join do in Python?" and the first sentence of its docstring;
* *signature*: "How is os.path.join called in Python?" and its signature.
"""

from __future__ import annotations

import importlib
import inspect
import io
import json
import pkgutil
import random
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

Row = dict[str, list[dict[str, str]]]

_NOISY = {"antigravity", "this", "idlelib", "test", "turtledemo", "lib2to3", "turtle", "encodings", "distutils"}
_ANSWER_LIMIT = 160


def rows(skill: str, limit: int | None = None) -> list[Row]:
    """Chat rows of a skill (``purpose`` or ``signature``), in an order that is the same on every run.

    Raises:
        KeyError: there is no such skill.
    """
    question, answer = _SKILLS[skill]
    seen: dict[str, str] = {}
    for name, item in _documented():
        text = answer(name, item)
        if text and name not in seen:
            seen[name] = text
    pairs = sorted(seen.items())
    random.Random(0).shuffle(pairs)
    return [_row(question.format(name), text) for name, text in pairs[:limit]]


def write_jsonl(path: Path, content: Iterable[Row]) -> int:
    """Write rows as JSON Lines and return how many there were."""
    lines = [json.dumps(row, ensure_ascii=False) for row in content]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return len(lines)


def _row(question: str, answer: str) -> Row:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def _purpose(_name: str, item: object) -> str | None:
    text = inspect.getdoc(item)
    if not text:
        return None
    sentence = " ".join(text.split("\n\n")[0].split()).split(". ")[0].rstrip(".")
    return f"{sentence}." if 20 <= len(sentence) <= _ANSWER_LIMIT and sentence[0].isupper() else None


def _signature(name: str, item: object) -> str | None:
    try:
        text = f"{name}{inspect.signature(item)}"  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return text if len(text) <= _ANSWER_LIMIT and " at 0x" not in text and "()" not in text else None


_SKILLS: dict[str, tuple[str, Callable[[str, object], str | None]]] = {
    "purpose": ("What does {} do in Python?", _purpose),
    "signature": ("How is {} called in Python?", _signature),
}


def _documented() -> Iterator[tuple[str, object]]:
    """Every public callable of the standard library, by its full name."""
    for module in _modules():
        for name, item in sorted(vars(module).items()):
            if name.startswith("_") or getattr(item, "__module__", module.__name__) != module.__name__:
                continue
            if callable(item):
                yield f"{module.__name__}.{name}", item
            if inspect.isclass(item):
                for part, member in sorted(vars(item).items()):
                    if not part.startswith("_") and callable(member):
                        yield f"{module.__name__}.{name}.{part}", member


def _modules() -> Iterator[object]:
    top = sorted(name for name in sys.stdlib_module_names if not name.startswith("_") and name not in _NOISY)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        for name in top:
            module = _import(name)
            if module is None:
                continue
            yield module
            for info in pkgutil.iter_modules(getattr(module, "__path__", ())):
                if not info.name.startswith("_") and info.name not in {"tests", "test", "idle_test"}:
                    inner = _import(f"{name}.{info.name}")
                    if inner is not None:
                        yield inner


def _import(name: str) -> object | None:
    try:
        return importlib.import_module(name)
    except BaseException:  # noqa: BLE001 - a module for another platform may raise anything, SystemExit included
        return None

"""The regular expressions of the tree, and texts built from each that make slow matching show."""

from __future__ import annotations

import ast
import contextlib
import importlib
import itertools
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

ROOT = Path(__file__).parents[1]
FUNCTIONS = {"compile", "match", "search", "sub", "subn", "fullmatch", "findall", "finditer", "split"}
_REPEATS = (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT)
_CHARACTERS = "aA0 _-.:/@\"'=\n\\[]{}()<>,;%*+?#&!~$^|`\t\x00\u00e9"


@dataclass(frozen=True)
class Found:
    """A pattern in a file, and the function of :mod:`re` that uses it; ``None`` where its text is not known before run time."""

    place: str
    function: str
    pattern: re.Pattern[Any] | None
    source: str


def found_in(folder: str, packages: tuple[str, ...]) -> Iterator[Found]:
    """Yield the patterns of the packages in a folder of the tree: every call of :mod:`re`."""
    for package in packages:
        for file in sorted((ROOT / folder / package).rglob("*.py")):
            yield from _of_file(file, ".".join(file.relative_to(ROOT / folder).with_suffix("").parts).removesuffix(".__init__"))


def _of_file(file: Path, name: str) -> Iterator[Found]:
    tree = ast.parse(file.read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _function(node) and node.args]
    if not calls:
        return
    names = vars(importlib.import_module(name)) if name.startswith("finetune_operator") else _constants(tree)
    for call in calls:
        functions, flags = _uses(call, tree, file.read_text()), _flags(call)
        place, source = f"{file.relative_to(ROOT)}:{call.lineno}", ast.unparse(call.args[0])
        for pattern in _values(call.args[0], names, tree):
            compiled = re.compile(pattern, flags) if pattern is not None else None
            for function in sorted(functions):
                yield Found(place, function, compiled, source)


def _constants(tree: ast.Module) -> dict[str, Any]:
    """Return the constants of a module without its import: stage programs import heavy libraries."""
    names: dict[str, Any] = {"re": re}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            with contextlib.suppress(Exception):  # not a constant
                names[node.targets[0].id] = eval(compile(ast.Expression(node.value), "constant", "eval"), dict(names))
    return names


def _function(node: ast.Call) -> str | None:
    called = node.func
    if not isinstance(called, ast.Attribute) or not isinstance(called.value, ast.Name) or called.value.id != "re":
        return None
    return called.attr if called.attr in FUNCTIONS else None


def _uses(call: ast.Call, tree: ast.Module, text: str) -> set[str]:
    """Return the functions that use the pattern of a call: those called on its variable, else the one that may be slowest."""
    function = str(_function(call))
    if function != "compile":
        return {function}
    names = [
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and node.value is call
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    return {use for name in names for use in re.findall(rf"\b{name}\.({'|'.join(FUNCTIONS)})\(", text)} or {"search"}


def _flags(call: ast.Call) -> int:
    words = [*call.args[1:], *(word.value for word in call.keywords if word.arg == "flags")]
    texts = [ast.unparse(word) for word in words]
    return sum(int(eval(text, {"re": re})) for text in texts if re.fullmatch(r"re\.[A-Z]+( \| re\.[A-Z]+)*", text))


def seconds(pattern: re.Pattern[Any], function: str, text: Any) -> float:
    """Return the CPU seconds in which a function of a pattern reads a text, the least of a few tries: machines are busy."""
    least = float("inf")
    for _ in range(4):
        began = time.thread_time()
        if function in ("sub", "subn"):
            getattr(pattern, function)(type(text)(), text)
        elif function == "finditer":
            list(pattern.finditer(text))
        else:
            getattr(pattern, function)(text)
        least = min(least, time.thread_time() - began)
        if least < QUICK:
            break
    return least


QUICK = 0.04
"""CPU seconds: a linear pattern needs less than a tenth for 4,096 characters, and a quadratic one several times as much."""


def _values(node: ast.expr, names: dict[str, Any], tree: ast.Module) -> Iterator[Any]:
    """Yield the patterns that an expression has: one, or those of the table that a comprehension of the module walks."""
    try:
        value = eval(compile(ast.Expression(node), "pattern", "eval"), dict(names))
    except NameError:  # of a function or of a comprehension
        value = None
    if isinstance(value, (str, bytes)):
        yield value
        return
    tables = [
        generator.iter
        for walked in ast.walk(tree)
        if isinstance(walked, ast.GeneratorExp) and any(node is inner for inner in ast.walk(walked.elt))
        for generator in walked.generators
    ]
    if not tables or not isinstance(node, ast.Name):
        yield None
        return
    try:
        rows = eval(compile(ast.Expression(tables[0]), "table", "eval"), dict(names))
    except NameError:
        rows = ()
    if not rows:
        yield None
    for row in rows:
        yield from (word for word in row if isinstance(word, str) and _compiles(word) and re.search(r"[\\\[({]", word))


def _compiles(word: str) -> bool:
    try:
        re.compile(word)
    except re.error:
        return False
    return True


def adversarial(pattern: re.Pattern[Any], size: int) -> Iterator[Any]:
    """Yield texts of about ``size`` characters on which a pattern that is not linear is slow.

    Each is a start that leads to a part of the pattern, then that part or a row of parts again and again, then an end that does not
    match. Nested and adjacent repetitions of the same characters, and searches that begin at every character, all show on them.
    """
    parts = _parts(parser.parse(pattern.pattern, pattern.flags & ~re.DEBUG))
    pumps = dict.fromkeys(text for text in _pumps(parts) if text)
    starts = dict.fromkeys(["", *("".join(one for one, _ in parts[:count]) for count in range(1, min(len(parts), 5)))])
    for start, pump, end in itertools.product(list(starts)[:5], list(pumps)[:30], ("\x00", "\n!")):
        text = start + pump * ((size - len(start)) // len(pump)) + end
        yield text if isinstance(pattern.pattern, str) else text.encode("latin-1", "replace")


def _pumps(parts: list[tuple[str, list[str]]]) -> Iterator[str]:
    for _, repeated in parts:
        yield from repeated
    texts = [text for text, _ in parts]
    for length in (1, 2, 3, len(texts)):
        for first in range(len(texts) - length + 1):
            yield "".join(texts[first : first + length])
    for one, other in itertools.combinations(dict.fromkeys(text for _, repeated in parts for text in repeated), 2):
        yield one + other


def _parts(tree: Any) -> list[tuple[str, list[str]]]:
    """Return the parts of a sequence: a short text that each matches, and the texts that the repetitions inside it repeat."""
    found: list[tuple[str, list[str]]] = []
    for code, value in tree:
        if code is codes.BRANCH:
            options = [_parts(option) for option in value[1]]
            texts = ["".join(text for text, _ in option) for option in options]
            repeated = [word for option in options for _, words in option for word in words]
            found.append((max(texts, key=len), [*repeated, *texts]))
        elif code is codes.SUBPATTERN:
            found += _parts(value[3])
        elif code is codes.ATOMIC_GROUP:
            found += _parts(value)
        elif code in _REPEATS:
            low, high, inner = value
            once = _parts(inner)
            text = "".join(one for one, _ in once)
            repeated = [word for _, words in once for word in words]
            found.append((text * max(low, 1), [*repeated, *([text] if high > 1 else [])]))
        elif code is codes.LITERAL:
            found.append((chr(value), []))
        elif code is codes.NOT_LITERAL:
            found.append((next(char for char in _CHARACTERS if ord(char) != value), []))
        elif code is codes.ANY:
            found.append(("a", []))
        elif code is codes.IN:
            found.append((_member(value), []))
    return found


def _member(items: Any) -> str:
    """Return a character of a set."""
    test = re.compile(_set(items))
    return next((char for char in _CHARACTERS if test.match(char)), None) or _first(items)


def _first(items: Any) -> str:
    return next(
        (chr(value if code is codes.LITERAL else value[0]) for code, value in items if code in (codes.LITERAL, codes.RANGE)), "a"
    )


_CATEGORIES = {
    codes.CATEGORY_DIGIT: r"\d", codes.CATEGORY_NOT_DIGIT: r"\D", codes.CATEGORY_SPACE: r"\s", codes.CATEGORY_NOT_SPACE: r"\S",
    codes.CATEGORY_WORD: r"\w", codes.CATEGORY_NOT_WORD: r"\W",
}  # fmt: skip


def _set(items: Any) -> str:
    text = ""
    for code, value in items:
        if code is codes.NEGATE:
            text += "^"
        elif code is codes.LITERAL:
            text += re.escape(chr(value))
        elif code is codes.RANGE:
            text += f"{re.escape(chr(value[0]))}-{re.escape(chr(value[1]))}"
        elif code is codes.CATEGORY:
            text += _CATEGORIES[value]
    return f"[{text}]"

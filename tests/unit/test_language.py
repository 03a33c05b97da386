"""Documentation, CRD, reasons, command-line help, manifests, docstrings, comments and names of tests use no banned words."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from finetune_operator.cli.app import app

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Banned:
    """Words that a text does not use.

    Attributes:
        words: a regular expression; a space matches any white space.
        replacement: the words to use instead.
    """

    words: str
    replacement: str


BANNED = (
    Banned("wish|wishes|wished", "spec, desired state"),
    Banned("mend|mends|mended", "fix"),
    Banned("tell|tells|told", "report, show"),
    Banned("say|says|said", "report, state, show"),
    Banned("speak|speaks|spoken", "use, connect to"),
    Banned("hear|hears|heard", "receive, observe"),
    Banned("reckon|reckons|reckoned", "estimate, calculate"),
    Banned("judge|judges|judged|judgement|judgment", "validate, evaluate"),
    Banned("want|wants|wanted", "require, request"),
    Banned("obstacle|obstacles", "blocker"),
    Banned(r"(?<!connection\x20)(refuse|refuses|refused|refusal|refusals)", "reject, rejection"),
    Banned("complain|complains|complaint|complaints", "warning"),
    Banned("unbuilt", "unsupported"),
    Banned("steer|steers|steered|steering", "control, change"),
    Banned("stand|stands", "is in, is"),
    Banned("lie|lies", "is in"),
    Banned("wake|wakes", "trigger"),
    Banned("go on|goes on|going on|went on", "resume, continue"),
    Banned("anew", "again"),
    Banned("for ever", "forever"),
    Banned("tried again|tries again", "retried, retries"),
    Banned("passing (fault|reason)", "transient failure"),
    Banned("under way", "in progress"),
    Banned("has not the|had not the|have not the", "lacks, lacked"),
    Banned("what is not possible|not possible in this place", "a value that cannot be honored"),
    Banned("behaviour|honour|honoured|licence|colour|favour|recognised|recognise|quantised|labelled", "the American spelling"),
)


def searched(words: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{words})\b".replace(" ", r"\s+"), re.IGNORECASE)


PATTERNS = tuple((searched(banned.words), banned.replacement) for banned in BANNED)


def blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match[0])


def prose(markdown: str) -> str:
    """Return the text without code blocks and code spans, which hold names and the output of programs; lines keep their numbers."""
    text = re.sub(r"^( *)```.*?^\1```$", blank, markdown, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"``[^`]*``|`[^`]*`", blank, text)


def comments(text: str) -> str:
    """Return the comments of a YAML or Lua file; lines keep their numbers."""
    return "\n".join(match[0] if (match := re.search(r"(?:^|\s)(?:#|--)\s.*", line)) else "" for line in text.split("\n"))


def docstrings_and_comments(source: str) -> str:
    """Return the docstrings and comments of a module, without code in backticks; lines keep their numbers."""
    lines = source.split("\n")
    kept = [""] * len(lines)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            first, last = node.lineno - 1, node.end_lineno
            kept[first:last] = lines[first:last]
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            kept[token.start[0] - 1] += f" {token.string}"
    return re.sub(r"``[^`]*``|`[^`]*`", blank, "\n".join(kept))


def findings(name: str, text: str) -> Iterator[str]:
    for pattern, replacement in PATTERNS:
        for found in pattern.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            yield f"{name}:{line}: {' '.join(found[0].split())!r}; write: {replacement}"


def help_texts() -> Iterator[tuple[str, str]]:
    """Yield the help of ``finetune`` and of each of its commands."""
    main: Any = typer.main.get_command(app)
    context = typer.Context(main, info_name="finetune")
    yield "finetune --help", main.get_help(context)
    for name, command in main.commands.items():
        yield f"finetune {name} --help", command.get_help(typer.Context(command, info_name=name, parent=context))


def texts() -> Iterator[tuple[str, str]]:
    """Yield each source by its name, as the text that is searched."""
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")):
        yield str(page.relative_to(ROOT)), prose(page.read_text(encoding="utf-8"))
    for crd in (ROOT / "crds").glob("*.finetunerun.io.yaml"):
        yield str(crd.relative_to(ROOT)), crd.read_text(encoding="utf-8")
    for file in (*(ROOT / "manifests").rglob("*.yaml"), *(ROOT / "manifests").rglob("*.lua")):
        yield str(file.relative_to(ROOT)), comments(file.read_text(encoding="utf-8"))
    alerts = ROOT / "manifests/components/monitoring/rules.yaml"
    yield str(alerts.relative_to(ROOT)), alerts.read_text(encoding="utf-8")
    for module in (path for folder in ("operator", "images", "hack", "tests") for path in (ROOT / folder).rglob("*.py")):
        yield str(module.relative_to(ROOT)), docstrings_and_comments(module.read_text(encoding="utf-8"))
    yield from help_texts()


SOURCES = dict(texts())


def names_of_tests() -> Iterator[tuple[str, str]]:
    """Yield the words of the name of each test, with its module."""
    for module in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
                yield str(module.relative_to(ROOT)), node.name.replace("_", " ")


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_no_banned_word_is_used(name: str) -> None:
    assert list(findings(name, SOURCES[name])) == []


def test_no_name_of_a_test_has_a_banned_word() -> None:
    names = list(names_of_tests())
    assert len(names) > 1000
    assert [found for module, words in names for found in findings(f"{module}: {words}", words)] == []


def test_all_sources_are_searched() -> None:
    assert {"README.md", "AGENTS.md", "docs/user-guide.md", "docs/decisions/24-caches.md"} <= set(SOURCES)
    assert "crds/finetuneruns.finetunerun.io.yaml" in SOURCES
    assert "manifests/base/roles.yaml" in SOURCES
    assert "finetune run --help" in SOURCES
    assert {"operator/finetune_operator/core/plan.py", "images/finetune_stages/sdk/program.py", "hack/checks.py"} <= set(SOURCES)
    assert len(SOURCES) > 60


def test_a_finding_names_file_line_word_and_replacement() -> None:
    text = prose("Right.\n`the wish`\n```\nwish\n```\nA pod that\nis Told to go\non.\n")
    assert list(findings("page.md", text)) == [
        "page.md:7: 'Told'; write: report, show",
        "page.md:7: 'go on'; write: resume, continue",
    ]


def test_comments_are_searched_and_values_are_not() -> None:
    assert comments("a: wish  # the mend\nb: '#told'\n-- lua says") == " # the mend\n\n-- lua says"
    assert len(list(findings("file", comments("a: wish  # the mend")))) == 1


@pytest.mark.parametrize("text", ["connection refused", "a blacklist", "understand", "telling", "ChildRejected"])
def test_other_words_are_not_found(text: str) -> None:
    assert list(findings("text", text)) == []


def test_a_finding_in_a_docstring_or_comment_and_none_in_code() -> None:
    source = '"""What is told."""\ntold = "said"  # the ``wish``, anew\n'
    assert list(findings("a.py", docstrings_and_comments(source))) == [
        "a.py:1: 'told'; write: report, show",
        "a.py:2: 'anew'; write: again",
    ]

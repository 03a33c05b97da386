"""Texts of training programs, servers, files and Events have no effect on the terminal."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from finetune_operator import cli
from finetune_operator.api.kubernetes_yaml import parse
from finetune_operator.cli.echo import echo, visible, visible_values
from finetune_operator.cli.errors import CommandError, handle_errors
from finetune_operator.cli.log_lines import LogLines
from finetune_operator.cli.output import print_name, print_object
from finetune_operator.cli.terminal import console
from finetune_operator.cli.validate import validate_files

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b2J\u202egnp\x00 [bold][/x] [link=http://evil]here[/link] :smile:"
SHOWN = "\\x1b]0;owned\\x07\\x1b[2J\\x9b2J\\u202egnp\\x00 [bold][/x] [link=http://evil]here[/link] :smile:"
_PRINTERS = {"echo.py", "output.py", "app.py"}
"""The modules that call ``print``: these two make their texts visible, and app.py prints the version."""


def test_control_characters_are_shown() -> None:
    assert visible(HOSTILE) == SHOWN
    assert visible("a\n\tb\u3000c\ud800") == "a\\n\\tb\u3000c\\ud800"
    assert visible("a\n\tb\r", keep="\n\t") == "a\n\tb\\r"


def test_all_texts_of_an_object() -> None:
    assert visible_values({"a\x1b": [HOSTILE, 1, None, {"b": "\n"}]}) == {"a\\x1b": [SHOWN, 1, None, {"b": "\n"}]}


def test_lines_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> int:
        raise CommandError([HOSTILE])

    echo(f"a\n{HOSTILE}", end="")
    assert handle_errors(command) == 65
    assert tuple(capsys.readouterr()) == (f"a\n{SHOWN}", f"{SHOWN}\n")


def test_records_of_loggers() -> None:
    logs = "lambda: logging.getLogger('loop').warning('%s failed', chr(27) + 'x')"
    code = f"import logging; from finetune_operator.cli import app; app.app = {logs}; app.main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stderr == "\\x1bx failed\n"


def test_no_other_module_prints() -> None:
    files = {path.name: ast.parse(path.read_text()) for path in Path(str(cli.__file__)).parent.glob("*.py")}
    calls = {
        (node.func.id, name)
        for name, tree in files.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert {name for function, name in calls if function == "print"} == _PRINTERS
    assert {name for function, name in calls if function in ("Console", "_Console")} == {"terminal.py"}


def test_tables_show_markup_and_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("cell")
    table.add_row(HOSTILE)
    table.add_row(visible_values(HOSTILE))
    screen = console()
    screen.print(table)
    screen.print(HOSTILE, soft_wrap=True)
    screen.print(Text("two\nlines"))
    printed = capsys.readouterr().out
    assert not [each for each in printed if not each.isprintable() and each != "\n"]
    assert printed.count("[link=http://evil]here[/link] :smile:") == 3
    assert printed.count("\\x9b2J\\u202egnp\\x00") == 3
    assert "two\nlines" in printed


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_objects_are_read_back_and_have_no_control_characters(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_object({"a": HOSTILE, "b": "ü"}, form)
    printed = capsys.readouterr().out
    assert not [each for each in printed if not each.isprintable() and each != "\n"]
    assert (json.loads(printed) if form == "json" else parse(printed)) == {"a": HOSTILE, "b": "ü"}
    print_object({"b": "ü"}, form)
    assert "ü" in capsys.readouterr().out


def test_names(capsys: pytest.CaptureFixture[str]) -> None:
    print_name({"kind": "FineTuneRun", "metadata": {"name": "a\x1b"}})
    assert capsys.readouterr().out == "finetunerun.finetunerun.io/a\\x1b\n"


def test_a_log_has_no_effect_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    lines = LogLines("[rank 0] ")
    lines.feed(b"\x1b[31mred\x1b[0m\t\x1b]52;c;eA==\x07\r\n 1%\r 2%\nFINETUNE_PROGRESS ")
    lines.feed(b'{"progressPercentage": 50, "currentStep": -1e300, "totalSteps": 1e300, "note": "\\u001b[2J"}\n\x9b2J')
    lines.close()
    assert capsys.readouterr().out.splitlines() == [
        "[rank 0] red\t\\x1b]52;c;eA==\\x07", "[rank 0]  1%", "[rank 0]  2%", "[rank 0]  50% \\x1b[2J", "[rank 0] \ufffd2J",
    ]  # fmt: skip


def test_keys_and_kinds_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.yaml"
    head = "apiVersion: finetunerun.io/v1alpha1\nkind: FineTuneRun\nmetadata: {name: a}\n"
    file.write_text(
        f'{head}spec: {{dataset: {{uri: hf://a/b}}, "bad\\e]0;x\\a\\e[2Jkey": 1}}\n---\napiVersion: v1\nkind: "X\\e[2J"\nmetadata: {{name: b}}\n'
    )
    assert validate_files([file]) == 65
    printed = capsys.readouterr()
    assert "spec.bad\\x1b]0;x\\x07\\x1b[2Jkey: unknown field" in printed.err
    assert "X\\x1b[2J b is not of kind FineTuneRun" in printed.out
    assert not [each for each in printed.out + printed.err if not each.isprintable() and each != "\n"]

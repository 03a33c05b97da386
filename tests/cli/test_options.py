"""Options that several commands share: each command gets them from one declaration, and a command may omit some."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from finetune_operator.cli.app import app
from finetune_operator.cli.options import Format, RunOptions, Target, Without, with_options

SEEN: dict[str, Any] = {}
small = typer.Typer()


@small.command()
@with_options
def act(
    name: str,
    target: Target,
    options: Annotated[RunOptions, Without(("wait", "secrets"))],
    count: Annotated[int, typer.Option(help="A number.")] = 1,
) -> int:
    """Act."""
    SEEN.update(name=name, target=target, options=options, count=count)
    return 7


def test_groups_arrive_as_objects_and_the_result_is_the_exit_code() -> None:
    words = ["demo", "--context", "b", "-n", "team", "--plain", "-o", "json", "--count", "3"]
    assert CliRunner().invoke(small, words).exit_code == 7
    assert {
        "name": "demo", "count": 3, "target": Target(context="b", namespace="team"),
        "options": RunOptions(plain=True, output=Format.json),
    } == SEEN  # fmt: skip
    assert SEEN["target"].cluster_options == ["--context", "--namespace"]


def test_defaults_are_those_of_the_group() -> None:
    assert CliRunner().invoke(small, ["demo", "--home", "x"]).exit_code == 7
    assert (SEEN["target"], SEEN["options"], SEEN["count"]) == (Target(home=Path("x")), RunOptions(), 1)


@pytest.mark.parametrize("option", ["--wait", "--secret"])
def test_an_omitted_option_does_not_exist(option: str) -> None:
    assert CliRunner().invoke(small, ["demo", option, "x"]).exit_code == 2


def test_shared_options_have_the_same_help_in_every_command() -> None:
    commands = {command.callback.__name__: command.callback for command in app.registered_commands if command.callback}
    found: dict[str, set[str]] = {}
    for name, callback in commands.items():
        for parameter, hint in callback.__annotations__.items():
            option = next((part for part in getattr(hint, "__metadata__", ()) if hasattr(part, "help")), None)
            if parameter in ("home", "context", "kubeconfig", "namespace", "secrets", "wait", "plain"):
                assert option is not None, (name, parameter)
                found.setdefault(parameter, set()).add(str(option.help))
    assert {parameter: len(texts) for parameter, texts in found.items()} == dict.fromkeys(found, 1)
    assert set(found) == {"home", "context", "kubeconfig", "namespace", "secrets", "wait", "plain"}
    assert {name for name in commands if "home" not in commands[name].__annotations__} == {"init", "validate"}

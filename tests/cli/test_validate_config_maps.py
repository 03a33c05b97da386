"""``finetune validate`` finds the ConfigMaps that ``finetune run`` rejects."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_operator.cli.validate import validate_files

HEAD = "apiVersion: v1\nkind: ConfigMap\n"
NO_NAME = "metadata.name: Required value: name or generateName is required"


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("metadata: {name: ../x}\n", [':3: metadata.name: Invalid value: "../x": a lowercase RFC 1123 subdomain']),
        ("metadata: {name: a}\ndata:\n  ok: x\n  ../../x: x\n", [":4: data[../../x]: ", ":4: data[../../x]: "]),
        ("metadata: {name: a}\ndata:\n  n: 5\n", [":4: data[n]: Invalid value: must be text"]),
        ("metadata: {name: a}\nbinaryData:\n  n: x\n", [":4: binaryData[n]: Invalid value: must be bytes in base64"]),
        ("data: {a: b}\n", [f":1: {NO_NAME}"]),
        ("metadata: 5\n", [":3: metadata: Invalid value: "]),
        ("metadata: {name: finetune-program-x}\n", [": the name finetune-program-x of a ConfigMap is reserved for the operator; choose another name."]),
    ],
)  # fmt: skip
def test_a_config_map_that_run_rejects(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, problems: list[str]
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(HEAD + text)
    assert validate_files([file]) == 65
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(problems)
    for line, problem in zip(lines, problems, strict=True):
        assert line.startswith(f"{file}{problem}")


def test_a_valid_config_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"{HEAD}metadata: {{name: task}}\ndata: {{task.yaml: 'a: 1'}}\n")
    assert validate_files([file]) == 0
    assert capsys.readouterr().out == f"{file}: task is valid\n"

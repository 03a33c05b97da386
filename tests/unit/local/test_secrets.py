"""Files of ``--secret``."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_operator.local.secrets import SecretFileProblem, read_secret_file


def write(folder: Path, text: str) -> Path:
    file = folder / "secret"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("A=b\n# comment\n\nexport C = d\n", {"A": "b", "C": "d"}),
        ("\ufeffA=b\n", {"A": "b"}),
        ("\ufeffkind: Secret\nstringData: {A: b}\n", {"A": "b"}),
        ("A='b c'\nB=\"d\"\n", {"A": "b c", "B": "d"}),
        ("A=abc\"\nB='it\"'\nC='\n", {"A": 'abc"', "B": 'it"', "C": "'"}),
        ("A=kind: Secret\n", {"A": "kind: Secret"}),
        ("kind: Secret\ndata: {A: Yg==}\nstringData: {C: d}\n", {"A": "b", "C": "d"}),
        ("kind: Secret\n", {}),
    ],
)
def test_keys_are_read_as_they_are_written(text: str, keys: dict[str, str], tmp_path: Path) -> None:
    assert read_secret_file(write(tmp_path, text)) == keys


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("word\n", ":1: not of the form KEY=value; correct the line."),
        ("kind: Secret\nstringData: [a]\n", ": not a valid Secret; data must contain UTF-8 text in base64."),
        ("kind: Secret\ndata: {A: '%'}\n", ": not a valid Secret; data must contain UTF-8 text in base64."),
        ("kind: Secret\nstringData: {PORT: 8080}\n", ": stringData.PORT is not text; put its value in quotes."),
    ],
)
def test_other_files_are_rejected_without_their_content(text: str, problem: str, tmp_path: Path) -> None:
    file = write(tmp_path, text)
    with pytest.raises(SecretFileProblem) as raised:
        read_secret_file(file)
    assert str(raised.value) == f"{file}{problem}"

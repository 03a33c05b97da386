"""Files of ``--secret``."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_operator.local.secrets import LocalSecrets, SecretFileProblem, read_secret_file


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
        ('{"auths": {"r.example": {"auth": "YTpi"}}}\n', {".dockerconfigjson": '{"auths": {"r.example": {"auth": "YTpi"}}}\n'}),
    ],
)
def test_keys_are_read_as_they_are_written(text: str, keys: dict[str, str], tmp_path: Path) -> None:
    assert read_secret_file(write(tmp_path, text)) == keys


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"auth": 1}\n', ":1: not of the form KEY=value; correct the line."),
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


def test_secrets_that_no_pod_reads_are_named(tmp_path: Path) -> None:
    secrets = LocalSecrets({"typo": write(tmp_path, "KEYID=a\nSECRET=b\n")}, {})
    assert list(secrets.unread()) == []
    assert secrets("mine", "AWS_ACCESS_KEY_ID") is None
    assert list(secrets.unread()) == ["--secret typo: the run does not read this Secret; use a name that it reads: mine."]
    assert secrets("typo", "AWS_ACCESS_KEY_ID") is None
    assert list(secrets.unread()) == [
        "--secret typo: the run reads no key of it; its keys are KEYID, SECRET; name them as the run does: AWS_ACCESS_KEY_ID."
    ]
    assert secrets("typo", "SECRET") == "b"
    assert list(secrets.unread()) == []
    assert secrets.missing == {("mine", "AWS_ACCESS_KEY_ID"), ("typo", "AWS_ACCESS_KEY_ID")}

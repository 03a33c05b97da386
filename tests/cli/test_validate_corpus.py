"""``finetune validate`` on the corpus: whatever the API server refuses is refused, in a line that names the field."""

from __future__ import annotations

from cli.desk import Desk
from corpus_cases import CORPUS, cases

BAD = [case for case in cases() if case.name.startswith("bad/")]
GOOD = [case for case in cases() if case.name.startswith("good/")]


def test_every_bad_object_is_refused_by_its_fields(desk: Desk) -> None:
    said = desk.finetune("validate", *(str(CORPUS / f"{case.name}.yaml") for case in BAD))
    assert said.code == 65
    assert said.out == ""
    lines = said.err.splitlines()
    assert "Traceback" not in said.err
    for case in BAD:
        told = [line for line in lines if line.startswith(f"{CORPUS / case.name}.yaml")]
        assert all(any(f": {field}: " in line for line in told) for field in case.fields), (case.name, told)


def test_every_good_object_is_valid(desk: Desk) -> None:
    said = desk.finetune("validate", *(str(CORPUS / f"{case.name}.yaml") for case in GOOD))
    assert (said.code, said.err) == (0, "")
    assert len(said.out.splitlines()) == len(GOOD)

"""``finetune validate`` on the corpus: whatever the API server refuses is refused, in a line that names the field."""

from __future__ import annotations

from cli.workdir import Workdir
from corpus_cases import CORPUS, cases

BAD = [case for case in cases() if case.name.startswith("bad/")]
GOOD = [case for case in cases() if case.name.startswith("good/")]


def test_every_bad_object_is_refused_by_its_fields(workdir: Workdir) -> None:
    result = workdir.finetune("validate", *(str(CORPUS / f"{case.name}.yaml") for case in BAD))
    assert result.code == 65
    assert result.out == ""
    lines = result.err.splitlines()
    assert "Traceback" not in result.err
    for case in BAD:
        told = [line for line in lines if line.startswith(f"{CORPUS / case.name}.yaml")]
        assert all(any(f": {field}: " in line for line in told) for field in case.fields), (case.name, told)


NEEDS_DEFAULTS = {
    "good/gate-default-tasks", "good/gate-held-out-rows-by-default", "good/registry-kind-without-address",
    "good/registry-port-without-address", "good/training-batch-of-default-processes", "good/training-mount-without-volumes",
}  # fmt: skip
"""What an API server takes, since a namespace may have the defaults that go with it; the presets alone contradict it."""


def test_every_good_object_is_valid(workdir: Workdir) -> None:
    result = workdir.finetune("validate", *(str(CORPUS / f"{case.name}.yaml") for case in GOOD))
    assert len(result.out.splitlines()) == len(GOOD) - len(NEEDS_DEFAULTS)
    lines = result.err.splitlines()
    assert {line.partition(".yaml:")[0].removeprefix(f"{CORPUS}/") for line in lines} == NEEDS_DEFAULTS
    assert all("or run it on a cluster whose defaults allow it" in line for line in lines)
    assert result.code == 65

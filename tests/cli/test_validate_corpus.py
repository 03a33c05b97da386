"""``finetune validate`` on the corpus: everything that the API server rejects is rejected, in a line that names the field."""

from __future__ import annotations

from cli.workdir import Workdir
from corpus_cases import CORPUS, cases
from finetune_operator.core.unsupported import first_unsupported

BAD = [case for case in cases() if case.name.startswith("bad/")]
GOOD = [case for case in cases() if case.name.startswith("good/")]


def test_every_bad_object_is_rejected_by_its_fields(workdir: Workdir) -> None:
    result = workdir.finetune("validate", *(str(CORPUS / f"{case.name}.yaml") for case in BAD))
    assert result.code == 65
    assert result.out == ""
    lines = result.err.splitlines()
    assert "Traceback" not in result.err
    for case in BAD:
        told = [line for line in lines if line.startswith(f"{CORPUS / case.name}.yaml")]
        names = case.object.get("metadata") or {}
        name = "metadata.name" if "name" in names else "metadata.generateName"  # one line about the name
        fields = {name if field == "metadata" else field for field in case.fields}
        assert all(any(f": {field}: " in line for line in told) for field in fields), (case.name, told)


NEEDS_DEFAULTS = {
    "good/gate-default-tasks", "good/gate-held-out-rows-by-default", "good/registry-kind-without-address",
    "good/registry-port-without-address", "good/training-batch-of-default-processes", "good/training-mount-without-volumes", "good/training-sft-without-algorithm",
}  # fmt: skip
"""What an API server takes, since a namespace may have the defaults that go with it; the presets alone contradict it."""


NOT_POSSIBLE = {"good/pipeline-lora"}
"""What an API server takes, and no engine can train: Liger kernels for LoRA, with which the pipeline's own code trains."""


def test_every_good_object_is_valid(workdir: Workdir) -> None:
    result = workdir.finetune("validate", *(str(CORPUS / f"{case.name}.yaml") for case in GOOD))
    unsupported = {case.name for case in GOOD if first_unsupported(case.object["spec"])}
    assert len(unsupported) > 5
    assert len(result.out.splitlines()) == len(GOOD) - len(NEEDS_DEFAULTS | unsupported | NOT_POSSIBLE)
    lines = {line.partition(".yaml:")[0].removeprefix(f"{CORPUS}/"): line for line in result.err.splitlines()}
    assert lines.keys() == NEEDS_DEFAULTS | unsupported | NOT_POSSIBLE
    assert all("or run it on a cluster whose defaults allow it" in lines[name] for name in NEEDS_DEFAULTS)
    assert all("this release does not support" in lines[name] for name in unsupported)
    assert all("is not possible here, because" in lines[name] for name in NOT_POSSIBLE)


def test_a_misspelled_kind_is_not_skipped(workdir: Workdir) -> None:
    (workdir.folder / "run.yaml").write_text("apiVersion: finetunerun.io/v1alpha1\nkind: FinetuneRun\nmetadata: {name: a}\n")
    result = workdir.finetune("validate", "run.yaml")
    assert (result.code, result.err) == (65, "run.yaml:2: kind: unknown value FinetuneRun; write FineTuneRun\n")
    assert result.code == 65

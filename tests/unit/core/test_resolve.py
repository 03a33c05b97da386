"""What a run is resolved to: the presets, precedence, adaptations and rejections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_operator.api.presets import preset
from finetune_operator.api.spec import FineTuneRunSpec
from finetune_operator.core.origins import explicit_fields
from finetune_operator.core.paths import assign, leaves, lookup
from finetune_operator.core.resolve import CONTROL_FIELDS, SpecRejection, effective_values, resolve
from finetune_operator.core.settings import Machine, Settings
from finetune_operator.core.unsupported import UNSUPPORTED_VALUES
from golden import assert_golden

ROOT = Path(__file__).parents[3]
SAMPLES = ("sft", "sft-minimal", "osft", "osft-minimal", "lora", "lora-minimal")


def settings(mode: str = "cluster", **changes: Any) -> Settings:
    base: dict[str, Any] = {"mode": mode, "operator_version": "1.2.3", "images": {"dataset": "i"}, "bundle_digest": "e" * 64}
    return Settings(**{**base, **changes})


LOCAL = settings("local", machine=Machine(gpus=0, cpus=2, memory_bytes=8 << 30), local_registry=True)
MINIMAL: dict[str, Any] = {"dataset": {"uri": "org/data"}}


def resolved(spec: dict[str, Any], place: Settings = LOCAL) -> dict[str, Any]:
    found = resolve(spec, place)
    assert not isinstance(found, SpecRejection), found
    return found


def rejected(spec: dict[str, Any], place: Settings = LOCAL) -> SpecRejection:
    found = resolve(spec, place)
    assert isinstance(found, SpecRejection)
    return found


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_sample_has_the_values_of_its_pipeline(sample: str) -> None:
    document = yaml.safe_load((ROOT / f"manifests/samples/{sample}.yaml").read_text())
    values, _ = effective_values(document["spec"], settings())
    assert_golden(f"presets/{sample}.yaml", values)


def test_the_smallest_run_is_osft_with_every_value_known() -> None:
    found = resolved(MINIMAL)
    assert found["spec"]["training"]["algorithm"] == "osft"
    assert {path for path, _ in leaves(preset("osft"))} - {path for path, _ in leaves(found["spec"])} == {
        "suspend", "training.resources.cpu", "training.resources.memory", "training.sharedMemory",
    }  # fmt: skip


def test_the_run_overrides_the_namespace_and_that_the_operator_and_that_the_preset() -> None:
    place = settings(
        operator_defaults={"training": {"epochs": 5, "seed": 7}, "registry": {"author": "operator"}},
        namespace_defaults={"training": {"epochs": 6}},
    )
    found = resolved({**MINIMAL, "training": {"warmupSteps": 3}}, place)
    training = found["spec"]["training"]
    assert (training["warmupSteps"], training["epochs"], training["seed"], training["maxSeqLen"]) == (3, 6, 7, 8192)
    origins = found["origins"]
    assert "training.epochs" in origins["namespace"]
    assert {"training.seed", "registry.author"} <= set(origins["operator"])
    assert "training.maxSeqLen" in origins["preset osft"]
    assert all("training.warmupSteps" not in paths for paths in origins.values())


def test_the_algorithm_may_come_from_the_namespace() -> None:
    found = resolved(MINIMAL, settings(namespace_defaults={"training": {"algorithm": "sft"}}))
    assert found["spec"]["training"]["workers"] == 4
    assert "osft" not in found["spec"]["training"]


def test_environment_variables_merge_by_name() -> None:
    spec = {
        **MINIMAL,
        "training": {"algorithm": "sft", "env": [{"name": "NCCL_DEBUG", "value": "WARN"}, {"name": "A", "value": "b"}]},
    }
    env = {entry["name"]: entry["value"] for entry in resolved(spec, settings())["spec"]["training"]["env"]}
    assert env["NCCL_DEBUG"] == "WARN"
    assert env["A"] == "b"
    assert env["INSTRUCTLAB_NCCL_TIMEOUT_MS"] == "600000"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, {"claimName": "shared"}),
        ({"storage": {"size": "9Gi"}}, {"size": "9Gi"}),
        ({"storage": {"claimName": "mine"}}, {"claimName": "mine"}),
    ],
)
def test_a_claim_and_a_size_exclude_each_other_across_origins(spec: dict[str, Any], expected: dict[str, Any]) -> None:
    found = resolved({**MINIMAL, **spec}, settings(operator_defaults={"storage": {"claimName": "shared"}}))
    assert expected.items() <= found["spec"]["storage"].items()
    assert not {"claimName", "size"} <= set(found["spec"]["storage"])


def test_a_held_out_set_of_its_own_means_that_all_rows_are_trained_on() -> None:
    found = resolved({"dataset": {"uri": "org/data", "evalUri": "org/held-out"}})
    assert found["spec"]["dataset"]["trainSplit"] == 1.0
    assert "dataset.trainSplit" in found["origins"]["derived"]


def test_rows_that_are_left_out_have_a_limit() -> None:
    assert resolved({"dataset": {"uri": "d"}})["spec"]["dataset"]["badRows"] == {"policy": "Fail", "share": 0.1}
    assert resolved({"dataset": {"uri": "d", "badRows": {"policy": "Drop"}}})["spec"]["dataset"]["badRows"]["share"] == 0.1
    share = {"policy": "Drop", "share": 0.5}
    assert resolved({"dataset": {"uri": "d", "badRows": share}})["spec"]["dataset"]["badRows"] == share


def test_where_the_model_is_registered() -> None:
    assert resolved(MINIMAL, LOCAL)["spec"]["registry"]["kind"] == "MLflow"
    assert "kind" not in resolved(MINIMAL, settings())["spec"]["registry"]
    values, _ = effective_values({**MINIMAL, "registry": {"address": "registry"}}, settings())
    assert values["registry"]["kind"] == "ModelRegistry"


def adapted(spec: dict[str, Any], place: Settings = LOCAL) -> dict[str, str]:
    return {entry["field"]: entry["value"] for entry in resolved(spec, place)["adapted"]}


@pytest.mark.parametrize(
    ("dataset", "reason"),
    [
        ({"splitBy": "stratified", "splitField": "topic"}, "dataset.splitBy is stratified, which draws single rows"),
        ({"evalUri": "org/held-out"}, "dataset.evalUri has the held-out rows"),
        ({"splitBy": "grouped", "splitField": "topic"}, None),
        ({}, None),
    ],
)
def test_a_default_about_near_duplicates_without_effect_is_adapted_and_listed(
    dataset: dict[str, Any], reason: str | None
) -> None:
    place = settings(namespace_defaults={"dataset": {"nearDuplicates": "KeepTogether"}})
    found = resolved({"dataset": {"uri": "org/data", **dataset}}, place)
    listed = {one["field"]: one["reason"] for one in found["adapted"]}
    assert listed.get("dataset.nearDuplicates") == reason
    assert found["spec"]["dataset"]["nearDuplicates"] == ("Ignore" if reason else "KeepTogether")


def test_defaults_that_a_laptop_cannot_honor_are_adapted_and_listed() -> None:
    assert adapted({**MINIMAL, "training": {"algorithm": "sft"}}) == {
        "training.engine": "portable", "training.workers": "1", "training.gpusPerWorker": "0",
        "training.gradientCheckpointing": "false", "training.resources": "not set", "training.sharedMemory": "not set",
        "evaluation.backend": "hf",
    }  # fmt: skip


def test_a_machine_with_gpus_keeps_them() -> None:
    place = settings("local", machine=Machine(gpus=2, cpus=8, memory_bytes=64 << 30))
    assert "training.gpusPerWorker" not in adapted(MINIMAL, place)
    assert resolved({**MINIMAL, "training": {"gpusPerWorker": 2}}, place)["spec"]["training"]["gpusPerWorker"] == 2


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({"liger": True}, "spec.training.liger: true is not possible here"),
        (
            {"gpusPerWorker": 1},
            "spec.training.gpusPerWorker: 1 is not possible here, because this machine has fewer GPUs; remove it.",
        ),
        (
            {"algorithm": "sft", "workers": 2, "sft": {"sharding": "FULL_SHARD"}},
            "spec.training.sft.sharding: FULL_SHARD is not possible here, because the portable engine keeps a complete copy",
        ),
        (
            {"algorithm": "sft", "processesPerWorker": 2, "sft": {"sharding": "FULL_SHARD"}},
            "spec.training.sft.sharding: FULL_SHARD is not possible here",
        ),
        ({"osft": {"memoryEfficientInit": False}}, "spec.training.osft.memoryEfficientInit: false is not possible here"),
        (
            {"engine": "training-hub"},
            "spec.training.engine: training-hub is not possible here, because engine training-hub",
        ),
    ],
)
def test_the_same_value_written_by_the_user_is_rejected(training: dict[str, Any], words: str) -> None:
    rejection = rejected({**MINIMAL, "training": training})
    assert rejection.reason.name == "NotPossibleHere"
    assert words in rejection.message


@pytest.mark.parametrize(
    ("training", "path", "value"),
    [
        ({"workers": 2}, "training.workers", 2),
        ({"resources": {"memory": "1Gi"}}, "training.resources.memory", "1Gi"),
        ({"engine": "auto"}, "training.engine", "portable"),
        ({"engine": "portable", "osft": {"memoryEfficientInit": True}}, "training.osft.memoryEfficientInit", True),
        ({"liger": False}, "training.liger", False),
        ({"algorithm": "sft", "workers": 1, "sft": {"sharding": "FULL_SHARD"}}, "training.sft.sharding", "FULL_SHARD"),
    ],
)
def test_written_values_that_are_possible_are_kept(training: dict[str, Any], path: str, value: Any) -> None:
    assert lookup(resolved({**MINIMAL, "training": training})["spec"], path) == value


def test_on_gpus_the_training_program_chooses_the_engine_and_honors_or_rejects_the_values() -> None:
    values = {"engine": "auto", "liger": True, "osft": {"memoryEfficientInit": False}}
    training = resolved({**MINIMAL, "training": values}, settings())["spec"]["training"]
    assert (training["engine"], training["liger"], training["osft"]["memoryEfficientInit"]) == ("auto", True, False)
    assert resolved({**MINIMAL, "training": {"algorithm": "lora"}}, settings())["spec"]["training"]["engine"] == "portable"
    sft = {"engine": "training-hub", "algorithm": "sft"}
    assert resolved({**MINIMAL, "training": sft}, settings())["spec"]["training"]["sft"]["sharding"] == "FULL_SHARD"
    lora = rejected({**MINIMAL, "training": {"engine": "training-hub", "algorithm": "lora"}}, settings())
    assert lora.reason.name == "NotPossibleHere"


def test_the_document_of_training_has_the_fields_that_a_person_set() -> None:
    status = resolved({**MINIMAL, "training": {"liger": True}}, settings(namespace_defaults={"training": {"epochs": 2}}))
    assert explicit_fields(status, "training", "model") == ("training.epochs", "training.liger")


UNSUPPORTED_EXAMPLES: dict[str, Any] = {
    "dataset.uri": "s3://bucket/rows.jsonl", "dataset.evalUri": "pvc://claim/rows.jsonl", "dataset.format": "alpaca",
    "training.enabled": False, "training.algorithm": "lora",
    "training.checkpoints.everySamples": 10,
    "training.checkpoints.everyMinutes": 1, "training.checkpoints.fullState": True, "training.checkpoints.final": False,
    "training.checkpoints.resume": True, "evaluation.backend": "vllm", "registry.kind": "ModelRegistry",
    "registry.onExisting": "Fail", "retry.outOfMemory": "ReduceBatch", "cleanup.volume": "Delete", "cleanup.checkpoints": "Delete",
    "cleanup.pods": "DeleteSucceeded",
}  # fmt: skip


@pytest.mark.parametrize("entry", UNSUPPORTED_VALUES, ids=lambda entry: entry.path)
def test_a_field_that_nothing_acts_on_is_rejected_by_name(entry: Any) -> None:
    spec: dict[str, Any] = {"dataset": {"uri": "org/data"}}
    assign(spec, entry.path, UNSUPPORTED_EXAMPLES.get(entry.path, "something"))
    rejection = rejected(spec)
    assert rejection.reason.name == "Unsupported"
    assert rejection.message.startswith(f"spec.{entry.path}: ")


def test_the_documentation_lists_the_fields_that_nothing_acts_on() -> None:
    page = (ROOT / "docs/unsupported.md").read_text()
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| `")]
    assert [(path.strip().strip("`"), values.strip()) for path, values in rows] == [
        (entry.path, entry.values) for entry in UNSUPPORTED_VALUES
    ]


def test_local_paths_are_rejected_on_a_cluster_and_accepted_locally() -> None:
    for uri in ("/data/rows.jsonl", "./rows.jsonl", "../rows.jsonl", "~/rows.jsonl", "file:///rows.jsonl"):
        rejection = rejected({"dataset": {"uri": uri}}, settings())
        assert (rejection.reason.name, uri in rejection.message) == ("LocalPathInCluster", True)
        assert resolved({"dataset": {"uri": uri}})["spec"]["dataset"]["uri"] == uri
    assert rejected({**MINIMAL, "model": {"uri": "/model"}}, settings()).reason.name == "LocalPathInCluster"


@pytest.mark.parametrize(
    ("values", "reason", "words"),
    [
        ({"limits": {"total": "1h"}}, "Unsupported", "limits: this release"),
        ({"model": {"uri": "/model"}}, "LocalPathInCluster", "model.uri: /model"),
        ({"model": {"uri": " /model"}}, "InvalidSpec", "model.uri: ' /model' begins or ends with a space; remove the space."),
        (
            {"dataset": {"evalUri": "/rows "}},
            "InvalidSpec",
            "dataset.evalUri: '/rows ' begins or ends with a space; remove the space.",
        ),
        ({"training": {"env": ["x"]}}, "InvalidSpec", "training.env"),
        ({"dataset": {"seed": "x"}}, "InvalidSpec", "dataset.seed"),
        ({"model": {"uri": 5}, "training": {"checkpoints": {"everySamples": "x"}}}, "InvalidSpec", "model.uri"),
    ],
)
def test_defaults_are_validated_like_runs_and_named(values: dict[str, Any], reason: str, words: str) -> None:
    of_the_operator = rejected(MINIMAL, settings(operator_defaults=values))
    assert (of_the_operator.reason.name, words in of_the_operator.message) == (reason, True)
    of_the_namespace = rejected(MINIMAL, settings(namespace_defaults=values))
    assert (of_the_namespace.reason.name, words in of_the_namespace.message) == (reason, True)
    if reason != "InvalidSpec":
        assert of_the_operator.message.startswith("the operator's configuration, defaults.")
        assert of_the_namespace.message.startswith("ConfigMap finetune-defaults, ")


def test_the_group_of_volumes_is_recorded() -> None:
    found = resolve(MINIMAL, settings(fs_group=1001))
    assert isinstance(found, dict)
    assert found["fsGroup"] == 1001


def test_a_specification_without_bounds_is_rejected() -> None:
    rejection = rejected({**MINIMAL, "evaluation": {"systemInstruction": "x" * 25_000}})
    assert rejection.reason.name == "SpecTooLarge"


def test_what_bypassed_the_api_server_is_rejected_with_its_field() -> None:
    rejection = rejected({**MINIMAL, "training": {"epochs": 0}})
    assert rejection.reason.name == "InvalidSpec"
    assert rejection.message.startswith("spec.training.epochs: ")


@pytest.mark.parametrize("layer", ["operator_defaults", "namespace_defaults"])
def test_defaults_have_the_types_of_their_fields(layer: str) -> None:
    """Free YAML has no types: a text that a field takes as a number is that number in all that follows."""
    values: dict[str, Any] = {
        "gate": {"requirements": [{"metric": "arc_easy.acc", "max": "5e-1", "min": ".1"}], "onRejected": None},
        "training": {"epochs": "3", "learningRate": "1e-5", "unmask": "yes", "workers": None, "maxSeqLen": 1024.0},
        "dataset": {"trainSplit": "0.5", "seed": 7.0},
        "registry": None,
        "evaluation": {"modelArgs": {"dtype": "1", "parallelize": True, "max_model_len": 7}},
    }
    spec = resolved(MINIMAL, settings(**{layer: values}))["spec"]
    assert spec["gate"] == {"requirements": [{"metric": "arc_easy.acc", "max": 0.5, "min": 0.1}]}
    training = spec["training"]
    assert (training["epochs"], training["learningRate"], training["unmask"]) == (3, 1e-5, True)
    assert (training["workers"], training["maxSeqLen"]) == (1, 1024)
    assert (spec["dataset"]["trainSplit"], spec["dataset"]["seed"], spec["dataset"]["uri"]) == (0.5, 7, "org/data")
    assert [type(spec["dataset"][key]) for key in ("trainSplit", "seed")] == [float, int]
    assert spec["registry"]["version"] == "1.0.0"
    assert spec["evaluation"]["modelArgs"] == {"dtype": "1", "parallelize": True, "max_model_len": 7}


@pytest.mark.parametrize(
    "values",
    [{"suspend": True}, {"suspend": False}, {"rerun": {"id": "a", "from": "gate"}}, {"rerun": {}}, {"approval": {"decision": "Approve"}}],
    ids=str,
)  # fmt: skip
def test_a_default_that_controls_a_single_run_is_rejected_by_name(values: dict[str, Any]) -> None:
    (field,) = values
    sentence = f"{field}: has no effect as a default, because it controls a single run; remove it."
    in_the_namespace = rejected(MINIMAL, settings(namespace_defaults=values))
    assert (in_the_namespace.reason.name, in_the_namespace.message) == (
        "InvalidSpec",
        f"ConfigMap finetune-defaults, {sentence}",
    )
    in_the_operator = rejected(MINIMAL, settings(operator_defaults=values))
    assert in_the_operator.message == f"the operator's configuration, defaults.{sentence}"
    assert not isinstance(resolve(MINIMAL, settings(namespace_defaults={field: None})), SpecRejection)


def test_every_other_section_of_defaults_has_an_effect() -> None:
    """A default is used in the resolved spec, is rejected, or is a URI that each run sets itself."""
    for name, field in FineTuneRunSpec.model_fields.items():
        section = str(field.alias)
        found = resolve(MINIMAL, settings(namespace_defaults={section: EXAMPLE_DEFAULTS[section]}))
        if isinstance(found, SpecRejection):
            assert section in {*CONTROL_FIELDS, "publish", "queue", "limits"}, name
        else:
            assert EXAMPLE_DEFAULTS[section] == lookup(found["spec"], section) or (
                EXAMPLE_DEFAULTS[section].items() <= found["spec"][section].items()
            )


EXAMPLE_DEFAULTS: dict[str, Any] = {
    "dataset": {"seed": 7}, "model": {"revision": "v2"}, "training": {"epochs": 9}, "evaluation": {"fewshot": 3},
    "gate": {"requirements": [{"metric": "arc_easy.acc", "min": 0.5}]}, "registry": {"author": "team"}, "publish": {"uri": "oci://r/x"},
    "storage": {"size": "9Gi"}, "queue": {"name": "q"}, "limits": {"total": "1h"}, "retry": {"crash": 2},
    "cleanup": {"ttlAfterFinished": "1h"}, "serviceAccountName": "account", "suspend": True, "rerun": {"id": "a", "from": "gate"},
    "approval": {"decision": "Approve"},
}  # fmt: skip


def test_defaults_may_have_data_of_their_own() -> None:
    defaults = {"dataset": {"uri": "org/other", "seed": "7"}}
    found = resolved(MINIMAL, settings(namespace_defaults=defaults))
    assert (found["spec"]["dataset"]["uri"], found["spec"]["dataset"]["seed"]) == ("org/data", 7)


@pytest.mark.parametrize("layer", ["operator_defaults", "namespace_defaults"])
def test_a_default_that_converts_to_an_unsupported_value_is_rejected(layer: str) -> None:
    found = rejected(MINIMAL, settings(**{layer: {"training": {"enabled": "no"}}}))
    assert found.reason.name == "Unsupported"
    assert found.message.endswith("training.enabled: this release does not support false; remove it.")


def test_control_fields_are_not_resolved() -> None:
    found = resolved({**MINIMAL, "suspend": True, "rerun": {"id": "1", "from": "dataset"}})
    assert not {"suspend", "rerun", "approval"} & set(found["spec"])


def test_a_registry_server_rejects_a_model_on_a_local_disk() -> None:
    spec = {**MINIMAL, "registry": {"kind": "MLflow", "address": "https://mlflow.example.com"}}
    found = rejected(spec, settings("local", volume_uri="file:///claims/{claim}"))
    assert found.message.startswith("spec.registry.address: an MLflow server cannot read a model on this machine")
    resolved(spec, settings())


def test_nothing_is_resolved_with_broken_defaults_of_the_namespace() -> None:
    place = settings(problem="ConfigMap finetune-defaults, key spec.yaml: not YAML: oops.")
    assert rejected(MINIMAL, place).message == "ConfigMap finetune-defaults, key spec.yaml: not YAML: oops."


@pytest.mark.parametrize(
    ("defaults", "problem"),
    [
        (
            {"gate": {"requirements": [{"metric": "arc_easy.acc", "max": "nan"}]}},
            "gate.requirements[0].max: is nan; use a finite number.",
        ),
        ({"evaluation": {"modelArgs": {"a": float("inf")}}}, "evaluation.modelArgs.a: "),
        ({"training": {"env": 5}}, "training.env: is 5; use a list."),
        ({"training": {"max_seq_len": 512}}, "training.max_seq_len: is not a field of this resource; remove it."),
        ({"dataset": {"eval_uri": "/data.jsonl"}}, "dataset.eval_uri: is not a field of this resource; remove it."),
        ({"training": {"epochs": True}}, "training.epochs: is true; use a number."),
        ({"evaluation": {"baseline": 1}}, "evaluation.baseline: is 1; use true or false."),
        ({"evaluation": {"tasks": [True]}}, "evaluation.tasks[0]: is true; use "),
    ],
)
def test_defaults_are_held_to_what_an_api_server_takes(defaults: dict[str, Any], problem: str) -> None:
    found = resolve(MINIMAL, settings(namespace_defaults=defaults))
    assert isinstance(found, SpecRejection), found
    assert found.message.startswith(f"ConfigMap finetune-defaults, {problem}")


HUB = {"engine": "training-hub"}


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({"algorithm": "lora"}, "engine: training-hub is not possible here, because engine training-hub does not train lora"),
        ({"gpusPerWorker": 0}, "engine: training-hub is not possible here, because engine training-hub requires GPUs, and training requests none"),
        ({"microBatchSize": 4}, "microBatchSize: 4 is not possible here, because the backends of training-hub fill"),
        ({"gradientCheckpointing": False}, "gradientCheckpointing: false is not possible here"),
        ({"algorithm": "sft", "scheduler": "linear"}, "scheduler: linear is not possible here, because instructlab-training always"),
        ({"algorithm": "sft", "schedulerArgs": {"num_cycles": 2}}, 'schedulerArgs: {"num_cycles": 2} is not possible here'),
        ({"algorithm": "sft", "liger": True}, "liger: true is not possible here, because instructlab-training checks"),
        ({"osft": {"unfreezeRankRatio": 1}}, "osft.unfreezeRankRatio: 1 is not possible here, because mini-trainer takes 1 for 0.5"),
        ({"osft": {"unfreezeRankRatio": 0}}, "osft.unfreezeRankRatio: 0 is not possible here"),
        ({"osft": {"trainable": "targets"}}, "osft.trainable: targets is not possible here"),
        ({"osft": {"targetPatterns": ["q_proj,k_proj"]}}, 'osft.targetPatterns: ["q_proj,k_proj"] is not possible here'),
    ],
)  # fmt: skip
def test_what_engine_training_hub_never_honors_is_rejected_before_the_run_starts(training: dict[str, Any], words: str) -> None:
    assert f"spec.training.{words}" in rejected({**MINIMAL, "training": {**HUB, **training}}, settings()).message
    assert not isinstance(resolve({**MINIMAL, "training": {"engine": "auto", **training}}, settings()), SpecRejection), (
        "the image decides"
    )


@pytest.mark.parametrize(
    ("defaults", "field", "reason"),
    [
        (HUB, "training.engine", "engine training-hub does not train lora"),
        ({"liger": True}, "training.liger", "the portable engine does not use Liger kernels"),
    ],
)
def test_a_default_of_the_namespace_for_other_runs_does_not_reject_lora(
    defaults: dict[str, Any], field: str, reason: str
) -> None:
    found = resolve({**MINIMAL, "training": {"algorithm": "lora"}}, settings(namespace_defaults={"training": defaults}))
    assert not isinstance(found, SpecRejection), found
    assert (field, reason) in {(one["field"], one["reason"]) for one in found["adapted"]}

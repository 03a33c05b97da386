"""Rules that read several fields, whose values come from different layers: presets, operator, namespace and run.

Each layer obeys the rules of the CRD by itself. Nothing evaluates them on the effective values; for each rule that two layers can violate
together, a list here has what the operator does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from finetune_operator.api.crd import schema
from finetune_operator.api.presets import preset
from finetune_operator.core.paths import lookup
from finetune_operator.core.resolve import SpecRejection, resolve
from finetune_operator.core.settings import Settings
from finetune_operator.validation.rules import Reach, reach_of
from finetune_operator.validation.schema import Node, compile_schema

Json = dict[str, Any]
MINIMAL: Json = {"dataset": {"uri": "org/data"}}
WEB: Json = {"dataset": {"uri": "https://example.com/rows.jsonl"}}
GATE: Json = {"gate": {"requirements": [{"metric": "arc_easy.acc", "min": 0.5}]}}
LAYERS = {"operator_defaults": "the operator's configuration, defaults.", "namespace_defaults": "ConfigMap finetune-defaults, "}
RUN = "spec."
DEFAULTS = "the origin"


def on_held_out_rows(metric: str = "holdout.loss") -> Json:
    return {"gate": {"requirements": [{"metric": metric, "max": 1}]}}


# (rule, values of the defaults, values of the run, whose value the message names, the rest of the message)
REJECTED: tuple[tuple[str, Json, Json, str, str], ...] = (
    ("spec: evaluation.enabled gate", {"evaluation": {"enabled": False}}, GATE, RUN,
     "gate: evaluation.enabled is false, so that no metric is measured; remove gate, or set evaluation.enabled to true."),
    ("spec: evaluation.enabled gate", GATE, {"evaluation": {"enabled": False}}, DEFAULTS,
     "gate: evaluation.enabled is false, so that no metric is measured; remove gate, or set evaluation.enabled to true."),
    ("spec: evaluation.tasks gate.requirements", {"evaluation": {"tasks": ["hellaswag"]}}, GATE, RUN,
     ("gate.requirements[0].metric: arc_easy.acc belongs to no task in evaluation.tasks (hellaswag); name <task>.<metric>, or add its"
      " task.")),
    ("spec: evaluation.holdout gate.requirements", on_held_out_rows(), {"evaluation": {"holdout": False}}, DEFAULTS,
     ("gate.requirements[0].metric: holdout.loss is measured on held-out rows, and evaluation.holdout is false; hold rows out, or remove"
      " the requirement.")),
    ("spec: evaluation.enabled evaluation.holdout evaluation.tasks", {"evaluation": {"tasks": []}}, {"evaluation": {"holdout": False}},
     DEFAULTS, "evaluation.tasks: is empty, and evaluation.holdout is false, so that nothing is measured; name a task."),
    ("spec: storage.accessModes training.workers", {"storage": {"accessModes": ["ReadWriteOncePod"]}}, {"training": {"workers": 2}}, DEFAULTS,
     ("storage.accessModes: a volume of mode ReadWriteOncePod has room for one pod, and training.workers is 2; use another access mode, or"
      " set training.workers to 1.")),
    ("spec: storage.accessModes training.workers", {"training": {"algorithm": "sft"}}, {"storage": {"accessModes": ["ReadWriteOncePod"]}}, RUN,
     ("storage.accessModes: a volume of mode ReadWriteOncePod has room for one pod, and training.workers is 4; use another access mode, or"
      " set training.workers to 1.")),
    ("spec: evaluation.onFailure gate", {"evaluation": {"onFailure": "Continue"}}, GATE, DEFAULTS,
     "evaluation.onFailure: Continue would pass the gate unmeasured; set it to Fail, or remove gate."),
    ("spec: evaluation.onFailure gate", GATE, {"evaluation": {"onFailure": "Continue"}}, RUN,
     "evaluation.onFailure: Continue would pass the gate unmeasured; set it to Fail, or remove gate."),
    ("dataset: evalUri trainSplit", {"dataset": {"evalUri": "org/held-out"}}, {"dataset": {"uri": "org/data", "trainSplit": 0.8}}, RUN,
     ("dataset.trainSplit: is 0.8, and with dataset.evalUri every row of dataset.uri is trained on; set it to 1, or remove"
      " dataset.evalUri.")),
    (("dataset: fields.completion fields.content fields.history fields.input fields.inputIds fields.instruction "
      "fields.labels fields.messages fields.output fields.prompt fields.role fields.system fields.tools format"), {"dataset": {"fields": {"prompt": "x"}}}, {"dataset": {"format": "text"}},
     DEFAULTS, "dataset.fields.prompt: format text does not read it; remove it, or change dataset.format."),
    (("dataset: fields.completion fields.content fields.history fields.input fields.instruction fields.messages "
      "fields.output fields.prompt fields.role fields.system fields.text fields.tools format"), {"dataset": {"fields": {"system": "x"}}}, {"dataset": {"format": "tokenised"}},
     DEFAULTS, "dataset.fields.system: format tokenised does not read it; remove it, or change dataset.format."),
    (("dataset: fields.completion fields.content fields.inputIds fields.labels "
      "fields.messages fields.prompt fields.role fields.text format"), {"dataset": {"fields": {"prompt": "x"}}}, {"dataset": {"format": "alpaca"}},
     DEFAULTS, "dataset.fields.prompt: format alpaca does not read it; remove it, or change dataset.format."),
    (("dataset: fields.completion fields.history fields.input fields.inputIds "
      "fields.instruction fields.labels fields.output fields.prompt fields.text format"), {"dataset": {"fields": {"inputIds": "x"}}}, {"dataset": {"format": "conversations"}},
     DEFAULTS, "dataset.fields.inputIds: format conversations does not read it; remove it, or change dataset.format."),
    (("dataset: fields.content fields.history fields.input fields.inputIds fields.instruction "
      "fields.labels fields.messages fields.output fields.role fields.text format"), {"dataset": {"fields": {"history": "x"}}}, {"dataset": {"format": "prompt-completion"}},
     DEFAULTS, "dataset.fields.history: format prompt-completion does not read it; remove it, or change dataset.format."),
    ("dataset.fields: completion content history input inputIds instruction labels messages output prompt role system text tools",
     {"dataset": {"fields": {"prompt": "x"}}}, {"dataset": {"fields": {"messages": "y"}}}, DEFAULTS,
     "dataset.fields.prompt: no format reads all of messages, prompt; keep those of one format."),
    ("model: secretRef.key uri", {"model": {"secretRef": {"name": "login", "key": "token"}}}, {"model": {"uri": "s3://bucket/model/"}},
     DEFAULTS, "model.secretRef.key: names one key, and s3:// needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; remove it."),
    ("dataset: evalUri secretRef.key uri", {"dataset": {"secretRef": {"name": "login", "key": "token"}}}, {"dataset": {"uri": "s3://bucket/rows.jsonl"}},
     DEFAULTS, "dataset.secretRef.key: names one key, and s3:// needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; remove it."),
    ("dataset: splitBy splitField", {"dataset": {"splitBy": "grouped"}}, {}, RUN,
     "dataset.splitField: dataset.splitBy is grouped; set the column to split by."),
    ("model: revision uri", {"model": {"uri": "/models/base"}}, {"model": {"revision": "v1"}}, RUN,
     "model.revision: v1 is not possible here, because model.uri is not on the Hub; remove it."),
    ("evaluation: baseline enabled", {"evaluation": {"enabled": False}}, {"evaluation": {"baseline": True}}, RUN,
     ("evaluation.baseline: is true, and evaluation.enabled is false, so that nothing is evaluated; set evaluation.enabled to true, or"
      " remove evaluation.baseline.")),
    ("training: algorithm osft", {"training": {"algorithm": "sft"}}, {"training": {"osft": {"unfreezeRankRatio": 0.5}}}, RUN,
     "training.osft: training.algorithm is sft; remove training.osft, or set training.algorithm to osft."),
    ("training: algorithm sft", {"training": {"algorithm": "lora"}}, {"training": {"sft": {"sharding": "NO_SHARD"}}}, RUN,
     "training.sft: training.algorithm is lora; remove training.sft, or set training.algorithm to sft."),
    ("training: algorithm lora", {"training": {"algorithm": "osft"}}, {"training": {"lora": {"rank": 8}}}, RUN,
     "training.lora: training.algorithm is osft; remove training.lora, or set training.algorithm to lora."),
    ("training: effectiveBatchSize microBatchSize", {"training": {"microBatchSize": 3}}, {"training": {"effectiveBatchSize": 16}}, DEFAULTS,
     "training.microBatchSize: 3 does not divide the 16 rows of each process per step; use a divisor of 16, or change training.effectiveBatchSize."),
    ("training: effectiveBatchSize microBatchSize", {"training": {"gpusPerWorker": 4}}, {"training": {"effectiveBatchSize": 16, "microBatchSize": 8}},
     RUN, "training.microBatchSize: 8 does not divide the 4 rows of each process per step; use a divisor of 4, or change training.effectiveBatchSize."),
    ("training: effectiveBatchSize processesPerWorker workers", {"training": {"effectiveBatchSize": 16}}, {"training": {"workers": 3}}, DEFAULTS,
     ("training.effectiveBatchSize: 16 rows cannot be shared evenly by 3 workers with 1 process each; use a multiple of 3, or change"
      " training.workers.")),
    ("training: maxSeqLen maxTokensPerGPU", {"training": {"maxTokensPerGPU": 2048}}, {"training": {"maxSeqLen": 4096}}, DEFAULTS,
     ("training.maxTokensPerGPU: 2048 is less than training.maxSeqLen 4096, so that the longest rows do not fit; raise it, or lower"
      " training.maxSeqLen.")),
    ("training: maxSeqLen maxTokensPerGPU", {"training": {"algorithm": "sft"}}, {"training": {"maxSeqLen": 16384}}, RUN,
     ("training.maxTokensPerGPU: 10000 is less than training.maxSeqLen 16384, so that the longest rows do not fit; raise it, or lower"
      " training.maxSeqLen.")),
    ("training: volumeMounts volumes", {"training": {"volumes": [{"name": "a", "emptyDir": {}}]}},
     {"training": {"volumeMounts": [{"name": "b", "mountPath": "/b"}]}}, RUN,
     "training.volumeMounts[0].name: b is not a volume in training.volumes; add the volume, or remove the mount."),
)  # fmt: skip

# (rule, values of the defaults, values of the run, the field that another layer decides about, its value)
ADAPTED: tuple[tuple[str, Json, Json, str, Any], ...] = (
    ("dataset: evalUri trainSplit", {"dataset": {"trainSplit": 0.8}}, {"dataset": {"uri": "org/data", "evalUri": "org/held-out"}},
     "dataset.trainSplit", 1.0),
    ("dataset: split uri", {"dataset": {"split": "train_sft"}}, WEB, "dataset.split", None),
    ("dataset: revision uri", {"dataset": {"revision": "v1"}}, WEB, "dataset.revision", None),
    ("model: revision uri", {"model": {"uri": "org/base", "revision": "v1"}}, {"model": {"uri": "org/other"}}, "model.revision", None),
    ("model: revision uri", {"model": {"revision": "v1"}}, {"model": {"uri": "/models/base"}}, "model.revision", None),
    ("storage: accessModes claimName size storageClassName", {"storage": {"claimName": "shared"}}, {"storage": {"size": "9Gi"}},
     "storage.claimName", None),
    ("storage: accessModes claimName size storageClassName", {"storage": {"size": "9Gi"}}, {"storage": {"claimName": "mine"}},
     "storage.size", None),
)  # fmt: skip

# (rule, values of the defaults, values of the run, why they can be together)
HARMLESS: tuple[tuple[str, Json, Json, str], ...] = (
    ("dataset: endpoint evalUri uri", {"dataset": {"endpoint": "https://s3.example.com"}}, WEB, "only data in S3 has it"),
    ("dataset: evalUri region uri", {"dataset": {"region": "eu-west-1"}}, WEB, "only data in S3 has it"),
    ("model: endpoint uri", {"model": {"endpoint": "https://s3.example.com"}}, {}, "only models in S3 have it"),
    ("model: region uri", {"model": {"region": "eu-west-1"}}, {}, "only models in S3 have it"),
    ("model: pullSecretRef uri", {"model": {"pullSecretRef": {"name": "pull"}}}, {}, "only models in a registry have it"),
    ("evaluation: baseline enabled", {"evaluation": {"baseline": True}}, {"evaluation": {"enabled": False}}, "the stage baseline is skipped"),
    ("gate: approval.required requirements", {"gate": {"onRejected": "RegisterAsRejected"}}, {}, "a gate without requirements is skipped"),
    ("training: algorithm lora", {"training": {"lora": {"rank": 8}}}, {"training": {"algorithm": "sft"}}, "other algorithms ignore it"),
    ("training: effectiveBatchSize microBatchSize", {"training": {"microBatchSize": 3}},
     {"training": {"algorithm": "lora", "lora": {"packing": True}}}, "packed micro-batches are counted in sequences"),
)  # fmt: skip

UNSUPPORTED: dict[str, Json] = {
    "spec: cleanup.volume publish": {"cleanup": {"volume": "Delete"}},
    "spec: cleanup.volume storage.claimName": {"cleanup": {"volume": "Delete"}},
    "training: algorithm checkpoints.everySamples checkpoints.final checkpoints.perEpoch": {"training": {"checkpoints": {"final": False}}},
}  # fmt: skip
"""A value without which the rule cannot be violated, and which this release rejects. Who supports it moves the rule to another list."""


def rules(node: Node, path: str = "spec") -> Iterator[str]:
    """Yield the rules that read several fields, each with its section and these fields.

    An item of a list is left out, because a list comes from one layer as a whole.
    """
    for rule in node.rules:
        fields = sorted(_fields(reach_of(node, (rule.expression,))))
        if len(fields) > 1:
            yield f"{path}: {' '.join(fields)}"
    for name, below in node.properties.items():
        yield from rules(below, name if path == "spec" else f"{path}.{name}")


def _fields(reach: Reach, path: str = "") -> Iterator[str]:
    names = [name for name in reach if name]
    for name in names:
        yield from _fields(reach[name], f"{path}.{name}".removeprefix("."))
    if path and not names:
        yield path


def test_every_rule_that_reads_several_fields_is_in_a_list() -> None:
    known = {entry[0] for entry in (*REJECTED, *ADAPTED, *HARMLESS)} | set(UNSUPPORTED)
    assert set(rules(compile_schema(schema()).properties["spec"])) == known


def test_all_other_rules_compare_a_run_with_its_previous_version() -> None:
    root = compile_schema(schema())
    name, *others = root.rules
    assert set(_fields(reach_of(root, (name.expression,)))) == {"metadata"}
    assert all("oldSelf" in rule.expression for rule in others)
    assert not root.properties["status"].has_rules


def merged(run: Json) -> Json:
    return {**run, "dataset": {**MINIMAL["dataset"], **run.get("dataset", {})}}


def place(layer: str, defaults: Json) -> Settings:
    """Local mode, because a cluster rejects local paths by themselves."""
    local = "/models" in str(defaults)
    return Settings("local" if local else "cluster", "1", {}, "e" * 64, **{layer: defaults})


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(
    ("rule", "defaults", "run", "named", "message"), REJECTED, ids=lambda value: value if isinstance(value, str) else ""
)
def test_values_of_two_layers_that_violate_a_rule(
    layer: str, rule: str, defaults: Json, run: Json, named: str, message: str
) -> None:
    found = resolve(merged(run), place(layer, defaults))
    assert isinstance(found, SpecRejection), found
    assert found.message == f"{LAYERS[layer] if named == DEFAULTS else RUN}{message}"


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(
    ("rule", "defaults", "run", "field", "value"), ADAPTED, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_value_of_the_upper_layer_decides(layer: str, rule: str, defaults: Json, run: Json, field: str, value: Any) -> None:
    local = "/models" in str(run)
    found = resolve(merged(run), Settings("local" if local else "cluster", "1", {}, "e" * 64, **{layer: defaults}))
    assert not isinstance(found, SpecRejection), found
    assert lookup(found["spec"], field) == value
    kept = resolve(MINIMAL, place(layer, defaults))
    assert not isinstance(kept, SpecRejection), kept
    assert lookup(kept["spec"], field) == lookup(defaults, field)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(("rule", "defaults", "run", "reason"), HARMLESS)
def test_values_of_two_layers_that_can_be_together(layer: str, rule: str, defaults: Json, run: Json, reason: str) -> None:
    assert not isinstance(found := resolve(merged(run), place(layer, defaults)), SpecRejection), found


@pytest.mark.parametrize("values", UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_a_value_that_this_release_does_not_support(values: Json) -> None:
    for found in (
        resolve(merged(values), place("namespace_defaults", {})),
        resolve(MINIMAL, place("namespace_defaults", values)),
    ):
        assert isinstance(found, SpecRejection)
        assert found.reason.name == "Unsupported"


def test_the_namespace_decides_over_the_operator() -> None:
    place = Settings(
        "cluster", "1", {}, "e" * 64, operator_defaults={"dataset": {"trainSplit": 0.8}}, namespace_defaults={"dataset": {"evalUri": "org/held-out"}}
    )  # fmt: skip
    found = resolve(MINIMAL, place)
    assert not isinstance(found, SpecRejection), found
    assert (found["spec"]["dataset"]["trainSplit"], found["origins"]["derived"]) == (
        1.0,
        ["dataset.badRows.share", "dataset.trainSplit", "serviceAccountName"],
    )
    upside_down = Settings(
        "cluster", "1", {}, "e" * 64, namespace_defaults={"dataset": {"trainSplit": 0.8}}, operator_defaults={"dataset": {"evalUri": "org/held-out"}}
    )  # fmt: skip
    rejection = resolve(MINIMAL, upside_down)
    assert isinstance(rejection, SpecRejection)
    assert rejection.message.startswith("ConfigMap finetune-defaults, dataset.trainSplit: is 0.8, and with dataset.evalUri")


@pytest.mark.parametrize(
    ("defaults", "model", "revision"),
    [
        ({"uri": "org/base", "revision": "v1"}, {"uri": "org/base"}, "v1"),
        ({"uri": "org/base", "revision": "v1"}, {"uri": "org/other", "revision": "v2"}, "v2"),
        ({"uri": "org/base", "revision": "v1"}, {"uri": "org/other"}, None),
        ({"uri": "org/base", "revision": "v1"}, {}, "v1"),
        ({"revision": "v1"}, {"uri": preset("osft")["model"]["uri"]}, "v1"),
    ],
)
def test_a_revision_belongs_to_its_model(defaults: Json, model: Json, revision: str | None) -> None:
    found = resolve({**MINIMAL, "model": model}, place("namespace_defaults", {"model": defaults}))
    assert not isinstance(found, SpecRejection), found
    assert found["spec"]["model"].get("revision") == revision


def test_what_a_run_gives_up_is_listed() -> None:
    settings = Settings("cluster", "1", {}, "e" * 64, namespace_defaults={"dataset": {"split": "train_sft", "revision": "v1"}})
    found = resolve(WEB, settings)
    assert not isinstance(found, SpecRejection), found
    adapted = {entry["field"]: (entry["preset"], entry["value"], entry["reason"]) for entry in found["adapted"]}
    assert adapted["dataset.split"] == ("train_sft", "not set", "dataset.uri is not on the Hub")
    assert adapted["dataset.revision"] == ("v1", "not set", "dataset.uri is not on the Hub")
    hub = resolve({"dataset": {"uri": "hf://org/data:config"}}, settings)
    assert not isinstance(hub, SpecRejection), hub
    assert (hub["spec"]["dataset"]["split"], hub["spec"]["dataset"]["revision"]) == ("train_sft", "v1")

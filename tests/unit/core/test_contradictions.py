"""Values that are each valid and cannot all hold; values of the wrong kind. Both in words that name the field and the fix."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_operator.core.resolve import SpecRejection, resolve
from finetune_operator.core.settings import Settings
from finetune_operator.core.values import InvalidValue, invalid_value

MINIMAL: dict[str, Any] = {"dataset": {"uri": "org/data"}}


def place(**changes: Any) -> Settings:
    return Settings("cluster", "1", {}, "e" * 64, **changes)


def rejected(spec: dict[str, Any], **changes: Any) -> str:
    found = resolve({**MINIMAL, **spec}, place(**changes))
    assert isinstance(found, SpecRejection), found
    assert found.reason.name == "InvalidSpec"
    return found.message


def holdout(**changes: Any) -> dict[str, Any]:
    return {"gate": {"requirements": [{"metric": "holdout.loss", "max": 1}]}, **changes}


ACC = {"gate": {"requirements": [{"metric": "arc_easy.acc", "min": 0.1}]}}


@pytest.mark.parametrize(
    ("spec", "defaults", "message"),
    [
        ({"training": {"algorithm": "sft", "effectiveBatchSize": 6}}, {},
         ("spec.training.effectiveBatchSize: 6 rows cannot be shared evenly by 4 workers with 1 process each; use a multiple of 4, or change"
         " training.workers.")),
        ({"training": {"workers": 100}}, {}, "spec.training.effectiveBatchSize: 128 rows cannot be shared evenly by 100 workers with 1 process each; use a multiple of 100"),
        ({"training": {"processesPerWorker": 3}}, {}, "spec.training.effectiveBatchSize: 128 rows cannot be shared evenly by 1 worker with 3 processes; use a multiple of 3"),
        ({"training": {"processesPerWorker": 2}}, {},
         ("spec.training.processesPerWorker: 2 processes cannot share 1 GPU; use at most one process for each GPU, or raise"
         " training.gpusPerWorker.")),
        ({"evaluation": {"tasks": []}}, {"dataset": {"trainSplit": 1}},
         "spec.evaluation.tasks: is empty, and dataset.trainSplit is 1, which holds no rows out, so that nothing is measured; name a task."),
        ({"evaluation": {"tasks": []}}, {"evaluation": {"holdout": False}},
         "spec.evaluation.tasks: is empty, and evaluation.holdout is false, so that nothing is measured; name a task."),
        (holdout(), {"dataset": {"trainSplit": 1.0}},
         ("spec.gate.requirements[0].metric: holdout.loss is measured on held-out rows, and dataset.trainSplit is 1, which holds no rows out; hold rows"
         " out, or remove the requirement.")),
        (ACC, {"evaluation": {"tasks": ["hellaswag"]}},
         ("spec.gate.requirements[0].metric: arc_easy.acc belongs to no task in evaluation.tasks (hellaswag); name <task>.<metric>, or add its"
         " task.")),
        (ACC, {"evaluation": {"tasks": []}}, "spec.gate.requirements[0].metric: arc_easy.acc belongs to no task in evaluation.tasks (none)"),
        (ACC, {"evaluation": {"enabled": False}},
         "spec.gate: evaluation.enabled is false, so that no metric is measured; remove gate, or set evaluation.enabled to true."),
        ({"dataset": {"uri": "org/data", "splitField": "topic"}}, {},
         "spec.dataset.splitField: dataset.splitBy is random; remove dataset.splitField, or set dataset.splitBy to stratified or grouped."),
        ({}, {"dataset": {"splitBy": "grouped"}}, "spec.dataset.splitField: dataset.splitBy is grouped; set the column to split by."),
        ({"dataset": {"uri": "org/data", "evalUri": "org/held-out", "splitBy": "stratified", "splitField": "topic"}}, {},
         ("spec.dataset.splitBy: dataset.evalUri has the held-out rows, so that the rows of dataset.uri are not split; remove"
         " dataset.splitBy.")),
        ({"dataset": {"uri": "org/data", "nearDuplicates": "KeepTogether"}}, {"dataset": {"evalUri": "org/held-out"}},
         ("spec.dataset.nearDuplicates: dataset.evalUri has the held-out rows, so that the rows of dataset.uri are not split; remove"
         " dataset.nearDuplicates.")),
        ({"dataset": {"uri": "org/data", "nearDuplicates": "KeepTogether"}}, {"dataset": {"splitBy": "stratified", "splitField": "topic"}},
         ("spec.dataset.nearDuplicates: dataset.splitBy is stratified, which draws single rows; set it to random or grouped, or remove"
         " dataset.nearDuplicates.")),
        ({"training": {"sft": {"sharding": "NO_SHARD"}}}, {"training": {"algorithm": "lora"}},
         "spec.training.sft: training.algorithm is lora; remove training.sft, or set training.algorithm to sft."),
        ({"training": {"volumeMounts": [{"name": "b", "mountPath": "/b"}]}}, {"training": {"volumes": [{"name": "a", "emptyDir": {}}]}},
         "spec.training.volumeMounts[0].name: b is not a volume in training.volumes; add the volume, or remove the mount."),
        ({"registry": {"kind": "ModelRegistry"}}, {"registry": {"secretRef": {"name": "token"}}},
         "spec.registry.kind: ModelRegistry needs an address; set registry.address, or remove registry.kind."),
        ({"registry": {"secretRef": {"name": "token"}}}, {"registry": {"port": 80}},
         "spec.registry.secretRef: there is no registry.address; set it, or remove registry.secretRef."),
        ({"evaluation": {"baseline": False}, "gate": {"requirements": [{"metric": "holdout.loss", "maxRegression": 0}]}}, {},
         ("spec.evaluation.baseline: is false, and a requirement of the gate has maxRegression, which compares with the base model; remove"
         " the field.")),
        ({"gate": {"requirements": [{"metric": "holdout.loss", "max": 1}, {"metric": "holdout.loss", "min": 2}]}}, {},
         "spec.gate.requirements[1]: at least 2 and at most 1 is required of holdout.loss, which no model meets; correct a bound."),
        ({"registry": {"port": 80}}, {}, "spec.registry.port: there is no registry.address; set it, or remove registry.port."),
    ],
)  # fmt: skip
def test_defaults_that_contradict_a_run_are_rejected_in_the_first_second(
    spec: dict[str, Any], defaults: dict[str, Any], message: str
) -> None:
    assert rejected(spec, namespace_defaults=defaults).startswith(message)
    assert rejected(spec, operator_defaults=defaults).startswith(message)


@pytest.mark.parametrize(
    ("spec", "defaults"),
    [
        ({"training": {"algorithm": "sft", "effectiveBatchSize": 8}}, {}),
        (ACC, {}),
        ({}, {"dataset": {"splitField": "topic"}}),
        ({"dataset": {"uri": "org/data", "splitBy": "grouped", "splitField": "topic"}}, {}),
        ({"dataset": {"uri": "org/data", "evalUri": "b/c"}}, {"dataset": {"splitBy": "grouped", "splitField": "topic"}}),
        (holdout(), {"dataset": {"evalUri": "org/held-out"}}),
        ({"dataset": {"uri": "org/data", "evalUri": "b/c"}}, {"dataset": {"nearDuplicates": "KeepTogether"}}),
        (
            {"dataset": {"uri": "org/data", "nearDuplicates": "KeepTogether"}},
            {"dataset": {"splitBy": "grouped", "splitField": "topic"}},
        ),
        ({"gate": {"requirements": [{"metric": "holdout.loss", "maxRegression": 0}]}}, {"evaluation": {"baseline": False}}),
        ({"gate": {"requirements": [{"metric": "holdout.loss", "max": 2}, {"metric": "holdout.loss", "min": 2}]}}, {}),
        ({"gate": {"requirements": [{"metric": "mmlu_anatomy.acc", "min": 0.1}]}}, {"evaluation": {"tasks": ["mmlu"]}}),
        ({"evaluation": {"enabled": False}}, {"dataset": {"trainSplit": 1.0}, "evaluation": {"tasks": []}}),
        ({"gate": {"requirements": [{"metric": "arc_easy.acc", "min": 0.1}]}, "evaluation": {"tasks": ["ai2_arc"]}}, {}),
        ({"gate": {"requirements": [{"metric": "cola.mcc", "min": 0.1}]}}, {"evaluation": {"tasks": ["arc_easy", "glue"]}}),
        ({"dataset": {"uri": "org/data", "trainSplit": 1}, **holdout()}, {"dataset": {"evalUri": "org/held-out"}}),
        ({"training": {"workers": 2, "gpusPerWorker": 4, "effectiveBatchSize": 12}}, {"training": {"processesPerWorker": 2}}),
        ({"training": {"sft": {"sharding": "NO_SHARD"}}}, {"training": {"algorithm": "sft"}}),
        ({}, {"training": {"lora": {"rank": 8}}}),
        (
            {"training": {"volumeMounts": [{"name": "a", "mountPath": "/a"}]}},
            {"training": {"volumes": [{"name": "a", "emptyDir": {}}]}},
        ),
        ({"registry": {"kind": "ModelRegistry", "port": 80}}, {"registry": {"address": "registry.example.com"}}),
        ({}, {"registry": {"port": 80, "secretRef": {"name": "token"}}}),
        ({"dataset": {"uri": "pvc://data/rows.jsonl"}}, {"dataset": {"secretRef": {"name": "login"}}}),
        ({"model": {"uri": "oci://registry.example.com/model:1"}}, {"model": {"secretRef": {"name": "login"}}}),
        ({"dataset": {"uri": "pvc://data/a", "evalUri": "s3://data/b", "secretRef": {"name": "login"}}}, {}),
    ],
)
def test_defaults_that_go_together_are_taken(spec: dict[str, Any], defaults: dict[str, Any]) -> None:
    found = resolve({**MINIMAL, **spec}, place(namespace_defaults=defaults))
    assert not isinstance(found, SpecRejection), found


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"dataset": {"uri": "pvc://data/rows.jsonl", "secretRef": {"name": "login"}}},
         "spec.dataset.secretRef: only the Hub, s3:// and http(s):// have credentials; remove it."),
        ({"model": {"uri": "pvc://models/base", "secretRef": {"name": "login"}}},
         "spec.model.secretRef: only the Hub and s3:// have these credentials; remove it."),
        ({"model": {"uri": "oci://registry.example.com/model:1", "secretRef": {"name": "login"}}},
         "spec.model.secretRef: only the Hub and s3:// have these credentials; name the Secret of the registry in model.pullSecretRef."),
        ({"dataset": {"uri": "org/data", "trainSplit": 1}, **holdout()},
         "spec.gate.requirements[0].metric: holdout.loss is measured on held-out rows, and dataset.trainSplit is 1, which holds no rows out;"),
        ({"dataset": {"uri": "org/data", "trainSplit": 1}, "evaluation": {"tasks": []}},
         "spec.evaluation.tasks: is empty, and dataset.trainSplit is 1, which holds no rows out, so that nothing is measured; name a task."),
        ({"gate": {"requirements": [{"metric": "hellaswag.acc", "min": 0.1}]}},
         "spec.gate.requirements[0].metric: hellaswag.acc belongs to no task in evaluation.tasks (arc_easy); name <task>.<metric>, or add its"),
        ({"training": {"workers": 2, "gpusPerWorker": 4, "effectiveBatchSize": 12}},
         "spec.training.effectiveBatchSize: 12 rows cannot be shared evenly by 2 workers with 4 processes each; use a multiple of 8, or change"),
    ],
)  # fmt: skip
def test_what_a_default_could_make_valid_is_rejected_where_none_does(spec: dict[str, Any], message: str) -> None:
    assert rejected(spec).startswith(message)


@pytest.mark.parametrize(
    ("spec", "defaults", "message"),
    [
        ({"training": {"workers": 3}}, {"training": {"effectiveBatchSize": 16}},
         "training.effectiveBatchSize: 16 rows cannot be shared evenly by 3 workers with 1 process each; use a multiple of 3"),
        ({"evaluation": {"tasks": ["hellaswag"]}}, ACC, "gate.requirements[0].metric: arc_easy.acc belongs to no task in evaluation.tasks"),
        ({"evaluation": {"enabled": False}}, ACC, "gate: evaluation.enabled is false"),
        ({"evaluation": {"holdout": False}}, {"evaluation": {"tasks": []}}, "evaluation.tasks: is empty, and evaluation.holdout is false"),
        ({}, {"registry": {"kind": "ModelRegistry"}}, "registry.kind: ModelRegistry needs an address"),
    ],
)  # fmt: skip
def test_a_value_of_the_defaults_is_named_where_it_is_written(
    spec: dict[str, Any], defaults: dict[str, Any], message: str
) -> None:
    assert rejected(spec, namespace_defaults=defaults).startswith(f"ConfigMap finetune-defaults, {message}")
    assert rejected(spec, operator_defaults=defaults).startswith(f"the operator's configuration, defaults.{message}")


@pytest.mark.parametrize(
    ("spec", "prefix"),
    [({"training": {"osft": {"memoryEfficientInit": False}}}, "spec."), ({}, "ConfigMap finetune-defaults, ")],
)
def test_a_value_that_a_place_cannot_honor_is_named_where_it_is_written(spec: dict[str, Any], prefix: str) -> None:
    defaults = {"training": {"osft": {"memoryEfficientInit": False}, "engine": "portable"}}
    found = resolve({**MINIMAL, **spec}, place(namespace_defaults=defaults))
    assert isinstance(found, SpecRejection)
    assert found.message == (
        f"{prefix}training.osft.memoryEfficientInit: false is not possible here, because the portable engine always decomposes one weight at"
        " a time; remove it."
    )


@pytest.mark.parametrize(
    ("defaults", "words"),
    [
        (
            {"training": {"resources": {"memory": -5}}},
            "training.resources.memory: not a quantity of 0 or more; write a whole number",
        ),
        ({"storage": {"size": "0"}}, "storage.size: not a quantity above 0; write a whole number"),
        ({"training": {"env": [{"name": "A-B", "value": "x"}]}}, 'training.env[0].name: is "A-B"; write a name of letters'),
        ({"training": {"placement": {"labels": {"a": "b c"}}}}, 'training.placement.labels.a: is "b c"; write a label\'s value'),
        (
            {"evaluation": {"modelArgs": {"dtype": ["x"]}}},
            'evaluation.modelArgs.dtype: is ["x"]; use a string, a number, true or false',
        ),
    ],
)
def test_defaults_are_named_where_they_are_written(defaults: dict[str, Any], words: str) -> None:
    sft = {"training": {"algorithm": "sft"}}
    assert rejected(sft, namespace_defaults=defaults).startswith(f"ConfigMap finetune-defaults, {words}")
    assert rejected(sft, operator_defaults=defaults).startswith(f"the operator's configuration, defaults.{words}")
    assert rejected({**defaults, "training": {**sft["training"], **defaults.get("training", {})}}).startswith(f"spec.{words}")


@pytest.mark.parametrize(
    ("spec", "path", "sentence"),
    [
        ({"evaluation": {"modelArgs": {"dtype": ["x"]}}}, "evaluation.modelArgs.dtype", 'is ["x"]; use a string, a number, true or false'),
        ({"evaluation": {"modelArgs": {"a": {"b": [1]}}}}, "evaluation.modelArgs.a", 'is {"b": [1]}; use a string, a number, true or false'),
        ({"training": {"engineArgs": {"a": ["x" * 100]}}}, "training.engineArgs.a", f'is ["{"x" * 75}...; use a string, a number, true or false'),
        ({"training": {"resources": {"memory": 0.5}}}, "training.resources.memory", "is 0.5; use a whole number, or a quantity in quotes"),
        ({"training": {"resources": {"memory": "much"}}}, "training.resources.memory", ("not a quantity of 0 or more; write a whole number, or in"
         " quotes a number with an optional suffix, such as 0.5, 500m, 2, 1e3, 64Gi or 1Ei")),
        ({"training": {"epochs": "x"}}, "training.epochs", 'is "x"; use a whole number'),
        ({"training": {"epochs": 1.5}}, "training.epochs", "is 1.5; use a whole number"),
        ({"training": {"epochs": 0}}, "training.epochs", "is 0; use a value greater than or equal to 1"),
        ({"training": {"liger": "perhaps"}}, "training.liger", 'is "perhaps"; use true or false'),
        ({"training": {"algorithm": "dpo"}}, "training.algorithm", "is \"dpo\"; use 'sft', 'osft' or 'lora'"),
        ({"training": {"x": 1}}, "training.x", "is not a field of this resource; remove it"),
        ({"training": {"env": ["x"]}}, "training.env[0]", 'is "x"; use an object'),
        ({"training": {"runtimeRef": "a b"}}, "training.runtimeRef", ('is "a b"; write the name of a Kubernetes object: lower-case letters, digits,'
         " '-' and '.', with a letter or digit at both ends")),
        ({"training": {"runtimeRef": ""}}, "training.runtimeRef", 'is ""; use at least 1 character'),
        ({"evaluation": {"tasks": "x"}}, "evaluation.tasks", 'is "x"; use a list'),
        ({"dataset": {"split": "train"}}, "dataset.uri", "is missing; add it"),
        ({"dataset": {"uri": None}}, "dataset.uri", "is null; use a string"),
        ({"evaluation": {"modelArgs": {"a": None}}}, "evaluation.modelArgs.a", "is null; use a string, a number, true or false, or remove it"),
        ({"training": {"schedulerArgs": {"a": None}}}, "training.schedulerArgs.a", "is null; use a number, or remove it"),
        ({"training": {"placement": {"labels": {"a": None}}}}, "training.placement.labels.a", "is null; use a string, or remove it"),
        ({"training": {"placement": {"annotations": {"a": None}}}}, "training.placement.annotations.a", "is null; use a string, or remove it"),
        ({"evaluation": {"placement": {"nodeSelector": {"a": None}}}}, "evaluation.placement.nodeSelector.a", "is null; use a string, or remove it"),
        ({"evaluation": {"tasks": ["a", None]}}, "evaluation.tasks[1]", "is null; use a string, or remove it"),
        ({"evaluation": {"generation": {"until": [None]}}}, "evaluation.generation.until[0]", "is null; use a string, or remove it"),
        ({"training": {"env": [None]}}, "training.env[0]", "is null; use an object, or remove it"),
        ({"training": {"env": [{"name": None, "value": "x"}]}}, "training.env[0].name", "is null; use a string"),
        ({"model": {"revision": "x" * 300}}, "model.revision", f'is "{"x" * 76}...; use at most 128 characters'),
        ({"training": {"epochs": "9" * 5000}}, "training.epochs", f'is "{"9" * 76}...; use a whole number'),
        ({"storage": {"accessModes": []}}, "storage.accessModes", "is []; use at least 1 item"),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_kind_is_reported_by_the_users_field(spec: dict[str, Any], path: str, sentence: str) -> None:
    assert invalid_value({**MINIMAL, **spec}) == InvalidValue(path, sentence)


def test_valid_values_are_silent() -> None:
    assert invalid_value(MINIMAL) is None


def test_an_empty_section_asks_for_nothing() -> None:
    assert not isinstance(
        resolve({**MINIMAL, "limits": {}, "dataset": {"uri": "org/data", "fields": {}}}, place()), SpecRejection
    )


@pytest.mark.parametrize(
    ("spec", "fix"),
    [
        ({"dataset": {"uri": "./rows.jsonl"}}, "use a hub id, hf://, https://, s3:// or pvc://."),
        ({"model": {"uri": "./model"}}, "use a hub id, hf://, oci://, s3:// or pvc://."),
    ],
)
def test_what_replaces_a_local_path_on_a_cluster_is_something_that_this_release_reads(spec: dict[str, Any], fix: str) -> None:
    found = resolve({**MINIMAL, **spec}, place())
    assert isinstance(found, SpecRejection)
    assert found.message.endswith(fix)


def test_too_many_values_in_total_are_rejected() -> None:
    env = [{"name": f"A{number}", "value": "x"} for number in range(31)]
    message = rejected({"training": {"algorithm": "sft", "env": env}})
    assert message.startswith("spec.training.env: is [")
    assert message.endswith("; use at most 32 items.")

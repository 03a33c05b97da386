"""Remedies: what depends on the stage and on the run's values, and what none of them may recommend."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from finetune_operator.api.kubernetes_yaml import parse
from finetune_operator.api.reasons import REASONS, STATE_REASONS
from finetune_operator.api.spec import FineTuneRunSpec
from finetune_operator.api.status import FineTuneRunStatus
from finetune_operator.cli.rerun_command import command_to_repeat
from finetune_operator.core.paths import assign
from finetune_operator.core.remedies import Failed, hint, remedy
from finetune_operator.core.resolve import effective_values
from finetune_operator.core.resolved_spec import ResolvedSpec
from finetune_operator.core.run import Run
from finetune_operator.core.settings import Mode
from finetune_operator.core.stages import GRAPH
from finetune_operator.core.unsupported import UNSUPPORTED_VALUES, UnsupportedValue, first_unsupported
from finetune_operator.core.values import InvalidValue, validated
from world import MINIMAL, SETTINGS

MODES: tuple[Mode, ...] = get_args(Mode)
GATE = {"requirements": [{"metric": "holdout.bits_per_byte", "max": 1.0}]}
CASES: list[tuple[str, str, dict[str, Any], str]] = [
    ("DatasetNotFound", "dataset", {"dataset.uri": "/d.jsonl"}, "Correct what the message names."),
    ("DatasetNotFound", "dataset", {"dataset.uri": "https://x/d.jsonl"}, "Correct what the message names."),
    ("DatasetNotFound", "dataset", {"dataset.uri": "s3://b/d.jsonl"}, "Correct what the message names."),
    ("DatasetNotFound", "dataset", {"dataset.uri": "org/data"}, "Correct dataset.uri (and dataset.revision)."),
    ("ModelNotFound", "model", {"model.uri": "./m"}, "Correct model.uri."),
    ("ModelNotFound", "model", {"model.uri": "org/m"}, "Correct model.uri (and model.revision)."),
    ("DatasetForbidden", "dataset", {"dataset.uri": "/d"}, "Make the files that dataset.uri names readable for the user of the stage."),
    ("DatasetForbidden", "dataset", {"dataset.uri": "https://x/d"}, "Set dataset.secretRef to a Secret with HTTP_AUTHORIZATION, the value of the Authorization header, or use an address that needs no login."),
    ("DatasetForbidden", "dataset", {"dataset.uri": "https://x/d", "dataset.secretRef": {"name": "mine"}}, "Correct HTTP_AUTHORIZATION, the value of the Authorization header, in the Secret mine."),
    ("DatasetForbidden", "dataset", {"dataset.uri": "s3://b/d"}, "Correct the keys in the Secret s3-secret, or the permissions of their owner."),
    ("DatasetForbidden", "dataset", {"dataset.uri": "s3://b/d", "dataset.secretRef": {"name": "mine"}}, "Correct the keys in the Secret mine, or the permissions of their owner."),
    ("DatasetForbidden", "dataset", {"dataset.uri": "pvc://c/d"}, "Make the files that dataset.uri names readable for the user of the stage."),
    ("DatasetForbidden", "dataset", {"dataset.uri": "org/data"}, "Accept the terms of the data set and put a token that has access into the Secret hf-token (or dataset.secretRef)."),
    ("ModelForbidden", "model", {"model.uri": "s3://b/m"}, "Correct the keys in the Secret s3-secret, or the permissions of their owner."),
    ("ModelForbidden", "model", {"model.uri": "oci://r.io/m:1"}, "Correct the credentials for the registry in the Secret oci-pull-secret-model-download, or the permissions of their owner."),
    ("ModelForbidden", "model", {"model.uri": "oci://r.io/m:1", "model.pullSecretRef": {"name": "mine"}}, "Correct the credentials for the registry in the Secret mine, or the permissions of their owner."),
    ("ModelForbidden", "model", {"model.uri": "pvc://c/m"}, "Make the files that model.uri names readable for the user of the stage."),
    ("ModelForbidden", "model", {"model.uri": "org/m", "model.secretRef": {"name": "mine"}}, "Accept the terms of the model and put a token that has access into the Secret mine."),
    ("DatasetChanged", "dataset", {}, "Make sure that nothing writes to the data while it is read."),
    ("DatasetChanged", "dataset", {"dataset.sha256": "0" * 64}, "Correct dataset.sha256, or find out who changed the data."),
    ("WorkspaceFull", "training", {"storage": {"size": "1Gi"}}, "Raise storage.size, or delete old runs and caches from the volume."),
    ("WorkspaceFull", "training", {"storage": {"claimName": "shared"}}, "Enlarge the claim shared, or delete old runs and caches from its volume."),
    ("TooManyRowsLeftOut", "tokenization", {"dataset.badRows": {"policy": "Fail", "share": 0.1}}, "Raise training.maxSeqLen (above 64,000 together with training.maxTokensPerGPU), shorten or correct the rows, or raise dataset.badRows.share."),
    ("TooManyRowsLeftOut", "dataset", {"dataset.badRows": {"policy": "Drop", "share": 1}}, "Raise training.maxSeqLen (above 64,000 together with training.maxTokensPerGPU), or shorten or correct the rows."),
    ("TooFewRows", "dataset", {"dataset.trainSplit": 0.5, "evaluation.tasks": ["arc_easy"]}, "Use more rows, or set dataset.trainSplit to 1."),
    ("TooFewRows", "dataset", {"dataset.trainSplit": 0.5, "evaluation.enabled": False}, "Use more rows, or set dataset.trainSplit to 1."),
    ("TooFewRows", "dataset", {"dataset.trainSplit": 0.5, "evaluation.tasks": ["arc_easy"], "gate": GATE}, "Use more rows."),
    ("TooFewRows", "dataset", {"dataset.trainSplit": 0.5, "evaluation.tasks": []}, "Use more rows."),
    ("TooFewRows", "dataset", {"dataset.trainSplit": 1}, "Use more rows."),
    ("RemoteCode", "model", {"model.trustRemoteCode": True}, "Use another model."),
    ("RemoteCode", "model", {}, "Set model.trustRemoteCode to true if you trust its author, or use another model."),
    ("EngineMissing", "training", {}, "Use an image that has the package: set training.image, or another training.runtimeRef."),
    ("NoMatchingWeights", "training", {"training.algorithm": "lora"}, "Correct training.lora.targetModules; the message lists weights of this model."),
    ("NoMatchingWeights", "training", {"training.algorithm": "osft"}, "Correct training.osft.targetPatterns; the message lists weights of this model."),
    ("OutOfMemoryGPU", "training", {"training.gradientCheckpointing": True}, "Lower training.maxTokensPerGPU, or use more or larger GPUs."),
    ("OutOfMemoryGPU", "training", {"training.microBatchSize": 4, "training.gradientCheckpointing": False}, "Lower training.maxTokensPerGPU, lower training.microBatchSize, set training.gradientCheckpointing to true, or use more or larger GPUs."),
    ("OutOfMemoryGPU", "baseline", {}, "Set evaluation.batchSize to 1, or use a larger GPU."),
    ("OutOfMemoryGPU", "evaluation", {"evaluation.batchSize": 8}, "Lower evaluation.batchSize, or use a larger GPU."),
    ("OutOfMemoryGPU", "evaluation", {"evaluation.batchSize": 1}, "Use a larger GPU."),
    ("OutOfMemoryHost", "training", {}, "Raise training.resources.memory, or use a smaller model."),
    ("OutOfMemoryHost", "baseline", {}, "Raise evaluation.resources.memory, or use a smaller model."),
    ("OutOfMemoryHost", "dataset", {}, "Use a smaller data set."),
    ("OutOfMemoryHost", "tokenization", {"training.resources": {"memory": "1Gi"}}, "Use a smaller data set."),
    ("Killed", "tokenization", {}, "If the machine was short of memory, use a smaller data set."),
    ("DatasetNotFound", "tokenization", {}, "Find out what removed the run's files from the workspace."),
    ("DatasetNotFound", "training", {}, "Find out what removed the run's files from the workspace."),
    ("Killed", "model", {}, "If the machine was short of memory, use a smaller model."),
    ("NoGPU", "training", {"training.gpusPerWorker": 0}, "Request a GPU with training.gpusPerWorker, or choose values that need none."),
    ("NoGPU", "baseline", {"evaluation.gpus": 0}, "Request a GPU with evaluation.gpus, or choose values that need none."),
    ("NoGPU", "training", {"training.gpusPerWorker": 1}, "Check the GPU driver and the device plugin of the node, or choose values that need no GPU."),
    ("NothingToEvaluate", "evaluation", {"dataset.trainSplit": 1}, "Name a task in evaluation.tasks, hold rows out (dataset.trainSplit below 1), or set evaluation.enabled to false."),
    ("NothingToEvaluate", "evaluation", {"dataset.trainSplit": 0.9}, "Name a task in evaluation.tasks, hold out at least one row with messages or text (rows of tokens are not scored), or set evaluation.enabled to false."),
    ("NothingToEvaluate", "evaluation", {"dataset.trainSplit": 1, "gate": GATE}, "Name a task in evaluation.tasks, or hold rows out (dataset.trainSplit below 1)."),
    ("ScoreNotANumber", "baseline", {}, "The output of the base model is broken: use another model, or leave the metric out."),
    ("ScoreNotANumber", "evaluation", {}, "The output of the model is broken: lower training.learningRate, or leave the metric out."),
    ("VersionExists", "registry-check", {"registry.onExisting": "Fail"}, "Choose another registry.version, or set registry.onExisting to NewVersion or Update."),
    ("VersionExists", "registration", {"registry.onExisting": "Update"}, "Choose another registry.version, or set registry.onExisting to NewVersion."),
]  # fmt: skip
S3, MINE = {"dataset.uri": "s3://b/d", "model.uri": "s3://b/m"}, {"name": "mine"}
KEYS, LOGIN = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", "HTTP_AUTHORIZATION, the value of the Authorization header"
CASES += [
    ("ModelNotFound", "model", {"model.uri": "oci://r.io/m:1"}, "Correct model.uri."),
    (
        "NoTrainableRows",
        "tokenization",
        {"training.maxSeqLen": 4096, "training.maxTokensPerGPU": 4096},
        "Raise training.maxSeqLen and training.maxTokensPerGPU, which is 4,096, or shorten the rows.",
    ),
    ("S3CredentialsMissing", "dataset", S3, f"Put {KEYS} into the Secret s3-secret."),
    ("S3CredentialsMissing", "dataset", {**S3, "dataset.secretRef": MINE}, f"Put {KEYS} into the Secret mine."),
    ("S3CredentialsMissing", "model", {**S3, "model.secretRef": MINE}, f"Put {KEYS} into the Secret mine."),
]
LOCAL: list[tuple[str, str, dict[str, Any], str]] = [
    ("S3CredentialsMissing", "model", S3, f"Set the environment variables {KEYS}, or give --secret s3-secret=FILE with lines of both."),
    ("S3CredentialsMissing", "dataset", {**S3, "dataset.secretRef": MINE}, f"Set the environment variables {KEYS}, or give --secret mine=FILE with lines of both."),
    ("DatasetForbidden", "dataset", S3, "Correct the keys in the environment variables or in the file of --secret s3-secret=FILE, or the permissions of their owner."),
    ("ModelForbidden", "model", {**S3, "model.secretRef": MINE}, "Correct the keys in the file of --secret mine=FILE, or the permissions of their owner."),
    ("DatasetForbidden", "dataset", {"dataset.uri": "https://x/d"}, f"Set dataset.secretRef.name to NAME and give --secret NAME=FILE with {LOGIN}."),
    ("DatasetForbidden", "dataset", {"dataset.uri": "https://x/d", "dataset.secretRef": MINE}, f"Give --secret mine=FILE with {LOGIN}."),
    ("WorkspaceFull", "training", {"storage": {"claimName": "workspace"}}, "Delete old runs with their files (finetune delete --purge), or use a folder with more space (--home)."),
    ("EngineMissing", "training", {}, "Install the package that the message names into this Python environment."),
    ("OutOfMemoryHost", "training", {"training.resources": {}}, "Use a smaller model, or use a machine with more memory."),
    ("OutOfMemoryHost", "training", {"training.resources": {"memory": "1Gi"}}, "Raise training.resources.memory, or use a smaller model."),
    ("OutOfMemoryHost", "tokenization", {}, "Use a smaller data set, or use a machine with more memory."),
]  # fmt: skip


def values(changes: dict[str, Any]) -> ResolvedSpec:
    found, _ = effective_values(MINIMAL, SETTINGS)
    for path, value in changes.items():
        assign(found, path, value)
    return ResolvedSpec(found)


@pytest.mark.parametrize(("reason", "stage", "changes", "text"), CASES)
def test_on_a_cluster(reason: str, stage: str, changes: dict[str, Any], text: str) -> None:
    assert remedy(REASONS[reason], Failed(stage, values(changes))) == text


@pytest.mark.parametrize(("reason", "stage", "changes", "text"), LOCAL)
def test_on_this_machine(reason: str, stage: str, changes: dict[str, Any], text: str) -> None:
    assert remedy(REASONS[reason], Failed(stage, values(changes), "local")) == text


@pytest.mark.parametrize(
    ("reason", "stage", "first"),
    [
        ("Crashed", "tokenization", "training"), ("BadRow", "tokenization", "dataset"), ("BadRow", "evaluation", "evaluation"),
        ("ChatTemplateMissing", "tokenization", "model"), ("ModelCorrupt", "training", "model"), ("Crashed", "baseline", "evaluation"),
        ("Crashed", "registry-check", "registration"), ("Crashed", "workspace", "dataset"), ("Crashed", "gate", "gate"),
    ],
)  # fmt: skip
def test_a_hint_names_the_stage_to_rerun_from(reason: str, stage: str, first: str) -> None:
    assert hint(REASONS[reason], Failed(stage, values({}))).endswith(f" Then rerun from {first}.")


NAMED_STAGES = [
    ("ModelChanged", "tokenization", "model"), ("ResultChanged", "tokenization", "dataset"), ("ModelNotFound", "tokenization", "model"),
    ("ModelChanged", "baseline", "model"), ("ResultChanged", "baseline", "evaluation"), ("ModelChanged", "evaluation", "training"),
    ("ResultChanged", "evaluation", "evaluation"), ("ModelChanged", "registration", "training"), ("ModelNotFound", "registration", "training"),
    ("ResultChanged", "registration", "dataset"), ("ResultChanged", "registration", "evaluation"), ("BadDocument", "registration", "model"),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "stage", "first"), NAMED_STAGES)
def test_message_hint_and_command_name_the_same_stage(reason: str, stage: str, first: str) -> None:
    message = f"model: its seal has digest 1, and stage x reported 2; rerun from stage {first}."
    advice = hint(REASONS[reason], Failed(stage, values({}), message=message))
    assert re.findall(r"(?i)rerun from (\S+)\.", advice) == [first]
    ended = {"failure": {"stage": stage, "reason": reason, "message": message}}
    command = command_to_repeat(Run.parse({"metadata": {"name": "demo"}, "spec": {}, "status": ended}), "")
    assert command is not None
    assert f" --from {first}" in command
    assert ("--set" in command) == (reason not in ("ModelChanged", "ResultChanged"))


@pytest.mark.parametrize(
    ("stage", "named"), [("baseline", "training"), ("training", "evaluation"), ("registration", "tokenization")]
)
def test_a_stage_whose_rerun_does_not_repeat_the_failed_one_is_ignored(stage: str, named: str) -> None:
    advice = hint(REASONS["Crashed"], Failed(stage, values({}), message=f"ValueError: rerun from stage {named}."))
    assert advice.endswith(f" Then rerun from {GRAPH.definition(stage).rerun_target}.")


VARIANTS: tuple[dict[str, Any], ...] = (
    {}, {"dataset.uri": "/d.jsonl", "model.uri": "./m"}, {"dataset.uri": "https://x/d.jsonl"}, {"dataset.sha256": "0" * 64},
    {"dataset.badRows": {"policy": "Drop", "share": 1}, "model.trustRemoteCode": True, "registry.onExisting": "Update"},
    {"evaluation.tasks": ["arc_easy"], "evaluation.batchSize": 8, "evaluation.gpus": 1, "evaluation.resources": {"memory": "1Gi"}},
    {"training.algorithm": "lora", "training.microBatchSize": 2, "training.gpusPerWorker": 1, "storage": {"size": "1Gi"}, "gate": GATE},
    {"dataset.trainSplit": 1, "evaluation.batchSize": 1, "training.gradientCheckpointing": True, "training.resources": {"memory": "1Gi"}},
)  # fmt: skip


@functools.cache
def texts() -> tuple[tuple[str, str], ...]:
    """Every remedy and hint, with its reason: of the tables, and of all stages and modes with different values."""
    static = {(reason.name, reason.remedy) for reason in REASONS.values()}
    specs = [values({"training.algorithm": "osft", **changes}) for changes in VARIANTS]
    found = {
        (reason.name, hint(reason, Failed(stage, spec, mode)))
        for reason in REASONS.values() for stage in GRAPH.definitions for mode in MODES for spec in specs
    }  # fmt: skip
    return tuple(sorted(static | found))


def recommends(text: str, entry: UnsupportedValue) -> bool:
    """Whether a text names a field, or a value of it, that the release rejects."""
    words = entry.values.split(" or ")
    path = entry.path if "." in entry.path else f"spec.{entry.path}"
    named = re.search(rf"\b{re.escape(path)}\b|(?<![.\w]){re.escape(entry.path)}\.\w", text)
    general = entry.values in ("any value", "values above 0", "a registry version or alias")
    return bool(named) and (general or any(re.search(rf"\b{re.escape(word)}\b", text) for word in words))


@pytest.mark.parametrize("entry", UNSUPPORTED_VALUES, ids=lambda entry: f"{entry.path} {entry.values}")
def test_no_remedy_recommends_what_this_release_rejects(entry: UnsupportedValue) -> None:
    assert [reason for reason, text in texts() if recommends(text, entry)] == []


def test_the_check_finds_what_it_looks_for() -> None:
    by_path = {(entry.path, entry.values): entry for entry in UNSUPPORTED_VALUES}
    assert recommends("Raise spec.limits.", by_path["limits", "any value"])
    assert recommends("Raise limits.total.", by_path["limits", "any value"])
    assert recommends("Set retry.outOfMemory to ReduceBatch.", by_path["retry.outOfMemory", "ReduceBatch"])
    assert recommends("Set evaluation.backend to vllm.", by_path["evaluation.backend", "vllm"])
    assert not recommends("Set evaluation.backend to hf.", by_path["evaluation.backend", "vllm"])


FIELD = re.compile(r"(?<![\w./-])([a-z][A-Za-z0-9]*(?:\.[a-z][A-Za-z0-9]*)+)(?![\w/])")
VALUE = re.compile(
    r"(?:set (?P<field>[a-z][A-Za-z0-9]*(?:\.[a-zA-Z0-9]+)+) to|(?P<other>[a-z][A-Za-z0-9]*(?:\.[a-zA-Z0-9]+)+):) (?P<values>\S+(?: or [A-Z]\w+)*)"
)
PROSE = {"a", "data"}
"""First words of descriptions of a value, as in "set dataset.split to a split that the message lists"."""
NOT_FIELDS = {"config.json"}


def fields(text: str) -> set[str]:
    """The paths of fields in a text."""
    return {path.removeprefix("spec.") for path in FIELD.findall(text)} - NOT_FIELDS


def stated(text: str) -> Iterator[tuple[str, Any]]:
    """Yield the values that a text recommends, with their fields."""
    for found in VALUE.finditer(text):
        for word in found["values"].split(" or "):
            if word not in PROSE:
                yield (found["field"] or found["other"]).removeprefix("spec."), parse(word.rstrip(".,;"))


def exists(path: str, model: Any = FineTuneRunSpec) -> bool:
    """Return whether a dotted path is a field of the resource."""
    name, _, rest = path.partition(".")
    for field in model.model_fields.values():
        if field.alias == name:
            inner = [one for one in (field.annotation, *get_args(field.annotation)) if hasattr(one, "model_fields")]
            return not rest or any(exists(rest, one) for one in inner)
    return False


def accepted(path: str, value: Any) -> bool:
    """Return whether this release accepts a value of a field."""
    spec: dict[str, Any] = {"dataset": {"uri": "org/data"}}
    assign(spec, path, value)
    return not isinstance(validated(spec), InvalidValue) and first_unsupported(spec) is None


def test_every_field_and_value_in_a_remedy_exists() -> None:
    named, values_named = set(), set()
    for reason, text in texts():
        for path in fields(text):
            assert exists(path), f"{reason}: {path} is not a field"
            named.add(path)
        for path, value in stated(text):
            assert accepted(path, value), f"{reason}: {path} does not accept {value}"
            values_named.add((path, value))
    assert {"dataset.badRows.policy", "training.osft.targetPatterns", "suspend", "storage.size"} <= named
    assert {
        ("dataset.badRows.policy", "Drop"), ("evaluation.enabled", False), ("registry.onExisting", "NewVersion"),
        ("registry.onExisting", "Update"), ("dataset.trainSplit", 1),
    } <= values_named  # fmt: skip


def test_every_field_and_value_in_the_meaning_of_a_reason_exists() -> None:
    for name, text in [*((reason.name, reason.meaning) for reason in REASONS.values()), *STATE_REASONS.items()]:
        for path in fields(text):
            known = exists(path.removeprefix("status."), FineTuneRunStatus) if path.startswith("status.") else exists(path)
            assert known, f"{name}: {path} is not a field"
        for path, value in stated(text):
            assert accepted(path, value), f"{name}: {path} does not accept {value}"


def test_the_check_of_fields_finds_what_it_looks_for() -> None:
    assert fields("Set dataset.badRows: Drop, or read config.json and docs/unsupported.md; see spec.suspend.") == {
        "dataset.badRows",
        "suspend",
    }
    assert list(stated("Set dataset.badRows: Drop.")) == [("dataset.badRows", "Drop")]
    assert list(stated("or set registry.onExisting to NewVersion or Update.")) == [
        ("registry.onExisting", "NewVersion"), ("registry.onExisting", "Update"),
    ]  # fmt: skip
    assert not accepted("dataset.badRows", "Drop")
    assert not accepted("evaluation.backend", "vllm")
    assert not exists("dataset.badRow.policy")
    assert not exists("limits.totals")
    assert exists("training.placement.affinity.podAffinity")


def test_no_remedy_promises_another_attempt_and_each_is_a_sentence() -> None:
    for reason, text in texts():
        assert text[0].isupper(), reason
        assert text.endswith("."), reason
        if REASONS[reason].cause.value in ("Transient", "Lost", "Crash") and reason != "TrainerChanged":
            assert "tried again" not in text, f"{reason}: it has been tried as often as retry says"
            assert "retried" not in text, reason

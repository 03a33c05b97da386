"""Remedies: what depends on the stage and on the run's values, and what none of them may recommend."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from finetune_operator.api.reasons import REASONS
from finetune_operator.core.paths import assign
from finetune_operator.core.remedies import Failed, hint, remedy
from finetune_operator.core.resolve import effective_values
from finetune_operator.core.unsupported import UNBUILT, UnsupportedValue
from world import MINIMAL, SETTINGS

GATE = {"requirements": [{"metric": "holdout.bits_per_byte", "max": 1.0}]}
CASES: list[tuple[str, str, dict[str, Any], str]] = [
    ("DatasetNotFound", "dataset", {"dataset.uri": "/d.jsonl"}, "Correct dataset.uri."),
    ("DatasetNotFound", "dataset", {"dataset.uri": "https://x/d.jsonl"}, "Correct dataset.uri."),
    ("DatasetNotFound", "dataset", {"dataset.uri": "org/data"}, "Correct dataset.uri (and dataset.revision)."),
    ("ModelNotFound", "model", {"model.uri": "./m"}, "Correct model.uri."),
    ("ModelNotFound", "model", {"model.uri": "org/m"}, "Correct model.uri (and model.revision)."),
    ("DatasetForbidden", "dataset", {"dataset.uri": "/d"}, "Make the files that dataset.uri names readable for the user of the stage."),
    ("DatasetForbidden", "dataset", {"dataset.uri": "https://x/d"}, "Use an address that needs no login: no token is sent to it."),
    ("DatasetForbidden", "dataset", {"dataset.uri": "org/data"}, "Accept the data set's terms and put a token with access into the secret hf-token (or dataset.secretRef)."),
    ("ModelForbidden", "model", {"model.uri": "org/m", "model.secretRef": {"name": "mine"}}, "Accept the model's terms and put a token with access into the secret mine."),
    ("DatasetChanged", "dataset", {}, "Make sure that nothing writes to the data while it is read."),
    ("DatasetChanged", "dataset", {"dataset.sha256": "0" * 64}, "Correct dataset.sha256, or find out who changed the data."),
    ("WorkspaceFull", "training", {"storage": {"size": "1Gi"}}, "Raise storage.size, or delete old runs and caches from the volume."),
    ("WorkspaceFull", "training", {"storage": {"claimName": "shared"}}, "Enlarge the claim shared, or delete old runs and caches from its volume."),
    ("TooManyRowsLeftOut", "tokenization", {"dataset.badRows": {"policy": "Fail", "share": 0.1}}, "Raise training.maxSeqLen, shorten or correct the rows, or raise dataset.badRows.share."),
    ("TooManyRowsLeftOut", "dataset", {"dataset.badRows": {"policy": "Drop", "share": 1}}, "Raise training.maxSeqLen, or shorten or correct the rows."),
    ("TooFewRows", "dataset", {"dataset.trainSplit": 0.5, "evaluation.tasks": ["arc_easy"]}, "Use more rows, or set dataset.trainSplit to 1."),
    ("TooFewRows", "dataset", {"dataset.trainSplit": 0.5, "evaluation.enabled": False}, "Use more rows, or set dataset.trainSplit to 1."),
    ("TooFewRows", "dataset", {"dataset.trainSplit": 0.5, "evaluation.tasks": ["arc_easy"], "gate": GATE}, "Use more rows."),
    ("TooFewRows", "dataset", {"dataset.trainSplit": 0.5, "evaluation.tasks": []}, "Use more rows."),
    ("TooFewRows", "dataset", {"dataset.trainSplit": 1}, "Use more rows."),
    ("RemoteCode", "model", {"model.trustRemoteCode": True}, "Use another model."),
    ("RemoteCode", "model", {}, "Set model.trustRemoteCode to true if you trust its author, or use another model."),
    ("EngineMissing", "training", {}, "Use an image that has it: training.image, or that of the runtime in training.runtimeRef."),
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
    ("Killed", "tokenization", {}, "If the machine's memory was short, use a smaller data set."),
    ("DatasetNotFound", "tokenization", {}, "Find out what removed the run's files from the workspace."),
    ("DatasetNotFound", "training", {}, "Find out what removed the run's files from the workspace."),
    ("Killed", "model", {}, "If the machine's memory was short, use a smaller model."),
    ("NoGPU", "training", {"training.gpusPerWorker": 0}, "Request one with training.gpusPerWorker, or choose values that run without."),
    ("NoGPU", "baseline", {"evaluation.gpus": 0}, "Request one with evaluation.gpus, or choose values that run without."),
    ("NoGPU", "training", {"training.gpusPerWorker": 1}, "Check the GPU driver and the device plugin of the node, or choose values that run without a GPU."),
    ("NothingToEvaluate", "evaluation", {"dataset.trainSplit": 1}, "Name a task in evaluation.tasks, hold rows out (dataset.trainSplit below 1), or set evaluation.enabled to false."),
    ("NothingToEvaluate", "evaluation", {"dataset.trainSplit": 0.9}, "Name a task in evaluation.tasks, use more rows, so that some are held out, or set evaluation.enabled to false."),
    ("NothingToEvaluate", "evaluation", {"dataset.trainSplit": 1, "gate": GATE}, "Name a task in evaluation.tasks, or hold rows out (dataset.trainSplit below 1)."),
    ("ScoreNotANumber", "baseline", {}, "The base model's output is broken: use another model, or leave the metric out."),
    ("ScoreNotANumber", "evaluation", {}, "The model's output is broken: lower training.learningRate, or leave the metric out."),
    ("VersionExists", "registry-check", {"registry.onExisting": "Fail"}, "Choose another registry.version, or set registry.onExisting to NewVersion or Update."),
    ("VersionExists", "registration", {"registry.onExisting": "Update"}, "Choose another registry.version, or set registry.onExisting to NewVersion."),
]  # fmt: skip
LOCAL: list[tuple[str, str, dict[str, Any], str]] = [
    ("WorkspaceFull", "training", {"storage": {"claimName": "workspace"}}, "Delete old runs with their files (finetune delete --purge), or use a folder with more space (--home)."),
    ("EngineMissing", "training", {}, "Install the package that the message names into this Python environment."),
    ("OutOfMemoryHost", "training", {"training.resources": {}}, "Use a smaller model, or use a machine with more memory."),
    ("OutOfMemoryHost", "training", {"training.resources": {"memory": "1Gi"}}, "Raise training.resources.memory, or use a smaller model."),
    ("OutOfMemoryHost", "tokenization", {}, "Use a smaller data set, or use a machine with more memory."),
]  # fmt: skip


def values(changes: dict[str, Any]) -> dict[str, Any]:
    found, _ = effective_values(MINIMAL, SETTINGS)
    for path, value in changes.items():
        assign(found, path, value)
    return found


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
def test_a_hint_says_where_to_rerun_from(reason: str, stage: str, first: str) -> None:
    assert hint(REASONS[reason], Failed(stage, values({}))).endswith(f" Then rerun from {first}.")


def texts() -> Iterator[tuple[str, str]]:
    """Every remedy, of the table and of every case above, with its reason."""
    yield from ((reason.name, reason.remedy) for reason in REASONS.values())
    yield from ((reason, text) for reason, _, _, text in (*CASES, *LOCAL))


def recommends(text: str, entry: UnsupportedValue) -> bool:
    """Whether a text names a field, or a value of it, that the release refuses."""
    words = entry.values.split(" or ")
    if all(word.endswith("://") for word in words):
        return any(word in text for word in words)
    path = entry.path if "." in entry.path else f"spec.{entry.path}"
    named = re.search(rf"\b{re.escape(path)}\b|(?<![.\w]){re.escape(entry.path)}\.\w", text)
    general = entry.values in ("any value", "values above 0", "a registry version or alias")
    return bool(named) and (general or any(re.search(rf"\b{re.escape(word)}\b", text) for word in words))


@pytest.mark.parametrize("entry", UNBUILT, ids=lambda entry: f"{entry.path} {entry.values}")
def test_no_remedy_recommends_what_this_release_refuses(entry: UnsupportedValue) -> None:
    assert [reason for reason, text in texts() if recommends(text, entry)] == []


def test_the_check_finds_what_it_looks_for() -> None:
    by_path = {(entry.path, entry.values): entry for entry in UNBUILT}
    assert recommends("Use s3://bucket.", by_path["dataset.uri", "s3:// or pvc://"])
    assert recommends("Raise spec.limits.", by_path["limits", "any value"])
    assert recommends("Raise limits.total.", by_path["limits", "any value"])
    assert recommends("Set retry.outOfMemory to ReduceBatch.", by_path["retry.outOfMemory", "ReduceBatch"])
    assert recommends("Set evaluation.backend to vllm.", by_path["evaluation.backend", "vllm"])
    assert not recommends("Set evaluation.backend to hf.", by_path["evaluation.backend", "vllm"])


def test_no_remedy_promises_another_attempt_and_each_is_a_sentence() -> None:
    for reason, text in texts():
        assert text[0].isupper(), reason
        assert text.endswith("."), reason
        if REASONS[reason].cause.value in ("Transient", "Lost", "Crash") and reason != "TrainerChanged":
            assert "tried again" not in text, f"{reason}: it has been tried as often as retry says"

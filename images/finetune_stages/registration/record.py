"""Content of a registry entry, from the stage's inputs and the results of earlier stages."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_contract import reasons
from finetune_contract.documents import GATE_VARIABLE, RegistrationInputs, RunInfo, Scalar
from finetune_contract.result import LossPoint, Result
from finetune_stages.sdk import Context, StageError
from finetune_stages.sdk.identity import read_result

LABEL = "finetunerun.io"
"""Prefix of this project's tags."""
UID, ROUND, MODEL_DIGEST = f"{LABEL}/uid", f"{LABEL}/round", f"{LABEL}/model-digest"
"""Tags that identify a record."""
GATE = f"{LABEL}/gate"
"""Tag with the gate's verdict, ``passed`` or ``rejected``; missing without a gate."""
REJECTED = "rejected"
DEFAULT_EXPERIMENT = "finetune"
LOSS = "loss"
"""Key of the loss curve, as in transformers' MLflow callback."""

_OPTIONAL = ("dataset", "evaluation", "baseline")


@dataclass(frozen=True)
class Point:
    """One value of a metric. ``time`` in milliseconds since 1970 (UTC)."""

    key: str
    value: float
    time: int
    step: int


@dataclass(frozen=True)
class Record:
    """A model to register.

    Attributes:
        run: the run that made the model.
        identity: unique tags: the run's uid, its round, the model's digest. They identify an entry that an earlier attempt began.
        lineage: tags with the origin of the model.
        gate: the gate's verdict, ``passed`` or ``rejected``; ``None`` without a gate.
        parameters: the run's effective values.
        started, ended: times of the training, in milliseconds since 1970 (UTC).
    """

    name: str
    version: str
    model_uri: str
    description: str
    author: str | None
    format: str
    format_version: str
    alias: str | None
    experiment: str
    run: RunInfo
    identity: dict[str, str]
    lineage: dict[str, str]
    gate: str | None
    parameters: dict[str, Scalar]
    points: tuple[Point, ...]
    started: int
    ended: int

    @property
    def rejected(self) -> bool:
        """Whether the gate rejected the model: it is registered, but gets no alias."""
        return self.gate == REJECTED

    @property
    def effective_alias(self) -> str | None:
        """Alias to set on this version."""
        return None if self.rejected else self.alias

    @property
    def metrics(self) -> dict[str, float]:
        """Last value of each metric."""
        return {point.key: point.value for point in self.points}


@dataclass(frozen=True)
class _Report:
    """A stage's full result, and the time it was written, in milliseconds."""

    result: Result
    ended: int

    @property
    def started(self) -> int:
        return self.ended - int(1000 * self.result.metrics.get("seconds", 0.0))

    @property
    def digest(self) -> str:
        """Digest of the stage's model or data."""
        outputs = self.result.outputs
        return str(outputs.get("digest") or outputs.get("modelDigest") or "")


def read_record(context: Context, inputs: RegistrationInputs, environment: Mapping[str, str] = os.environ) -> Record:
    """Return the record of this run.

    Raises:
        StageError: ``BadDocument``: a required result is missing or unreadable.
    """
    run = context.document.run
    reports = _reports(context, inputs)
    made = reports.get("training") or reports["model"]
    _leave_out_other_models(reports, made)
    return Record(
        name=inputs.name,
        version=inputs.version,
        model_uri=inputs.model_uri,
        description=inputs.description or f"Fine-tuned by FineTuneRun {run.namespace}/{run.name}.",
        author=inputs.author or None,
        format=inputs.format,
        format_version=inputs.format_version,
        alias=inputs.alias,
        experiment=run.experiment or DEFAULT_EXPERIMENT,
        run=run,
        identity={UID: run.uid, ROUND: str(context.attempt.round), MODEL_DIGEST: made.digest},
        lineage=_lineage(run, reports),
        gate=environment.get(GATE_VARIABLE, "").lower() or None,
        parameters=inputs.parameters,
        points=tuple(_points(reports)),
        started=made.started,
        ended=max(report.ended for report in reports.values()),
    )


def _reports(context: Context, inputs: RegistrationInputs) -> dict[str, _Report]:
    """Return the results of the stages that ran. Those of optional stages may be missing."""
    reports = {}
    for stage, name in inputs.results.items():
        path = context.path(name)
        if context.reads is not None and stage not in context.reads and stage in _OPTIONAL:
            continue  # the stage failed, or did not run: the file is that of an earlier round
        if path.exists() or stage not in _OPTIONAL:
            reports[stage] = _report(context, path, stage)
    if not {"training", "model"} & set(reports):
        raise StageError(
            reasons.BAD_DOCUMENT, "inputs.results: it has neither training nor model, so the model's digest is unknown"
        )
    return reports


def _leave_out_other_models(reports: dict[str, _Report], made: _Report) -> None:
    """Remove results about other models: if an evaluation was allowed to fail, its result may be from an earlier round."""
    asked = {"evaluation": made, "baseline": reports.get("model")}
    for stage, model in asked.items():
        if stage in reports and model is not None and reports[stage].digest != model.digest:
            print(f"registration: the result of stage {stage} is for another model; its metrics are omitted")
            del reports[stage]


def _report(context: Context, path: Path, stage: str) -> _Report:
    result = read_result(context, path, stage)
    report = _Report(result, int(1000 * path.stat().st_mtime))
    if stage in ("training", "model") and not report.digest:
        raise StageError(reasons.BAD_DOCUMENT, f"{path}: the outputs have no digest of a model; rerun stage {stage}.")
    return report


def _lineage(run: RunInfo, reports: dict[str, _Report]) -> dict[str, str]:
    digests = {"dataset": "dataset-digest", "model": "base-model-digest"}
    tags = {f"{LABEL}/run": run.name, f"{LABEL}/namespace": run.namespace}
    for stage, report in reports.items():
        tags[f"{LABEL}/{stage}-inputs-digest"] = report.result.inputs_digest
        if stage in digests and report.digest:
            tags[f"{LABEL}/{digests[stage]}"] = report.digest
    return {**tags, **_engine(reports["training"].result.outputs)} if "training" in reports else tags


def _engine(outputs: Mapping[str, Any]) -> dict[str, str]:
    """Return the training engine and the versions of its packages; a training of an earlier release has none."""
    versions = ", ".join(f"{name} {version}" for name, version in (outputs.get("versions") or {}).items())
    tags = {f"{LABEL}/engine": str(outputs.get("engine") or ""), f"{LABEL}/engine-versions": versions}
    return {key: value for key, value in tags.items() if value}


def _points(reports: dict[str, _Report]) -> list[Point]:
    """Return the loss curve and each stage's metrics, with the stage as prefix except for evaluation."""
    training = reports.get("training")
    curve = training.result.history if training else ()
    last = curve[-1].step if curve else 0
    points = [Point(LOSS, point.loss, _time(training, point, last), point.step) for point in curve if training]
    for stage in ("training", "evaluation", "baseline"):
        if stage in reports:
            report = reports[stage]
            points += [Point(_key(stage, key), value, report.ended, last) for key, value in report.result.metrics.items()]
    return points


def _time(training: _Report, point: LossPoint, last: int) -> int:
    """Return the time of a step. Results have no times, so steps are spread evenly over the training."""
    return training.started + (training.ended - training.started) * point.step // max(1, last)


def _key(stage: str, key: str) -> str:
    return key if stage == "evaluation" and "." in key else f"{stage}.{key}"

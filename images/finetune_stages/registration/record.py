"""What is registered: drawn together from the stage's inputs and from what the stages before it reported."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finetune_contract import reasons
from finetune_contract.codec import DocumentError
from finetune_contract.documents import GATE_VARIABLE, RegistrationInputs, RunInfo, Scalar
from finetune_contract.result import LossPoint, Result, parse_result
from finetune_stages.sdk import Context, StageError

LABEL = "finetunerun.io"
"""Prefix of the tags that are this project's."""
UID, ROUND, MODEL_DIGEST = f"{LABEL}/uid", f"{LABEL}/round", f"{LABEL}/model-digest"
"""The identity of a record."""
GATE = f"{LABEL}/gate"
"""Tag with the gate's verdict, ``passed`` or ``rejected``; missing without a gate."""
REJECTED = "rejected"
DEFAULT_EXPERIMENT = "finetune"
LOSS = "loss"
"""Key of the loss curve, as transformers' own MLflow callback has it."""

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
    """A model on its way into the registry.

    Attributes:
        run: whose model it is.
        identity: tags that no other record has: the run's uid, its round, the model's digest. They find a record again that an
            earlier attempt began.
        lineage: tags that say where the model comes from.
        gate: the gate's verdict, ``passed`` or ``rejected``; ``None`` without a gate.
        parameters: the run's effective values.
        started, ended: of the training, in milliseconds since 1970 (UTC).
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
        """Whether the gate did not let the model pass: it is registered, but nothing may point to it."""
        return self.gate == REJECTED

    @property
    def wanted_alias(self) -> str | None:
        """The alias that moves to this version."""
        return None if self.rejected else self.alias

    @property
    def metrics(self) -> dict[str, float]:
        """The last value of each metric."""
        return {point.key: point.value for point in self.points}


@dataclass(frozen=True)
class _Report:
    """A stage's full result and when it was written, in milliseconds."""

    result: Result
    ended: int

    @property
    def started(self) -> int:
        return self.ended - int(1000 * self.result.metrics.get("seconds", 0.0))

    @property
    def digest(self) -> str:
        """Of the model that the stage made, or measured; of the data that it prepared."""
        outputs = self.result.outputs
        return str(outputs.get("digest") or outputs.get("modelDigest") or "")


def read_record(context: Context, inputs: RegistrationInputs, environment: Mapping[str, str] = os.environ) -> Record:
    """Return the record of this run.

    Raises:
        StageError: ``BadDocument``: a result that is needed is missing or cannot be read.
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
    """Return the results of the stages that ran. Those of stages that a run may do without may be missing."""
    reports = {}
    for stage, name in inputs.results.items():
        path = context.path(name)
        if path.exists() or stage not in _OPTIONAL:
            reports[stage] = _report(path, stage)
    if not {"training", "model"} & set(reports):
        raise StageError(
            reasons.BAD_DOCUMENT, "inputs.results: names neither training nor model, so the model's digest is unknown"
        )
    return reports


def _leave_out_other_models(reports: dict[str, _Report], made: _Report) -> None:
    """An evaluation that failed and was forgiven may have left the result of an earlier round, about an earlier model."""
    asked = {"evaluation": made, "baseline": reports.get("model")}
    for stage, model in asked.items():
        if stage in reports and model is not None and reports[stage].digest != model.digest:
            print(f"registration: the result of stage {stage} is of another model; its metrics are left out")
            del reports[stage]


def _report(path: Path, stage: str) -> _Report:
    try:
        result = parse_result(json.loads(path.read_bytes()))
        written = path.stat().st_mtime
    except (OSError, ValueError, DocumentError) as error:
        raise StageError(
            reasons.BAD_DOCUMENT, f"The result of stage {stage} cannot be read: {error}; run that stage again."
        ) from error
    report = _Report(result, int(1000 * written))
    if stage in ("training", "model") and not report.digest:
        raise StageError(reasons.BAD_DOCUMENT, f"{path}: no digest of a model among the outputs; run stage {stage} again.")
    return report


def _lineage(run: RunInfo, reports: dict[str, _Report]) -> dict[str, str]:
    digests = {"dataset": "dataset-digest", "model": "base-model-digest"}
    tags = {f"{LABEL}/run": run.name, f"{LABEL}/namespace": run.namespace}
    for stage, report in reports.items():
        tags[f"{LABEL}/{stage}-inputs-digest"] = report.result.inputs_digest
        if stage in digests and report.digest:
            tags[f"{LABEL}/{digests[stage]}"] = report.digest
    return tags


def _points(reports: dict[str, _Report]) -> list[Point]:
    """Return the loss curve, and each stage's metrics: evaluation's by their own names, the others behind the stage's."""
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
    """When a step was done. Results hold steps without times: they are spread evenly over the training."""
    return training.started + (training.ended - training.started) * point.step // max(1, last)


def _key(stage: str, key: str) -> str:
    return key if stage == "evaluation" and "." in key else f"{stage}.{key}"

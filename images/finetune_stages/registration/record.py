"""What is registered: drawn together from the stage's inputs and from what the stages before it reported."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from finetune_contract import reasons
from finetune_contract.codec import DocumentError
from finetune_contract.documents import RegistrationInputs, RunInfo, Scalar
from finetune_contract.result import LossPoint, Result, parse_result
from finetune_stages.kit import Context, StageError

LABEL = "finetunerun.io"
"""Prefix of the tags that are this project's."""
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
        identity: tags that no other record has: the run's uid, its round, the model's digest. They find a record again that an
            earlier attempt began.
        lineage: tags that say where the model comes from.
        version_tags: what the registry has no field for.
        started, ended: of the training, in milliseconds since 1970 (UTC).
    """

    name: str
    version: str
    model_uri: str
    description: str
    alias: str | None
    experiment: str
    run_name: str
    identity: dict[str, str]
    lineage: dict[str, str]
    version_tags: dict[str, str]
    parameters: dict[str, str]
    points: tuple[Point, ...]
    started: int
    ended: int


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


def read_record(context: Context, inputs: RegistrationInputs) -> Record:
    """The record of this run.

    Raises:
        StageError: ``BadDocument``: a result that is needed is missing or cannot be read.
    """
    run = context.document.run
    reports = _reports(context, inputs)
    made = reports.get("training") or reports["model"]
    _leave_out_other_models(reports, made)
    identity = {
        f"{LABEL}/uid": run.uid,
        f"{LABEL}/round": str(context.attempt.round),
        f"{LABEL}/model-digest": made.digest,
    }
    tags = {"author": inputs.author, "format": inputs.format, "format_version": inputs.format_version}
    return Record(
        name=inputs.name,
        version=inputs.version,
        model_uri=inputs.model_uri,
        description=inputs.description or f"Fine-tuned by FineTuneRun {run.namespace}/{run.name}.",
        alias=inputs.alias,
        experiment=run.experiment or DEFAULT_EXPERIMENT,
        run_name=run.name,
        identity=identity,
        lineage=_lineage(run, reports),
        version_tags={key: value for key, value in tags.items() if value},
        parameters={key: _text(value) for key, value in inputs.parameters.items()},
        points=tuple(_points(reports)),
        started=made.started,
        ended=max(report.ended for report in reports.values()),
    )


def _reports(context: Context, inputs: RegistrationInputs) -> dict[str, _Report]:
    """The results of the stages that ran. Those of stages that a run may do without may be missing."""
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
    """The loss curve, and each stage's metrics: evaluation's by their own names, the others behind the stage's."""
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


def _text(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

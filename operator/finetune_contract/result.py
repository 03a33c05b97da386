"""Results of the stage programs: the full result in the workspace, and a short form in the termination message.

Kubernetes keeps at most 4,096 bytes of a termination message, so the short form is trimmed in a fixed order (history, then
the sample of rows, metrics, the message, warnings) and has ``truncated``. RHOAI's progress keys are at its top level, ours under ``finetune``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from . import CONTRACT_VERSION, strict_json
from .codec import DocumentError, decode, encode
from .progress import Progress, to_rhoai

TERMINATION_MESSAGE_LIMIT = 4096
"""Bytes of UTF-8 that Kubernetes keeps of a termination message."""
HISTORY_LIMIT = 64
"""Points of the loss curve in a result and in status."""
OUR_KEY = "finetune"
STDERR = "_stderr"
"""Suffix of a standard error's metric name."""
RESULT_WARNINGS_LIMIT, WARNING_LENGTH = 8, 256
"""Largest number of warnings in a result, and largest number of characters of each."""
SAMPLE_ROWS, SAMPLE_BYTES = 3, 2048
"""Largest number of rows of a sample in a result, and of bytes of all of them as JSON in UTF-8."""
_DIRECTIONS, _SAMPLE = "higherIsBetter", "sample"

Outcome = Literal["Succeeded", "Failed"]


@dataclass(frozen=True)
class LossPoint:
    """One point of the loss curve: optimizer step, loss in nats per trained token."""

    step: int
    loss: float


@dataclass(frozen=True)
class Result:
    """Result of one attempt of a stage.

    Attributes:
        inputs_digest: ``FINETUNE_INPUTS_DIGEST``, which identifies the inputs of this result.
        outcome, reason, message: ``Succeeded``, or ``Failed`` with a name from :mod:`.reasons` and a sentence.
        metrics: finite numbers by safe key (letters, digits, ``_``, ``.``, ``-``).
        outputs: the stage's own outputs, one of the classes below.
        warnings: sentences for the user about a stage that succeeded, at most ``RESULT_WARNINGS_LIMIT`` of ``WARNING_LENGTH`` characters.
        reused: true if an earlier result for the same inputs was verified and reused.
        file, file_digest: path of the full result in the workspace, and its SHA-256.
    """

    stage: str
    attempt: str
    inputs_digest: str
    outcome: Outcome
    reason: str | None = None
    message: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    history: tuple[LossPoint, ...] = ()
    warnings: tuple[str, ...] = ()
    reused: bool = False
    file: str | None = None
    file_digest: str | None = None
    truncated: bool = False
    contract_version: int = CONTRACT_VERSION


@dataclass(frozen=True)
class DatasetOutputs:
    """Outputs of stage *dataset*. Digests are SHA-256 in hex.

    Attributes:
        first_dropped: names of the first bad rows that were left out, such as ``uri row 5 (line 7)``; ``None`` if there are none.
            ``datasets/bad_rows.jsonl`` has more of them.
        near_duplicate_groups, near_duplicate_rows: number of groups of near-duplicate rows that are kept on one side of the split, and of
            rows in them; ``None`` if they were not looked for.
    """

    digest: str
    train_rows: int
    eval_rows: int
    source_digest: str
    source_rows: int
    dropped_rows: int = 0
    first_dropped: tuple[str, ...] | None = None
    revision: str | None = None
    near_duplicate_groups: int | None = None
    near_duplicate_rows: int | None = None


@dataclass(frozen=True)
class ModelOutputs:
    """Outputs of stage *model*.

    Attributes:
        positions: largest number of tokens of a row; ``None`` if the model computes any position (rotary embeddings, ALiBi).
    """

    digest: str
    parameters: int
    size_bytes: int
    architecture: str
    revision: str | None = None
    positions: int | None = None


@dataclass(frozen=True)
class SamplePart:
    """Part of a row of a sample: text that is learned or not, or a number of characters that are left out at this point."""

    text: str | None = None
    learned: bool | None = None
    omitted: int | None = None


@dataclass(frozen=True)
class SampleRow:
    """A training row as the model reads it, with its row and line number in the source (line 0: the source has no lines)."""

    row: int
    line: int
    tokens: int
    learned_tokens: int
    parts: tuple[SamplePart, ...]


@dataclass(frozen=True)
class TokenizationOutputs:
    """Outputs of stage *tokenization*: counts of rows that are trained on, measured, and left out by cause.

    Percentiles are nearest ranks: each is the number of tokens of a row.

    Attributes:
        digest: SHA-256 of the training arrays only (tokens, labels, offsets), so that other held-out rows or tasks do not cause a new
            training.
        passages_digest: SHA-256 of the names and contents of the files of rendered rows, which stages *evaluation* and *baseline* read.
        rows, tokens, learned_tokens, longest: number of training rows, their tokens, tokens with a label, tokens of the longest row.
        median, p90, p99: percentiles of the tokens of a training row.
        too_long, nothing_to_learn, rejected: training rows that are left out: more tokens than ``max_seq_len``, no token to learn,
            rejected by the chat template.
        measured_rows, not_measured: held-out rows with and without an answer that can be scored.
        attention: size of the attention: sum over the training rows of their squared tokens, times the number of layers and the
            dimensions of all heads; 0 if the model's configuration does not state them.
        template: template of the learned parts: the model's own, or TRL's training version.
        sample: the first training rows, at most ``SAMPLE_ROWS``, in at most ``SAMPLE_BYTES`` bytes of JSON. ``tokens/sample.json`` has more
            of their text.
    """

    digest: str
    passages_digest: str
    rows: int
    tokens: int
    learned_tokens: int
    longest: int
    median: int = 0
    p90: int = 0
    p99: int = 0
    too_long: int = 0
    nothing_to_learn: int = 0
    rejected: int = 0
    measured_rows: int = 0
    not_measured: int = 0
    attention: float = 0.0
    template: Literal["model", "training"] = "model"
    sample: tuple[SampleRow, ...] = ()


@dataclass(frozen=True)
class EngineCheckOutputs:
    """Outputs of stage *engine-check*: the engine that the training image offers, why, and the versions of its packages."""

    engine: str
    reason: str
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingOutputs:
    """Outputs of stage *training*.

    ``samples_seen`` is counted over all processes and epochs; ``expected_samples`` is epochs x kept rows. ``opened``: the
    written model was verified: its configuration, every weight's header, its tokenizer. ``adapter_digest`` is the digest of the
    adapter, if the algorithm has one. ``engine`` trained with these ``versions`` of its packages, for ``engine_reason``.
    """

    digest: str
    samples_seen: int
    expected_samples: int
    rows: int
    dropped_rows: int
    steps: int
    processes: int
    opened: bool
    adapter_digest: str | None = None
    engine: str = "portable"
    engine_reason: str = ""
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationOutputs:
    """Outputs of stages *evaluation* and *baseline*."""

    model_digest: str
    eval_rows: int
    tasks: tuple[str, ...]
    higher_is_better: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class RegistryCheckOutputs:
    """Outputs of stage *registry-check*."""

    kind: str
    name: str
    version: str
    free: bool


@dataclass(frozen=True)
class RegistrationOutputs:
    """Outputs of stage *registration*, as read back from the registry."""

    kind: str
    name: str
    version: str
    registry_version: str
    model_uri: str
    read_back: bool
    run_id: str | None = None
    url: str | None = None


def termination_message(
    result: Result, progress: Progress | None = None, limit: int = TERMINATION_MESSAGE_LIMIT, keep: Sequence[str] = ()
) -> str:
    """Return the short form of ``result``: JSON of at most ``limit`` bytes in UTF-8.

    ``keep`` has the metrics to drop last, with their standard errors, after the other metrics and the message; the first ones have
    priority.
    """
    for candidate in _ever_shorter(result, keep):
        text = json.dumps(
            {**(to_rhoai(progress) if progress else {}), OUR_KEY: encode(candidate)},
            separators=(",", ":"), ensure_ascii=False, allow_nan=False,
        )  # fmt: skip
        if len(text.encode()) <= limit:
            return text
    raise DocumentError(f"result of stage {result.stage}: its outputs alone exceed {limit} bytes")


def _ever_shorter(result: Result, keep: Sequence[str]) -> Iterator[Result]:
    yield result
    result = replace(result, truncated=True)
    for points in (HISTORY_LIMIT, 32, 16, 8, 0):
        result = replace(result, history=thin(result.history, points))
        yield result
    sample = result.outputs.get(_SAMPLE) or []
    for count in range(len(sample) - 1, -1, -1):
        result = replace(result, outputs={**result.outputs, _SAMPLE: sample[:count]})
        yield result
    kept = [name for name in dict.fromkeys(keep) if name in result.metrics]
    errors = [name + STDERR for name in kept if name + STDERR in result.metrics]
    others = sorted(set(result.metrics) - {*kept, *errors})
    while others:
        others = others[: len(others) // 2]
        yield _only(result, (*kept, *errors, *others))
    result = _only(result, (*kept, *errors))
    for characters in (512, 128, 0):
        result = replace(result, message=result.message[:characters])
        yield result
    for count in range(len(result.warnings) - 1, -1, -1):
        result = replace(result, warnings=result.warnings[:count])
        yield result
    for count in range(len(kept), -1, -1):
        yield _only(result, kept[:count])


def _only(result: Result, names: Iterable[str]) -> Result:
    """Return the result with these metrics and their directions only."""
    metrics = {name: result.metrics[name] for name in names}
    directions = result.outputs.get(_DIRECTIONS)
    if not isinstance(directions, dict):
        return replace(result, metrics=metrics)
    left = {name: direction for name, direction in directions.items() if name in metrics}
    return replace(result, metrics=metrics, outputs={**result.outputs, _DIRECTIONS: left})


def parse_message(text: str | None) -> Result | None:
    """Return the result in a termination message; ``None`` if there is none: a crash leaves log lines, an empty message
    or anything else that the program wrote there.

    Raises:
        DocumentError: The result has an unknown contract version.
    """
    try:
        data = strict_json.loads(text or "", TERMINATION_MESSAGE_LIMIT)
    except strict_json.JsonError:
        return None
    ours = data.get(OUR_KEY) if isinstance(data, dict) else None
    return parse_result(ours) if isinstance(ours, dict) else None


def parse_result(data: dict[str, Any]) -> Result:
    """Return a result from JSON values.

    Raises:
        DocumentError: The form is wrong, a count is negative, or the contract's version is unknown.
    """
    version = data.get("contractVersion")
    if version != CONTRACT_VERSION:
        raise DocumentError(
            f"result: the program has contract version {version!r}, and this release supports {CONTRACT_VERSION}; use matching releases"
        )
    result = decode(Result, data)
    _require_counts(result)
    return result


def _require_counts(result: Result) -> None:
    """Raise an error for a negative whole number: all those of outputs, and the steps of a loss curve, are counts."""
    negative = [name for name, value in result.outputs.items() if isinstance(value, int) and value < 0]
    if negative:
        raise DocumentError(f"outputs.{negative[0]}: is negative")
    if any(point.step < 0 for point in result.history):
        raise DocumentError("history: a step is negative")


def thin(history: Sequence[LossPoint], points: int) -> tuple[LossPoint, ...]:
    """Return at most ``points`` points of a curve, evenly spaced, including the first and the last."""
    if len(history) <= points:
        return tuple(history)
    if points <= 1:
        return tuple(history[-1:]) if points == 1 else ()
    last = len(history) - 1
    return tuple(history[round(index * last / (points - 1))] for index in range(points))

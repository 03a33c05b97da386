"""The cases, the most important ones first: each runs real programs and returns its figures."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from finetune_contract import progress
from finetune_contract.documents import (
    DatasetInputs,
    EvaluationInputs,
    LoraInputs,
    ModelInputs,
    OsftInputs,
    TokenizationInputs,
    TrainingInputs,
)
from finetune_contract.result import LossPoint, Result
from finetune_stages.training.engines import HUB, PORTABLE
from finetune_stages.training.memory import weights_and_optimizer
from finetune_stages.training.pretrained import Pretrained

from .programs import Ended, Programs, wait_for
from .report import CaseError, Figures, Report

TINY = TrainingInputs("sft", "portable", 1, 16, 4096, 256, 1e-3)
LARGE = TrainingInputs("sft", "portable", 1, 64, 16_384, 1024, 1e-4)
"""About 260,000 tokens in eight steps on a model of 1.5 billion parameters. Random weights need a high learning rate to learn visibly."""
LARGE_ON_CPU = replace(TINY, effective_batch_size=8, epochs=2, learning_rate=5e-3)
ALGORITHMS: dict[str, dict[str, Any]] = {
    "sft": {"algorithm": "sft"},
    "osft": {"algorithm": "osft", "osft": OsftInputs(0.25, (), "targets")},
    "lora": {"algorithm": "lora", "lora": LoraInputs()},
    "lora 4bit": {"algorithm": "lora", "lora": LoraInputs(quantization="4bit")},
    "lora 8bit": {"algorithm": "lora", "lora": LoraInputs(quantization="8bit")},
}
"""Trainings by the name that ``--check`` gives them."""
TOLERANCE = 0.03
"""Largest relative difference of a loss between CPU (float32) and GPU (bfloat16), at each step."""
ENDS_TOLERANCE = 0.15
"""Largest relative difference of the first and last loss between engines, which shuffle the rows in other orders."""
SCORE_TOLERANCE = 0.03
STOP_SECONDS = 15.0
"""Limit from SIGTERM to the end of the program; a pod has 60 s."""


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        run: does the work within the seconds that it is given, and returns the figures. Raises :class:`CaseError` or ``TimeoutError``.
        limit: seconds that it may take.
        required: others need it, so that ``--only`` does not leave it out.
    """

    name: str
    limit: float
    run: Callable[[float], Figures]
    required: bool = False


@dataclass
class _Offers:
    """What the image offers, from ``--check``."""

    document: dict[str, Any] = field(default_factory=dict)

    def problem(self, engine: str, training: str) -> str | None:
        for offer in self.document.get("engines", ()):
            if (offer["engine"], offer["training"]) == (engine, training):
                return None if offer["works"] else str(offer["problem"])
        return f"the image does not offer engine {engine}"

    @property
    def bf16(self) -> bool:
        return bool(self.document.get("torch", {}).get("bf16"))


def all_cases(programs: Programs, report: Report) -> Iterator[Case]:
    """Yield the cases; those after the first two depend on what these find."""
    offers, size = _Offers(), "tiny" if programs.tiny else "1.5B"
    yield Case("check of the image", 150, partial(_check, programs, report, offers), required=True)
    yield Case("preparation", 150, partial(_prepare, programs), required=True)
    engines = list(dict.fromkeys(offer["engine"] for offer in offers.document.get("engines", ())))
    pairs = [(engine, training) for engine in engines for training in ALGORITHMS]
    for engine, training in pairs:
        if (problem := offers.problem(engine, training)) is not None:
            report.leave_out(Case(f"{engine} {training}, {size}", 0, _nothing), problem)
    working = [pair for pair in pairs if offers.problem(*pair) is None]
    for engine, training in working:
        yield Case(
            f"{engine} {training}, {size}", 150 if training == "osft" else 100,
            partial(_large, programs, offers, engine, training),
        )  # fmt: skip
    for engine, training in working:
        if training in ("sft", "osft", "lora"):
            yield Case(
                f"{engine} {training}, as on the CPU", 80,
                partial(_equal, programs, engine, training),
            )  # fmt: skip
    yield Case("SIGTERM in the middle", 80, partial(_interrupted, programs))
    yield Case(f"evaluation, {size}", 80, partial(_evaluate, programs))
    yield Case("evaluation, as on the CPU", 80, partial(_same_score, programs))


def _nothing(_seconds: float) -> Figures:
    raise AssertionError("a case that is left out does not run")


def _check(programs: Programs, report: Report, offers: _Offers, seconds: float) -> Figures:
    running = programs.python("-m", "finetune_stages.training", "--check", "--deep")
    ended = running.wait(seconds)
    text = running.log
    try:
        offers.document.update(json.loads(text[text.index("{\n") :]))
    except ValueError:
        raise CaseError(f"the check printed no document: {ended.tail}") from None
    report.machine = offers.document
    if ended.code != 0:
        raise CaseError(str(offers.document.get("gpuProblem") or "no engine can train"))
    return {
        "note": f"{sum(offer['works'] for offer in offers.document['engines'])} of {len(offers.document['engines'])} trainings offered"
    }


def _prepare(programs: Programs, seconds: float) -> Figures:
    end = time.monotonic() + seconds
    made = programs.folder / "made"
    large = [] if programs.tiny else ["--large"]
    _require(programs.python(str(Path(__file__).with_name("models.py")), str(made), *large).wait(seconds), "models.py")
    for name, length in (("tiny", TINY.max_seq_len), ("large", LARGE.max_seq_len)):
        stages = {
            "dataset": DatasetInputs(str(made / f"{name}.jsonl"), train_split=0.9), "model": ModelInputs(str(made / f"{name}-model")),
            "tokenization": TokenizationInputs(length),
        }  # fmt: skip
        for stage, inputs in stages.items():
            _require(programs.start(stage, inputs, name, "gpu").wait(end - time.monotonic()), stage)
        programs.share_run(name)
    return {}


def trained(base: TrainingInputs, engine: str, training: str) -> TrainingInputs:
    """Return the inputs of a training, with the values that its engine accepts."""
    inputs = replace(base, engine=engine, **ALGORITHMS[training])  # type: ignore[arg-type]
    return replace(inputs, osft=OsftInputs(0.25, (), "all")) if engine == HUB and training == "osft" else inputs


def _large(programs: Programs, offers: _Offers, engine: str, training: str, seconds: float) -> Figures:
    inputs = trained(LARGE_ON_CPU if programs.tiny else LARGE, engine, training)
    if inputs.algorithm == "lora":
        inputs = replace(inputs, learning_rate=10 * inputs.learning_rate)
    ended = programs.start("training", inputs, "large", "gpu").wait(seconds)
    result = _require(ended, "training").result
    assert result is not None
    base = Pretrained.open(programs.run_path("large", "gpu", "base_model"))
    return figures(result, weights_and_optimizer(base, inputs, offers.bf16))


def figures(result: Result, estimated: int) -> Figures:
    """Return the figures of a training; engine training-hub does not measure its memory.

    Args:
        result: the result of the stage.
        estimated: the program's own estimate of its GPU memory in bytes.

    Raises:
        CaseError: the loss did not fall.
    """
    losses = [point.loss for point in result.history]
    if not losses[-1] < losses[0]:
        raise CaseError(f"the loss did not fall: {losses[0]:.4f} to {losses[-1]:.4f}")
    peak = result.metrics.get("peak_memory_bytes")
    return {
        "loss": f"{losses[0]:.3f} to {losses[-1]:.3f}", "tokensPerSecond": result.metrics["tokens_per_second"],
        **({} if peak is None else {"peakBytes": peak, "estimatedBytes": estimated}),
        "trainSeconds": result.metrics["train_seconds"], "steps": result.metrics["steps"],
    }  # fmt: skip


def _equal(programs: Programs, engine: str, training: str, seconds: float) -> Figures:
    """Train on both devices at the same time and compare the losses; on the CPU there is engine portable only."""
    end = time.monotonic() + seconds
    both = [
        programs.start("training", trained(TINY, used, training), "tiny", device)
        for device, used in (("gpu", engine), ("cpu", PORTABLE))
    ]
    ended = [_require(running.wait(end - time.monotonic()), "training") for running in both]
    gpu, cpu = (one.result.history for one in ended if one.result is not None)
    worst, limit = (
        (largest_difference(gpu, cpu), TOLERANCE) if engine == PORTABLE else (_difference_of_ends(gpu, cpu), ENDS_TOLERANCE)
    )
    if worst > limit:
        raise CaseError(f"the losses differ by {worst:.1%} from those of the CPU; at most {limit:.0%} is expected")
    return {"loss": f"{gpu[0].loss:.3f} to {gpu[-1].loss:.3f}", "note": f"largest difference from the CPU {worst:.2%}"}


def _difference_of_ends(first: tuple[LossPoint, ...], second: tuple[LossPoint, ...]) -> float:
    """Return the larger relative difference of the first losses and of the last ones."""
    return max(abs(first[end].loss / second[end].loss - 1) for end in (0, -1))


def largest_difference(first: tuple[LossPoint, ...], second: tuple[LossPoint, ...]) -> float:
    """Return the largest relative difference between two loss curves.

    Raises:
        CaseError: they have other steps.
    """
    if [point.step for point in first] != [point.step for point in second]:
        raise CaseError(f"the trainings have {len(first)} and {len(second)} steps")
    return max(abs(one.loss - other.loss) / max(abs(other.loss), 1e-9) for one, other in zip(first, second, strict=True))


def _interrupted(programs: Programs, seconds: float) -> Figures:
    """Stop a training that has begun: it must end in time, as interrupted, and publish no model."""
    end = time.monotonic() + seconds
    model = programs.run_path("tiny", "gpu", "training/final_model")
    shutil.rmtree(model, ignore_errors=True)  # of an earlier case
    running = programs.start("training", replace(TINY, epochs=1000), "tiny", "gpu", FINETUNE_ATTEMPT="1.2")
    wait_for(running, _has_begun, end - time.monotonic())
    sent = time.monotonic()
    running.process.send_signal(signal.SIGTERM)
    ended = running.wait(min(STOP_SECONDS, end - time.monotonic()))
    took = time.monotonic() - sent
    reason = ended.result.reason if ended.result else None
    if (ended.code, reason) != (143, "Interrupted"):
        raise CaseError(f"it ended with exit code {ended.code} and reason {reason}: {ended.tail}")
    if model.exists():
        raise CaseError("it published a model, although it was stopped in the middle")
    return {"note": f"ended {took:.1f} s after SIGTERM"}


def _has_begun(log: str) -> bool:
    last = progress.last(log)
    return last is not None and (last.step or 0) >= 3


def _evaluate(programs: Programs, seconds: float) -> Figures:
    """Measure the held-out rows with the model that was trained last, or with the base model if there is none."""
    trained = (programs.run_path("large", "gpu", "training/final_model") / ".finetune.json").exists()
    started = time.monotonic()
    scores = _scores(programs, "final" if trained else "base", "large", "gpu", seconds)
    name = min(scores)
    return {"note": f"{name} {scores[name]:.4f}, {time.monotonic() - started:.0f} s with the start of the program"}


def _same_score(programs: Programs, seconds: float) -> Figures:
    """Measure the base model on both devices: the trained models are not the same file."""
    end = time.monotonic() + seconds
    ours, expected = (_scores(programs, "base", "tiny", device, end - time.monotonic()) for device in ("gpu", "cpu"))
    worst = max(abs(ours[name] - expected[name]) / max(abs(expected[name]), 1e-3) for name in expected)
    if worst > SCORE_TOLERANCE:
        raise CaseError(f"a score differs by {worst:.1%} from that of the CPU; at most {SCORE_TOLERANCE:.0%} is expected")
    return {"note": f"largest difference from the CPU {worst:.2%}"}


def _scores(programs: Programs, subject: Literal["final", "base"], model: str, device: str, seconds: float) -> dict[str, float]:
    stage = "evaluation" if subject == "final" else "baseline"
    running = programs.start(stage, EvaluationInputs(subject, log_samples=False), model, device, program="evaluation")
    result = _require(running.wait(seconds), stage).result
    assert result is not None
    return {name: value for name, value in result.metrics.items() if "." in name and not name.endswith("_stderr")}


def _require(ended: Ended, program: str) -> Ended:
    if ended.code != 0:
        why = f"{ended.result.reason}: {ended.result.message}" if ended.result else ended.tail
        raise CaseError(f"{program} ended with exit code {ended.code}: {why}")
    return ended

"""Values that Training Hub's backends ignore or misread."""

from __future__ import annotations

import re
from collections.abc import Iterator

from finetune_contract.documents import OsftInputs, TrainingInputs
from finetune_stages.training.limits import LIGER, Limit

from .arguments import MEMORY_EFFICIENT_INIT
from .installed import Installed

_SEPARATORS = re.compile(r"[,'\"\s]")
"""Characters at which mini-trainer's command line splits patterns, or which it drops."""
_LONGEST = 100
"""Characters of a value in a message."""


def hub_limits(inputs: TrainingInputs, installed: Installed) -> Iterator[Limit]:
    """Yield the values that the algorithm's backend cannot honor."""
    if inputs.micro_batch_size is not None:
        reason = "its backends fill each micro-batch up to training.maxTokensPerGPU"
        yield Limit("training.microBatchSize", str(inputs.micro_batch_size), reason)
    if not inputs.gradient_checkpointing:
        yield Limit("training.gradientCheckpointing", "false", "its backends always recompute activations")
    if inputs.trust_remote_code and not installed.accepts("trust_remote_code"):
        yield Limit("model.trustRemoteCode", "true", "the installed backend runs no code of a model")
    yield from _sft(inputs) if inputs.algorithm == "sft" else _osft(inputs, installed)


def _sft(inputs: TrainingInputs) -> Iterator[Limit]:
    if inputs.scheduler != "cosine":
        yield Limit("training.scheduler", inputs.scheduler, "instructlab-training always uses cosine")
    if inputs.scheduler_args:
        yield Limit("training.schedulerArgs", str(dict(inputs.scheduler_args)), "instructlab-training takes none")
    if inputs.liger:
        reason = "instructlab-training checks that Liger is installed and does not use it"
        yield Limit(LIGER, "true", reason, only_speed=True)


def _osft(inputs: TrainingInputs, installed: Installed) -> Iterator[Limit]:
    osft = inputs.osft or OsftInputs()
    if inputs.liger and "liger-kernel" not in installed.versions:
        yield Limit(LIGER, "true", "the package liger-kernel is not installed", only_speed=True)
    if osft.unfreeze_rank_ratio == 1:
        yield Limit("training.osft.unfreezeRankRatio", "1", "mini-trainer takes it for 0.5")
    if osft.unfreeze_rank_ratio == 0:
        yield Limit("training.osft.unfreezeRankRatio", "0", "mini-trainer trains one direction of each weight")
    if osft.trainable == "targets":
        yield Limit("training.osft.trainable", "targets", "mini-trainer trains embeddings, output layer and norms as well")
    if any(_SEPARATORS.search(pattern) for pattern in osft.target_patterns):
        yield Limit(
            "training.osft.targetPatterns",
            ", ".join(osft.target_patterns)[:_LONGEST],
            "mini-trainer splits them at commas and blanks",
        )
    if not osft.memory_efficient_init and not installed.accepts(MEMORY_EFFICIENT_INIT):
        yield Limit("training.osft.memoryEfficientInit", "false", "the installed mini-trainer always saves memory")

"""Values of the document that must be consistent with each other and with the number of processes, whatever the engine is."""

from __future__ import annotations

from finetune_contract import reasons
from finetune_contract.documents import LoraInputs, OsftInputs, TrainingInputs
from finetune_stages.sdk import StageError

from .memory import rows_of_a_process
from .processes import Processes


def require_consistent(inputs: TrainingInputs, processes: Processes) -> None:
    """Check the values.

    Raises:
        StageError: ``BadTrainingValue``.
    """
    if inputs.max_tokens_per_gpu < inputs.max_seq_len:
        raise StageError(
            reasons.BAD_TRAINING_VALUE,
            f"training.maxTokensPerGPU: {inputs.max_tokens_per_gpu} is less than training.maxSeqLen {inputs.max_seq_len}, so the longest"
            " rows do not fit; raise it, or lower training.maxSeqLen.",
        )
    osft, lora = inputs.osft or OsftInputs(), inputs.lora or LoraInputs()
    if inputs.algorithm == "osft" and osft.unfreeze_rank_ratio == 0 and osft.trainable == "targets":
        raise StageError(
            reasons.BAD_TRAINING_VALUE,
            "training.osft.unfreezeRankRatio: 0 with training.osft.trainable: targets trains no weight; raise it, or set trainable to all.",
        )
    if inputs.algorithm == "osft":
        _require(0 <= osft.unfreeze_rank_ratio <= 1, "osft.unfreezeRankRatio", osft.unfreeze_rank_ratio, "from 0 to 1")
    if inputs.algorithm == "lora":
        _require(lora.rank >= 1, "lora.rank", lora.rank, "at least 1")
        _require(lora.alpha >= 1, "lora.alpha", lora.alpha, "at least 1")
        _require(0 <= lora.dropout < 1, "lora.dropout", lora.dropout, "from 0 to below 1")
    rows_of_a_process(inputs, processes.world)


def _require(valid: bool, field: str, value: float, expected: str) -> None:
    if not valid:
        raise StageError(reasons.BAD_TRAINING_VALUE, f"training.{field}: {value:g} is out of range; set a value {expected}.")

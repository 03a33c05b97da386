"""Arguments of Training Hub's functions for a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finetune_contract.documents import OsftInputs, TrainingInputs
from finetune_stages.training.processes import Processes
from finetune_stages.training.targets import DEFAULT_PATTERNS

from .installed import Installed

Arguments = dict[str, Any]
ROWS = "data.jsonl"
"""File of the tokenized rows; the name that instructlab-training expects."""
MODELS = "hf_format"
"""Folder of the backends' models in their output folder."""


def arguments(
    inputs: TrainingInputs, processes: Processes, model: Path, folder: Path, installed: Installed, *, flash_attention: bool
) -> Arguments:
    """Return the arguments.

    Args:
        inputs: the stage's inputs.
        processes: of the training; their addresses are passed on by the ``PET_*`` variables, which Training Hub reads.
        model: the base model.
        folder: a folder of this pod alone, with the rows; the backend writes into it.
        installed: what the installed version accepts.
        flash_attention: whether flash-attn is installed and supports the GPU.
    """
    common: Arguments = {
        "model_path": str(model), "data_path": str(folder / ROWS), "data_output_dir": str(folder), "ckpt_output_dir": str(output(folder)),
        "num_epochs": inputs.epochs, "effective_batch_size": inputs.effective_batch_size, "learning_rate": float(inputs.learning_rate),
        "max_seq_len": inputs.max_seq_len, "max_tokens_per_gpu": inputs.max_tokens_per_gpu, "warmup_steps": inputs.warmup_steps,
        # Without a number, one process is started, whatever the GPUs are.
        "nproc_per_node": processes.per_node, "nnodes": processes.nodes, "node_rank": processes.node_rank,
    }  # fmt: skip
    if inputs.trust_remote_code:
        common["trust_remote_code"] = True
    chosen = _sft(inputs, flash_attention=flash_attention) if inputs.algorithm == "sft" else _osft(inputs, installed)
    return {**common, **chosen}


def output(folder: Path) -> Path:
    """Return the backend's output folder in the pod's folder."""
    return folder / "output"


def _sft(inputs: TrainingInputs, *, flash_attention: bool) -> Arguments:
    return {
        "process_data": False,  # the rows are tokens already
        "data_process_num_cpu_procs": 1,
        "random_seed": inputs.seed,  # seed is not a setting, and would be ignored
        "fsdp_options": {"sharding_strategy": inputs.sharding},
        "disable_flash_attn": not flash_attention,
        "checkpoint_at_epoch": True,  # the only model that it writes
        "accelerate_full_state_at_epoch": False,  # 12 bytes a parameter, which only a continued training reads
        "save_samples": 0,
    }


def _osft(inputs: TrainingInputs, installed: Installed) -> Arguments:
    osft = inputs.osft or OsftInputs()
    chosen: Arguments = {
        "use_processed_dataset": True,  # the rows are tokens already
        "unfreeze_rank_ratio": float(osft.unfreeze_rank_ratio),
        # Without patterns, mini-trainer guesses them from the model's path.
        "target_patterns": list(osft.target_patterns or DEFAULT_PATTERNS),
        "seed": inputs.seed, "use_liger": inputs.liger,
        "lr_scheduler": inputs.scheduler, "lr_scheduler_kwargs": dict(inputs.scheduler_args),
        "checkpoint_at_epoch": inputs.checkpoints.per_epoch, "save_final_checkpoint": True,
    }  # fmt: skip
    if installed.accepts(MEMORY_EFFICIENT_INIT):
        chosen[MEMORY_EFFICIENT_INIT] = osft.memory_efficient_init
    return chosen


MEMORY_EFFICIENT_INIT = "osft_memory_efficient_init"
"""A setting that newer versions of mini-trainer do not have: they always save memory."""

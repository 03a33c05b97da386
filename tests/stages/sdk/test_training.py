"""Reuse of a real training by another run: model, adapter and checkpoints."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from finetune_contract.documents import CheckpointInputs, LoraInputs, RunInfo, TrainingInputs
from finetune_stages.sdk import verify_seal
from rendering import Tokenization, skill_rows

INPUTS = TrainingInputs(
    "lora", "portable", 1, 16, 4096, 256, 1e-2, lora=LoraInputs(rank=4, alpha=8), checkpoints=CheckpointInputs(per_epoch=True)
)


def prepare(programs: Any, letter: str, model: Path) -> Path:
    """Another run of the workspace, with what the stages before left for it."""
    programs.run = RunInfo(f"run-{letter}", "team-a", letter * 16)
    folder: Path = programs.path(programs.layout.folder("training"))
    stage = Tokenization(programs.workspace, programs.run)
    stage.write(skill_rows("signature")[:20])
    stage.link_model(model)
    stage(max_seq_len=256)
    return folder


def test_a_trained_model_is_reused_and_a_flipped_byte_trains_again(run_stage_program: Any, tiny_model: Path) -> None:
    first_folder = prepare(run_stage_program, "a", tiny_model)
    first = run_stage_program("training", INPUTS)
    assert (first.code, first.result.reused) == (0, False), first.errors
    folder = prepare(run_stage_program, "b", tiny_model)
    second = run_stage_program("training", INPUTS)
    assert (second.code, second.result.reused) == (0, True), second.errors
    assert second.result.message == f"the same as run run-a: {first.result.message}"
    assert (second.result.outputs, second.result.history) == (first.result.outputs, first.result.history)
    assert {**second.result.metrics, "seconds": 0} == {**first.result.metrics, "seconds": 0}
    assert "loading" not in second.output
    for name in ("final_model", "adapter", "checkpoints/epoch_1"):
        seal = verify_seal(folder / name)
        assert seal is not None
        assert seal == verify_seal(first_folder / name)
    weights = folder / "final_model/model.safetensors"
    assert weights.samefile(first_folder / "final_model/model.safetensors")
    with weights.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    prepare(run_stage_program, "c", tiny_model)
    running = run_stage_program.start("training", INPUTS)
    seen = []
    for line in running.process.stdout:
        seen.append(line)
        if "loading PyTorch" in line:
            os.kill(running.process.pid, signal.SIGKILL)
            break
    running.wait()
    assert "run run-a has a result for the same inputs, but its final_model is gone or damaged" in "".join(seen)

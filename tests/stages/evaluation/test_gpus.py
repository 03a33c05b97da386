"""The evaluation program with GPUs: it measures on those that the pod requests, or fails."""

from __future__ import annotations

from finetune_contract.documents import EvaluationInputs
from nvidia_driver import machine_with_gpus

from .conftest import prepare


def test_gpus_that_cannot_be_used_are_no_reason_to_measure_on_cpus(run_stage_program, tiny_model, tmp_path):
    prepare(run_stage_program.workspace, run_stage_program.layout.root, tiny_model)
    environment = {"FINETUNE_GPUS": "1", **machine_with_gpus(tmp_path, init=802)}
    ended = run_stage_program("evaluation", EvaluationInputs("final"), environment=environment)
    assert (ended.code, ended.reason) == (75, "GPUUnusable")
    assert (
        "evaluation.gpus: the pod requests 1 GPU, and the NVIDIA driver cannot be initialized (CUDA_ERROR_SYSTEM_NOT_READY)"
        in (ended.result.message)
    )

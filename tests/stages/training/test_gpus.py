"""The training program with GPUs: fewer than requested end it before a model is read, and CPUs never replace them."""

from __future__ import annotations

import pytest

from nvidia_driver import machine_with_gpus


@pytest.mark.parametrize("processes", [1, 2])
def test_fewer_gpus_than_requested_end_the_program_before_a_model_is_read(bench, inputs, tmp_path, processes):
    bench.run_path("base_model").unlink()
    environment = {"FINETUNE_GPUS": "2", "PET_NPROC_PER_NODE": str(processes), **machine_with_gpus(tmp_path)}
    ended = bench.train(inputs(), environment=environment)
    assert (ended.code, ended.reason) == (75, "GPUUnusable")
    assert (
        "training.gpusPerWorker: the pod requests 2 GPUs, and the driver has 1 (driver 590.44.01 supports CUDA 13.2"
        in ended.errors
    )
    assert "Traceback" not in ended.errors


def test_an_old_driver_is_no_reason_to_train_on_cpus(bench, inputs, tmp_path):
    environment = {"FINETUNE_GPUS": "1", **machine_with_gpus(tmp_path, cuda=12080, release="570.86.15")}
    ended = bench.train(inputs(), environment=environment)
    assert (ended.code, ended.reason) == (75, "GPUUnusable")
    assert (
        "PyTorch needs a driver for CUDA 13, which is 580 or newer (driver 570.86.15 supports CUDA 12.8" in ended.result.message
    )


def test_more_processes_than_gpus_are_rejected(bench, inputs, tmp_path):
    environment = {"FINETUNE_GPUS": "1", "PET_NPROC_PER_NODE": "2", **machine_with_gpus(tmp_path)}
    ended = bench.train(inputs(), environment=environment)
    assert (ended.code, ended.reason) == (65, "BadTrainingValue")
    assert "training.processesPerWorker: 2 processes cannot share 1 GPU;" in ended.result.message


def test_a_pod_without_gpus_trains_on_cpus_whatever_it_sees(bench, inputs, tmp_path):
    seen = machine_with_gpus(tmp_path)["LD_LIBRARY_PATH"]
    ended = bench.train(inputs(), environment={"FINETUNE_GPUS": "0", "LD_LIBRARY_PATH": seen})
    assert ended.code == 0, ended.errors
    assert ended.result.outputs["samplesSeen"] == 100

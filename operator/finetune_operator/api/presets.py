"""The presets: what every value is where nobody says otherwise. They are the full OpenShift AI pipelines, one an algorithm.

The numbers are those of the pipelines' parameters; where ours differ, the line says so. The CRD has no ``default:`` (GitOps
would see a difference); its descriptions are completed from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .training import Algorithm

DEFAULT_ALGORITHM: Algorithm = "osft"

_COMMON: dict[str, Any] = {
    "dataset": {
        "format": "auto",
        "subset": 0,
        "subsetMode": "random",
        "trainSplit": 0.9,
        "splitBy": "random",
        "badRows": {"policy": "Fail"},
        "seed": 42,
    },
    "model": {"uri": "Qwen/Qwen2.5-1.5B-Instruct", "trustRemoteCode": False},
    "training": {
        "enabled": True,
        "effectiveBatchSize": 128,
        "maxSeqLen": 8192,
        "warmupSteps": 0,
        "scheduler": "cosine",
        "seed": 42,
        "unmask": False,
        "gradientCheckpointing": True,  # hard-wired in Training Hub's backends
        "engine": "auto",
        "runtimeRef": "training-hub",
        "workers": 1,
        "gpusPerWorker": 1,
        "checkpoints": {"fullState": False, "final": True, "resume": False},
        "sharedMemory": "8Gi",  # the pipelines mount none, which is why they advise one GPU a worker
    },
    "evaluation": {
        "enabled": True,
        "tasks": ["arc_easy"],
        "holdout": True,
        "baseline": False,
        "backend": "auto",
        "logSamples": True,
        "verbosity": "INFO",
        "onFailure": "Fail",
    },
    "registry": {
        "port": 8080,
        "version": "1.0.0",
        "onExisting": "NewVersion",  # the pipelines report success and register nothing
        "author": "pipeline",
        "format": "pytorch",
        "formatVersion": "1.0",
    },
    # The pipelines' literal class nfs-csi is on few clusters: ours is the cluster's default class.
    "storage": {"size": "50Gi", "accessModes": ["ReadWriteMany"]},
    "retry": {"transient": 3, "crash": 1, "lost": 3, "outOfMemory": "Fail"},
    "cleanup": {"ttlAfterFinished": "24h", "volume": "Retain", "checkpoints": "Keep", "pods": "Keep"},
    "suspend": False,
}

_BY_ALGORITHM: dict[Algorithm, dict[str, Any]] = {
    "sft": {
        "training": {
            "algorithm": "sft",
            "epochs": 1,
            "maxTokensPerGPU": 10000,
            "learningRate": 5e-6,
            "liger": False,
            "workers": 4,
            "resources": {"cpu": "4", "memory": "64Gi"},
            "sft": {"sharding": "FULL_SHARD"},
            "checkpoints": {"perEpoch": True, "everySamples": 0},
            "env": [
                {"name": "PYTORCH_CUDA_ALLOC_CONF", "value": "expandable_segments:True"},
                {"name": "NCCL_DEBUG", "value": "INFO"},
                {"name": "INSTRUCTLAB_NCCL_TIMEOUT_MS", "value": "600000"},
            ],
        },
        "registry": {"name": "sft-model"},
    },
    "osft": {
        "training": {
            "algorithm": "osft",
            "epochs": 1,
            "maxTokensPerGPU": 64000,
            "learningRate": 5e-6,
            "liger": True,
            "resources": {"cpu": "8", "memory": "32Gi"},
            "osft": {"unfreezeRankRatio": 0.25, "targetPatterns": [], "memoryEfficientInit": True, "trainable": "all"},
            "checkpoints": {"perEpoch": False},
        },
        "registry": {"name": "osft-model"},
    },
    "lora": {
        "training": {
            "algorithm": "lora",
            "epochs": 2,
            "maxTokensPerGPU": 32000,
            "learningRate": 2e-4,
            "liger": False,  # true there, and ignored by the backend
            "resources": {"cpu": "4", "memory": "32Gi"},
            "lora": {
                "rank": 16, "alpha": 32, "dropout": 0.0, "targetModules": [], "rslora": False, "dora": False,
                "quantization": "4bit", "packing": False,
            },
            "checkpoints": {"perEpoch": False},
        },
        "registry": {"name": "lora-model"},
    },
}  # fmt: skip


def preset(algorithm: Algorithm) -> dict[str, Any]:
    """Every default of a run of ``algorithm``, as a new document in the shape of ``spec``."""
    return overlay(_COMMON, _BY_ALGORITHM[algorithm])


def overlay(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the values of ``over`` on top: objects are merged field by field, everything else is replaced."""
    merged = {key: overlay(value, {}) if isinstance(value, Mapping) else value for key, value in base.items()}
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping):
            merged[key] = overlay(below if isinstance(below, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged

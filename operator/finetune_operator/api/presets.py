"""The presets: default values of every field, one preset per algorithm. They are those of the full OpenShift AI pipelines.

A comment marks each value that differs from the pipelines. The CRD has no ``default:``, because GitOps tools would show a difference;
the defaults are appended to its descriptions instead.
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
        "nearDuplicates": "Ignore",
        "sampleInStatus": True,  # the pipelines show no rows
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
        "sharedMemory": "8Gi",  # the pipelines mount none and therefore recommend one GPU per worker
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
        "onExisting": "NewVersion",  # the pipelines report success without registering anything
        "author": "pipeline",
        "format": "pytorch",
        "formatVersion": "1.0",
    },
    # The pipelines use the class nfs-csi, which few clusters have; here it is the default class of the cluster.
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
            "liger": False,  # true in the pipelines, whose backend ignores it
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
    """Return all defaults of ``algorithm`` as a new document with the structure of ``spec``."""
    return overlay(_COMMON, _BY_ALGORITHM[algorithm])


def overlay(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` overlaid with ``over``: objects are merged field by field, all other values are replaced."""
    merged = {key: overlay(value, {}) if isinstance(value, Mapping) else value for key, value in base.items()}
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping):
            merged[key] = overlay(below if isinstance(below, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged

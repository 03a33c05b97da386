"""What a training takes, estimated before it starts: steps, tokens and memory."""

from __future__ import annotations

from .paths import Json
from .resolved_spec import Training

_TRAINED = 16
"""Bytes of a trained parameter in 32 bits: its value, its gradient, and two moments of Adam."""
_FULL, _HALF = 4, 2
"""Bytes of a frozen parameter in 32 and in 16 bits."""
_FACTOR = 20
"""Bytes of a parameter of the factors that OSFT trains: trained, and its initial value."""
_QUANTIZED = {"8bit": 1.0, "4bit": 0.5}


def estimate(training: Training, rows: int, tokens: int, parameters: int | None) -> Json:
    """Return ``status.estimate`` of a training on ``rows`` rows with ``tokens`` tokens, of a model with ``parameters`` parameters."""
    steps = -(-rows // training.effective_batch_size)
    found = {"stepsPerEpoch": steps, "steps": steps * training.epochs, "tokens": tokens * training.epochs}
    return found if parameters is None else {**found, "memoryBytes": memory_bytes(training, parameters)}


def memory_bytes(training: Training, parameters: int) -> int:
    """Return the bytes of weights, gradients and optimizer of one process without sharding.

    For OSFT it is an upper bound: a matrix of m x n has ``ratio * min(m, n)`` free directions, whose factors have at most twice
    ``ratio`` of its parameters. LoRA adapters are not counted: with usual ranks they are below 2 percent.
    """
    if training.osft is not None:
        others = _TRAINED if training.osft.trainable == "all" else _FULL
        return int(parameters * max(others, _FULL + 2 * training.osft.unfreeze_rank_ratio * _FACTOR))
    if training.lora is not None:
        whole = _HALF if training.gpus_per_worker else _FULL
        return int(parameters * _QUANTIZED.get(training.lora.quantization, whole))
    return parameters * _TRAINED

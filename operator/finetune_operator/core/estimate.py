"""What a training takes, estimated before it starts: steps, tokens, memory, floating-point operations and time of GPUs."""

from __future__ import annotations

import math

from .paths import Json
from .resolved_spec import Training

_TRAINED = 16
"""Bytes of a trained parameter in 32 bits: its value, its gradient, and two moments of Adam."""
_FULL, _HALF = 4, 2
"""Bytes of a frozen parameter in 32 and in 16 bits."""
_FACTOR = 20
"""Bytes of a parameter of the factors that OSFT trains: trained, and its initial value."""
_QUANTIZED = {"8bit": 1.0, "4bit": 0.5}
_TERA = 10**12
_PEAKS = {"H100": 989, "A100": 312, "L40S": 362}
"""Peak of GPUs in teraFLOP per second: dense products of matrices in bfloat16, of the SXM modules, as NVIDIA's data sheets state it."""
_UTILIZATION = 40
"""Percent of the peak that a training reaches. PaLM reached 46 with attention (arXiv 2204.02311, table 3); short rows reach less."""


def estimate(training: Training, rows: int, tokens: int, attention: int, parameters: int | None) -> Json:
    """Return ``status.estimate`` of a training on ``rows`` rows with ``tokens`` tokens, of a model with ``parameters`` parameters.

    For ``attention``, see :class:`finetune_contract.result.TokenizationOutputs`.
    """
    steps = -(-rows // training.effective_batch_size)
    found: Json = {"stepsPerEpoch": steps, "steps": steps * training.epochs, "tokens": tokens * training.epochs}
    if parameters is None:
        return found
    operations = floating_point_operations(training, tokens, attention, parameters)
    found |= {"memoryBytes": memory_bytes(training, parameters), "computeTeraflop": -(-operations // _TERA)}
    return {**found, "gpuTime": gpu_time(operations)} if training.gpus_per_worker else found


def floating_point_operations(training: Training, tokens: int, attention: int, parameters: int) -> int:
    """Return the floating-point operations of all epochs.

    A forward pass takes two per parameter and token, a multiplication and an addition, and as many for the gradients of the activations,
    and as many for those of the weights (arXiv 2001.08361, table 1 and section 2.1). LoRA has no gradients of weights, except of its
    adapters, which are not counted. OSFT has those of all weights; the products of its factors are not counted. Attention to earlier
    tokens has no weights: per layer and row it takes two per dimension and squared token, and the backward pass takes twice the forward
    pass. With gradient checkpointing, a second forward pass precedes the backward pass.
    """
    recomputation = 1 if training.gradient_checkpointing else 0
    passes = (2 if training.lora is not None else 3) + recomputation
    return training.epochs * 2 * (passes * parameters * tokens + (3 + recomputation) * attention)


def gpu_time(operations: int) -> str:
    """Return the time that GPUs take for floating-point operations, summed over the GPUs, as text."""
    hours = {name: operations / (peak * _TERA * _UTILIZATION / 100) / 3600 for name, peak in _PEAKS.items()}
    first, *others = hours
    if hours[first] < 1:
        unit, shown = "minute", {name: f"{math.ceil(60 * value):,}" for name, value in hours.items()}
    else:
        unit, shown = "hour", {name: f"{value:,.{0 if value >= 10 else 1}f}" for name, value in hours.items()}
    plural = "" if shown[first] == "1" else "s"
    listed = "".join(f", {shown[name]} on {name}" for name in others)
    return f"about {shown[first]} GPU {unit}{plural} on {first}{listed}, at {_UTILIZATION} % of the peak"


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

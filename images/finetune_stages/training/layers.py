"""Linear layers that an algorithm replaces, and the conversion back to the weights of an ordinary model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

from finetune_contract import reasons
from finetune_stages.sdk import StageError

from .targets import is_target, require_matches

_ENTRY = re.compile(r"(.+?)\.(base_layer|factors|lora_\w+)\.(.+)")
"""Name of a state entry of a layer of OSFT or of PEFT: the layer, and its part."""

Layer = TypeVar("Layer")


def linear_layers(model: Any) -> dict[str, nn.Linear]:
    """Return all linear layers by name, including the output layer."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}


def target_layers(model: Any, patterns: Sequence[str], field: str) -> dict[str, nn.Linear]:
    """Return the linear layers whose weight names contain one of the patterns; ``field`` is the field with the patterns.

    Raises:
        StageError: ``NoMatchingWeights``: a pattern matches nothing. ``BadTrainingValue``: one matches the output layer.
    """
    linear = linear_layers(model)
    head = model.get_output_embeddings()
    require_matches((f"{name}.weight" for name in linear), patterns, field)
    targets = {name: layer for name, layer in linear.items() if is_target(f"{name}.weight", patterns)}
    name = next((name for name, layer in targets.items() if layer is head), None)
    if name is not None:
        raise StageError(
            reasons.BAD_TRAINING_VALUE,
            f"{field}: {list(patterns)} match {name}.weight, the output layer, which cannot be replaced; use other names.",
        )
    return targets


def plain_state(model: Any, layers: Mapping[str, Layer], merged: Callable[[Layer], Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield the model's state with the names and shapes that it had before ``layers`` replaced linear layers.

    ``merged`` returns the weight of such a layer as one matrix and is called lazily.
    """
    for name, tensor in model.state_dict().items():
        entry = _ENTRY.fullmatch(name)
        if entry is None or entry[1] not in layers:
            yield name, tensor
        elif entry[2] == "base_layer":
            yield f"{entry[1]}.{entry[3]}", merged(layers[entry[1]]) if entry[3] == "weight" else tensor

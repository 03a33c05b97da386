"""LoRA (arXiv 2106.09685): the weights are frozen, and two low-rank matrices beside some of them are trained.

PEFT implements the layers, rank-stabilized scaling (arXiv 2312.03732), DoRA (arXiv 2402.09353) and the adapter's files. This module adds
the selection of weights by parts of their names, and a merge that does not change the model in training and computes in 32 bits, so
that it rounds once.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor

from finetune_contract.documents import LoraInputs

from .layers import linear_layers, plain_state, target_layers
from .targets import ALL_LINEAR, is_target
from .tuning import Origin

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_NAME = "default"
_FIELD = "training.lora.targetModules"


@dataclass(frozen=True)
class Adapter:
    """A model with LoRA layers."""

    model: Any  # PeftModel

    @property
    def plain(self) -> Any:
        """The model inside PEFT's wrapper; its layers are LoRA's."""
        return self.model.get_base_model()

    @property
    def layers(self) -> dict[str, Any]:
        """LoRA's layers by the names of the layers that they replaced."""
        return {name: layer for name, layer in self.plain.named_modules() if isinstance(layer, LoraLayer)}

    def after_step(self) -> None:
        """Do nothing."""

    def plain_state(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the state of an ordinary model, with the adapters merged into the weights."""
        return plain_state(self.plain, self.layers, merged_weight)

    def metrics(self) -> dict[str, float]:
        """Return no additional metrics."""
        return {}

    def parameters(self) -> list[Tensor]:
        """Return the trained parameters."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def save_adapter(self, folder: Path, origin: Origin) -> bool:
        """Write the adapter in PEFT's format, with equal bytes for equal numbers.

        PEFT's own method writes the path of a temporary folder as the base model's name, and lists in random order.
        """
        folder.mkdir(parents=True, exist_ok=True)
        config = self.model.peft_config[_NAME].to_dict() | {
            "inference_mode": True, "base_model_name_or_path": origin.model, "revision": origin.revision,
        }  # fmt: skip
        config = {name: sorted(value) if isinstance(value, set) else value for name, value in config.items()}
        (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        state = get_peft_model_state_dict(self.model, adapter_name=_NAME, save_embedding_layers=False)
        save_file({name: tensor.to("cpu").contiguous() for name, tensor in state.items()}, folder / WEIGHTS, {"format": "pt"})
        for path in folder.iterdir():  # safetensors writes files that only their owner can read
            path.chmod(0o664)
        return True


def prepare(model: Any, inputs: LoraInputs, seed: int) -> Adapter:
    """Freeze ``model`` and add adapters in place; the seed determines their initial values.

    Raises:
        StageError: ``NoMatchingWeights``: a pattern matches no linear layer. ``BadTrainingValue``: one matches the output layer.
    """
    targets = _targets(model, inputs.target_modules)
    config = LoraConfig(
        r=inputs.rank, lora_alpha=inputs.alpha, lora_dropout=inputs.dropout, target_modules=_shortest_names(model, targets),
        use_rslora=inputs.rslora, use_dora=inputs.dora, bias="none", task_type="CAUSAL_LM",
    )  # fmt: skip
    torch.manual_seed(seed)
    with _quiet():
        return Adapter(get_peft_model(model, config))


def attach(model: Any, folder: Path) -> Adapter:
    """Add a saved adapter to a model in place and return it."""
    with _quiet():
        return Adapter(PeftModel.from_pretrained(model, folder))


def merged_weight(layer: Any) -> Tensor:
    """Return the weight of an equivalent ordinary layer in 32 bits; the layer is not changed."""
    base = layer.get_base_layer()
    weight = base.weight.data
    with torch.no_grad():
        base.weight.data = weight.float()
        try:
            layer.merge(safe_merge=True)  # into a copy that replaces the weight
            merged: Tensor = base.weight.data
        finally:
            base.weight.data = weight
            layer.merged_adapters.clear()
    return merged


def _targets(model: Any, patterns: tuple[str, ...]) -> list[str]:
    """Return the names of the layers that get an adapter.

    The default is the projections of Llama-like models; a model without them gets adapters in all linear layers, as with PEFT's
    ``all-linear``.
    """
    linear = linear_layers(model)
    head = model.get_output_embeddings()
    inner = [name for name, layer in linear.items() if layer is not head]
    usual = any(is_target(f"{name}.weight") for name in inner)
    if inner and (patterns == (ALL_LINEAR,) or not (patterns or usual)):
        return inner
    return list(target_layers(model, patterns, _FIELD))


def _shortest_names(model: Any, names: list[str]) -> list[str]:
    """Return the last parts of the names if they are unambiguous, which is the common form and required by adapter servers."""
    endings = {name.rpartition(".")[2] for name in names}
    ending_so = {name for name, _ in model.named_modules() if name.rpartition(".")[2] in endings}
    return sorted(endings if ending_so == set(names) else names)


@contextmanager
def _quiet() -> Iterator[None]:
    """Ignore a warning: PEFT reads an attribute that transformers has renamed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield

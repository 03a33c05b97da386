"""OSFT, orthogonal subspace fine-tuning (arXiv 2504.07097): only the lowest singular directions of a weight are trained.

Each weight is decomposed once, W = U S V. Its ``k`` largest directions are frozen; U, S and V of the others are trained and kept
orthogonal to the frozen ones by projecting the gradients before the optimizer's step and the factors after it, because Adam scales each
number separately and so leaves the subspace. PEFT's OSF tuner implements decomposition, factors and gradient hooks; this module adds the
second projection, weights that are completely frozen or trained, and the exact selection of weights.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from peft.tuners.osf import OSFConfig, OSFModel
from peft.tuners.osf.layer import Linear as OSFLinear
from torch import Tensor, nn
from torch.nn import functional

from finetune_contract import reasons
from finetune_contract.documents import OsftInputs
from finetune_stages.sdk import StageError

from .layers import plain_state, target_layers
from .tuning import Origin

_ADAPTER = "default"

OnProgress = Callable[[int, int], object]
"""Progress callback: number of decomposed weights, and total."""


def frozen_directions(shape: tuple[int, ...], unfreeze_rank_ratio: float) -> int:
    """Return the number of frozen directions: floor(min(N, M) * (1 - ratio)), with the ratio as a decimal number."""
    return math.floor(min(shape) * (1 - Fraction(str(unfreeze_rank_ratio))))


class SubspaceLinear(OSFLinear):  # type: ignore[misc]
    """A linear layer whose weight changes only in the subspace of its smallest singular directions.

    PEFT computes ``W x`` and its change separately. Adding the change to the weight first takes about a third of the operations if a
    batch has more tokens than the subspace has directions, which is typical.
    """

    def forward(self, x: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        """Map ``x`` of shape (..., in) to (..., out)."""
        base = self.get_base_layer()
        return functional.linear(x, base.weight + self.get_delta_weight(_ADAPTER), base.bias)

    @property
    def merged_weight(self) -> Tensor:
        """Return the weight of an ordinary layer, (out, in)."""
        with torch.no_grad():
            weight: Tensor = self.get_base_layer().weight + self.get_delta_weight(_ADAPTER)
            return weight

    def project(self) -> None:
        """Project the factors into the subspace, in place."""
        factors = self.osf_svd_params[_ADAPTER]
        with torch.no_grad():
            factors["U_low"].copy_(self._left(factors["U_low"]))
            factors["V_low"].copy_(self._right(factors["V_low"]))

    def leak(self) -> float:
        """Return how much of the weight's change D is in the frozen directions: the larger of |Uh^T D| / |D| and |D Vh^T| / |D|."""
        with torch.no_grad():
            change = self.get_delta_weight(_ADAPTER)
            outside = max(float((change - part).norm()) for part in (self._left(change), self._right(change)))
            size = float(change.norm())
        return outside / size if size else 0.0

    def _left(self, matrix: Tensor) -> Tensor:
        """Return the part of (out, ·) that is orthogonal to the frozen left directions.

        PEFT stores those only if U is not square; otherwise they are the complement of the trained ones.
        """
        if _ADAPTER in self._osf_U_high:
            frozen = self._osf_U_high[_ADAPTER]
            return matrix - frozen @ (frozen.T @ matrix)
        free = self._osf_U_low_init[_ADAPTER]
        return free @ (free.T @ matrix)

    def _right(self, matrix: Tensor) -> Tensor:
        """Return the part of (·, in) that is orthogonal to the frozen right directions."""
        if _ADAPTER in self._osf_V_high:
            frozen = self._osf_V_high[_ADAPTER]
            return matrix - (matrix @ frozen.T) @ frozen
        free = self._osf_V_low_init[_ADAPTER]
        return (matrix @ free.T) @ free


class _SubspaceModel(OSFModel):  # type: ignore[misc]
    """PEFT's tuner with a number of frozen directions per weight."""

    def __init__(self, model: nn.Module, frozen: dict[str, int], on_progress: OnProgress) -> None:
        self._frozen, self._on_progress = frozen, on_progress
        names = "|".join(map(re.escape, frozen))
        super().__init__(model, OSFConfig(target_modules=f"(?:{names})"), _ADAPTER)

    def _create_and_replace(
        self, osf_config: OSFConfig, adapter_name: str, target: nn.Module, target_name: str, parent: nn.Module, *,
        current_key: str, **_options: Any,
    ) -> None:  # fmt: skip
        layer = SubspaceLinear(target, adapter_name, config=osf_config, effective_rank=self._frozen[current_key])
        self._replace_module(parent, target_name, layer, target)
        done = sum(isinstance(module, SubspaceLinear) for module in self.model.modules())
        self._on_progress(done, len(self._frozen))


@dataclass
class Subspace:
    """A model with OSFT layers, by name."""

    model: nn.Module
    layers: dict[str, SubspaceLinear] = field(default_factory=dict)

    @property
    def plain(self) -> nn.Module:
        """The model without wrappers."""
        return self.model

    def after_step(self) -> None:
        """Project every weight into its subspace."""
        for layer in self.layers.values():
            layer.project()

    def leak(self) -> float:
        """Return the largest :meth:`SubspaceLinear.leak` of all weights; 0 if no direction is frozen."""
        return max((layer.leak() for layer in self.layers.values()), default=0.0)

    def plain_state(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the state of an ordinary model, with the factors merged into the weights."""
        return plain_state(self.model, self.layers, lambda layer: layer.merged_weight)

    def save_adapter(self, _folder: Path, _origin: Origin) -> bool:
        """Return false: OSFT has no adapter."""
        return False

    def metrics(self) -> dict[str, float]:
        """Return the largest leak into frozen directions."""
        return {"osft_leak": self.leak()}


def prepare(model: nn.Module, inputs: OsftInputs, on_progress: OnProgress) -> Subspace:
    """Prepare ``model`` for OSFT in place.

    A weight without frozen directions (ratio 1) is trained as a whole; one with only frozen directions (ratio 0) is not trained.

    Raises:
        StageError: ``NoMatchingWeights``, or ``BadTrainingValue``: nothing would be trained, or the output layer is a target.
    """
    targets = target_layers(model, inputs.target_patterns, "training.osft.targetPatterns")
    frozen = {name: frozen_directions(tuple(layer.weight.shape), inputs.unfreeze_rank_ratio) for name, layer in targets.items()}
    if inputs.trainable == "targets" and all(count == min(targets[name].weight.shape) for name, count in frozen.items()):
        raise StageError(
            reasons.BAD_TRAINING_VALUE,
            f"training.osft.unfreezeRankRatio: with {inputs.unfreeze_rank_ratio:g} and training.osft.trainable targets nothing is trained;"
            " raise it, or set training.osft.trainable to all.",
        )
    partly = {name: count for name, count in frozen.items() if 0 < count < min(targets[name].weight.shape)}
    for parameter in model.parameters():
        parameter.requires_grad_(inputs.trainable == "all")
    for name, layer in targets.items():
        layer.weight.requires_grad_(frozen[name] == 0)
    if not partly:
        return Subspace(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    _SubspaceModel(model, partly, on_progress)  # freezes everything except the factors
    for parameter in trained:
        parameter.requires_grad_(True)
    return Subspace(model, {name: layer for name, layer in model.named_modules() if isinstance(layer, SubspaceLinear)})

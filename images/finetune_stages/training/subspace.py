"""OSFT, orthogonal subspace fine-tuning (arXiv 2504.07097): only the lowest singular directions of a weight are trained.

Each weight is decomposed once, W = U S V. Its ``k`` largest directions are frozen; U, S and V of the others are trained and kept
orthogonal to the frozen ones by projecting the gradients before the optimizer's step and the factors after it, because Adam scales each
number separately and so leaves the subspace.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from finetune_contract import reasons
from finetune_contract.documents import OsftInputs
from finetune_stages.sdk import StageError

from .layers import plain_state, target_layers
from .tuning import Origin

OnProgress = Callable[[int, int], object]
"""Progress callback: number of decomposed weights, and total."""


def frozen_directions(shape: tuple[int, ...], unfreeze_rank_ratio: float) -> int:
    """Return the number of frozen directions: floor(min(N, M) * (1 - ratio)), with the ratio as a decimal number."""
    return math.floor(min(shape) * (1 - Fraction(str(unfreeze_rank_ratio))))


class Factors(nn.Module):  # type: ignore[misc]
    """The trained part U S V of a weight (out, in), and what its projections need.

    Attributes:
        u, s, v: (out, r), (r,) and (r, in), for the ``r`` directions that are trained.
        u_init, s_init, v_init: their values before training.
        u_frozen, v_frozen: the frozen directions (out, k) and (k, in), or ``None`` where U or V is square: there they are the
            complement of the initial values of the trained ones.
    """

    u_init: Tensor
    s_init: Tensor
    v_init: Tensor
    u_frozen: Tensor | None
    v_frozen: Tensor | None

    def __init__(self, weight: Tensor, frozen: int) -> None:
        super().__init__()
        u, s, v = torch.linalg.svd(weight.detach().float(), full_matrices=False)
        u, s, v = (matrix.to(weight.dtype) for matrix in (u, s, v))
        out, into = weight.shape
        trained = {"u": u[:, frozen:], "s": s[frozen:], "v": v[frozen:]}
        for name, matrix in trained.items():
            self.register_parameter(name, nn.Parameter(matrix.contiguous()))
            self.register_buffer(f"{name}_init", matrix.clone(memory_format=torch.contiguous_format))
        self.register_buffer("u_frozen", u[:, :frozen].contiguous() if out > into else None)
        self.register_buffer("v_frozen", v[:frozen].contiguous() if into > out else None)
        self.u.register_hook(self.left)
        self.v.register_hook(self.right)

    def change(self) -> Tensor:
        """Return the change of the weight since the start, (out, in)."""
        return torch.mm(self.u * self.s, self.v) - torch.mm(self.u_init * self.s_init, self.v_init)

    def left(self, matrix: Tensor) -> Tensor:
        """Return the part of (out, ·) that is orthogonal to the frozen left directions."""
        if self.u_frozen is None:
            return self.u_init @ (self.u_init.T @ matrix)
        return matrix - self.u_frozen @ (self.u_frozen.T @ matrix)

    def right(self, matrix: Tensor) -> Tensor:
        """Return the part of (·, in) that is orthogonal to the frozen right directions."""
        if self.v_frozen is None:
            return (matrix @ self.v_init.T) @ self.v_init
        return matrix - (matrix @ self.v_frozen.T) @ self.v_frozen


class SubspaceLinear(nn.Module):  # type: ignore[misc]
    """A linear layer whose weight changes only in the subspace of its smallest singular directions.

    The change is added to the weight before the product with the inputs. That takes fewer operations than two products, if a batch has
    more tokens than the subspace has directions, which is typical.
    """

    def __init__(self, base_layer: nn.Linear, frozen: int) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.factors = Factors(base_layer.weight, frozen)

    @property
    def weight(self) -> Tensor:
        """The weight before training, (out, in)."""
        weight: Tensor = self.base_layer.weight
        return weight

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` of shape (..., in) to (..., out)."""
        return functional.linear(x, self.weight + self.factors.change(), self.base_layer.bias)

    @property
    def merged_weight(self) -> Tensor:
        """Return the weight of an ordinary layer, (out, in)."""
        with torch.no_grad():
            return self.weight + self.factors.change()

    def project(self) -> None:
        """Project the factors into the subspace, in place."""
        factors = self.factors
        with torch.no_grad():
            factors.u.copy_(factors.left(factors.u))
            factors.v.copy_(factors.right(factors.v))

    def leak(self) -> float:
        """Return how much of the weight's change D is in the frozen directions: the larger of |Uh^T D| / |D| and |D Vh^T| / |D|."""
        with torch.no_grad():
            change = self.factors.change()
            kept = (self.factors.left(change), self.factors.right(change))
            outside, size = max(float((change - part).norm()) for part in kept), float(change.norm())
        return outside / size if size else 0.0


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
    subspace = Subspace(model)
    for name, count in partly.items():
        parent, _, last = name.rpartition(".")
        subspace.layers[name] = SubspaceLinear(targets[name], count)
        setattr(model.get_submodule(parent), last, subspace.layers[name])
        on_progress(len(subspace.layers), len(partly))
    return subspace

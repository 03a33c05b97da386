"""What an algorithm makes of a model, behind one face: the loop and the writing need not know which it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True)
class Origin:
    """Where the base model is from, as far as anybody else can find it there: a hub id and its commit."""

    model: str | None = None
    revision: str | None = None


class Tuning(Protocol):
    """A model that is ready to be trained."""

    @property
    def model(self) -> Any:
        """What the trainer trains."""

    @property
    def plain(self) -> Any:
        """The same model as its own class calls it: no wrapper around it, whatever its layers have become."""

    def after_step(self) -> None:
        """To be called right after each step of the optimizer."""

    def plain_state(self) -> Iterator[tuple[str, Tensor]]:
        """The state of an ordinary model that computes the same, under that model's names."""

    def save_adapter(self, folder: Path, origin: Origin) -> bool:
        """Write what can be put onto the base model by itself, if there is such a thing; whether there is."""

    def metrics(self) -> dict[str, float]:
        """Return what the algorithm has to show for itself when training is over."""


@dataclass(frozen=True)
class Whole:
    """SFT: every weight is trained as it is."""

    model: Any

    @property
    def plain(self) -> Any:
        """The model itself."""
        return self.model

    def after_step(self) -> None:
        """Nothing: the optimizer's step is all."""

    def plain_state(self) -> Iterator[tuple[str, Tensor]]:
        """The model's own state."""
        yield from self.model.state_dict().items()

    def save_adapter(self, _folder: Path, _origin: Origin) -> bool:
        """There is none."""
        return False

    def metrics(self) -> dict[str, float]:
        """Nothing beyond what every algorithm reports."""
        return {}

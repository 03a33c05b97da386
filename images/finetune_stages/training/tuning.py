"""Common interface of the algorithms for the training loop and the publication."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True)
class Origin:
    """Public origin of the base model: a hub id and its commit."""

    model: str | None = None
    revision: str | None = None


class Tuning(Protocol):
    """A model that is prepared for training."""

    @property
    def model(self) -> Any:
        """The model for the trainer."""

    @property
    def plain(self) -> Any:
        """The model without wrappers; its layers may be replaced."""

    def after_step(self) -> None:
        """Run after each step of the optimizer."""

    def plain_state(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the state of an equivalent ordinary model."""

    def save_adapter(self, folder: Path, origin: Origin) -> bool:
        """Write the adapter if the algorithm has one, and return whether it has."""

    def metrics(self) -> dict[str, float]:
        """Return the algorithm's own metrics after training."""


@dataclass(frozen=True)
class Whole:
    """SFT: all weights are trained."""

    model: Any

    @property
    def plain(self) -> Any:
        """The model."""
        return self.model

    def after_step(self) -> None:
        """Do nothing."""

    def plain_state(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the model's state."""
        yield from self.model.state_dict().items()

    def save_adapter(self, _folder: Path, _origin: Origin) -> bool:
        """Return false: there is no adapter."""
        return False

    def metrics(self) -> dict[str, float]:
        """Return no additional metrics."""
        return {}

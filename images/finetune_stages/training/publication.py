"""Publication of checkpoints, the model and its adapter into the run's folder; each is sealed and moved atomically."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from finetune_contract.documents import TrainingInputs
from finetune_stages.sdk import Context, Seal, read_seal, seal_directory

from .checkpoint import write_model
from .machine import readable
from .pretrained import Pretrained
from .proof import Proof
from .tuning import Origin, Tuning

Note = Callable[[str, int, bool], object]
"""Reports an activity, the percentage of the whole work, and whether to print it even right after another report."""
_NEARLY = 99


@dataclass(frozen=True)
class Publication:
    """Publisher of fine-tuned models, used by rank 0.

    Attributes:
        folder: the attempt's folder for unpublished files.
    """

    context: Context
    base: Pretrained
    inputs: TrainingInputs
    folder: Path
    note: Note

    def clear_checkpoints(self) -> None:
        """Remove the checkpoints of an earlier round, whose model is about to be replaced."""
        self._remove(self.context.layout.checkpoints)

    def checkpoint(self, epoch: int, tuning: Tuning) -> None:
        """Publish the model after an epoch and remove older checkpoints beyond the limit."""
        folder = self.folder / f"epoch_{epoch}"
        self.note(f"writing the checkpoint of epoch {epoch}", 0, True)
        write_model(folder, tuning.plain, tuning.plain_state(), self.base)
        seal_directory(folder, {"base": self._base_digest, "epoch": epoch})
        self.context.publish(folder, f"{self.context.layout.checkpoints}/{folder.name}")
        keep = self.inputs.checkpoints.keep
        if keep is not None and epoch > keep:
            self._remove(f"{self.context.layout.checkpoints}/epoch_{epoch - keep}")

    def _remove(self, published: str) -> None:
        """Remove a published directory: it disappears at once, and a kill in between leaves no half of it there."""
        aside = self.folder / "removed"
        try:
            self.context.path(published).rename(aside)
        except FileNotFoundError:
            return
        shutil.rmtree(aside, ignore_errors=True)

    def model(self, tuning: Tuning, proof: Proof) -> tuple[Seal, Seal | None]:
        """Write, verify and publish the model, and the adapter if there is one; return their seals.

        An adapter of an earlier round is removed before its model, and a new one is published after its model, so that an adapter is
        never beside another model's weights.
        """
        model, adapter = self.folder / "final_model", self.folder / "adapter"
        self.note("writing the model", _NEARLY, True)
        write_model(model, tuning.plain, tuning.plain_state(), self.base)
        has_adapter = tuning.save_adapter(adapter, self.origin)
        self.note("verifying the model", _NEARLY, True)
        proof.open_again(model)
        if has_adapter:
            proof.open_adapter(adapter)
        about: dict[str, str | int | float | bool] = {
            "base": self._base_digest, "algorithm": self.inputs.algorithm, "epochs": self.inputs.epochs,
        }  # fmt: skip
        seal = seal_directory(model, about, self._sealing(model))
        beside = seal_directory(adapter, {**about, "model": seal.digest}) if has_adapter else None
        self.withdraw_adapter()
        self.context.publish(model, self.context.layout.final_model)
        if beside is not None:
            self.context.publish(adapter, self.context.layout.adapter)
        return seal, beside

    def withdraw_adapter(self) -> None:
        """Remove an earlier round's adapter.

        Raises:
            StageError: ``Superseded``: a newer attempt has published.
        """
        place = self.context.path(self.context.layout.adapter)
        if place.exists():
            self.context.require_current()
            place.rename(self.folder / "adapter.replaced")

    @property
    def origin(self) -> Origin:
        """Hub id of the base model, if it has one: a path of this volume is useless elsewhere."""
        note = seal.note if (seal := read_seal(self.base.path)) else {}
        source, commit = note.get("source"), note.get("commit")
        return Origin(source, commit) if isinstance(source, str) and isinstance(commit, str) else Origin()

    def _sealing(self, folder: Path) -> Callable[[int], None]:
        """Return a progress callback for sealing a directory."""
        total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        done = 0

        def advance(more: int) -> None:
            nonlocal done
            done += more
            self.note(f"sealing the model: {readable(done)} of {readable(total)}", _NEARLY, False)

        return advance

    @property
    def _base_digest(self) -> str:
        seal = read_seal(self.base.path)
        return seal.digest if seal else ""

"""Trainings of ``tests/compat``: their record in ``trainings.json``, and its tables in ``docs/trainings.md``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .sets import SETS

RECORD = Path(__file__).with_name("trainings.json")
PACKAGES = ("torch", "transformers", "peft", "training-hub", "instructlab-training", "rhai-innovation-mini-trainer")
"""Packages whose versions the page shows."""


@dataclass(frozen=True)
class Training:
    """One training that succeeded.

    Attributes:
        libraries: the set of libraries.
        engine: ``portable`` or ``training-hub``.
        algorithm: with what differs from the plain training of the algorithm, such as ``lora, packed``.
        pods: number of pods, each with its own call of the program.
        processes: number of processes over all pods.
        samples: rows that were processed, over all epochs.
        expected: rows that should have been processed.
        first_loss: mean loss of the first step, in nats per label.
        last_loss: mean loss of the last step, in nats per label.
        seconds: duration of the program, with its imports.
        before: score of the base model on the held-out rows, in bits per byte.
        after: score of the trained model on the same rows.
    """

    libraries: str
    engine: str
    algorithm: str
    pods: int
    processes: int
    samples: int
    expected: int
    first_loss: float
    last_loss: float
    seconds: float
    before: float
    after: float

    @property
    def key(self) -> tuple[str, str, str, int, int]:
        """What a training is found by."""
        return self.libraries, self.engine, self.algorithm, self.pods, self.processes

    @property
    def cells(self) -> tuple[str, ...]:
        """The row of a table with :data:`COLUMNS`."""
        processes = str(self.processes) + (f" in {self.pods} pods" if self.pods > 1 else "")
        numbers = (f"{value:.4f}" for value in (self.first_loss, self.last_loss, self.before, self.after))
        samples = f"{self.samples} of {self.expected}"
        return self.libraries, self.engine, self.algorithm, processes, samples, *numbers, f"{self.seconds:.0f}"


COLUMNS = (
    "Libraries", "Engine", "Algorithm", "Processes", "Samples", "First loss", "Last loss", "Held-out before", "Held-out after",
    "Seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Record:
    """The trainings with all sets, and the versions of :data:`PACKAGES` in each set."""

    versions: dict[str, dict[str, str]]
    trainings: tuple[Training, ...]

    @classmethod
    def read(cls) -> Record:
        """Return the record in the file; an empty one if there is none."""
        if not RECORD.exists():
            return cls({}, ())
        found = json.loads(RECORD.read_bytes())
        return cls(found["versions"], tuple(Training(**one) for one in found["trainings"]))

    def updated(self, other: Record) -> Record:
        """Return this record with the trainings and versions of another one, which replace those with the same keys."""
        trainings = {one.key: one for one in (*self.trainings, *other.trainings)}
        versions = {**self.versions, **other.versions}
        return Record({name: versions[name] for name in SETS if name in versions}, tuple(trainings.values()))

    def write(self) -> None:
        """Write the file."""
        trainings = [asdict(one) for one in in_order(self.trainings)]
        RECORD.write_text(json.dumps({"versions": self.versions, "trainings": trainings}, indent=1) + "\n", encoding="utf-8")


def in_order(trainings: Iterable[Training]) -> list[Training]:
    """Return trainings in the order of the tables."""
    return sorted(trainings, key=lambda one: (SETS.index(one.libraries), *one.key[1:]))


def page() -> str:
    """Return the page of the documentation."""
    record = Record.read()
    versions = [(name, *(record.versions[name].get(package, "") for package in PACKAGES)) for name in record.versions]
    return f"""# Trainings with each set of libraries

`python hack/compat test --record` ran these trainings with the libraries of each set. The sets are the libraries of the training images of
OpenShift AI 3.3 and 3.5, and the newest ones. `make compat` runs the trainings again and compares losses and scores with this page; CI runs
some of them.

Each training has a model of 200,000 weights, 50 rows, two epochs and steps of 16 rows. Losses are in nats per label. The held-out scores are
bits per byte of 20 other rows, before and after the training. Training Hub's backends require GPUs; here they ran on CPUs, through a shim
that redirects their CUDA calls (`tests/compat/shim`). The duration is that of the program with its imports, on a machine with two CPUs that
ran other work at the same time: use it for orientation only.

{markdown(("Libraries", *PACKAGES), versions)}

{markdown(COLUMNS, [one.cells for one in in_order(record.trainings)])}
"""


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = (columns, ["---"] * len(columns), *rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

"""The training program with the libraries of training images: one environment for each set of versions."""

from __future__ import annotations

import base64
import json
import math
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from transformers import AutoModelForCausalLM

from compat.environments import blocker, python
from compat.sets import IN_CI, SETS
from compat.trainings import COLUMNS, PACKAGES, RECORD, Record, Training, in_order
from control_planes import built
from finetune_contract.codec import digest, encode
from finetune_contract.documents import GPUS_VARIABLE, TrainingInputs
from finetune_contract.result import Result, parse_message
from finetune_operator.training_bundle import training_bundle
from rendering import Tokenization, skill_rows
from stages.conftest import StagePrograms

from .scores import bits_per_byte

SHIM = Path(__file__).parent / "shim"
ROWS = 50
SMALL = TrainingInputs("sft", "portable", 2, 16, 4096, 256, 1e-2)
HELD_OUT = 20
EVERY_SET = "FINETUNE_COMPAT_SETS" in os.environ
RECORDS = "FINETUNE_COMPAT_RECORD" in os.environ
"""Whether the record is written; otherwise trainings are compared with it."""
CHOSEN = os.environ.get("FINETUNE_COMPAT_SETS", ",".join(IN_CI)).split(",")
"""Sets that are tested; ``make compat`` sets all of them."""
_LONGEST = 800
"""Seconds of a run."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with the argument ``libraries`` for each chosen set, and with ``older_libraries`` for each but the newest.

    ``hub_libraries`` are those of the trainings with Training Hub, each of which takes as long as three with the portable engine: the
    oldest set in CI, and each with ``make compat``.
    """
    for argument, sets in (
        ("libraries", SETS), ("older_libraries", SETS[:-1]), ("hub_libraries", SETS if EVERY_SET else SETS[:1]),
    ):  # fmt: skip
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, [name for name in sets if name in CHOSEN], scope="session")


def interpreter_of(libraries: str) -> Path:
    """Return the Python of a set, which a set-up target made; skip where the libraries do not exist."""
    if (why := blocker()) is not None:
        pytest.skip(why)
    return built(lambda: python(libraries))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print a table of the trainings that succeeded, and write the record if that is requested."""
    factory = getattr(config, "_tmp_path_factory", None)
    files = (factory.getbasetemp() / "compat").glob("*/training.json") if factory else ()
    found = [json.loads(file.read_bytes()) for file in files]
    trainings = in_order(Training(**one["training"]) for one in found)
    if trainings:
        terminalreporter.section("trainings")
        for row in (COLUMNS, *(one.cells for one in trainings)):
            terminalreporter.write_line("".join(f"{cell:<18}" for cell in row).rstrip())
    if RECORDS and trainings:
        versions: dict[str, dict[str, str]] = {}
        for one in found:
            versions.setdefault(one["training"]["libraries"], {}).update(one["versions"])
        Record.read().updated(Record(versions, tuple(trainings))).write()
        terminalreporter.write_line(f"wrote {RECORD}; run python hack/generate.py")


@dataclass(frozen=True)
class Trained:
    """A run of the training program in a folder of its own."""

    folder: Path

    @cached_property
    def result(self) -> Result:
        """The result of a training that succeeded."""
        result = parse_message(_text(self.folder / "program-0" / "termination-log"))
        assert result is not None, _text(self.folder / "output")
        assert result.outcome == "Succeeded", _text(self.folder / "output")
        return result

    @property
    def failure(self) -> Result:
        """The result of a training that failed."""
        result = parse_message(_text(self.folder / "program-0" / "termination-log"))
        assert result is not None, self.output
        assert result.outcome == "Failed", self.output
        return result

    @property
    def losses(self) -> list[float]:
        """Loss of each step."""
        return [point.loss for point in self.result.history]

    @property
    def output(self) -> str:
        """What the program printed."""
        return _text(self.folder / "output")

    @property
    def workspace(self) -> Path:
        """The workspace."""
        return self.folder / "workspace"

    @property
    def model(self) -> Path:
        """Folder of the trained model."""
        (folder,) = self.workspace.glob("**/final_model")
        return folder


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder for all workers of xdist."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "compat"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def old_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, in files that transformers 4 reads."""
    return _for_transformers_4(Path(shutil.copytree(tiny_model, tmp_path_factory.mktemp("model") / "old")))


@pytest.fixture(scope="session")
def tied_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in 16 bits with its output layer tied to its embeddings, as most small models are published."""
    folder = Path(shutil.copytree(tiny_model, tmp_path_factory.mktemp("model") / "tied"))
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    model.config.tie_word_embeddings = True
    model.lm_head.weight = model.model.embed_tokens.weight
    model.save_pretrained(folder)
    return _for_transformers_4(folder)


def _for_transformers_4(folder: Path) -> Path:
    """Give two settings the names that transformers 5 has replaced, and still reads."""
    tokenizer, config = folder / "tokenizer_config.json", folder / "config.json"
    values = json.loads(tokenizer.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    tokenizer.write_text(json.dumps(values, indent=2))
    values = json.loads(config.read_text())
    values["rope_theta"] = values.pop("rope_parameters")["rope_theta"]
    config.write_text(json.dumps(values, indent=2))
    return folder


@pytest.fixture(scope="session")
def every_set() -> None:
    """Skip a test that takes a minute or more where only some sets are tested."""
    if not EVERY_SET:
        pytest.skip("make compat runs it")


@pytest.fixture(scope="session")
def program(shared: Path) -> Path:
    """The training program as the operator puts it into images that do not contain this project: a zip application."""
    target = shared / "training.pyz"
    with FileLock(shared / "training.pyz.lock"):
        if not target.exists():
            target.write_bytes(base64.b64decode(training_bundle().archive))
    return target


@pytest.fixture(scope="session")
def train(old_model: Path, program: Path, shared: Path) -> Callable[..., Trained]:
    """Return the function that runs the training program: ``train(libraries, processes, model, packages, nodes, **inputs)``.

    ``packages`` is a folder with packages that replace installed ones. ``nodes`` programs run at the same time, each as in a pod of its own.
    Equal calls run once for all workers of xdist.
    """

    def run(
        libraries: str,
        processes: int = 1,
        model: Path | None = None,
        packages: Path | None = None,
        nodes: int = 1,
        **changes: Any,
    ) -> Trained:
        inputs, base = replace(SMALL, **changes), model or old_model
        folder = (
            shared
            / f"{libraries}-{nodes}-{processes}-{base.name}-{packages.name if packages else ''}-{digest(encode(inputs))[:16]}"
        )
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                folder.mkdir()
                _train(StagePrograms(folder / "workspace"), base, program, libraries, pods(nodes, processes), inputs, packages)
        return Trained(folder)

    return run


@pytest.fixture(scope="session")
def recorded(old_model: Path) -> Callable[..., None]:
    """Return the function that compares a training of the tiny model with the record: ``recorded(trained, libraries, algorithm, pods)``.

    Held-out rows are scored where every set is tested.
    """
    known = {one.key: one for one in Record.read().trainings}

    def compare(trained: Trained, libraries: str, algorithm: str, pods: int = 1) -> None:
        training = _training(trained, libraries, algorithm, pods, old_model)
        versions = {name: number for name, number in trained.result.outputs["versions"].items() if name in PACKAGES}
        (trained.folder / "training.json").write_text(json.dumps({"training": asdict(training), "versions": versions}))
        assert training.samples == training.expected
        assert training.last_loss < training.first_loss
        assert training.after < training.before or not EVERY_SET
        if RECORDS:
            return
        assert training.key in known, f"{RECORD} has no such training; run python hack/compat test --record"
        expected = known[training.key]
        for name in ("first_loss", "last_loss", "before", "after") if EVERY_SET else ("first_loss", "last_loss"):
            assert getattr(training, name) == pytest.approx(getattr(expected, name), rel=0.02), name

    return compare


def _training(trained: Trained, libraries: str, algorithm: str, pods: int, base: Path) -> Training:
    outputs, metrics = trained.result.outputs, trained.result.metrics
    scores = [bits_per_byte(model, trained.workspace) if EVERY_SET else math.nan for model in (base, trained.model)]
    return Training(
        libraries, outputs["engine"], algorithm, pods, outputs["processes"], outputs["samplesSeen"], outputs["expectedSamples"],
        metrics["first_loss"], metrics["final_loss"], round(metrics["seconds"], 1), *scores,
    )  # fmt: skip


def pods(nodes: int, processes: int) -> list[dict[str, str]]:
    """Return Kubeflow Trainer's variables for each pod, with a free port of this machine."""
    alone = {"PET_NPROC_PER_NODE": str(processes)}
    if nodes == 1:
        return [alone]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        shared = {"PET_NNODES": str(nodes), "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(probe.getsockname()[1])}
    return [{**alone, **shared, "PET_NODE_RANK": str(rank)} for rank in range(nodes)]


def _train(
    programs: StagePrograms,
    model: Path,
    program: Path,
    libraries: str,
    variables: Sequence[Mapping[str, str]],
    inputs: TrainingInputs,
    packages: Path | None,
) -> None:
    programs.workspace.mkdir()
    stage = Tokenization(programs.workspace, programs.run)
    run = programs.path(programs.layout.root)
    run.mkdir(parents=True)
    (run / "base_model").symlink_to(model)
    rows = skill_rows("signature")
    stage.write(rows[:ROWS], rows[ROWS : ROWS + HELD_OUT])
    stage(max_seq_len=inputs.max_seq_len)
    interpreter, shimmed = interpreter_of(libraries), inputs.engine == "training-hub"
    environment = {
        "PATH": f"{interpreter.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(str(path) for path in (packages, SHIM) if path),
        "FINETUNE_TEST_CPU_SHIM": "1" if shimmed else "0",
        GPUS_VARIABLE: variables[0]["PET_NPROC_PER_NODE"] if shimmed else "0",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    with tempfile.TemporaryDirectory(prefix="compat-") as scratch:  # a longer path would be too long for a socket's name
        environment["TMPDIR"] = scratch
        command = [str(interpreter), str(program)]
        started = [programs.start("training", inputs, environment={**environment, **one}, command=command) for one in variables]
        try:
            ended, *others = (running.wait(timeout=_LONGEST) for running in started)
        finally:
            for running in started:
                running.end()
    assert [(other.code, other.message) for other in others] == [(0, "")] * len(others), others
    (programs.workspace.parent / "output").write_text(f"{ended.message}\n{ended.output}\n{ended.errors[-8000:]}")

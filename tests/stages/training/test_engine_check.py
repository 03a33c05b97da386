"""Stage *engine-check* of the training program: the choice that the training will make, without its GPUs."""

from __future__ import annotations

import base64
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.documents import EngineCheckInputs, LoraInputs, OsftInputs, TrainingInputs
from finetune_operator.core.stages.engine_check import DECIDING, REJECTABLE, deciding_inputs
from finetune_operator.training_bundle import training_bundle
from finetune_stages.sdk import StageError
from finetune_stages.training import engines, limits
from finetune_stages.training.engines import choose
from finetune_stages.training.training_hub import limits as hub_limits
from finetune_stages.training.training_hub.installed import Installed, NotInstalled
from nvidia_driver import machine_with_gpus

SFT = TrainingInputs("sft", "auto", 2, 16, 4096, 256, 1e-2, gradient_checkpointing=True)
OSFT = replace(SFT, algorithm="osft", osft=OsftInputs())
LORA = replace(SFT, algorithm="lora", lora=LoraInputs(rank=4, alpha=8, target_modules=("q_proj",)))
VARIANTS = [
    SFT, OSFT, LORA, replace(SFT, micro_batch_size=2), replace(SFT, gradient_checkpointing=False), replace(SFT, trust_remote_code=True),
    replace(SFT, scheduler="linear"), replace(SFT, scheduler_args={"num_cycles": 2}), replace(SFT, liger=True),
    replace(SFT, sharding="FULL_SHARD"), replace(OSFT, liger=True),
    *(replace(OSFT, osft=OsftInputs(unfreeze_rank_ratio=ratio)) for ratio in (0, 0.1, 0.9, 1)),
    replace(OSFT, osft=OsftInputs(trainable="targets")), replace(OSFT, osft=OsftInputs(target_patterns=("a,b",))),
    replace(OSFT, osft=OsftInputs(memory_efficient_init=False)), replace(LORA, lora=LoraInputs(quantization="4bit")),
]  # fmt: skip
"""Each value that an engine may be unable to honor, and values that every engine honors."""
HUBS = [
    Installed(frozenset(), frozenset(), {"training-hub": "0.9", "flash-attn": "2"}),
    Installed(frozenset({"trust_remote_code"}), frozenset({"osft_memory_efficient_init"}), {"training-hub": "0.4", "liger-kernel": "1"}),
    None,
]  # fmt: skip


class Recorded(TrainingInputs):
    """Inputs that record which of their fields are read."""

    def __getattribute__(self, name: str) -> Any:
        if name in _FIELDS:
            _READ.add(name)
        return super().__getattribute__(name)


_FIELDS = {field.name for field in fields(TrainingInputs)}
_READ: set[str] = set()


@pytest.fixture(params=HUBS, ids=["new hub", "old hub", "no hub"])
def image(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image with some Training Hub, or without one."""

    def installed(_inputs: TrainingInputs) -> Installed:
        if request.param is None:
            raise NotInstalled("no package training-hub")
        found: Installed = request.param
        return found

    monkeypatch.setattr(engines, "installed", installed)


def outcomes(inputs: TrainingInputs) -> Iterator[tuple[Any, ...]]:
    """What the choice is, or how it fails, for defaults and for values that a person set, and for each engine."""
    for engine in ("auto", "training-hub", "portable"):
        for explicit in ((), REJECTABLE):
            try:
                found = choose(replace(inputs, engine=engine), explicit, count_gpus=lambda: 1)
            except StageError as error:
                yield error.reason.name, error.message
            else:
                yield found.name, found.reason, found.warnings()


@pytest.mark.parametrize("inputs", VARIANTS, ids=str)
@pytest.mark.usefixtures("image")
def test_the_values_that_decide_give_the_choice_of_all_values(inputs: TrainingInputs) -> None:
    assert list(outcomes(deciding_inputs(inputs))) == list(outcomes(inputs))


@pytest.mark.usefixtures("image")
def test_the_choice_reads_no_other_value() -> None:
    _READ.clear()
    for inputs in VARIANTS:
        for explicit in ((), REJECTABLE):
            recorded = Recorded(**{field.name: getattr(inputs, field.name) for field in fields(inputs)})
            try:
                choose(recorded, explicit, count_gpus=lambda: 1)
            except StageError:
                continue
    assert {"algorithm", "engine", "liger"} <= _READ
    assert {*DECIDING, "osft", "lora"} >= _READ


def test_every_field_that_an_engine_rejects_is_known_to_the_operator() -> None:
    sources = "".join(Path(str(module.__file__)).read_text(encoding="utf-8") for module in (limits, hub_limits))
    stated = re.findall(r'Limit\(\s*"?([\w.]+)', sources)
    assert {getattr(limits, name, name) for name in stated} == set(REJECTABLE)


@pytest.fixture
def check(run_stage_program: Any, tmp_path: Path) -> Callable[..., Any]:
    """``check(inputs, built_for="13.2")`` runs the program from the training bundle, as a pod without GPUs does.

    The torch of its image has a version file only: the import of it fails.
    """
    archive = tmp_path / "training.pyz"
    archive.write_bytes(base64.b64decode(training_bundle().archive))

    def run(training: TrainingInputs, *explicit: str, built_for: str = "13.2", gpus: int = 2) -> Any:
        number = len(run_stage_program.started)
        torch = machine_with_gpus(tmp_path / str(number), built_for=built_for, cuda=11040, release="470.1")
        environment = {
            **torch, "PYTHONPATH": f"{torch['PYTHONPATH']}:{sysconfig.get_path('purelib')}", "FINETUNE_GPUS": "0",
            "FINETUNE_IMAGE": "registry.example.com/train:1", "PET_NNODES": "1", "PET_NPROC_PER_NODE": "1",
        }  # fmt: skip
        command = [sys.executable, "-S", str(archive)]
        inputs = EngineCheckInputs(training, gpus, 2, explicit)
        return run_stage_program("engine-check", inputs, command=command, environment=environment)

    return run


def test_the_program_reports_the_engine_without_a_model_a_gpu_a_driver_and_an_import_of_torch(check: Callable[..., Any]) -> None:
    ended = check(replace(SFT, engine="portable"), "training.engine")
    assert (ended.code, ended.reason) == (0, None), ended.errors
    assert ended.result.outputs["engine"] == "portable"
    assert ended.result.outputs["reason"] == "training.engine sets it"
    assert {"torch", "transformers"} <= set(ended.result.outputs["versions"])
    assert ended.result.message == "engine portable: training.engine sets it"
    assert ended.result.metrics["seconds"] < 5
    again = check(replace(SFT, engine="portable"), "training.engine")
    assert again.result.reused is False, "the image may be another one"
    assert "already finished" not in again.output


def test_the_program_names_what_the_image_lacks(check: Callable[..., Any]) -> None:
    ended = check(replace(SFT, engine="training-hub"))
    assert (ended.code, ended.reason) == (65, "EngineMissing")
    assert ended.result.message.startswith(
        "training.image: registry.example.com/train:1: engine training-hub cannot be used: it requires the Python package"
        " training-hub 0.4.0 or newer, and the image does not have it; use another image"
    )
    assert "Traceback" not in ended.errors


def test_the_program_rejects_a_value_that_a_person_set(check: Callable[..., Any]) -> None:
    sharded = replace(SFT, engine="portable", sharding="FULL_SHARD")
    assert check(sharded).code == 0, "a default is replaced"
    ended = check(sharded, "training.sft.sharding")
    assert (ended.code, ended.reason) == (65, "BadTrainingValue")
    assert ended.result.message.startswith("training.sft.sharding: engine portable cannot honor FULL_SHARD")


def test_an_image_for_cpus_is_wrong_for_a_training_on_gpus(check: Callable[..., Any]) -> None:
    ended = check(replace(SFT, engine="portable"), built_for="none")
    assert (ended.code, ended.reason) == (65, "EngineMissing")
    assert ended.result.message == (
        "training.gpusPerWorker: the pod requests 2 GPUs, and PyTorch in registry.example.com/train:1 is built for CPUs; use an image with CUDA,"
        " or set training.gpusPerWorker to 0."
    )

"""Which engine an image offers, and what becomes of values that it cannot honor."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finetune_contract import reasons
from finetune_contract.codec import encode
from finetune_contract.documents import CheckpointInputs, LoraInputs, OsftInputs, TrainingInputs
from finetune_contract.result import Result, TrainingOutputs, termination_message
from finetune_stages.sdk import Finished, StageError
from finetune_stages.sdk.nvidia import GPU, Driver
from finetune_stages.sdk.safetensors_header import Tensor
from finetune_stages.training import engines
from finetune_stages.training.engines import choose
from finetune_stages.training.pretrained import Pretrained
from finetune_stages.training.processes import Processes
from finetune_stages.training.stage import _with_engine
from finetune_stages.training.training_hub.arguments import arguments
from finetune_stages.training.training_hub.installed import Installed, NotInstalled

SFT = TrainingInputs("sft", "auto", 2, 16, 4096, 256, 1e-2, gradient_checkpointing=True, sharding="FULL_SHARD")
OSFT = replace(SFT, algorithm="osft", sharding="NO_SHARD", osft=OsftInputs(), liger=True)
VERSIONS = {"training-hub": "0.4.0", "flash-attn": "2.8.3", "liger-kernel": "0.6"}
HUB = Installed(frozenset({"num_epochs"}), frozenset({"osft_memory_efficient_init"}), VERSIONS)


NO_HUB = "it requires the Python package training-hub"
TIED = Pretrained(Path(), {}, {"model.embed_tokens.weight": Tensor("F32", (4, 2), 0, 32)})


@pytest.fixture
def image(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``image(hub=..., portable=...)``: what the packages of the image are."""

    def set_(hub: Installed | str = HUB, portable: str | None = None) -> None:
        def installed(_inputs: TrainingInputs) -> Installed:
            if isinstance(hub, str):
                raise NotInstalled(hub)
            return hub

        monkeypatch.setattr(engines, "installed", installed)
        monkeypatch.setattr(engines, "missing_package", lambda _inputs: portable)
        monkeypatch.setenv("FINETUNE_IMAGE", "quay.io/team/image:1")

    return set_


def chosen(inputs: TrainingInputs, *explicit: str, gpus: int = 1, processes: int = 4) -> Any:
    return choose(inputs, explicit, processes, count_gpus=lambda: gpus)


def test_training_hub_is_preferred_where_it_honors_the_run(image: Any) -> None:
    image()
    for inputs in (SFT, OSFT):
        engine = chosen(inputs, "training.liger", "training.sft.sharding")
        assert (engine.name, engine.replaced) == ("training-hub", ())
        assert engine.versions == VERSIONS
        assert engine.reason == "the image has it and it honors the values of the run"
    assert chosen(replace(SFT, engine="training-hub"), "training.engine").reason == "training.engine sets it"
    assert chosen(replace(SFT, engine="portable", sharding="NO_SHARD")).reason == "no other engine can train this run"


@pytest.mark.parametrize(
    ("inputs", "hub", "gpus", "why"),
    [
        (SFT, NO_HUB, 1, "training-hub cannot be used: it requires the Python package training-hub"),
        (SFT, HUB, 0, "training-hub cannot be used: its backends require an NVIDIA GPU"),
        (replace(SFT, algorithm="lora", lora=LoraInputs()), HUB, 1, "training-hub cannot be used: its backend learns from the prompts as well"),
        (OSFT, replace(HUB, versions={}), 1, "training-hub cannot be used: it requires the Python package flash-attn"),
    ],
)  # fmt: skip
def test_without_training_hub_the_portable_engine_trains(
    image: Any, inputs: TrainingInputs, hub: Any, gpus: int, why: str
) -> None:
    image(hub)
    engine = chosen(inputs, gpus=gpus)
    assert engine.name == "portable"
    assert why in engine.reason
    assert {"torch", "trl"} <= engine.versions.keys()


@pytest.mark.parametrize(
    ("dtype", "own_head", "engine"), [("F32", False, "portable"), ("F32", True, "training-hub"), ("BF16", False, "training-hub")]
)
def test_mini_trainer_cannot_write_a_tied_model_of_32_bits(
    image: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dtype: str, own_head: bool, engine: str
) -> None:
    image()
    names = ("model.embed_tokens.weight", *(["lm_head.weight"] if own_head else []))
    base = Pretrained(tmp_path, {}, {name: Tensor(dtype, (4, 2), 0, 32) for name in names})
    monkeypatch.setattr(engines.Pretrained, "open", lambda _path: base)
    assert choose(OSFT, (), 1, tmp_path, lambda: 1).name == engine
    assert choose(SFT, (), 1, tmp_path, lambda: 1).name == "training-hub"


def test_a_model_that_cannot_be_read_is_reported_by_the_engine(image: Any, tmp_path: Path) -> None:
    image()
    assert choose(OSFT, (), 1, tmp_path / "none", lambda: 1).name == "training-hub"


def test_a_default_that_has_no_effect_is_reported_and_a_written_one_decides_or_is_rejected(image: Any) -> None:
    image(NO_HUB)
    assert chosen(SFT).warnings() == (
        "training.sft.sharding: the default FULL_SHARD has no effect with engine portable: it keeps a complete copy of the model in each process.",
    )
    with pytest.raises(
        StageError,
        match=re.escape(
            "training.sft.sharding: engine portable cannot honor FULL_SHARD, because it keeps a complete copy of the model in each process;"
            " engine training-hub cannot be used: it requires the Python package training-hub; remove it."
        ),
    ) as raised:
        chosen(SFT, "training.sft.sharding")
    assert raised.value.reason is reasons.BAD_TRAINING_VALUE
    image()
    engine = chosen(replace(SFT, micro_batch_size=2), "training.microBatchSize")
    assert engine.name == "portable"
    assert engine.reason == (
        "training-hub cannot be used: training.microBatchSize is 2, and its backends fill each micro-batch up to training.maxTokensPerGPU"
    )


def test_one_process_has_the_complete_model_however_it_is_sharded(image: Any) -> None:
    image(NO_HUB)
    engine = chosen(SFT, "training.sft.sharding", processes=1)
    assert (engine.name, engine.replaced) == ("portable", ())


def test_a_default_that_changes_only_the_speed_is_a_line_of_the_log_and_no_warning(image: Any) -> None:
    image(NO_HUB)
    engine = chosen(OSFT)
    assert engine.warnings() == ()
    assert engine.notes() == (
        "training.liger: the default true has no effect with engine portable: it does not use Liger kernels.",
    )
    with pytest.raises(StageError, match=r"^training.liger: engine portable cannot honor true, because it does not use Liger"):
        chosen(OSFT, "training.liger")


LIMITS = [
    (replace(SFT, micro_batch_size=2), "training.microBatchSize"),
    (replace(SFT, gradient_checkpointing=False), "training.gradientCheckpointing"),
    (replace(SFT, trust_remote_code=True), "model.trustRemoteCode"),
    (replace(SFT, scheduler="linear"), "training.scheduler"),
    (replace(SFT, scheduler_args={"num_cycles": 2}), "training.schedulerArgs"),
    (replace(SFT, liger=True), "training.liger"),
    (replace(OSFT, osft=OsftInputs(unfreeze_rank_ratio=1)), "training.osft.unfreezeRankRatio"),
    (replace(OSFT, osft=OsftInputs(unfreeze_rank_ratio=0)), "training.osft.unfreezeRankRatio"),
    (replace(OSFT, osft=OsftInputs(trainable="targets")), "training.osft.trainable"),
    (replace(OSFT, osft=OsftInputs(target_patterns=("q_proj,k_proj",))), "training.osft.targetPatterns"),
]  # fmt: skip


@pytest.mark.parametrize(("inputs", "field"), LIMITS, ids=lambda value: value if isinstance(value, str) else "")
def test_what_a_backend_ignores_or_misreads_is_rejected_by_name(image: Any, inputs: TrainingInputs, field: str) -> None:
    image()
    with pytest.raises(
        StageError, match=f"^{re.escape(field)}: engine training-hub cannot honor .*, or set training.engine to auto or portable"
    ) as raised:
        chosen(replace(inputs, engine="training-hub"), field)
    assert raised.value.reason is reasons.BAD_TRAINING_VALUE
    assert [limit.field for limit in chosen(replace(inputs, engine="training-hub")).replaced] == [field]


@pytest.mark.parametrize(
    ("inputs", "gpus", "message"),
    [
        (replace(SFT, algorithm="lora", lora=LoraInputs()), 1, "training.algorithm: engine training-hub cannot be used, because its backend learns"),
        (SFT, 0, "training.gpusPerWorker: engine training-hub cannot be used, because its backends require an NVIDIA GPU;"),
        (OSFT, 1, "model.uri: engine training-hub cannot be used, because its backend mini-trainer cannot write a model of 32 bits"),
    ],
)  # fmt: skip
def test_what_no_image_changes_is_a_bad_value(
    image: Any, monkeypatch: pytest.MonkeyPatch, inputs: TrainingInputs, gpus: int, message: str
) -> None:
    image()
    monkeypatch.setattr(engines.Pretrained, "open", lambda _path: TIED)
    with pytest.raises(StageError) as raised:
        choose(replace(inputs, engine="training-hub"), (), 1, Path(), lambda: gpus)
    assert raised.value.reason is reasons.BAD_TRAINING_VALUE
    assert raised.value.message.startswith(message)
    assert raised.value.message.endswith("; set training.engine to auto or portable.")
    image(portable="it requires the Python package peft 0.17 or newer, and the image does not have it")
    with pytest.raises(StageError, match=r"engine portable cannot be used: it requires the Python package peft 0.17") as lacking:
        choose(inputs, (), 1, Path(), lambda: gpus)
    assert lacking.value.reason is reasons.ENGINE_MISSING


@pytest.mark.parametrize(("capability", "engine"), [((7, 5), "portable"), ((8, 0), "training-hub"), ((9, 0), "training-hub")])
def test_osft_with_training_hub_needs_a_gpu_that_flash_attention_supports(
    image: Any, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], engine: str
) -> None:
    image()
    monkeypatch.setattr(engines, "driver", lambda: Driver("580", (13, 0), (GPU("Tesla T4", 1, capability),)))
    assert chosen(OSFT).name == engine
    assert chosen(SFT).name == "training-hub"
    if engine == "portable":
        assert "uses flash-attn, which does not support Tesla T4" in chosen(OSFT).reason


def test_the_longest_reason_fits_into_the_termination_message(image: Any) -> None:
    image()
    patterns = tuple(f"{number}," * 42 for number in range(10, 42))
    engine = chosen(replace(OSFT, osft=OsftInputs(target_patterns=patterns)), "training.osft.targetPatterns")
    outputs = TrainingOutputs("d" * 64, 1, 1, 1, 0, 1, 1, opened=True, adapter_digest="a" * 64)
    finished = _with_engine(Finished(outputs), replace(engine, reason=engine.reason * 20))
    result = Result("training", "1.1", "i" * 64, "Succeeded", message="m" * 1000, outputs=encode(finished.outputs))
    assert engine.name == "portable"
    assert len(termination_message(result).encode()) <= 4096
    assert finished.outputs.engine_reason.startswith("training-hub cannot be used: training.osft.targetPatterns is 10,10,")


def test_settings_that_only_some_versions_have(image: Any) -> None:
    image(replace(HUB, settings=frozenset(), versions={"flash-attn": "2"}))
    spared = replace(OSFT, engine="training-hub", osft=OsftInputs(memory_efficient_init=False))
    assert {limit.field for limit in chosen(spared).replaced} == {"training.liger", "training.osft.memoryEfficientInit"}
    image(replace(HUB, settings=frozenset({"trust_remote_code"})))
    assert chosen(replace(SFT, trust_remote_code=True)).replaced == ()


def test_an_image_without_an_engine_is_named_with_what_it_lacks(image: Any) -> None:
    image(NO_HUB, "it requires the Python package trl 1.16 or newer, and the image has 0.9")
    with pytest.raises(StageError) as raised:
        chosen(SFT)
    assert raised.value.reason is reasons.ENGINE_MISSING
    assert raised.value.message == (
        "training.image: quay.io/team/image:1: engine training-hub cannot be used: it requires the Python package training-hub; engine portable"
        " cannot be used: it requires the Python package trl 1.16 or newer, and the image has 0.9; use another image."
    )
    with pytest.raises(StageError, match=r"use another image, or set training.engine to auto or portable"):
        chosen(replace(SFT, engine="training-hub"))


def test_the_arguments_are_those_that_act(tmp_path: Any) -> None:
    sft = arguments(SFT, Processes(2, 4, 1), tmp_path / "model", tmp_path, HUB, flash_attention=False)
    assert sft == {
        "model_path": str(tmp_path / "model"), "data_path": str(tmp_path / "data.jsonl"), "data_output_dir": str(tmp_path),
        "ckpt_output_dir": str(tmp_path / "output"), "num_epochs": 2, "effective_batch_size": 16, "learning_rate": 1e-2,
        "max_seq_len": 256, "max_tokens_per_gpu": 4096, "warmup_steps": 0, "nproc_per_node": 4, "nnodes": 2, "node_rank": 1,
        "process_data": False, "data_process_num_cpu_procs": 1, "random_seed": 42, "fsdp_options": {"sharding_strategy": "FULL_SHARD"},
        "disable_flash_attn": True, "checkpoint_at_epoch": True, "accelerate_full_state_at_epoch": False, "save_samples": 0,
    }  # fmt: skip
    inputs = replace(
        OSFT, scheduler="cosine_with_min_lr", scheduler_args={"min_lr_rate": 0.1}, learning_rate=1, trust_remote_code=True,
        checkpoints=CheckpointInputs(per_epoch=True),
    )  # fmt: skip
    osft = arguments(inputs, Processes(), tmp_path / "model", tmp_path, HUB, flash_attention=True)
    assert {name: value for name, value in osft.items() if name not in sft} == {
        "use_processed_dataset": True, "unfreeze_rank_ratio": 0.25, "seed": 42, "use_liger": True, "lr_scheduler": "cosine_with_min_lr",
        "target_patterns": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        "lr_scheduler_kwargs": {"min_lr_rate": 0.1}, "save_final_checkpoint": True, "trust_remote_code": True,
        "osft_memory_efficient_init": True,
    }  # fmt: skip
    assert osft["checkpoint_at_epoch"] is True
    assert isinstance(osft["learning_rate"], float)
    assert "osft_memory_efficient_init" not in arguments(
        OSFT, Processes(), tmp_path, tmp_path, replace(HUB, settings=frozenset()), flash_attention=True
    )


def test_a_person_who_set_an_argument_of_the_scheduler_set_the_field(image: Any) -> None:
    """The fields of a map are listed one by one."""
    image()
    bent = replace(SFT, scheduler="cosine", scheduler_args={"num_cycles": 2})
    assert chosen(bent).name == "training-hub", "defaults are replaced"
    engine = chosen(bent, "training.schedulerArgs.num_cycles")
    assert (engine.name, engine.reason.partition(",")[0]) == (
        "portable", "training-hub cannot be used: training.schedulerArgs is {'num_cycles': 2}",
    )  # fmt: skip

"""What becomes of every value of ``spec.training`` with each engine: from the YAML to the arguments of the engine's own functions."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from pydantic import BaseModel
from transformers import AutoModelForCausalLM, TrainingArguments

from finetune_contract import reasons
from finetune_contract.documents import LoraInputs, OsftInputs, TrainingInputs
from finetune_operator.api.training import Checkpoints, Lora, Osft, Sft, Training
from finetune_operator.core.adaptation import ADAPTATIONS, HUB_LIMITS
from finetune_operator.core.origins import explicit_fields
from finetune_operator.core.paths import Json, assign
from finetune_operator.core.resolve import SpecRejection, resolve
from finetune_operator.core.run import Run
from finetune_operator.core.settings import Trainer
from finetune_operator.core.stages import GRAPH
from finetune_operator.core.unsupported import UNSUPPORTED_VALUES
from finetune_operator.kube.configuration import Configuration
from finetune_stages.sdk import StageError
from finetune_stages.training import engines, lora, subspace
from finetune_stages.training.batches import BatchPlan
from finetune_stages.training.engines import Engine, choose
from finetune_stages.training.limits import portable_limits
from finetune_stages.training.memory import micro_batch_size, packs
from finetune_stages.training.processes import Processes
from finetune_stages.training.quantization import quantization
from finetune_stages.training.settings import settings
from finetune_stages.training.training_hub.arguments import arguments
from finetune_stages.training.training_hub.installed import Installed, NotInstalled
from finetune_stages.training.training_hub.limits import hub_limits

ROOT = Path(__file__).parents[3]
HUB = Installed(frozenset(), frozenset({"osft_memory_efficient_init"}), {"flash-attn": "2.8", "liger-kernel": "0.6"})
SECTIONS: dict[str, type[BaseModel]] = {"osft": Osft, "sft": Sft, "lora": Lora, "checkpoints": Checkpoints}
ALGORITHM_SECTIONS = ("osft", "sft", "lora")


def fields() -> Iterator[str]:
    """Yield every field of ``spec.training`` by its path."""
    for field in Training.model_fields.values():
        name = str(field.alias)
        inner = SECTIONS[name].model_fields.values() if name in SECTIONS else ()
        yield from (f"{name}.{part.alias}" for part in inner) if inner else (name,)


def resolved(spec: Json) -> Json:
    found = resolve(spec, Configuration().settings(Trainer(), {}))
    assert not isinstance(found, SpecRejection), found
    return found


def inputs_of(status: Json) -> TrainingInputs:
    """The document of stage training for a resolved run."""
    run = Run.parse(
        {"metadata": {"name": "r", "namespace": "n", "uid": "u"}, "spec": status["spec"], "status": {"resolved": status}}
    )
    found = GRAPH.programs["training"].inputs(run)
    assert isinstance(found, TrainingInputs)
    return found


def written(algorithm: str, **values: Any) -> TrainingInputs:
    """The document of a run that sets these values, of which the keys are paths in ``spec.training``."""
    spec: Json = {"dataset": {"uri": "org/data"}, "training": {"algorithm": algorithm}}
    for path, value in values.items():
        assign(spec, f"training.{path}", value)
    return inputs_of(resolved(spec))


@pytest.fixture
def image(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """``image(hub)``: whether the image has Training Hub; the packages of the portable engine are there."""

    def set_(hub: bool) -> None:
        def installed(_inputs: TrainingInputs) -> Installed:
            if not hub:
                raise NotInstalled("it requires the Python package training-hub")
            return HUB

        monkeypatch.setattr(engines, "installed", installed)
        monkeypatch.setattr(engines, "missing_package", lambda _inputs: None)

    return set_


# The parameters of the pipelines and of a component, written explicitly.


def explicit(name: str) -> tuple[TrainingInputs, tuple[str, ...], int]:
    """The document of a run of the corpus, the fields that it sets, and its number of processes."""
    status = resolved(yaml.safe_load((ROOT / f"tests/corpus/good/{name}.yaml").read_text())["spec"])
    assert (
        status["adapted"]
        == [
            {"field": "evaluation.backend", "preset": "auto", "value": "hf", "reason": "auto selects the backend of this release"}
        ]
        or name == "pipeline-lora"
    )
    return inputs_of(status), explicit_fields(status, "training", "model"), status["spec"]["training"]["workers"]


def engine_of(name: str) -> Engine:
    inputs, fields_set, processes = explicit(name)
    return choose(inputs, fields_set, processes, count_gpus=lambda: 1)


COMMON = {"model_path": "/model", "data_path": "/folder/data.jsonl", "data_output_dir": "/folder", "ckpt_output_dir": "/folder/output",
    "num_epochs": 1, "effective_batch_size": 128, "learning_rate": 5e-6, "max_seq_len": 8192, "warmup_steps": 0, "nproc_per_node": 1,
}  # fmt: skip
CALL_OF_SFT = {
    **COMMON, "max_tokens_per_gpu": 10000, "nnodes": 4, "node_rank": 0, "process_data": False, "data_process_num_cpu_procs": 1,
    "random_seed": 42, "fsdp_options": {"sharding_strategy": "FULL_SHARD"}, "disable_flash_attn": False, "checkpoint_at_epoch": True,
    "accelerate_full_state_at_epoch": False, "save_samples": 0,
}  # fmt: skip
CALL_OF_OSFT = {
    **COMMON, "max_tokens_per_gpu": 64000, "nnodes": 1, "node_rank": 0, "use_processed_dataset": True, "unfreeze_rank_ratio": 0.25,
    "target_patterns": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], "seed": 42, "use_liger": True,
    "lr_scheduler": "cosine", "lr_scheduler_kwargs": {}, "checkpoint_at_epoch": False, "save_final_checkpoint": True,
    "osft_memory_efficient_init": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "call"), [("pipeline-sft", CALL_OF_SFT), ("pipeline-osft", CALL_OF_OSFT), ("component-osft", CALL_OF_OSFT)]
)
def test_the_parameters_of_the_pipelines_act_with_training_hub(
    image: Callable[[bool], None], name: str, call: dict[str, Any]
) -> None:
    image(True)
    engine = engine_of(name)
    assert (engine.name, engine.replaced, engine.reason) == (
        "training-hub", (), "the image has it and it honors the values of the run",
    )  # fmt: skip
    inputs, _, processes = explicit(name)
    place = Processes(processes, 1, 0)
    assert arguments(inputs, place, Path("/model"), Path("/folder"), HUB, flash_attention=True) == call


PORTABLE_REJECTS = {
    "pipeline-sft": "training.sft.sharding: engine portable cannot honor FULL_SHARD, because it keeps a complete copy of the model in each process;",
    "pipeline-osft": "training.liger: engine portable cannot honor true, because it does not use Liger kernels;",
    "component-osft": "training.liger: engine portable cannot honor true, because it does not use Liger kernels;",
}


@pytest.mark.parametrize("name", PORTABLE_REJECTS)
def test_one_parameter_of_each_pipeline_is_rejected_by_the_portable_engine(image: Callable[[bool], None], name: str) -> None:
    image(False)
    with pytest.raises(StageError) as raised:
        engine_of(name)
    assert raised.value.reason is reasons.BAD_TRAINING_VALUE
    assert raised.value.message.startswith(PORTABLE_REJECTS[name])
    inputs, fields_set, processes = explicit(name)
    rejected = PORTABLE_REJECTS[name].partition(":")[0]
    engine = choose(inputs, [field for field in fields_set if field != rejected], processes, count_gpus=lambda: 1)
    assert (engine.name, [limit.field for limit in engine.replaced]) == ("portable", [rejected])


def test_a_parameter_of_the_lora_pipeline_that_has_no_effect_there_is_rejected() -> None:
    spec = yaml.safe_load((ROOT / "tests/corpus/good/pipeline-lora.yaml").read_text())["spec"]
    found = resolve(spec, Configuration().settings(Trainer(), {}))
    assert isinstance(found, SpecRejection)
    assert (
        found.message
        == "spec.training.liger: true is not possible here, because the portable engine does not use Liger kernels; remove it."
    )
    del spec["training"]["liger"]
    inputs = inputs_of(resolved(spec))
    assert list(portable_limits(inputs, 1)) == []
    assert (inputs.micro_batch_size, inputs.lora) == (2, LoraInputs(quantization="4bit"))


# One value at a time.

Effects = Mapping[str, Any]
PROBES: dict[str, tuple[str, Any]] = {
    "epochs": ("sft", 7), "effectiveBatchSize": ("sft", 64), "microBatchSize": ("sft", 2), "maxTokensPerGPU": ("sft", 9000),
    "maxSeqLen": ("sft", 4096), "learningRate": ("sft", 1e-3), "warmupSteps": ("sft", 9), "scheduler": ("osft", "linear"),
    "schedulerArgs": ("osft", {"num_cycles": 2.0}), "seed": ("sft", 7), "liger": ("osft", False), "unmask": ("sft", True),
    "gradientCheckpointing": ("sft", False), "osft.unfreezeRankRatio": ("osft", 0.5), "osft.targetPatterns": ("osft", ["q_proj"]),
    "osft.memoryEfficientInit": ("osft", False), "osft.trainable": ("osft", "targets"), "sft.sharding": ("sft", "HYBRID_SHARD"),
    "lora.rank": ("lora", 4), "lora.alpha": ("lora", 64), "lora.dropout": ("lora", 0.1), "lora.targetModules": ("lora", ["q_proj"]),
    "lora.rslora": ("lora", True), "lora.dora": ("lora", True), "lora.quantization": ("lora", "8bit"), "lora.packing": ("lora", True),
    "checkpoints.perEpoch": ("osft", True), "checkpoints.keep": ("osft", 2),
}  # fmt: skip
"""A value that is no default, and an algorithm that it belongs to."""
OF_THE_HUB: dict[str, dict[str, Any]] = {
    "epochs": {"num_epochs": 7}, "effectiveBatchSize": {"effective_batch_size": 64}, "maxTokensPerGPU": {"max_tokens_per_gpu": 9000},
    "maxSeqLen": {"max_seq_len": 4096}, "learningRate": {"learning_rate": 1e-3}, "warmupSteps": {"warmup_steps": 9},
    "scheduler": {"lr_scheduler": "linear"}, "schedulerArgs": {"lr_scheduler_kwargs": {"num_cycles": 2.0}}, "seed": {"random_seed": 7},
    "liger": {"use_liger": False}, "osft.unfreezeRankRatio": {"unfreeze_rank_ratio": 0.5}, "osft.targetPatterns": {"target_patterns": ["q_proj"]},
    "osft.memoryEfficientInit": {"osft_memory_efficient_init": False}, "sft.sharding": {"fsdp_options": {"sharding_strategy": "HYBRID_SHARD"}},
    "checkpoints.perEpoch": {"checkpoint_at_epoch": True},
}  # fmt: skip
"""The arguments of Training Hub that a probe changes."""
OUTSIDE_OF_THE_CALL = {"unmask": "tokenization", "checkpoints.keep": "publication"}
"""Fields that act for every engine in the same place, which is not the engine."""
OF_THE_PORTABLE_ENGINE: dict[str, dict[str, Any]] = {
    "epochs": {"num_train_epochs": 7}, "effectiveBatchSize": {"effective": 64, "gradient_accumulation_steps": 8},
    "microBatchSize": {"micro": 2, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 64},
    "maxTokensPerGPU": {"micro": 4, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 32},
    "learningRate": {"learning_rate": 1e-3}, "warmupSteps": {"warmup_steps": 9}, "scheduler": {"lr_scheduler_type": "linear"},
    "schedulerArgs": {"lr_scheduler_kwargs": {"num_cycles": 2.0}}, "seed": {"seed": 7, "plan_seed": 7},
    "gradientCheckpointing": {"recomputation": False}, "osft.unfreezeRankRatio": {"share": 0.5},
    "osft.targetPatterns": {"decomposed": ["q_proj"]}, "osft.trainable": {"embeddings": False}, "lora.rank": {"r": 4},
    "lora.alpha": {"lora_alpha": 64}, "lora.dropout": {"lora_dropout": 0.1}, "lora.targetModules": {"target_modules": ["q_proj"]},
    "lora.rslora": {"use_rslora": True}, "lora.dora": {"use_dora": True}, "lora.quantization": {"quantization": "8bit"},
    "lora.packing": {"packs": True}, "checkpoints.perEpoch": {"per_epoch": True},
}  # fmt: skip
"""What a probe changes in the settings of transformers' trainer, in the batches, in the decomposition and in PEFT's configuration."""
IN_THE_ROWS = {"maxSeqLen", "unmask"}
"""Fields that stage tokenization applies, whatever the engine is."""
IN_THE_PUBLICATION = {"checkpoints.keep"}
"""Fields that the publication applies, whatever the engine is."""


def hub_effects(inputs: TrainingInputs) -> dict[str, Any]:
    return arguments(inputs, Processes(), Path("/model"), Path("/folder"), HUB, flash_attention=True)


@pytest.fixture(scope="module")
def portable_effects(tiny_model: Path) -> Callable[[TrainingInputs], dict[str, Any]]:
    """Returns what the portable engine makes of a document."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)

    def of(inputs: TrainingInputs) -> dict[str, Any]:
        rows = 256
        micro = micro_batch_size(inputs, 1, 1200, None)
        plan = BatchPlan(np.full(rows, 1200), inputs.effective_batch_size, micro, 1, 0, inputs.seed, rows)
        found = settings(TrainingArguments, inputs, plan, tiny_model).to_dict()
        effects = {
            **{name: value for name, value in found.items() if name in _SETTINGS}, "effective": plan.effective, "micro": plan.micro,
            "plan_seed": plan.seed, "recomputation": found.get("activation_checkpointing", found.get("gradient_checkpointing")),
            "packs": packs(inputs), "quantization": quantization(inputs), "per_epoch": inputs.checkpoints.per_epoch,
        }  # fmt: skip
        if inputs.algorithm == "lora":
            config = lora.prepare(copy.deepcopy(model), inputs.lora or LoraInputs(), 0).model.peft_config["default"]
            effects.update(
                {name: getattr(config, name) for name in ("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora")}
            )
            effects["target_modules"] = sorted(config.target_modules)
        if inputs.algorithm == "osft":
            tuned = subspace.prepare(copy.deepcopy(model), inputs.osft or OsftInputs(), lambda _done, _total: None)
            factors: Any = next(iter(tuned.layers.values())).factors
            effects["share"] = factors.s.numel() / min(factors.u.shape[0], factors.v.shape[1])
            effects["decomposed"] = sorted({name.rpartition(".")[2] for name in tuned.layers})
            effects["embeddings"] = tuned.plain.get_input_embeddings().weight.requires_grad
        return effects

    return of


_SETTINGS = (
    "num_train_epochs", "gradient_accumulation_steps", "per_device_train_batch_size", "learning_rate", "warmup_steps", "lr_scheduler_type",
    "lr_scheduler_kwargs", "seed",
)  # fmt: skip


def difference(one: Effects, other: Effects) -> dict[str, Any]:
    return {name: value for name, value in other.items() if one.get(name) != value}


def states(limits: Any, field: str) -> bool:
    return any(limit.field == f"training.{field}" for limit in limits)


@pytest.mark.parametrize("field", PROBES)
def test_a_value_acts_on_the_portable_engine_or_is_rejected(portable_effects: Any, field: str) -> None:
    algorithm, value = PROBES[field]
    inputs = written(algorithm, **{field: value})
    found = difference(portable_effects(written(algorithm)), portable_effects(inputs))
    if field in IN_THE_ROWS | IN_THE_PUBLICATION:
        assert found == {}
    elif states(portable_limits(inputs, 4), field):
        assert field in ("sft.sharding", "osft.memoryEfficientInit")
    else:
        assert found == OF_THE_PORTABLE_ENGINE.get(field, {})
        assert found or field == "liger", "without an effect, false means what the engine does"


def belongs(field: str, algorithm: str) -> bool:
    """Whether a field can be set for an algorithm."""
    section = field.partition(".")[0]
    return section not in ALGORITHM_SECTIONS or section == algorithm


@pytest.mark.parametrize(
    ("field", "algorithm"), [(field, name) for field in PROBES for name in ("sft", "osft") if belongs(field, name)]
)
def test_a_value_acts_on_training_hub_or_is_rejected(field: str, algorithm: str) -> None:
    value = PROBES[field][1]
    value = not value if (field, algorithm) == ("liger", "sft") else value
    inputs = written(algorithm, **{field: value})
    found = difference(hub_effects(written(algorithm)), hub_effects(inputs))
    if states(hub_limits(inputs, HUB), field):
        assert (algorithm, field) in REJECTED_BY_THE_HUB
    elif field in IN_THE_ROWS - {"maxSeqLen"} | IN_THE_PUBLICATION or (algorithm, field) == ("sft", "checkpoints.perEpoch"):
        assert found == {}  # instructlab-training always writes a model after each epoch
    else:
        expected = OF_THE_HUB[field]
        assert found == ({"seed": expected["random_seed"]} if (field, algorithm) == ("seed", "osft") else expected)


REJECTED_BY_THE_HUB = {
    ("sft", "microBatchSize"), ("osft", "microBatchSize"), ("sft", "gradientCheckpointing"), ("osft", "gradientCheckpointing"),
    ("sft", "scheduler"), ("sft", "schedulerArgs"), ("sft", "liger"), ("osft", "osft.trainable"),
}  # fmt: skip


def test_the_operator_and_the_program_reject_the_same_values_of_the_portable_engine() -> None:
    inputs = replace(
        written("osft"), liger=True, sharding="FULL_SHARD", osft=OsftInputs(memory_efficient_init=False), engine="portable"
    )
    known = {rule.path: rule.reason for rule in ADAPTATIONS if rule.reason.startswith("the portable engine ")}
    limits = {limit.field: limit.reason for limit in portable_limits(inputs, 2)}
    assert {path: reason.replace("the portable engine", "it") for path, reason in known.items()} == limits


def test_the_operator_and_the_program_know_the_same_limits_of_training_hub() -> None:
    """Those that no version honors are rejected before the run starts; the program rejects them for ``auto``."""
    values = {"engine": "training-hub", "micro_batch_size": 1, "gradient_checkpointing": False, "liger": True}
    sft = replace(written("sft"), scheduler="linear", scheduler_args={"a": 1}, **values)
    osft = replace(written("osft"), osft=OsftInputs(0, ("a,b",), "targets"), **values)
    everything = Installed(frozenset(), frozenset({"osft_memory_efficient_init"}), {"liger-kernel": "1"})
    found = {limit.field for inputs in (sft, osft) for limit in hub_limits(inputs, everything)}
    assert found == {rule.path for rule in HUB_LIMITS}


def test_every_field_has_a_probe_or_concerns_the_pods() -> None:
    assert set(fields()) - set(PROBES) == OF_THE_PODS | OF_THE_CHOICE | NOT_SUPPORTED
    unsupported = {entry.path.removeprefix("training.") for entry in UNSUPPORTED_VALUES if entry.path.startswith("training.")}
    assert unsupported - {"placement.priorityClassName"} == NOT_SUPPORTED


OF_THE_PODS = {
    "runtimeRef", "image", "imagePullSecrets", "workers", "gpusPerWorker", "processesPerWorker", "resources", "env", "volumes", "volumeMounts",
    "sharedMemory", "placement",
}  # fmt: skip
OF_THE_CHOICE = {"algorithm", "engine"}
NOT_SUPPORTED = {
    "enabled", "engineArgs", "checkpoints.everySamples", "checkpoints.everyMinutes", "checkpoints.fullState", "checkpoints.final",
    "checkpoints.resume",
}  # fmt: skip


# The table of docs/engines.md.


def table() -> dict[str, tuple[str, str, str]]:
    """The cells of the table for each field: portable, training-hub with sft, training-hub with osft."""
    text = (ROOT / "docs/engines.md").read_text(encoding="utf-8").partition("| Field | ")[2].partition("\n\n")[0]
    found: dict[str, tuple[str, str, str]] = {}
    for line in text.splitlines()[2:]:
        names, *cells = (cell.strip() for cell in line.strip().strip("|").split("|"))
        for name in re.findall(r"`([\w.*]+)`", names):
            assert name not in found, f"{name} is in two rows"
            found[name] = (cells[0], cells[1], cells[2])
    return found


def cells_of(field: str) -> tuple[str, str, str]:
    rows = table()
    return rows[field] if field in rows else rows[f"{field.partition('.')[0]}.*"]


def test_every_field_is_in_the_table_of_the_documentation() -> None:
    rows = {name for name in table() if name != "model.trustRemoteCode"}
    known = set(fields())
    assert {field for field in known if field not in rows and f"{field.partition('.')[0]}.*" not in rows} == set()
    assert {name for name in rows if name not in known and not name.endswith(".*")} == set()


@pytest.mark.parametrize("field", PROBES)
def test_the_table_states_what_the_engines_reject(field: str) -> None:
    algorithm, value = PROBES[field]
    portable, *hub = cells_of(field)
    assert portable.startswith("works") == (
        not states(portable_limits(written(algorithm, **{field: value}), 4), field) and field != "liger"
    )
    for name, cell in zip(("sft", "osft"), hub, strict=True):
        if not belongs(field, name):
            assert cell == ""
            continue
        probe = not value if (field, name) == ("liger", "sft") else value
        inputs = replace(written(name, **{field: probe}), engine="training-hub")
        assert cell.startswith("works") != states(hub_limits(inputs, HUB), field), cell

"""LoRA on a real model: which layers get an adapter, what the merge leaves, and that both results load anywhere."""

from __future__ import annotations

import json
import shutil
import signal
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPTNeoXConfig

import pydocs
from finetune_contract import reasons
from finetune_contract.codec import decode
from finetune_contract.documents import CheckpointInputs, LoraInputs, RunInfo, StageDocument
from finetune_contract.result import TrainingOutputs
from finetune_contract.workspace import SENTINEL, Attempt
from finetune_stages.sdk import Context, StageError, read_seal, verify_seal
from finetune_stages.training.lora import Adapter, attach, prepare
from finetune_stages.training.pretrained import Pretrained
from finetune_stages.training.publication import Publication
from finetune_stages.training.tuning import Origin
from rendering import skill_rows

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT reads it

TOKENS = torch.arange(60).reshape(3, 20) % 50
PROJECTIONS = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


def load(model: Path, **options: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(model, **{"dtype": torch.float32, **options})


def logits(model: Any) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=TOKENS).logits
    return found


def loss_of(model: Any, tokenizer: Path) -> float:
    """Mean loss over the rows that the bench trains on, all tokens."""
    encode = AutoTokenizer.from_pretrained(tokenizer).apply_chat_template
    batches = [encode(row["messages"], return_tensors="pt", return_dict=True) for row in skill_rows("signature")[:50]]
    with torch.no_grad():
        return sum(float(model(**batch, labels=batch["input_ids"]).loss) for batch in batches) / len(batches)


def tuned(model: Any, inputs: LoraInputs, steps: int = 5) -> Adapter:
    """A few steps of Adam, large ones."""
    adapter = prepare(model, inputs, seed=7)
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-2)
    adapter.model.train()
    for _ in range(steps):
        adapter.model(input_ids=TOKENS, labels=TOKENS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return adapter


KINDS = [LoraInputs(4, 8), LoraInputs(4, 8, rslora=True), LoraInputs(4, 8, dora=True), LoraInputs(4, 8, dropout=0.3)]


@pytest.mark.parametrize("inputs", KINDS, ids=["plain", "rslora", "dora", "dropout"])
def test_merged_and_adapted_model_compute_the_same(tiny_model, tmp_path, inputs):
    before = load(tiny_model)
    assert torch.allclose(logits(prepare(load(tiny_model), inputs, seed=7).model), logits(before), atol=1e-6)
    adapter = tuned(load(tiny_model), inputs)
    wanted = logits(adapter.model)
    assert (wanted - logits(before)).abs().max() > 0.1
    state = dict(adapter.plain_state())
    assert {name: tensor.shape for name, tensor in state.items()} == {
        name: tensor.shape for name, tensor in before.state_dict().items()
    }
    merged = load(tiny_model)
    merged.load_state_dict(state)
    assert torch.allclose(logits(merged), wanted, atol=1e-5)
    assert torch.equal(logits(adapter.model), wanted)  # the model in training is as it was
    changed = {name for name, tensor in before.state_dict().items() if not torch.equal(state[name], tensor)}
    assert changed == {name for name in state if name.split(".")[-2] in PROJECTIONS and name.endswith("weight")}

    assert adapter.save_adapter(tmp_path / "adapter", Origin())
    again = PeftModel.from_pretrained(load(tiny_model), tmp_path / "adapter")
    assert torch.allclose(logits(again), wanted, atol=1e-6)


def test_the_scale_is_that_of_the_paper(tiny_model):
    name = "model.layers.0.mlp.up_proj"
    for inputs, scale in ((LoraInputs(4, 8), 2.0), (LoraInputs(4, 8, rslora=True), 4.0)):
        layer = tuned(load(tiny_model), inputs).layers[name]
        factors = (layer.lora_B["default"].weight @ layer.lora_A["default"].weight).detach()
        assert torch.allclose(layer.get_delta_weight("default"), scale * factors, atol=1e-6)


def test_a_merge_into_16_bits_rounds_once(tiny_model):
    adapter = tuned(load(tiny_model, dtype=torch.bfloat16), LoraInputs(4, 8))
    state = dict(adapter.plain_state())
    for name, layer in adapter.layers.items():
        exact = layer.get_base_layer().weight.float() + layer.get_delta_weight("default").float()
        assert torch.equal(state[f"{name}.weight"], exact)


def test_the_seed_decides_the_beginning(tiny_model):
    first, again, other = (prepare(load(tiny_model), LoraInputs(2), seed) for seed in (1, 1, 2))
    assert all(torch.equal(one, two) for one, two in zip(first.parameters(), again.parameters(), strict=True))
    assert not all(torch.equal(one, two) for one, two in zip(first.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    ("patterns", "layers", "written"),
    [
        ((), 14, PROJECTIONS),
        (("all-linear",), 14, PROJECTIONS),
        (("q_proj", "v_proj"), 4, ["q_proj", "v_proj"]),
        (("layers.1.mlp", "o_proj"), 5, None),
        (("attn.q_proj.weight",), 2, ["q_proj"]),
    ],
)
def test_patterns_choose_the_layers(tiny_model, patterns, layers, written):
    adapter = prepare(load(tiny_model), LoraInputs(2, target_modules=patterns), 0)
    assert len(adapter.layers) == layers
    assert all(
        not patterns or patterns == ("all-linear",) or any(p in f"{name}.weight" for p in patterns) for name in adapter.layers
    )
    assert adapter.model.peft_config["default"].target_modules == set(written or adapter.layers)


def test_a_model_with_other_names_gets_adapters_in_all_its_linear_layers():
    shape = GPTNeoXConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    adapter = prepare(AutoModelForCausalLM.from_config(shape), LoraInputs(2), 0)
    assert {name.rpartition(".")[2] for name in adapter.layers} == {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}


def test_a_model_without_linear_layers_is_rejected():
    shape = GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2, n_positions=32)
    with pytest.raises(
        StageError, match=r"training.lora.targetModules: no linear layer matches \['q_proj'.*such as lm_head.weight"
    ):
        prepare(AutoModelForCausalLM.from_config(shape), LoraInputs(2), 0)


@pytest.mark.parametrize(
    ("patterns", "reason", "sentence"),
    [
        (("attention_out",), reasons.NO_MATCHING_WEIGHTS, r"targetModules: no linear layer matches \['attention_out'\]; use names such as model.layers.\*.self_attn.q_proj"),
        (("q_proj", "w1"), reasons.NO_MATCHING_WEIGHTS, r"targetModules: no linear layer matches \['w1'\]; use names"),
        (("lm_head",), reasons.BAD_TRAINING_VALUE, r"match lm_head.weight, the output layer"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_rejected(tiny_model, patterns, reason, sentence):
    with pytest.raises(StageError, match=sentence) as raised:
        prepare(load(tiny_model), LoraInputs(target_modules=patterns), 0)
    assert raised.value.reason is reason


LORA = {"algorithm": "lora", "lora": LoraInputs(8, 16)}


@pytest.fixture(scope="module")
def lora(new_bench, inputs):
    """LoRA over two epochs with a checkpoint each."""
    bench = new_bench()
    ended = bench.train(inputs(**LORA, checkpoints=CheckpointInputs(True)))
    assert ended.code == 0, ended.errors
    return bench, ended


def test_training_lowers_the_loss_with_few_parameters(lora, tiny_model):
    bench, ended = lora
    outputs, metrics = decode(TrainingOutputs, ended.result.outputs), ended.result.metrics
    assert (outputs.samples_seen, outputs.expected_samples, outputs.steps, outputs.opened) == (100, 100, 8, True)
    assert metrics["min_loss"] < metrics["first_loss"] - 0.1
    assert loss_of(load(bench.path("final_model")), tiny_model) < loss_of(load(tiny_model), tiny_model) - 0.05
    assert metrics["trainable_parameters"] == sum(
        tensor.numel() for tensor in load_file(bench.path("adapter/adapter_model.safetensors")).values()
    )
    assert "lora: 2 x 50 rows in 8 steps" in ended.result.message


def test_both_the_merged_model_and_the_adapter_are_left(lora, tiny_model):
    bench, ended = lora
    merged = logits(AutoModelForCausalLM.from_pretrained(bench.path("final_model")))
    adapted = logits(PeftModel.from_pretrained(load(tiny_model), bench.path("adapter")))
    assert torch.allclose(merged, adapted, atol=1e-4)
    assert (merged - logits(load(tiny_model))).abs().max() > 0.1
    seal = verify_seal(bench.path("adapter"))
    assert seal.digest == ended.result.outputs["adapterDigest"]
    assert seal.note["model"] == verify_seal(bench.path("final_model")).digest == ended.result.outputs["digest"]
    assert set(seal.files) == {"adapter_config.json", "adapter_model.safetensors"}
    for path in bench.path("adapter").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o660 == 0o660, path


def test_the_adapter_names_no_path_of_this_machine(lora):
    bench, _ = lora
    text = bench.path("adapter/adapter_config.json").read_text()
    config = json.loads(text)
    assert (config["base_model_name_or_path"], config["revision"]) == (None, None)
    assert (config["r"], config["lora_alpha"], config["task_type"], config["inference_mode"]) == (8, 16, "CAUSAL_LM", True)
    assert config["target_modules"] == PROJECTIONS
    assert not any(folder in text for folder in (str(bench.programs.workspace), "/tmp", "attempts"))


def test_checkpoints_are_ordinary_models(lora):
    bench, _ = lora
    assert sorted(path.name for path in bench.path("checkpoints").iterdir()) == ["epoch_1", "epoch_2"]
    first, last, final = (
        load_file(bench.path(name) / "model.safetensors")
        for name in ("checkpoints/epoch_1", "checkpoints/epoch_2", "final_model")
    )
    assert all(torch.equal(last[name], final[name]) for name in final)
    assert any(not torch.equal(first[name], final[name]) for name in final)
    assert bench.leftovers() == []


def test_an_adapter_that_is_gone_is_trained_again_to_the_last_bit(lora, inputs, tmp_path):
    bench, ended = lora
    (bench.path("adapter") / "adapter_model.safetensors").unlink()
    (tmp_path / "bitsandbytes.py").write_text("raise RuntimeError('imported although nothing is quantized')")
    without = {"PYTHONPATH": str(tmp_path)}
    again = bench.train(inputs(**LORA, checkpoints=CheckpointInputs(True)), attempt="1.2", environment=without)
    assert again.code == 0, again.errors
    assert "nothing to do" not in again.output
    assert again.result.outputs == ended.result.outputs
    last = bench.train(inputs(**LORA, checkpoints=CheckpointInputs(True)), attempt="1.3")
    assert "nothing to do" in last.output


@pytest.fixture
def hub_base(bench, tiny_model, tmp_path) -> str:
    """A base model in the run's place with the seal of one that is from the hub; its commit."""
    base = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    note = {"source": "team/base", "commit": "c" * 40}
    (base / SENTINEL).write_text(json.dumps({"digest": "d" * 64, "files": {}, "note": note}))
    bench.run_path("base_model").unlink()
    bench.run_path("base_model").symlink_to(base)
    return note["commit"]


KILLED = """
import os, signal
from finetune_stages.sdk import Context
from finetune_stages.training.stage import main
publish = Context.publish
def published_and_killed(self, source, target):
    publish(self, source, target)
    os.kill(os.getpid(), signal.SIGKILL)
Context.publish = published_and_killed
main()
"""


def test_no_adapter_is_ever_beside_another_models_weights(bench, inputs, hub_base):
    """LoRA, another LoRA that is killed between its two publications, that one again, and SFT."""
    bench.write_rows(pydocs.rows("signature", 8))
    first = {**LORA, "lora": LoraInputs(2, 4, dropout=0.1, dora=True), "epochs": 1, "gradient_checkpointing": True}
    second = {**LORA, "lora": LoraInputs(4, 4), "epochs": 1}
    ended = bench.train(inputs(**first))
    assert ended.code == 0, ended.errors
    config = json.loads(bench.path("adapter/adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"], config["use_dora"]) == ("team/base", hub_base, True)
    assert read_seal(bench.path("adapter")).note["base"] == "d" * 64

    killed = bench.train(inputs(**second), attempt="2.1", command=[sys.executable, "-c", KILLED])
    assert killed.code == -signal.SIGKILL
    assert verify_seal(bench.path("final_model")).digest != ended.result.outputs["digest"]
    assert not bench.path("adapter").exists()
    again = bench.train(inputs(**second), attempt="2.2")
    assert again.code == 0, again.errors
    assert verify_seal(bench.path("adapter")).note["model"] == read_seal(bench.path("final_model")).digest

    other = bench.train(inputs(epochs=1), attempt="3.1")
    assert other.code == 0, other.errors
    assert other.result.outputs["digest"] == verify_seal(bench.path("final_model")).digest
    assert not bench.path("adapter").exists()
    assert bench.leftovers() == []


def test_an_attempt_that_was_overtaken_leaves_the_newer_ones_adapter(inputs, tmp_path):
    document = StageDocument(2, "training", RunInfo("demo", "me", "0" * 8), {})
    old, new = (Context(document, tmp_path, Attempt(1, number), "0" * 64) for number in (1, 2))
    new.become_current()
    adapter = old.path(old.layout.adapter)
    adapter.mkdir(parents=True)
    stale = Publication(old, Pretrained(tmp_path, {}, {}), inputs(), old.scratch(), lambda *_: None)
    with pytest.raises(StageError, match=r"attempt 1\.2 has replaced it"):
        stale.withdraw_adapter()
    assert adapter.exists()


def test_attach_reads_what_save_wrote(tiny_model, tmp_path):
    adapter = tuned(load(tiny_model), LoraInputs(4, 8, dora=True))
    adapter.save_adapter(tmp_path, Origin("team/base", "main"))
    again = attach(load(tiny_model), tmp_path)
    assert all(torch.equal(tensor, dict(again.plain_state())[name]) for name, tensor in adapter.plain_state())

"""The training program as its container runs it: real training, real files, and what a second start finds."""

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
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, MixtralConfig

import pydocs
from finetune_contract import progress as progress_lines
from finetune_contract.codec import decode
from finetune_contract.documents import CheckpointInputs, OsftInputs
from finetune_contract.result import TrainingOutputs
from finetune_stages.sdk import read_seal, verify_seal
from finetune_stages.training.subspace import frozen_directions
from finetune_stages.training.targets import is_target
from rendering import Tokenization, skill_rows

OSFT = {"algorithm": "osft", "osft": OsftInputs(0.25, (), "all")}


def loss_on(model: Path, rows: list[Any]) -> float:
    """Mean loss over the rows, all tokens, of a model as anybody loads it."""
    tokenizer, loaded = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
    losses = []
    for row in rows:
        tokens = tokenizer.apply_chat_template(row["messages"], return_tensors="pt", return_dict=True)
        with torch.no_grad():
            losses.append(float(loaded(**tokens, labels=tokens["input_ids"]).loss))
    return sum(losses) / len(losses)


@pytest.fixture(scope="module")
def sft(new_bench, inputs):
    """SFT over two epochs with a checkpoint each, of which one is kept."""
    bench = new_bench()
    bench.write_rows([*skill_rows("signature")[:50], {"messages": [{"role": "assistant", "content": "Wrong.", "weight": 0}]}])
    stage_inputs = inputs(checkpoints=CheckpointInputs(True, 1))
    ended = bench.train(stage_inputs)
    assert ended.code == 0, ended.errors
    return bench, stage_inputs, ended


def test_every_sample_is_seen_and_the_loss_falls(sft):
    _, _, ended = sft
    outputs = decode(TrainingOutputs, ended.result.outputs)
    assert (outputs.rows, outputs.dropped_rows, outputs.samples_seen, outputs.expected_samples) == (50, 1, 100, 100)
    assert (outputs.steps, outputs.processes, outputs.opened) == (8, 1, True)
    assert [point.step for point in ended.result.history] == list(range(1, 9))
    metrics = ended.result.metrics
    assert metrics["final_loss"] < 0.9 * metrics["first_loss"]
    assert metrics["min_loss"] <= metrics["last_tenth_loss"]
    assert metrics["tokens"] > metrics["rows"] * 2
    assert metrics["peak_memory_bytes"] > 100e6
    assert "1 rows were left out in stage tokenization" in ended.result.message


def test_the_model_is_like_its_base_and_better_at_the_rows(sft, tiny_model):
    bench, _, ended = sft
    model = bench.path("final_model")
    before, after = load_file(tiny_model / "model.safetensors"), load_file(model / "model.safetensors")
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in after.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in before.items()
    }
    assert any(not torch.equal(after[name], before[name]) for name in after)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (model / name).read_bytes() == (tiny_model / name).read_bytes()
    config, base = (json.loads((folder / "config.json").read_text()) for folder in (model, tiny_model))
    assert config == {**base, "use_cache": True}
    rows = skill_rows("signature")[:20]
    assert loss_on(model, rows) < loss_on(tiny_model, rows)
    assert verify_seal(model).digest == ended.result.outputs["digest"]


def test_files_can_be_read_and_replaced_by_the_group(sft):
    bench, _, _ = sft
    for path in bench.path("final_model").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o660 == 0o660, path


def test_only_the_newest_checkpoint_is_kept_and_loads(sft):
    bench, _, _ = sft
    assert [path.name for path in bench.path("checkpoints").iterdir()] == ["epoch_2"]
    assert read_seal(bench.path("checkpoints/epoch_2")).note["epoch"] == 2
    last, final = (load_file(bench.path(name) / "model.safetensors") for name in ("checkpoints/epoch_2", "final_model"))
    assert all(torch.equal(last[name], final[name]) for name in final)
    AutoModelForCausalLM.from_pretrained(bench.path("checkpoints/epoch_2"))


def test_progress_is_reported_at_every_stage(sft):
    _, _, ended = sft
    told = [seen for line in ended.output.splitlines() if (seen := progress_lines.last(line))]
    percents = [seen.percent for seen in told]
    assert percents == sorted(percents)
    notes = [seen.note for seen in told if seen.note]
    assert {"loading PyTorch", "loading the base model", "writing the model", "verifying the model"} <= set(notes)
    steps = [seen for seen in told if seen.step and not seen.note]
    assert all(seen.loss and seen.learning_rate is not None and seen.tokens_per_second for seen in steps)
    message = json.loads(ended.message)
    assert (message["progressPercentage"], message["currentStep"], message["totalSteps"]) == (100, 8, 8)


def test_nothing_is_left_behind(sft):
    bench, _, _ = sft
    assert bench.leftovers() == []
    written = [path for path in bench.programs.workspace.parent.glob("program-*/**/*") if path.is_file()]
    assert {path.name for path in written} <= {"document.json", "termination-log"}


def test_a_second_start_repeats_the_result_without_the_engine(sft, tmp_path):
    bench, stage_inputs, ended = sft
    (tmp_path / "torch.py").write_text("raise ImportError('not needed')")
    again = bench.train(stage_inputs, attempt="1.2", environment={"PYTHONPATH": str(tmp_path)})
    assert again.code == 0
    assert "nothing to do" in again.output
    assert again.result.outputs == ended.result.outputs


def test_a_model_that_is_gone_is_trained_again(sft):
    bench, stage_inputs, ended = sft
    (bench.path("final_model") / "model.safetensors").unlink()
    again = bench.train(stage_inputs, attempt="1.3")
    assert again.code == 0, again.errors
    assert again.result.outputs["digest"] == ended.result.outputs["digest"]  # the same seed, the same model to the last bit


@pytest.fixture(scope="module")
def half_base(tiny_model, tmp_path_factory):
    """The tiny model in 16 bits, its output layer tied to its embeddings, as most small models are published."""
    folder = tmp_path_factory.mktemp("half") / "model"
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    model.config.tie_word_embeddings = True
    model.lm_head.weight = model.model.embed_tokens.weight
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def osft(new_bench, inputs, half_base):
    """OSFT on a model of 16 bits with tied weights."""
    bench = new_bench(half_base)
    ended = bench.train(inputs(**OSFT))
    assert ended.code == 0, ended.errors
    return bench, ended


def test_osft_lowers_the_loss_and_leaks_nothing(osft):
    _, ended = osft
    metrics = ended.result.metrics
    assert metrics["final_loss"] < 0.9 * metrics["first_loss"]
    assert 0 < metrics["osft_leak"] < 1e-3


def test_osft_leaves_an_ordinary_model_of_the_same_dtype(osft, half_base):
    bench, _ = osft
    before, after = load_file(half_base / "model.safetensors"), load_file(bench.path("final_model/model.safetensors"))
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in after.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in before.items()
    }
    assert "lm_head.weight" not in after
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert any(is_target(name) for name in changed)
    assert "model.embed_tokens.weight" in changed


def test_the_written_weights_leak_no_more_than_16_bits_round(osft, half_base):
    bench, _ = osft
    before, after = load_file(half_base / "model.safetensors"), load_file(bench.path("final_model/model.safetensors"))
    for name in filter(is_target, (name for name in after if name.endswith("weight"))):
        weight, change = before[name].float(), (after[name].float() - before[name].float())
        left, _, right = torch.linalg.svd(weight, full_matrices=False)
        kept = frozen_directions(tuple(weight.shape), 0.25)
        assert (left[:, :kept].T @ change).norm() < 0.05 * change.norm(), name
        assert (change @ right[:kept].T).norm() < 0.05 * change.norm(), name


def test_targets_alone_leave_everything_else_untouched(bench, inputs, tiny_model):
    ended = bench.train(inputs(**{**OSFT, "osft": OsftInputs(0.5, ("mlp",), "targets"), "gradient_checkpointing": True}))
    assert ended.code == 0, ended.errors
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_model, bench.path("final_model")))
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {name for name in after if "mlp" in name}
    assert ended.result.metrics["final_loss"] < ended.result.metrics["first_loss"]
    assert ended.result.metrics["osft_leak"] < 1e-3


def test_a_mixture_of_experts_whose_weights_have_other_names_in_memory(new_bench, inputs, tiny_model, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    shape = MixtralConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        intermediate_size=32, num_local_experts=4, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(shape, dtype=torch.bfloat16).save_pretrained(tmp_path / "mixture")
    tokenizer.save_pretrained(tmp_path / "mixture")
    bench = new_bench(tmp_path / "mixture")
    ended = bench.train(inputs(**OSFT))
    assert ended.code == 0, ended.errors
    before, after = (load_file(folder / "model.safetensors") for folder in (tmp_path / "mixture", bench.path("final_model")))
    assert {name: tensor.shape for name, tensor in after.items()} == {name: tensor.shape for name, tensor in before.items()}
    assert any("experts" in name and not torch.equal(after[name], before[name]) for name in after)


def test_documents_are_learned_by_a_model_without_a_chat_template(bench, inputs, tiny_model, tmp_path):
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (model / "chat_template.jinja").unlink()
    stage = Tokenization(bench.programs.workspace, bench.programs.run)
    stage.link_model(model)
    stage.write([{"text": f"Document {number} is about the number {number}."} for number in range(20)], form="text")
    stage(max_seq_len=256)
    ended = bench.train(inputs())
    assert (ended.code, ended.result.outputs["rows"]) == (0, 20), ended.errors
    assert not (bench.path("final_model") / "chat_template.jinja").exists()


def test_fewer_rows_than_a_batch_are_one_smaller_step(bench, inputs):
    bench.write_rows(pydocs.rows("signature", 3))
    ended = bench.train(inputs(effective_batch_size=64, micro_batch_size=2, unmask=True))
    assert ended.code == 0, ended.errors
    outputs = decode(TrainingOutputs, ended.result.outputs)
    assert (outputs.samples_seen, outputs.steps) == (6, 2)


@pytest.mark.parametrize("note", ["loading PyTorch", "loading the trainer", None])
def test_sigterm_ends_within_seconds_and_publishes_nothing(bench, inputs, note):
    running = bench.start(
        inputs(epochs=1000), command=[sys.executable, "-m", "finetune_stages.training"]
    )  # imports PyTorch itself
    bench.wait_for(lambda seen: seen.note == note and (note is not None or (seen.step or 0) > 3))
    running.process.send_signal(signal.SIGTERM)
    ended = running.wait(timeout=20)
    assert (ended.code, ended.reason) == (143, "Interrupted")
    assert "Traceback" not in ended.errors
    assert bench.leftovers() == []
    assert not bench.path("final_model").exists()


def test_a_killed_attempt_leaves_no_trace_in_the_next_one(bench, inputs):
    stage_inputs = inputs(epochs=30, checkpoints=CheckpointInputs(True, 2))
    running = bench.start(stage_inputs)
    bench.wait_for(lambda seen: (seen.step or 0) > 20)
    running.process.kill()
    assert running.wait().code == -signal.SIGKILL
    assert not bench.path("final_model").exists()
    assert all(verify_seal(path) for path in bench.path("checkpoints").iterdir())
    again = bench.train(stage_inputs, attempt="1.2")
    assert again.code == 0, again.errors
    assert again.result.outputs["samplesSeen"] == 1500
    assert {path.name for path in bench.path("checkpoints").iterdir()} == {"epoch_29", "epoch_30"}
    assert bench.leftovers() == []

"""OSFT as the paper has it (arXiv 2504.07097): what must hold of every weight, checked on a real model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from finetune_contract import reasons
from finetune_contract.documents import OsftInputs
from finetune_stages.sdk import StageError
from finetune_stages.training.subspace import Subspace, frozen_directions, prepare
from finetune_stages.training.targets import is_target

TOKENS = torch.arange(60).reshape(3, 20) % 50


def load(model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)


def tuned(model: Any, inputs: OsftInputs, steps: int = 5) -> Subspace:
    """A few steps of Adam, large ones."""
    subspace = prepare(model, inputs, lambda done, total: None)
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-2)
    for _ in range(steps):
        model(input_ids=TOKENS, labels=TOKENS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        subspace.after_step()
    return subspace


@pytest.mark.parametrize(
    ("shape", "ratio", "expected"),
    [
        ((64, 64), 0.25, 48), ((64, 192), 0.25, 48), ((10, 30), 0.9, 1), ((64, 64), 0, 64), ((64, 64), 1, 0), ((64, 64), 0.999, 0),
        ((1, 30), 0.25, 0), ((1, 30), 0.0, 1), ((30, 1), 1.0, 0), ((3, 2), 0.5, 1),
    ],
)  # fmt: skip
def test_the_ratio_is_taken_as_it_is_written(shape, ratio, expected):
    assert frozen_directions(shape, ratio) == expected


@pytest.mark.parametrize(
    ("ratio", "trainable"), [(0.0, "all"), (0.25, "all"), (0.25, "targets"), (0.75, "all"), (1.0, "targets")]
)
def test_before_the_first_step_the_model_is_the_base(tiny_model, ratio, trainable):
    base, model = load(tiny_model), load(tiny_model)
    prepare(model, OsftInputs(ratio, (), trainable), lambda done, total: None)
    with torch.no_grad():
        assert torch.allclose(model(TOKENS).logits, base(TOKENS).logits, atol=1e-6)


@pytest.fixture(scope="module")
def example(tiny_model: Path) -> tuple[dict[str, Any], dict[str, Any], Subspace]:
    """Weights before and after a tuning of the factors only."""
    model = load(tiny_model)
    before = load(tiny_model).state_dict()
    subspace = tuned(model, OsftInputs(0.25, (), "targets"))
    return before, dict(subspace.plain_state()), subspace


def test_the_model_keeps_the_names_and_shapes_of_its_weights(example):
    before, after, _ = example
    assert {name: tensor.shape for name, tensor in after.items()} == {name: tensor.shape for name, tensor in before.items()}


def test_no_change_leaks_into_the_frozen_directions(example):
    before, after, subspace = example
    leaks = []
    for name in filter(lambda name: is_target(name) and name.endswith("weight"), before):
        change = after[name] - before[name]
        left, _, right = torch.linalg.svd(before[name], full_matrices=False)
        kept = frozen_directions(tuple(change.shape), 0.25)
        size = change.norm()
        assert size > 0.01 * before[name].norm()
        leaks += [(left[:, :kept].T @ change).norm() / size, (change @ right[:kept].T).norm() / size]
        assert torch.linalg.matrix_rank(change, rtol=1e-3) <= 2 * (min(change.shape) - kept)
    assert max(leaks) < 1e-4
    assert subspace.leak() == pytest.approx(float(max(leaks)), abs=1e-4)


def test_the_trained_factors_stay_orthogonal_to_the_frozen_ones(example):
    before, _, subspace = example
    for name, layer in subspace.layers.items():
        left, _, right = torch.linalg.svd(before[f"{name}.weight"], full_matrices=False)
        kept = frozen_directions(tuple(layer.weight.shape), 0.25)
        factors = layer.factors
        assert (left[:, :kept].T @ factors.u).abs().max() < 1e-5, name
        assert (factors.v @ right[:kept].T).abs().max() < 1e-5, name
        assert factors.s.numel() == min(layer.weight.shape) - kept


def test_inputs_in_the_frozen_directions_are_answered_as_before(example):
    before, after, _ = example
    name = "model.layers.0.mlp.up_proj.weight"
    _, _, right = torch.linalg.svd(before[name], full_matrices=False)
    inputs = right[:48].T @ torch.ones(48)
    assert torch.allclose(after[name] @ inputs, before[name] @ inputs, rtol=1e-4, atol=1e-5)


def test_other_weights_stay_as_they_are_with_targets(example):
    before, after, _ = example
    others = [name for name in before if not is_target(name)]
    assert others
    assert all(torch.equal(after[name], before[name]) for name in others)


def test_other_weights_learn_with_all(tiny_model):
    before = load(tiny_model).state_dict()
    subspace = tuned(load(tiny_model), OsftInputs(0.25, (), "all"))
    after = dict(subspace.plain_state())
    for name in ("model.embed_tokens.weight", "lm_head.weight", "model.norm.weight", "model.layers.0.self_attn.q_proj.bias"):
        assert not torch.equal(after[name], before[name])
    assert subspace.leak() < 1e-4


def test_without_the_second_projection_it_would_leak(tiny_model, monkeypatch):
    monkeypatch.setattr(Subspace, "after_step", lambda self: None)
    assert tuned(load(tiny_model), OsftInputs(0.25, (), "targets")).leak() > 0.05


def test_the_whole_ratio_trains_the_weights_themselves(tiny_model):
    before, model = load(tiny_model).state_dict(), load(tiny_model)
    subspace = tuned(model, OsftInputs(1.0, (), "targets"))
    after = dict(subspace.plain_state())
    assert subspace.layers == {}
    changed = {name for name in before if not torch.equal(after[name], before[name])}
    assert changed == {name for name in before if is_target(name) and name.endswith("weight")}


def test_the_empty_ratio_trains_everything_else(tiny_model):
    before = load(tiny_model).state_dict()
    after = dict(tuned(load(tiny_model), OsftInputs(0.0, (), "all")).plain_state())
    for name in before:
        frozen = is_target(name) and name.endswith("weight")
        assert torch.equal(after[name], before[name]) == frozen, name


def test_no_direction_frozen_is_no_leak(tiny_model):
    assert tuned(load(tiny_model), OsftInputs(1.0, (), "all")).metrics() == {"osft_leak": 0.0}
    assert prepare(load(tiny_model), OsftInputs(0.25), lambda done, total: None).metrics() == {"osft_leak": 0.0}  # no step yet


class Narrow(torch.nn.Module):
    """Weights of one row, of one column, and of two directions."""

    def __init__(self) -> None:
        super().__init__()
        self.row_proj, self.column_proj = torch.nn.Linear(8, 1), torch.nn.Linear(1, 8)
        self.pair_proj = torch.nn.Linear(8, 2)
        self.head = torch.nn.Linear(2, 2)

    def get_output_embeddings(self) -> torch.nn.Linear:
        return self.head

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.pair_proj(self.column_proj(self.row_proj(inputs))))


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 1.0])
def test_weights_of_one_direction_are_trained_whole_or_not_at_all(ratio):
    torch.manual_seed(0)
    model, inputs = Narrow(), torch.randn(16, 8)
    before, output = {name: tensor.clone() for name, tensor in model.state_dict().items()}, model(inputs)
    subspace = prepare(model, OsftInputs(ratio, ("proj",), "all"), lambda done, total: None)
    assert torch.allclose(model(inputs), output, atol=1e-6)
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-2)
    for _ in range(3):
        model(inputs).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        subspace.after_step()
    after = dict(subspace.plain_state())
    for name in ("row_proj.weight", "column_proj.weight"):
        assert torch.equal(after[name], before[name]) == (ratio == 0)
    assert torch.equal(after["pair_proj.weight"], before["pair_proj.weight"]) == (ratio == 0)
    assert set(subspace.layers) == ({"pair_proj"} if ratio in (0.25, 0.5) else set())
    assert subspace.leak() < 1e-5


def test_patterns_choose_the_weights(tiny_model):
    subspace = prepare(load(tiny_model), OsftInputs(0.5, ("layers.1.mlp", "o_proj")), lambda done, total: None)
    assert set(subspace.layers) == {
        "model.layers.0.self_attn.o_proj", "model.layers.1.self_attn.o_proj", "model.layers.1.mlp.gate_proj",
        "model.layers.1.mlp.up_proj", "model.layers.1.mlp.down_proj",
    }  # fmt: skip


def test_progress_is_reported_for_each_weight(tiny_model):
    seen: list[tuple[int, int]] = []
    prepare(load(tiny_model), OsftInputs(0.5, ("o_proj",)), lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("inputs", "reason", "sentence"),
    [
        (OsftInputs(0.25, ("attention_out",)), reasons.NO_MATCHING_WEIGHTS, r"\['attention_out'\]; use names such as model.layers.\*.self_attn.q_proj"),
        (OsftInputs(0.0, (), "targets"), reasons.BAD_TRAINING_VALUE, "unfreezeRankRatio: with 0 and training.osft.trainable targets nothing is trained"),
        (OsftInputs(0.25, ("lm_head",)), reasons.BAD_TRAINING_VALUE, "match lm_head.weight, the output layer"),
        (OsftInputs(0.25, ("q_proj", "w1")), reasons.NO_MATCHING_WEIGHTS, r"targetPatterns: no linear layer matches \['w1'\]; use names"),
        (OsftInputs(0.25, ("embed_tokens",)), reasons.NO_MATCHING_WEIGHTS, r"no linear layer matches \['embed_tokens'\]"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_rejected(tiny_model, inputs, reason, sentence):
    with pytest.raises(StageError, match=sentence) as raised:
        prepare(load(tiny_model), inputs, lambda done, total: None)
    assert raised.value.reason is reason

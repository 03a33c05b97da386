"""Base models that users could not fine-tune, or only apparently: the result of stage model for each."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from families import FAMILIES, edit_config, write_model
from finetune_stages.model.check import Requirements, check_settings, check_weights
from finetune_stages.model.numbers import WeightReaders
from finetune_stages.sdk import StageError
from finetune_stages.sdk.workspace import file_sha256
from reports.changes import (
    WEIGHTS,
    add_tokens,
    config,
    every,
    named_templates,
    poison,
    remove,
    rename,
    template,
    tensors,
    tokenizer_config,
    write,
)
from reports.report import Report, reports

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 12345678\n"


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "m"))


def check(folder: Path) -> tuple[int | None, tuple[str, ...]]:
    """All that stage model looks at: positions, and warnings."""
    settings = check_settings(folder, "m", Requirements())
    weights = check_weights(folder, "m")
    readers = WeightReaders("m")
    file_sha256(folder / WEIGHTS, readers=readers)
    readers.require_finite()
    return settings.positions, (*settings.warnings, *weights.warnings)


MULTIMODAL = "a multimodal model whose language model transformers does not load by itself"
CONTRADICTION = (
    "config.json: tie_word_embeddings is true, and the weights have a separate output layer (lm_head.weight); it is used,"
    " and the fine-tuned model has tie_word_embeddings: false."
)
USUAL = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
DOWN = "model.layers.1.mlp.down_proj.weight"


REJECTED = (
    # Chat templates.
    Report(
        "template-without-its-endfor", "huggingface/trl#4879",
        template(USUAL.replace("{% endfor %}", "")),
        ("ChatTemplateInvalid", "m: chat_template.jinja, line 2: Unexpected end of template."),
    ),
    Report(
        "template-with-an-unknown-filter", "own", template("{% for m in messages %}\n{{ m.content | shout }}{% endfor %}"),
        ("ChatTemplateInvalid", "chat_template.jinja, line 2: No filter named 'shout'"),
    ),
    Report(
        "template-in-tokenizer-config", "own",
        every(remove("chat_template.jinja"), tokenizer_config(chat_template="{% if messages %}")),
        ("ChatTemplateInvalid", "m: tokenizer_config.json, line 1: Unexpected end of template."),
    ),
    Report(
        "template-of-tools-is-broken", "own", named_templates(default=USUAL, tool_use="{% if %}"),
        ("ChatTemplateInvalid", "m: tokenizer_config.json (tool_use), line 1: "),
    ),
    Report(
        "template-of-tools-in-a-file-is-broken", "own", write("additional_chat_templates/tool_use.jinja", "{{"),
        ("ChatTemplateInvalid", "m: additional_chat_templates/tool_use.jinja, line 1: "),
    ),
    Report(
        "template-that-fails-at-run-time", "own", template("{% for m in messages %}\n{{ m.content + 1 }}{% endfor %}"),
        ("ChatTemplateInvalid", "m: chat_template.jinja, line 2: can only concatenate"),
    ),
    Report(
        "template-that-rejects-everything", "own", template("{{ raise_exception('No conversations, please.') }}"),
        ("ChatTemplateInvalid", "m: chat_template.jinja, line 1: No conversations, please; correct the template"),
    ),
    Report(
        "template-that-leaves-answers-out", "own",
        template("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"),
        ("ChatTemplateInvalid", "it omits the assistant's message"),
    ),
    Report(
        "loop-control-inside-generation", "huggingface/trl#6689",
        template("{% for m in messages %}{% generation %}{{ m.content }}{% continue %}{% endgeneration %}{% endfor %}"),
        ("ChatTemplateInvalid", "m: chat_template.jinja: 'continue' not properly in loop"),
    ),
    Report(
        "template-that-is-no-text", "own", lambda folder: (folder / "chat_template.jinja").write_bytes(b"\xff\xfe{"),
        ("ChatTemplateInvalid", "m: chat_template.jinja: it is not UTF-8"),
    ),
    Report(
        "named-templates-without-a-default", "own", named_templates(rag=USUAL, tool_use=USUAL),
        ("ChatTemplateMissing", "m: it has no chat template named default (it has rag, tool_use); add the one to use as chat_template.jinja."),
    ),
    Report(
        "template-files-hide-the-configured-one", "own",
        every(remove("chat_template.jinja"), tokenizer_config(chat_template=USUAL), write("additional_chat_templates/rag.jinja", USUAL)),
        ("ChatTemplateMissing", "named default (it has rag)"),
    ),
    Report(
        "empty-template-file-hides-the-configured-one", "own",
        every(template(""), tokenizer_config(chat_template=USUAL)),
        ("ChatTemplateMissing", "m: it has no chat template"),
    ),
    # Tokens and embeddings.
    Report(
        "added-tokens-not-resized", "huggingface/transformers#11102", add_tokens("<|tool_call|>", "<|extra|>"),
        ("ModelCorrupt", "m: the tokenizer has 1,026 tokens, the model 1,024 embeddings (the first token without one is '<|tool_call|>'); call"),
    ),
    Report(
        "added-words-not-resized", "mickeysjm/R-BERT#5", add_tokens("Lissabon", special=False),
        ("ModelCorrupt", "the tokenizer has 1,025 tokens, the model 1,024 embeddings (the first token without one is 'Lissabon')"),
    ),
    Report(
        "padding-token-that-no-file-holds", "own", tokenizer_config(pad_token="[PAD]"),
        ("ModelCorrupt", "the tokenizer has 1,025 tokens, the model 1,024 embeddings (the first token without one is '[PAD]')"),
    ),
    Report(
        "token-of-the-configuration-only", "own",
        tokenizer_config(added_tokens_decoder={"1024": {"content": "<think>"}}),
        ("ModelCorrupt", "the tokenizer has 1,025 tokens"),
    ),
    Report(
        "padding-number-beyond-the-embeddings", "own", config(pad_token_id=1024),
        ("ModelCorrupt", "m: config.json states pad_token_id 1024 and the model has 1,024 embeddings, so the token has none"),
    ),
    Report(
        "end-number-beyond-the-embeddings", "own", config(eos_token_id=[2, 99999]),
        ("ModelCorrupt", "m: config.json states eos_token_id 99999 and the model has 1,024 embeddings"),
    ),
    Report(
        "end-number-of-generation-beyond-the-embeddings", "own", write("generation_config.json", '{"eos_token_id": 1024}'),
        ("ModelCorrupt", "m: generation_config.json states eos_token_id 1024 and the model has 1,024 embeddings"),
    ),
    Report(
        "generation-config-that-is-no-json", "own", write("generation_config.json", "{"),
        ("ModelCorrupt", "m: generation_config.json is not JSON"),
    ),
    Report(
        "empty-vocabulary", "own", write("tokenizer.json", '{"model": {"type": "BPE", "vocab": {}, "merges": []}}'),
        ("ModelCorrupt", "m: tokenizer.json has an empty vocabulary (model.vocab); save the tokenizer again."),
    ),
    Report(
        "configuration-of-another-size", "huggingface/transformers#11102", config(vocab_size=1030),
        ("ModelCorrupt", "m: model.embed_tokens.weight has 1,024 rows and config.json states vocab_size 1,030"),
    ),
    # Output layer.
    Report(
        "untied-without-an-output-layer", "huggingface/transformers#45127", tensors(lambda found: found.pop("lm_head.weight")),
        ("ModelIncomplete", "m: the weights have no output layer (lm_head.weight), and config.json does not tie it to the embeddings"),
    ),
    Report(
        "untied-by-default-without-an-output-layer", "own",
        every(config(tie_word_embeddings=None), tensors(lambda found: found.pop("lm_head.weight"))),
        ("ModelIncomplete", "m: the weights have no output layer"),
    ),
    Report(
        "untied-without-embeddings", "own", tensors(lambda found: found.pop("model.embed_tokens.weight")),
        ("ModelIncomplete", "m: the weights have no embeddings"),
    ),
    # Layers.
    Report(
        "layers-missing", "own",
        tensors(lambda found: [found.pop(name) for name in list(found) if name.startswith("model.layers.1.")]),
        ("ModelIncomplete", "m: the weights have no layer 1 and config.json states 2 layers"),
    ),
    Report(
        "projection-missing", "own", tensors(lambda found: found.pop("model.layers.1.self_attn.q_proj.weight")),
        ("ModelIncomplete", "m: the weights lack model.layers.1.self_attn.q_proj.weight, which every model of type qwen2 has"),
    ),
    Report(
        "last-norm-missing", "own", tensors(lambda found: found.pop("model.norm.weight")),
        ("ModelIncomplete", "m: the weights lack norm.weight, which every model of type qwen2 has"),
    ),
    # Shapes.
    Report(
        "projection-transposed", "own", tensors(lambda found: found.update({DOWN: found[DOWN].T.contiguous()})),
        ("ModelCorrupt", f"m: {DOWN} has the shape [192, 64], and config.json states 64 (hidden_size); save model and configuration together."),
    ),
    *(
        Report(
            f"configuration-with-another-{next(iter(changes))}", "own", config(**changes), ("ModelCorrupt", words),
        )
        for changes, words in [
            ({"intermediate_size": 100}, "and config.json states 100 (intermediate_size)"),
            ({"hidden_size": 128}, "and config.json states 128 (hidden_size)"),
            ({"num_attention_heads": 3}, "m: config.json states hidden_size 64, which num_attention_heads 3 does not divide"),
        ]
    ),
    Report(
        "biases-that-llama-does-not-read", "own", config(model_type="llama", architectures=["LlamaForCausalLM"]),
        ("ModelCorrupt", "self_attn.q_proj.bias, which a model of type llama does not read as config.json is; correct model_type or"),
    ),
    # Numbers.
    Report("undefined-weight", "own", poison(DOWN, float("nan"), torch.float32), ("ModelCorrupt", f"m: {DOWN} in {WEIGHTS} has infinite")),
    Report("infinite-weight-in-bf16", "own", poison(DOWN, float("inf"), torch.bfloat16), ("ModelCorrupt", f"m: {DOWN} in {WEIGHTS}")),
    Report("undefined-weight-in-bf16", "own", poison(DOWN, float("nan"), torch.bfloat16, 0), ("ModelCorrupt", f"m: {DOWN} in {WEIGHTS}")),
    Report("minus-infinity-in-f16", "own", poison(DOWN, float("-inf"), torch.float16), ("ModelCorrupt", f"m: {DOWN} in {WEIGHTS}")),
    Report("infinite-weight-in-f64", "own", poison(DOWN, float("inf"), torch.float64), ("ModelCorrupt", f"m: {DOWN} in {WEIGHTS}")),
    Report(
        "all-weights-zero", "own", tensors(lambda found: [tensor.zero_() for tensor in found.values()]),
        ("ModelCorrupt", "m: all weights are zero (lm_head.weight, for example); download or save the model again."),
    ),
    # Files.
    *(
        Report(
            f"git-lfs-pointer-{name}", source, write(name, POINTER),
            ("ModelIncomplete", f"m: {name} is a Git LFS pointer, not the file itself; run git lfs pull in the cloned directory."),
        )
        for name, source in {
            WEIGHTS: "huggingface/transformers#27923", "tokenizer.json": "codefuse-ai/MFTCoder#20", "config.json": "own",
            "tokenizer_config.json": "own", "tokenizer.model": "own", "chat_template.jinja": "microsoft/OmniParser#34",
        }.items()
    ),
    Report(
        "git-lfs-pointer-of-the-index", "own", every(remove(WEIGHTS), write("model.safetensors.index.json", POINTER)),
        ("ModelIncomplete", "m: model.safetensors.index.json is a Git LFS pointer"),
    ),
    Report(
        "adapter-beside-full-weights", "own", every(write("adapter_config.json", "{}"), write("adapter_model.safetensors", "x")),
        ("ModelUnsupported", "m: adapter_config.json belongs to an adapter"),
    ),
    Report(
        "adapter-alone", "own", every(write("adapter_config.json", "{}"), remove(WEIGHTS), remove("config.json")),
        ("ModelUnsupported", "m: adapter_config.json belongs to an adapter"),
    ),
    *(
        Report(
            f"adapter-not-merged-{how}", "own", change,
            ("ModelUnsupported", f"m: the weights include {name}, a name of an adapter that is not merged; merge it with merge_and_unload"),
        )
        for how, change, name in [
            ("prefix", rename(DOWN, f"base_model.model.{DOWN}"), f"base_model.model.{DOWN}"),
            ("layer", rename(DOWN, "model.layers.1.mlp.down_proj.base_layer.weight"), "model.layers.1.mlp.down_proj.base_layer.weight"),
        ]
    ),
    # Kinds of models.
    Report(
        "no-model-type", "own", config(model_type=None),
        ("ModelIncomplete", "m: config.json has no model_type, by which transformers chooses the class of the model; use a model saved by"),
    ),
    *(
        Report(
            f"kind-{architecture}", "own", config(architectures=[architecture], **more),
            ("ModelUnsupported", f"m: config.json names {architecture}, {words}; set model.uri to a decoder-only model for text generation."),
        )
        for architecture, more, words in [
            ("Qwen2ForSequenceClassification", {}, "a classification or reward model"),
            ("Qwen2ForTokenClassification", {}, "a classification or reward model"),
            ("Qwen2ForRewardModel", {}, "a reward model"),
            ("Qwen2Model", {}, "an embedding model, or one that was saved without its output layer"),
            ("BertForMaskedLM", {}, "a masked language model, which does not generate text"),
            ("T5ForConditionalGeneration", {"model_type": "t5", "is_encoder_decoder": True}, "an encoder-decoder model"),
            ("LlavaForConditionalGeneration", {"model_type": "llava"}, MULTIMODAL),
            ("ViTForImageClassification", {"model_type": "vit"}, "a vision model"),
            ("UNet2D", {}, "not a model for text generation"),
        ]
    ),
    *(
        Report(
            f"quantized-{how}", "own", change, ("ModelUnsupported", f"m: the weights are quantized ({words}), and such weights cannot be trained")
        )
        for how, change, words in [
            ("gptq", config(quantization_config={"quant_method": "gptq"}), "config.json states gptq"),
            ("awq-inside", config(text_config={"quantization_config": {"quant_method": "awq"}}), "config.json states awq"),
            ("by-a-file", write("quantize_config.json", "{}"), "it has a quantize_config.json"),
            ("unnamed", config(quantization_config={"bits": 4}), "config.json states a quantization"),
            ("fp8", tensors(lambda found: found.update({DOWN: found[DOWN].to(torch.float8_e4m3fn)})), f"{DOWN} has the type F8_E4M3"),
            ("integers", tensors(lambda found: found.update({DOWN: found[DOWN].to(torch.int8)})), f"{DOWN} has the type I8"),
            ("packed", rename(DOWN, "model.layers.1.mlp.down_proj.qweight"), "they include model.layers.1.mlp.down_proj.qweight"),
        ]
    ),
)  # fmt: skip


@reports(*REJECTED)
def test_a_base_model_that_cannot_be_fine_tuned(report: Report, model: Path) -> None:
    report.given(model)
    with pytest.raises(StageError) as raised:
        check(model)
    reason, words = report.expected
    assert raised.value.reason.name == reason
    assert words in raised.value.message
    assert "\n" not in raised.value.message


GUARDED = "{% if not city %}{{ raise_exception('Name a city.') }}{% endif %}" + USUAL


ACCEPTED = (
    Report(
        "tied-config-own-head", "huggingface/transformers#45127", config(tie_word_embeddings=True),
        (CONTRADICTION,),
    ),
    Report(
        "tied-config-equal-head", "huggingface/transformers#45136",
        every(
            config(tie_word_embeddings=True),
            tensors(lambda found: found.update({"lm_head.weight": found["model.embed_tokens.weight"].clone()})),
        ),
        (),
    ),
    Report(
        "tied-config-no-head", "own", every(config(tie_word_embeddings=True), tensors(lambda found: found.pop("lm_head.weight"))), ()
    ),
    Report(
        "tied-config-no-embeddings", "own",
        every(config(tie_word_embeddings=True), tensors(lambda found: found.pop("model.embed_tokens.weight"))),
        (),
    ),
    Report(
        "more-layers-than-stated", "own", config(num_hidden_layers=1),
        ("config.json: it states 1 layers and the weights have 2; the last 1 are neither trained nor part of the fine-tuned model.",),
    ),
    Report(
        "value-head", "own", tensors(lambda found: found.update({"v_head.summary.weight": torch.ones(1, 64)})),
        ("The base model's v_head.summary.weight is not part of a model for text generation; the fine-tuned model omits it.",),
    ),
    Report(
        "sentence-transformer", "own", write("modules.json", "[]"),
        ("modules.json: the base model is an embedding model of Sentence Transformers; it might not generate text.",),
    ),
    Report("fewer-tokens-than-embeddings", "own", config(), ()),
    Report("no-padding-token", "meta-llama/Llama-2-7b", config(pad_token_id=-1), ()),
    Report("counter-among-the-weights", "own", tensors(lambda found: found.update({"model.position_ids": torch.arange(4)})), ()),
    Report(
        "layer-that-starts-from-zeros", "TencentARC/LLaMA-Pro", tensors(lambda found: found[DOWN].zero_()),
        (f"model.uri: 1 of 16 weight matrices have only zeros; the first is {DOWN}.",),
    ),
    Report(
        "token-of-pictures-beyond-the-embeddings", "google/gemma-3-1b-it",
        every(add_tokens("<image_soft_token>"), tokenizer_config(image_token="<image_soft_token>", extra_special_tokens={})), (),
    ),
    Report("template-that-rejects-system-messages", "unslothai/unsloth#11293",
           template("{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + USUAL), ()),
    Report("template-that-wants-a-system-message", "own",
           template("{% if messages[0].role != 'system' %}{{ raise_exception('System first') }}{% endif %}" + USUAL), ()),
    Report("template-that-wants-parts", "own",
           template("{% for m in messages %}{{ m.role }}: {{ m.content[0]['text'] }}\n{% endfor %}"), ()),
    Report("template-with-loop-controls-and-helpers", "own",
           template("{% set ns = namespace(n=0) %}{% for m in messages %}{% if m.role == 'tool' %}{% continue %}{% endif %}"
                    "{% set ns.n = ns.n + 1 %}{% generation %}{{ m | tojson(indent=2) }}{% endgeneration %}{% endfor %}"
                    "{{ strftime_now('%Y') }}{{ bos_token }}{{ dict(a=1) }}"), ()),
    Report("template-that-wants-tools", "own", template("{{ tools | length }}" + USUAL),
           ("chat_template.jinja: it renders no conversation without tools (object of type 'NoneType' has no len()); other rows are rejected.",)),
    Report("template-that-wants-an-argument", "own", template(GUARDED),
           ("chat_template.jinja: it renders no conversation without city (Name a city); other rows are rejected.",)),
    Report("named-templates-with-a-default", "own", named_templates(default=USUAL, tool_use=USUAL), ()),
    Report("large-but-finite-numbers", "own", poison(DOWN, 3e38, torch.float32), ()),
    Report("large-but-finite-numbers-in-bf16", "own", poison(DOWN, 3e38, torch.bfloat16), ()),
    Report("mask-in-the-weights", "own",
           tensors(lambda found: found.update({"model.layers.0.attention.masked_bias": torch.tensor(float("-inf"))})), ()),
)  # fmt: skip


@reports(*ACCEPTED)
def test_a_base_model_that_can_be_fine_tuned_all_the_same(report: Report, model: Path) -> None:
    report.given(model)
    _, warnings = check(model)
    assert warnings == report.expected
    assert all(len(warning) <= 256 for warning in warnings)


@reports(
    Report("rows-longer-than-positions", "huggingface/transformers#1726", ("gpt2", {"n_positions": 64}), 64),
    Report("positions-of-opt", "openai/gpt-2#137", ("opt", {"max_position_embeddings": 48}), 48),
    Report("rotary-positions", "own", ("qwen2", {"max_position_embeddings": 64}), None),
    Report("positions-of-alibi", "own", ("bloom", {}), None),
)
def test_positions_of_a_base_model(report: Report, tiny_model: Path, tmp_path: Path) -> None:
    family, changes = report.given
    positions, warnings = check(write_model(tmp_path / "m", family, tiny_model, tied=True, **changes))
    assert (positions, warnings) == (report.expected, ())


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_passes_and_its_ties_are_understood(family: str, tiny_model: Path, tmp_path: Path) -> None:
    assert check(write_model(tmp_path / "tied", family, tiny_model, tied=True))[1] == ()
    own = write_model(tmp_path / "own", family, tiny_model, tied=False)
    assert check(own)[1] == ()
    edit_config(own, tie_word_embeddings=True)
    (warning,) = check(own)[1]
    assert "it is used, and the fine-tuned model has tie_word_embeddings: false" in warning
    edit_config(tmp_path / "tied", tie_word_embeddings=False)
    with pytest.raises(StageError, match="have no output layer") as raised:
        check(tmp_path / "tied")
    assert raised.value.reason.name == "ModelIncomplete"


def test_scores_are_those_of_the_weights_whatever_the_configuration_states(model: Path) -> None:
    """huggingface/transformers#45127: 4.074 bits per byte were reported where the files' weights have 2.524."""
    from lm_eval.api.instance import Instance

    from finetune_contract.documents import EvaluationInputs
    from finetune_stages.evaluation.scorer import load_scorer

    def score() -> list[Any]:
        text = "Question: what does it do?\nAnswer: it returns the sum of two numbers."
        request = Instance(request_type="answer_loglikelihood", doc={}, arguments=(text, [(35, len(text))]), idx=0)
        return load_scorer(model, EvaluationInputs("base"), lambda: None).answer_loglikelihood([request])

    tensors(lambda found: found["lm_head.weight"].mul_(3))(model)
    expected = score()
    edit_config(model, tie_word_embeddings=True)
    assert score() == expected

"""Rows that were scored or left out without a word: what is reported, scored and limited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_stages.sdk import StageError
from rendering import SPECIAL, Tokenization, family
from reports.chat_rows import (
    ANSWER,
    AS_TEXT,
    BAD,
    BARE,
    GREETED,
    PARTS,
    QUESTION,
    QWEN,
    SIMPLE,
    THOUGHT,
    TOOL,
    TWICE,
    USER,
    WEIGHED,
    Given,
)
from reports.report import Report, reports


@reports(
    Report(
        "reasoning-content-dropped", "jingyaogong/minimind#737", Given("qwen2_5", [THOUGHT] * 3 + [SIMPLE]),
        ["3 rows have reasoning_content, which the chat template does not render"],
    ),
    Report(
        "thinking-dropped", "own", Given("llama3", [{"messages": [QUESTION, {**ANSWER, "thinking": "A signature."}]}]),
        ["1 row has reasoning_content, which the chat template does not render"],
    ),
    Report(
        "thoughts-in-a-content-cut-off",
        "own",
        Given(
            BARE.replace("m.content", "m.content.split('</think>')[-1]"),
            [{"messages": [QUESTION, {**ANSWER, "content": "<think>A signature.</think>f(x)"}]}],
        ),
        ["1 row has reasoning (<think>) in a content, which the chat template does not render"],
    ),
    Report(
        "thoughts-in-a-content-kept", "own",
        Given("qwen2_5", [{"messages": [QUESTION, {**ANSWER, "content": "<think>A signature.</think>f(x)"}]}]), [],
    ),
    Report(
        "reasoning-of-the-last-turn-only", "own", Given("qwen3", [{"messages": [*THOUGHT["messages"] * 2]}, THOUGHT]),
        ["1 row has reasoning in earlier turns, which has no effect"],
    ),
    Report(
        "thoughts-in-earlier-contents", "own",
        Given("qwen3", [{"messages": [QUESTION, {**ANSWER, "content": "<think>A signature.</think>f(x)"}] * 2}] * 2),
        ["2 rows have reasoning in earlier turns, which has no effect"],
    ),
    Report("reasoning-of-every-turn", "own", Given(BARE.replace("m.content", "(m.reasoning_content or '') + m.content"), [{"messages": [*THOUGHT["messages"] * 2]}]), []),
    *(
        Report(f"misspelled-{key}", "own", Given("qwen2_5", [{**SIMPLE, key: value}]), [f"1 row has {key} (did you mean {meant}?), which has no effect"])
        for key, value, meant in (
            ("tool", [TOOL], "tools"), ("Tools", [TOOL], "tools"), ("function", [TOOL], "functions"), ("unMask", True, "unmask"),
            ("chat-template-kwargs", {"a": 1}, "chat_template_kwargs"), ("chatTemplateKwargs", {"a": 1}, "chat_template_kwargs"),
        )
    ),
    Report("other-columns", "own", Given("qwen2_5", [{**SIMPLE, "id": 1, "source": "x", "toolbox": "y", "tool": ""}]), []),
    Report(
        "keys-without-effect", "own", Given("qwen2_5", [{**SIMPLE, "parallel_tool_calls": True, "tools": [TOOL]}] * 2),
        ["2 rows have parallel_tool_calls, which has no effect"],
    ),
    Report(
        "several-keys-without-effect", "own", Given("qwen2_5", [{**SIMPLE, "parallel_tool_calls": True}, {**SIMPLE, "tool_choice": "auto", "parallel_tool_calls": False}]),
        ["the rows have keys that have no effect: parallel_tool_calls (2 rows), tool_choice (1 row)"],
    ),
    Report(
        "keys-of-messages-without-effect", "own", Given("qwen2_5", [{"messages": [{**QUESTION, "name": "Ann"}, ANSWER]}]),
        ["1 row has name, which has no effect"],
    ),
    Report("keys-that-the-template-reads", "own", Given(BARE.replace("m.role", "m.name or m.role"), [{"messages": [{**QUESTION, "name": "Ann"}, ANSWER]}]), []),
    Report(
        "weight-1-of-a-user", "own", Given("qwen2_5", [{"messages": [{**QUESTION, "weight": 1}, ANSWER]}]),
        ["1 row has weight 1 of a message that is not the assistant's, which has no effect"],
    ),
    Report(
        "refused-rows-are-dropped", "unslothai/unsloth#11293",
        Given("gemma", [TWICE, *[SIMPLE] * 3], {"bad_rows": "Drop", "bad_rows_share": 0.5}),
        [("1 of 4 training rows is left out: 1 is rejected (row 1 (line 1) is rejected by the model's chat template (Conversation roles must"
         " alternate user/assistant/user/assistant/...))")],
    ),
    Report(
        "some-rows-too-long", "own",
        Given("qwen3", [*[SIMPLE] * 9, {"messages": [QUESTION, {**ANSWER, "content": "long " * 80}]}], {"max_seq_len": 64}),
        ["1 of 10 training rows is left out: 1 has more than 64 tokens (training.maxSeqLen)"],
    ),
)  # fmt: skip
def test_warnings_about_rows(report: Report, stage: Tokenization, families: Any) -> None:
    stage.link_model(families(report.given.template))
    stage.write(report.given.row)
    warnings = stage(**report.given.inputs).warnings
    assert len(warnings) == len(report.expected)
    assert all(warning.startswith(words) for warning, words in zip(warnings, report.expected, strict=True))


@reports(
    Report(
        "holdout-with-tools", "NovaSky-AI/SkyRL#1675", Given("qwen2_5", AS_TEXT),
        [
            ('[[<tool_call>\n{"name": "lookup", "arguments": {"name": "f"}}\n</tool_call>]]<|im_end|>\n'
            "<|im_start|>user\n<tool_response>\nf takes x\n</tool_response><|im_end|>\n<|im_start|>assistant\n[[f(x)]]")
        ],
    ),
    Report("holdout-with-parts", "abetlen/llama-cpp-python#2324", Given("qwen2_5", PARTS), [f"{QWEN}{USER}[[f(x)]]"]),
    Report("holdout-with-weight-0", "fw-ai/cookbook#387", Given("qwen2_5", WEIGHED), [f"{QWEN}{USER}WRONG<|im_end|>\n{USER}[[f(x)]]"]),
    Report(
        "holdout-that-the-assistant-begins", "QwenLM/Qwen3#1894", Given("qwen3_5_think", GREETED),
        [f"<|im_start|>assistant\n[[Welcome!]]<|im_end|>\n{USER}<think>\n\n</think>\n\n[[f(x)]]"],
    ),
    Report(
        "holdout-with-carriage-returns", "huggingface/tau#354", Given("qwen2_5", json.dumps(SIMPLE).replace(", ", ",\r").encode()),
        [f"{QWEN}{USER}[[f(x)]]"],
    ),
)  # fmt: skip
def test_what_is_scored(report: Report, stage: Tokenization, families: Any) -> None:
    stage.link_model(families(report.given.template))
    stage.write([report.given.row], [report.given.row])
    finished = stage()
    (texts,) = stage.scored()
    assert [text[-len(expected) :] for text, expected in zip(texts, report.expected, strict=True)] == report.expected
    assert finished.outputs.measured_rows == 1
    assert all(
        scored.replace("[[", "").replace("]]", "") in stage.learned().replace("[[", "").replace("]]", "") for scored in texts
    )


@reports(
    Report("parts-of-a-user", "PrimeIntellect-ai/renderers#134", [PARTS], [f"{QWEN}{USER}[[f(x)]]"]),
    Report("byte-order-mark", "own", b"\xef\xbb\xbf" + json.dumps(SIMPLE).encode(), [f"{QWEN}{USER}[[f(x)]]"]),
    Report("null-of-a-user", "own", [SIMPLE, {"messages": [{"role": "user", "content": None}, ANSWER]}],
           (BAD, "evaluation.tasks: quiz (quiz.jsonl): row 2 (line 2) has a faulty message 1: it has no content (1 of 2 rows is rejected)")),
    Report("picture-in-a-task", "own", [{"messages": [{"role": "user", "content": [{"type": "image"}]}, ANSWER]}], (BAD, 'a part of type "image"')),
    Report("nothing-to-score", "own", [{"messages": [QUESTION, {**ANSWER, "weight": 0}]}], ("TaskInvalid", "quiz (quiz.jsonl): no row has an answer that can be scored")),
)  # fmt: skip
def test_task_files_of_chat_rows(report: Report, stage: Tokenization, families: Any) -> None:
    stage.link_model(families("qwen2_5"))
    stage.write([SIMPLE])
    rows = report.given
    stage.task_files.mkdir()
    (stage.task_files / "quiz.jsonl").write_bytes(
        rows if isinstance(rows, bytes) else b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    )
    if isinstance(report.expected, list):
        stage(tasks=("quiz",))
        assert stage.scored("quiz") == [[text] for text in report.expected]
        return
    with pytest.raises(StageError) as raised:
        stage(tasks=("quiz",))
    assert raised.value.reason.name == report.expected[0]
    assert report.expected[1] in raised.value.message


def test_a_model_with_learned_positions_gets_no_longer_rows(stage: Tokenization, tiny_model: Path, tmp_path: Path) -> None:
    """huggingface/transformers#1726, openai/gpt-2#137."""
    model = family(tiny_model, tmp_path / "gpt", "qwen3")
    config = json.loads((model / "config.json").read_bytes())
    (model / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_positions": 64, "vocab_size": config["vocab_size"]}))
    stage.link_model(model)
    longer = {"messages": [QUESTION, {**ANSWER, "content": "long " * 80}]}
    stage.write([*[SIMPLE] * 9, longer])
    (warning,) = stage(max_seq_len=256).warnings
    assert warning.startswith("1 of 10 training rows is left out: 1 has more than 64 tokens (the model's limit)")
    stage.write([SIMPLE, longer])
    with pytest.raises(StageError, match="shorten the rows, or raise dataset") as raised:
        stage(max_seq_len=256)
    assert raised.value.reason.name == "TooManyRowsLeftOut"


@pytest.mark.parametrize("held_out", [False, True])
def test_a_token_without_an_embedding(held_out: bool, stage: Tokenization, tiny_model: Path, tmp_path: Path) -> None:
    """huggingface/transformers#11102, mickeysjm/R-BERT#5."""
    from transformers import AutoTokenizer

    size = len(AutoTokenizer.from_pretrained(tiny_model))
    stage.link_model(family(tiny_model, tmp_path / "model", "qwen2_5", (*SPECIAL, "<|extra|>"), size + len(set(SPECIAL)) - 2))
    extra = {"messages": [QUESTION, {**ANSWER, "content": "<|extra|>"}]}
    stage.write([SIMPLE, SIMPLE if held_out else extra], [extra] if held_out else [])
    with pytest.raises(StageError) as raised:
        stage()
    assert raised.value.reason.name == "ModelCorrupt"
    assert f"rows.jsonl, row {3 if held_out else 2} (line {3 if held_out else 2}) has token" in raised.value.message
    assert "call resize_token_embeddings and save the model again" in raised.value.message


def test_a_row_that_is_left_out_may_have_a_token_without_an_embedding(
    stage: Tokenization, tiny_model: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    size = len(AutoTokenizer.from_pretrained(tiny_model))
    stage.link_model(family(tiny_model, tmp_path / "model", "qwen2_5", (*SPECIAL, "<|extra|>"), size + len(set(SPECIAL)) - 2))
    longer = {"messages": [QUESTION, {**ANSWER, "content": "<|extra|>" + "long " * 80}]}
    without = {"messages": [QUESTION, {**ANSWER, "content": "<|extra|>", "weight": 0}]}
    stage.write([SIMPLE, SIMPLE, longer, without])
    outputs = stage(max_seq_len=100, bad_rows_share=0.5).outputs
    assert (outputs.rows, outputs.too_long, outputs.nothing_to_learn) == (2, 1, 1)


def test_a_class_of_its_own_may_count_its_embeddings_otherwise(stage: Tokenization, tiny_model: Path, tmp_path: Path) -> None:
    model = family(tiny_model, tmp_path / "model", "qwen2_5", embeddings=2)
    config = json.loads((model / "config.json").read_bytes())
    stage.link_model(model)
    stage.write([SIMPLE])
    with pytest.raises(StageError, match="and the model has 2 embeddings"):
        stage()
    (model / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModelForCausalLM": "own.Own"}}))
    assert stage().outputs.rows == 1


def test_rows_beyond_the_context_that_the_model_was_trained_for_are_reported(stage: Tokenization, families: Any) -> None:
    model = families("qwen2_5")
    stage.link_model(model)
    config = json.loads((model / "config.json").read_bytes())
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 16}))
    stage.write([SIMPLE])
    (warning,) = [one for one in stage().warnings if "max_position_embeddings" in one]
    assert "the model was trained with a context of 16 (max_position_embeddings in config.json)" in warning
    (model / "config.json").write_text(json.dumps(config))
    assert not [one for one in stage().warnings if "max_position_embeddings" in one]

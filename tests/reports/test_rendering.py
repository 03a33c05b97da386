"""Rows that were learned wrongly: the parts of a row that are rendered, learned or rejected."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_stages.sdk import StageError
from rendering import Tokenization
from reports.chat_rows import (
    ANSWER,
    AS_TEXT,
    BAD,
    BARE,
    CALL,
    DEEPSEEK,
    ENDING_CALL,
    ESCAPES_QUESTIONS,
    GREETED,
    OLD_FORM,
    ONE_CALL,
    PARTS,
    QUESTION,
    QWEN,
    QWEN_CALL,
    QWEN_XML,
    RESULT,
    SIMPLE,
    THOUGHT,
    TOOL,
    TWICE,
    TWIN_CALLS,
    USER,
    WEIGHED,
    WITH_CALL,
    Given,
)
from reports.report import Report, reports


@reports(
    Report("tools-as-json-text", "huggingface/trl#5118", Given("qwen2_5", AS_TEXT), QWEN_CALL),
    Report(
        "end-of-turn-in-an-argument", "own", Given("qwen2_5", ENDING_CALL),
        '[[<tool_call>\n{"name": "lookup", "arguments": {"name": "a<|im_end|>b"}}\n</tool_call><|im_end|>]]\n',
    ),
    Report(
        "answer-that-is-in-the-end-of-turn", "own", Given("qwen2_5", {"messages": [QUESTION, {**ANSWER, "content": "im_end"}]}),
        f"{QWEN}{USER}[[im_end<|im_end|>]]\n",
    ),
    Report("arguments-as-object", "own", Given("qwen2_5", WITH_CALL), QWEN_CALL),
    Report("function-call-of-the-old-form", "own", Given("qwen2_5", OLD_FORM), QWEN_CALL),
    Report(
        "weight-0", "axolotl-ai-cloud/axolotl#1703", Given("qwen2_5", WEIGHED),
        f"{QWEN}{USER}WRONG<|im_end|>\n{USER}[[f(x)<|im_end|>]]\n",
    ),
    Report(
        "weight-0-with-marked-turns", "own", Given("qwen2_5_training", WEIGHED),
        f"{QWEN}{USER}WRONG<|im_end|>\n{USER[:-1]}[[\nf(x)<|im_end|>\n]]",
    ),
    Report(
        "train-false", "own",
        Given("qwen2_5", {"messages": [QUESTION, {**ANSWER, "content": "WRONG", "train": False}, QUESTION, ANSWER]}),
        f"{QWEN}{USER}WRONG<|im_end|>\n{USER}[[f(x)<|im_end|>]]\n",
    ),
    Report(
        "weight-0-of-a-user-unmasked", "own",
        Given("qwen2_5", {"messages": [{**QUESTION, "weight": 0}, ANSWER]}, {"unmask": True}), f"{QWEN}{USER}[[f(x)<|im_end|>]]\n",
    ),
    Report(
        "assistant-first", "unslothai/unsloth#11293", Given("qwen3_5_think", GREETED),
        f"<|im_start|>assistant\n[[Welcome!<|im_end|>]]\n{USER}<think>\n[[\n</think>\n\nf(x)<|im_end|>]]\n",
    ),
    Report(
        "blank-text-in-columns-of-json", "own",
        Given("qwen2_5", {"messages": [QUESTION, {**ANSWER, "tool_calls": "", "function_call": ""}], "tools": "", "functions": ""}),
        f"{QWEN}{USER}[[f(x)<|im_end|>]]\n",
    ),
    Report(
        "question-that-a-template-with-marked-turns-escapes", "own",
        Given(ESCAPES_QUESTIONS, {"messages": [{"role": "user", "content": "a < b?"}, ANSWER]}),
        "<|im_start|>user\na &lt; b?<|im_end|><|im_start|>assistant\n[[f(x)<|im_end|>]]",
    ),
    Report("content-parts", "PrimeIntellect-ai/renderers#134", Given("qwen2_5", PARTS), f"{QWEN}{USER}[[f(x)<|im_end|>]]\n"),
    Report(
        "content-parts-for-a-template-of-pictures", "own", Given("smolvlm", SIMPLE),
        "<|im_start|>User: How is f called?<end_of_utterance>\nAssistant:[[ f(x)<end_of_utterance>\n]]",
    ),
    Report(
        "reasoning-that-the-template-writes", "fw-ai/cookbook#378", Given("qwen3", THOUGHT),
        f"{USER}[[<think>\nA signature.\n</think>\n\nf(x)<|im_end|>]]\n",
    ),
    Report(
        "arguments-for-a-template-that-takes-text", "huggingface/transformers#45419",
        Given("deepseekv3", {**WITH_CALL, "tools": None}),
        DEEPSEEK.replace("<END>", "<｜tool▁calls▁end｜><｜end▁of▁sentence｜>"),  # noqa: RUF001
    ),
    Report(
        "null-content-for-a-template-that-looks-for-it", "own", Given("deepseek_r1_distill", {**OLD_FORM, "functions": None}), DEEPSEEK.replace("<END>", ""),
    ),
    Report("no-null-printed", "own", Given("glm4moe", {**WITH_CALL, "messages": [QUESTION, CALL]}), "How is f called?<|assistant|>[[\n<think></think>\n<tool_call>lookup\n<arg_key>name</arg_key>\n<arg_value>f</arg_value>\n</tool_call>]]"),
    Report("arguments-as-xml", "own", Given("qwen3_5_think", AS_TEXT), QWEN_XML),
    Report(
        "thoughts-in-a-content-that-only-the-training-template-keeps",
        "own",
        Given("deepseek_r1_distill", {"messages": [QUESTION, {**ANSWER, "content": "<think>A signature.</think>f(x)"}]}),
        "How is f called?[[<｜Assistant｜><think>A signature.</think>f(x)<｜end▁of▁sentence｜>]]",  # noqa: RUF001
    ),
    Report(
        "reasoning-of-an-earlier-turn-only",
        "own",
        Given("qwen3", {"messages": [*THOUGHT["messages"], *SIMPLE["messages"]]}),
        f"{USER}[[<think>\nA signature.\n</think>\n\nf(x)<|im_end|>\n]]{USER}[[<think>\n\n</think>\n\nf(x)<|im_end|>\n]]",
    ),
    Report(
        "template-arguments-of-a-row", "own",
        Given("qwen3", {**SIMPLE, "chat_template_kwargs": {"enable_thinking": False}}), f"{USER}<think>\n\n</think>\n\n[[f(x)<|im_end|>]]\n",
    ),
    Report(
        "carriage-return-between-tokens", "volcengine/OpenViking#3988",
        Given("qwen2_5", json.dumps(SIMPLE).replace(", ", ",\r").encode()), f"{QWEN}{USER}[[f(x)<|im_end|>]]\n",
    ),
)  # fmt: skip
def test_what_is_learned(report: Report, stage: Tokenization, families: Any) -> None:
    stage.link_model(families(report.given.template))
    stage.write([report.given.row])
    stage(**report.given.inputs)
    learned = stage.learned()
    assert learned[-len(report.expected) :] == report.expected
    assert learned.count("[[") == report.expected.count("[["), learned
    assert "None" not in learned


WITHOUT_SYSTEM = (
    "{% for m in messages %}{% if m.role != 'system' %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LAST_OF_A_ROLE = (
    "{% for m in messages %}{% if loop.last or m.role != messages[loop.index].role %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@reports(
    Report(
        "tool-calls-not-in-template", "axolotl-ai-cloud/axolotl#2115", Given("llama3", [SIMPLE, SIMPLE, {**WITH_CALL, "tools": None}]),
        (BAD, "rows.jsonl: row 3 (line 3) has a tool call in message 2 that the chat template does not render (1 of 3 rows is rejected);"),
    ),
    Report(
        "tools-not-in-template", "huggingface/transformers#45419", Given("llama3", [{**SIMPLE, "tools": [TOOL]}]),
        (BAD, "row 1 (line 1) has tools that the chat template does not render"),
    ),
    Report(
        "tools-named-in-the-question-only", "own",
        Given("llama3", [{"messages": [{"role": "user", "content": "Use lookup"}, ANSWER], "tools": [TOOL]}]),
        (BAD, "has tools that the chat template does not render"),
    ),
    Report(
        "second-call-not-in-template", "own",
        Given(ONE_CALL, [{"messages": [QUESTION, {**CALL, "tool_calls": [*CALL["tool_calls"], {"function": {"name": "other"}}]}]}]),
        (BAD, "has a tool call in message 2 that the chat template does not render"),
    ),
    Report(
        "second-of-two-equal-calls-not-in-template", "own", Given(ONE_CALL, [{"messages": TWIN_CALLS["messages"]}]),
        (BAD, "has a tool call in message 2 that the chat template does not render"),
    ),
    Report(
        "result-of-a-tool-not-in-template", "own", Given("phi3", [{"messages": [QUESTION, ANSWER, RESULT, ANSWER]}]),
        (BAD, "has a message 3 (role tool) whose content the chat template does not render"),
    ),
    Report(
        "system-message-whose-word-the-question-has", "own",
        Given(WITHOUT_SYSTEM, [{"messages": [{"role": "system", "content": "Python"}, {"role": "user", "content": "Is Python good?"}, ANSWER]}]),
        (BAD, "has a message 1 (role system) whose content the chat template does not render"),
    ),
    Report(
        "one-of-two-equal-questions-dropped", "own", Given(LAST_OF_A_ROLE, [TWICE]),
        (BAD, "has a message 1 (role user) whose content the chat template does not render"),
    ),
    Report(
        "tools-and-functions-that-differ", "own",
        Given("qwen2_5", [{**WITH_CALL, "functions": [{**TOOL["function"], "name": "other"}]}]),
        (BAD, "row 1 (line 1) has tools and functions that contradict each other"),
    ),
    Report(
        "weight-of-a-half", "openai/openai-cookbook#1270", Given("qwen2_5", [{"messages": [QUESTION, {**ANSWER, "weight": 0.5}]}]),
        (BAD, "its weight is 0.5; this release reads 0 (not learned) and 1 (learned)"),
    ),
    Report(
        "a-mask", "own", Given("qwen2_5", [{"messages": [QUESTION, {**ANSWER, "masked": True}]}]),
        (BAD, "its key masked is not supported; use weight 0 or 1"),
    ),
    Report(
        "picture", "own",
        Given("qwen2_5", [{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, ANSWER]}]),
        (BAD, 'has a faulty message 1: its content has a part of type "image_url", and only text can be trained on'),
    ),
    Report(
        "tools-as-broken-text", "PrimeIntellect-ai/prime-rl#885", Given("qwen2_5", [{**SIMPLE, "tools": "[{"}]),
        (BAD, 'row 1 (line 1) has tools that are text that is not JSON: "[{"'),
    ),
    Report(
        "template-refuses-rows", "unslothai/unsloth#11293", Given("gemma", [SIMPLE, TWICE, SIMPLE, TWICE, TWICE, TWICE]),
        (BAD, ("rows.jsonl: row 2 (line 2) is rejected by the model's chat template (Conversation roles must alternate"
              " user/assistant/user/assistant/...) (4 of 6 rows are rejected: row 2 (line 2), row 4 (line 4), row 5 (line 5), ...); correct"
              " them, or set dataset.badRows.policy to Drop and dataset.badRows.share to 0.67.")),
    ),
    Report(
        "template-refuses-all-rows", "own", Given("gemma", [TWICE, TWICE]),
        (BAD, "(2 of 2 rows are rejected: row 1 (line 1), row 2 (line 2)); correct them."),
    ),
    Report(
        "template-refuses-rows-and-others-are-too-long", "own",
        Given("gemma", [TWICE, *[SIMPLE] * 8, {"messages": [QUESTION, {**ANSWER, "content": "long " * 80}]}], {"max_seq_len": 64}),
        (BAD, "(1 of 10 rows is rejected); correct it, or set dataset.badRows.policy to Drop and dataset.badRows.share to 0.2."),
    ),
    Report(
        "template-refuses-rows-above-the-share", "own",
        Given("gemma", [SIMPLE, TWICE, SIMPLE, TWICE], {"bad_rows": "Drop", "bad_rows_share": 0.25}),
        ("TooManyRowsLeftOut", ("rows.jsonl: 2 of 4 training rows are left out (2 are rejected (row 2 (line 2) is rejected by the model's chat"
                               " template")),
    ),
    Report(
        "nearly-all-rows-too-long", "huggingface/transformers#30998",
        Given("qwen3", [SIMPLE, *[{"messages": [QUESTION, {**ANSWER, "content": "long " * 80}]}] * 9], {"max_seq_len": 64}),
        ("TooManyRowsLeftOut", "rows.jsonl: 9 of 10 training rows are left out (9 have more than 64 tokens (training.maxSeqLen), the longest"),
    ),
    Report(
        "all-rows-too-long", "unslothai/unsloth#11333", Given("qwen2_5", [SIMPLE], {"max_seq_len": 8}),
        ("NoTrainableRows", "rows.jsonl: none of 1 rows can be trained on (1 has more than 8 tokens (training.maxSeqLen), the longest"),
    ),
    Report(
        "nothing-to-learn", "own",
        Given("qwen2_5", [{"messages": [QUESTION, {**ANSWER, "weight": 0}]}, SIMPLE]),
        ("TooManyRowsLeftOut", "1 of 2 training rows is left out (1 has nothing to learn), more than dataset.badRows.share 0.1 allows"),
    ),
    Report(
        "template-syntax-error", "huggingface/trl#4879", Given(BARE.replace("{% endfor %}", ""), [SIMPLE]),
        ("ChatTemplateInvalid", "model.uri: the chat template is invalid: Unexpected end of template"),
    ),
    Report(
        "template-with-an-unknown-function", "huggingface/trl#6689", Given(BARE + "{{ today() }}", [SIMPLE]),
        ("ChatTemplateInvalid", "model.uri: the chat template is invalid: 'today' is undefined"),
    ),
    Report(
        "template-with-an-unknown-filter", "own", Given(BARE.replace("m.content", "m.content | shorten"), [SIMPLE]),
        ("ChatTemplateInvalid", "No filter named 'shorten'"),
    ),
    Report(
        "gate-without-held-out-rows", "own", Given("qwen2_5", [SIMPLE], {"requires_holdout": True, "tasks": ("t",)}),
        ("NothingToEvaluate", "gate: it reads a metric of the held-out rows, and no row is held out; hold rows out with dataset.trainSplit"),
    ),
)  # fmt: skip
def test_rejected_rows(report: Report, stage: Tokenization, families: Any) -> None:
    stage.link_model(families(report.given.template))
    stage.write(report.given.row)
    with pytest.raises(StageError) as raised:
        stage(**report.given.inputs)
    reason, words = report.expected
    assert raised.value.reason.name == reason
    assert words in raised.value.message

"""Rows that were learned or scored wrongly: the parts of a row that are rendered, learned, scored, reported or rejected."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from finetune_stages.sdk import StageError
from rendering import SPECIAL, Tokenization, family
from reports.report import Report, reports

QUESTION = {"role": "user", "content": "How is f called?"}
ANSWER = {"role": "assistant", "content": "f(x)"}
SIMPLE = {"messages": [QUESTION, ANSWER]}
TOOL = {
    "type": "function",
    "function": {"name": "lookup", "description": "Find f", "parameters": {"type": "object", "properties": {"name": {"type": "string"}}}},
}  # fmt: skip
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"type": "function", "function": {"name": "lookup", "arguments": {"name": "f"}}}],
}
RESULT = {"role": "tool", "content": "f takes x"}
WITH_CALL = {"messages": [QUESTION, CALL, RESULT, ANSWER], "tools": [TOOL]}
AS_TEXT = {
    "messages": [
        QUESTION,
        {**CALL, "tool_calls": [{"type": "function", "function": {"name": "lookup", "arguments": '{"name": "f"}'}}]},
        RESULT, ANSWER,
    ],
    "tools": json.dumps([TOOL]),
}  # fmt: skip
OLD_FORM = {
    "messages": [
        QUESTION, {"role": "assistant", "content": None, "function_call": {"name": "lookup", "arguments": '{"name": "f"}'}},
        {"role": "function", "name": "lookup", "content": "f takes x"}, ANSWER,
    ],
    "functions": [TOOL["function"]],
}  # fmt: skip
ENDING_CALL = {
    "messages": [QUESTION, {"role": "assistant", "tool_calls": [{"function": {"name": "lookup", "arguments": {"name": "a<|im_end|>b"}}}]}],
    "tools": [TOOL],
}  # fmt: skip
TWIN_CALLS = {
    "messages": [QUESTION, {"role": "assistant", "tool_calls": [{"function": {"name": "lookup", "arguments": {}}}] * 2}], "tools": [TOOL],
}  # fmt: skip
WEIGHED = {"messages": [QUESTION, {**ANSWER, "content": "WRONG", "weight": 0}, QUESTION, {**ANSWER, "weight": 1}]}
THOUGHT = {"messages": [QUESTION, {**ANSWER, "reasoning_content": "A signature."}]}
GREETED = {"messages": [{"role": "assistant", "content": "Welcome!"}, QUESTION, ANSWER]}
PARTS = {
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "How is "}, {"type": "text", "text": "f called?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "f(x)"}]},
    ]
}  # fmt: skip
TWICE = {"messages": [QUESTION, QUESTION, ANSWER]}

QWEN = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
USER = "<|im_start|>user\nHow is f called?<|im_end|>\n<|im_start|>assistant\n"
QWEN_CALL = (
    '[[<tool_call>\n{"name": "lookup", "arguments": {"name": "f"}}\n</tool_call><|im_end|>]]\n'
    "<|im_start|>user\n<tool_response>\nf takes x\n</tool_response><|im_end|>\n<|im_start|>assistant\n[[f(x)<|im_end|>]]\n"
)
QWEN_XML = (
    f"{USER}<think>\n[[\n</think>\n\n<tool_call>\n<function=lookup>\n<parameter=name>\nf\n</parameter>\n</function>\n</tool_call><|im_end|>]]\n"
    f"<|im_start|>user\n<tool_response>\nf takes x\n</tool_response><|im_end|>\n<|im_start|>assistant\n<think>\n[[\n</think>\n\nf(x)<|im_end|>]]\n"
)
DEEPSEEK = (  # the generation prompt ends with <think>, whose first character is that of the token of a call
    "<bos><｜User｜>How is f called?<｜Assistant｜><[[｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>lookup\n```json\n"  # noqa: RUF001
    '{"name": "f"}\n```<｜tool▁call▁end｜><END>]]<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>f takes x<｜tool▁output▁end｜>'  # noqa: RUF001
    "<｜tool▁outputs▁end｜>[[f(x)<｜end▁of▁sentence｜>]]"  # noqa: RUF001
)
LLAMA = (
    "<bos><|start_header_id|>user<|end_header_id|>\n\nHow is f called?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
)
BARE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
ESCAPES_QUESTIONS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>"
    "{% endgeneration %}{% else %}{{ m.content | replace('<', '&lt;') }}<|im_end|>{% endif %}\n{% endfor %}"
)
ONE_CALL = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}{% if m.tool_calls %}{{ m.tool_calls[0] | tojson }}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Given:
    """A row, or several, and a family's template."""

    template: str
    row: Any
    inputs: dict[str, Any] = field(default_factory=dict)


@pytest.fixture
def stage(tmp_path: Path) -> Tokenization:
    return Tokenization(tmp_path)


@pytest.fixture(scope="module")
def families(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder, made = tmp_path_factory.mktemp("families"), {}

    def find(name: str) -> Path:
        if name not in made:
            made[name] = family(tiny_model, folder / str(len(made)), name)
        return made[name]

    return find


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


BAD = "BadRow"
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
        "gate-without-held-out-rows", "own", Given("qwen2_5", [SIMPLE], {"requires_holdout": True}),
        ("NothingToEvaluate", "gate: it reads a metric of the held-out rows and no row is held out; hold rows out with dataset.trainSplit"),
    ),
)  # fmt: skip
def test_what_is_refused(report: Report, stage: Tokenization, families: Any) -> None:
    stage.link_model(families(report.given.template))
    stage.write(report.given.row)
    with pytest.raises(StageError) as raised:
        stage(**report.given.inputs)
    reason, words = report.expected
    assert raised.value.reason.name == reason
    assert words in raised.value.message


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
def test_what_is_told(report: Report, stage: Tokenization, families: Any) -> None:
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
    (stage.workspace / "tasks").mkdir()
    (stage.workspace / "tasks/quiz.jsonl").write_bytes(
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

"""Chat rows, templates and what they render to, for the reports about rendering."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

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

BAD = "BadRow"
"""The reason for rows that are rejected."""


@dataclass(frozen=True)
class Given:
    """A row, or several, and a family's template."""

    template: str
    row: Any
    inputs: dict[str, Any] = field(default_factory=dict)

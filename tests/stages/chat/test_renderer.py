# ruff: noqa: RUF001 - DeepSeek writes its special tokens with full-width bars
"""Which part of a rendered chat is learned: real templates of the field, as TRL ships them, and the shapes that break others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from finetune_contract import reasons
from finetune_stages.chat.renderer import ChatRenderer, RowRejected, Unclear
from finetune_stages.chat.structure import read_conversation
from finetune_stages.chat.template import Template
from finetune_stages.sdk import StageError
from finetune_stages.tokenization.labels import EndTokens, encode
from rendering import TEMPLATES

SINGLE = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "It is 4."}]
MULTI = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": " Hello there "},
    {"role": "user", "content": "2+2?"},
    {"role": "assistant", "content": "It is 4."},
]
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
TOOLS = [
    {"role": "user", "content": "Weather in Rome?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "name": "weather", "content": "sunny"},
    {"role": "assistant", "content": "It is sunny."},
    {"role": "user", "content": "Thanks"},
    {"role": "assistant", "content": "Welcome."},
]
QWEN_CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call><|im_end|>'
QWEN_FUNCTION = "<tool_call>\n<function=weather>\n<parameter=city>\nRome\n</parameter>\n</function>\n</tool_call><|im_end|>"
THOUGHT = "<think>\n\n</think>\n\n"

KNOWN = [
    ("qwen2_5", "<|im_end|>", SINGLE, ["It is 4.<|im_end|>"]),
    ("qwen2_5", "<|im_end|>", MULTI, [" Hello there <|im_end|>", "It is 4.<|im_end|>"]),
    ("qwen2_5", "<|im_end|>", TOOLS, [QWEN_CALL, "It is sunny.<|im_end|>", "Welcome.<|im_end|>"]),
    # Qwen 3 writes an empty thought before the last reply only: the reply before it is found all the same.
    ("qwen3", "<|im_end|>", MULTI, [" Hello there <|im_end|>", f"{THOUGHT}It is 4.<|im_end|>"]),
    ("qwen3", "<|im_end|>", TOOLS, [QWEN_CALL, "It is sunny.<|im_end|>", f"{THOUGHT}Welcome.<|im_end|>"]),
    ("qwen3_instruct_2507", "<|im_end|>", TOOLS, [QWEN_CALL, "It is sunny.<|im_end|>", "Welcome.<|im_end|>"]),
    # Here not even the beginnings agree; TRL's version of the template, made for training, keeps every thought.
    ("qwen3_5_think", "<|im_end|>", TOOLS,
     [f"{THOUGHT}{QWEN_FUNCTION}\n", f"{THOUGHT}It is sunny.<|im_end|>\n", f"{THOUGHT}Welcome.<|im_end|>\n"]),
    ("llama3", "<|eot_id|>", MULTI, ["Hello there<|eot_id|>", "It is 4.<|eot_id|>"]),
    ("gemma3", "<end_of_turn>", MULTI, ["Hello there<end_of_turn>", "It is 4.<end_of_turn>"]),
    ("phi3", "<|end|>", MULTI, [" Hello there <|end|>", "It is 4.<|end|>"]),
    ("cohere", "<|END_OF_TURN_TOKEN|>", MULTI, ["Hello there<|END_OF_TURN_TOKEN|>", "It is 4.<|END_OF_TURN_TOKEN|>"]),
    # DeepSeek's generation prompt begins a thought that an old reply does not have.
    ("deepseek_r1_distill", "<｜end▁of▁sentence｜>", MULTI,
     [" Hello there <｜end▁of▁sentence｜>", "It is 4.<｜end▁of▁sentence｜>"]),
    # gpt-oss ends the last reply with another token than those before it.
    ("gptoss", "<|return|>", MULTI,
     ["<|channel|>final<|message|> Hello there <|end|>", "<|channel|>final<|message|>It is 4.<|return|>"]),
]  # fmt: skip

SPECIAL = (
    "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<start_of_turn>", "<end_of_turn>",
    "<|end|>", "<|user|>", "<|assistant|>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|CHATBOT_TOKEN|>",
    "<|USER_TOKEN|>", "<｜end▁of▁sentence｜>", "<｜Assistant｜>", "<｜User｜>", "<|start|>", "<|return|>", "<|channel|>", "<|message|>",
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    """The tiny model's, with the special tokens of every family."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL), "bos_token": "<s>"})
    tokenizer.own_template = tokenizer.chat_template
    return tokenizer


def turns(
    tokenizer: Any, template: str, messages: list[Any], end: str = "<|im_end|>", everything: bool = False, **row: Any
) -> list[str]:
    """The learned parts of a conversation, as text."""
    tokenizer.chat_template, tokenizer.eos_token = template, end
    rendered = ChatRenderer(tokenizer, everything).render(read_conversation({"messages": messages, **row}))
    ((ids, learned),) = encode([rendered], tokenizer, EndTokens.of(tokenizer))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], learned, [False]]).astype(int)))
    return [tokenizer.decode(ids[first:last]) for first, last in edges.reshape(-1, 2)]


@pytest.mark.parametrize(
    ("name", "end", "messages", "expected"), KNOWN, ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_replies_of_known_families(tokenizer, name, end, messages, expected):
    assert turns(tokenizer, (TEMPLATES / f"{name}.jinja").read_text(), messages, end) == expected


MARKED = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}{% endgeneration %}<|im_end|>\n"
    "{% else %}{{ message['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
)


def test_marked_parts_are_kept_and_completed_by_the_end_of_turn(tokenizer):
    assert turns(tokenizer, MARKED, MULTI) == [" Hello there <|im_end|>", "It is 4.<|im_end|>"]


def test_a_template_with_marks_and_the_same_without_them_learn_the_same(tokenizer):
    marked = tokenizer.own_template
    bare = marked.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    assert turns(tokenizer, bare, MULTI) == turns(tokenizer, marked, MULTI) == [" Hello there <|im_end|>", "It is 4.<|im_end|>"]


def test_a_reply_that_quotes_the_end_of_turn_token_is_learned_whole(tokenizer):
    quoting = [SINGLE[0], {"role": "assistant", "content": "The token <|im_end|> ends it."}]
    bare = tokenizer.own_template.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    assert turns(tokenizer, bare, quoting) == ["The token <|im_end|> ends it.<|im_end|>"]


def test_a_conversation_that_the_assistant_opens(tokenizer):
    bare = tokenizer.own_template.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    assert turns(tokenizer, bare, [{"role": "assistant", "content": "Hello!"}, *SINGLE]) == [
        "Hello!<|im_end|>",
        "It is 4.<|im_end|>",
    ]


@pytest.mark.parametrize("row", [{"unmask": True}, {}])
def test_unmasked_everything_but_the_system_is_learned(tokenizer, row):
    learned = turns(tokenizer, tokenizer.own_template, MULTI, everything=not row, **row)
    assert learned == ["Hi<|im_end|>", " Hello there <|im_end|>", "2+2?<|im_end|>", "It is 4.<|im_end|>"]


def test_unmasked_tool_answers_are_learned_too(tokenizer):
    learned = turns(tokenizer, (TEMPLATES / "qwen2_5.jinja").read_text(), TOOLS, everything=True)
    assert "sunny\n</tool_response><|im_end|>" in learned


def test_the_tools_of_a_row_reach_the_template(tokenizer):
    tool = {
        "type": "function",
        "function": {"name": "weather", "description": "d", "parameters": {"type": "object", "properties": {}}},
    }
    tokenizer.chat_template = (TEMPLATES / "qwen2_5.jinja").read_text()
    text = ChatRenderer(tokenizer).render(read_conversation({"messages": SINGLE, "tools": [tool]})).text
    assert '"name": "weather"' in text


def test_the_message_of_a_template_for_a_row_that_it_rejects(tokenizer):
    tokenizer.chat_template = "{{ raise_exception('Roles must alternate') }}"
    with pytest.raises(RowRejected, match=r"^is rejected by the model's chat template \(Roles must alternate\)$"):
        ChatRenderer(tokenizer).render(read_conversation({"messages": SINGLE}))


def test_a_template_that_hides_the_reply_is_unclear(tokenizer):
    tokenizer.chat_template = "{% for message in messages %}{{ messages | length }}{{ message.content }}{% endfor %}"
    with pytest.raises(Unclear, match=r"^has a message 2 whose position in the rendered text is ambiguous"):
        ChatRenderer(tokenizer).render(read_conversation({"messages": SINGLE}))


@pytest.mark.parametrize("template", [None, {"tool_use": "{{ messages }}"}])
def test_no_template_at_all(tokenizer, template):
    tokenizer.chat_template = template
    with pytest.raises(StageError) as raised:
        ChatRenderer(tokenizer)
    assert raised.value.reason is reasons.CHAT_TEMPLATE_MISSING


def test_a_template_for_tools_is_used_for_rows_with_tools(tokenizer):
    tokenizer.chat_template = {
        "default": "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}",
        "tool_use": "{{ tools | tojson }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}",
    }
    renderer = ChatRenderer(tokenizer)
    assert renderer.render(read_conversation({"messages": SINGLE})).text == "[user]2+2?[assistant]It is 4."
    tools = [{"type": "function", "function": {"name": "f"}}]
    text = renderer.render(read_conversation({"messages": SINGLE, "tools": tools})).text
    assert text == '[{"type": "function", "function": {"name": "f"}}]<user>2+2?<assistant>It is 4.'


def test_arguments_of_a_row_reach_the_template(tokenizer):
    tokenizer.chat_template = "{{ mood }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    row = {"messages": SINGLE, "chat_template_kwargs": {"mood": "wild "}}
    assert ChatRenderer(tokenizer).render(read_conversation(row)).text.startswith("wild [user]")


@pytest.mark.parametrize(
    ("loop", "why"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "takes longer than 0.5 s"),
        ("{{ messages[0].content * 3000000000 }}", "uses more than 1 GiB of memory"),
        ("{{ messages[0].content * 70000000 }}", "renders more than 67,108,864 characters"),
    ],
    ids=["loops", "memory", "text"],
)
def test_a_template_without_an_end_is_invalid(loop: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune_stages.chat.template.SECONDS", 0.5 if "range" in loop else 60)
    with pytest.raises(StageError) as raised:
        Template("{% for m in messages %}{{ m.role }}{{ m.content }}{% endfor %}" + loop, {}).require_sound()
    assert raised.value.reason is reasons.CHAT_TEMPLATE_INVALID
    assert raised.value.message == (
        f"model.uri: the chat template {why} for one conversation; correct the template in the model's files, or use another model."
    )

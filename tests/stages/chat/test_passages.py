"""What of a conversation is scored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from finetune_stages.chat.passages import passages
from finetune_stages.chat.renderer import ChatRenderer, RowRejected
from finetune_stages.chat.structure import read_conversation
from rendering import TEMPLATES

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TRIMMED = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }} {% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
THINKING = (  # as Qwen3's: earlier thoughts are dropped, the last answer always has some
    "{% for m in messages %}{% set ns = namespace(text=m.content, thought='') %}"
    "{% if '</think>' in ns.text %}{% set ns.thought = ns.text.split('</think>')[0].split('<think>')[-1] | trim %}"
    "{% set ns.text = ns.text.split('</think>')[-1].lstrip() %}{% endif %}<{{ m.role }}>\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n{{ ns.thought }}\n</think>\n\n{% endif %}{{ ns.text }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>\n{% endif %}"
)


class Tokenizer(SimpleNamespace):
    """What a renderer asks of a tokenizer."""

    def get_chat_template(self, _name: None, _tools: Any) -> str:
        return str(self.chat_template)

    def get_added_vocab(self) -> dict[str, int]:
        return {"<|end|>": 1, "<|call|>": 2}


def chat(*turns: str) -> list[dict[str, Any]]:
    """Messages from texts such as ``user: hello``."""
    return [dict(zip(("role", "content"), turn.split(": ", 1), strict=True)) for turn in turns]


def scored(template: str, messages: Sequence[dict[str, Any]], **row: Any) -> list[tuple[str, list[str]]]:
    """Each passage's text, and its answers."""
    conversation = read_conversation({"messages": messages, **row})
    tokenizer = Tokenizer(chat_template=template, special_tokens_map={"bos_token": "<s>", "eos_token": "</s>"})
    found = passages(conversation, ChatRenderer(tokenizer).render(conversation))
    return [(passage.text, [passage.text[start:end] for start, end in passage.answers]) for passage in found]


def test_one_text_holds_all_answers_of_a_conversation() -> None:
    turns = ["system: be brief", "user: a?", "assistant: yes", "user: b?", "assistant: yes", "user: thanks"]
    ((text, answers),) = scored(CHATML, chat(*turns))
    assert answers == ["yes", "yes"]
    assert text.startswith("<|im_start|>system\nbe brief<|im_end|>\n")
    assert text.endswith("<|im_start|>user\nb?<|im_end|>\n<|im_start|>assistant\nyes")


def test_white_space_around_an_answer_is_not_scored() -> None:
    for template in (CHATML, TRIMMED):
        assert [answers for _, answers in scored(template, chat("user: a?", "assistant:   two words \n"))] == [["two words"]]


def test_an_answer_that_is_rendered_otherwise_later_gets_a_text_of_its_own() -> None:
    turns = ["user: a?", "assistant: <think>hm</think>\n\nyes", "user: b?", "assistant: no"]
    (first, first_answers), (second, second_answers) = scored(THINKING, chat(*turns))
    assert first_answers == ["<think>\nhm\n</think>\n\nyes"]
    assert second_answers == ["no"]
    assert "hm" not in second
    assert first == "<user>\na?<end>\n<assistant>\n<think>\nhm\n</think>\n\nyes"
    assert second.endswith("<assistant>\n<think>\n\n</think>\n\nno")


REAL_TEMPLATES = sorted(TEMPLATES.glob("*.jinja"))
WITHOUT_SYSTEM = ("gemma.jinja", "gemma_training.jinja")


@pytest.mark.parametrize("template", REAL_TEMPLATES, ids=lambda path: path.stem)
def test_the_answers_are_found_in_what_real_templates_make_of_them(template: Path) -> None:
    turns = ["user: Hi", "assistant: Hello there", "user: 2+2?", "assistant: It is 4."]
    thoughtful = [turns[0], "assistant: <think>\nhm\n</think>\n\nHello there", *turns[2:]]
    system = [] if template.name in WITHOUT_SYSTEM else ["system: Be kind."]
    for conversation, first in ((turns, "Hello there"), ([*system, *turns], "Hello there"), (thoughtful, None)):
        found = scored(template.read_text(), chat(*conversation))
        answers = [answer for _, each in found for answer in each]
        assert answers == [first or answers[0], "It is 4."]
        assert answers[0].endswith("Hello there")
        if conversation[0] == "system: Be kind.":
            assert all("Be kind." in text for text, _ in found)


CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"a": "x"}}}],
}
TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}},
}
CALLS = [
    ("qwen2_5", '<tool_call>\n{"name": "f", "arguments": {"a": "x"}}\n</tool_call>'),
    ("qwen3", '<tool_call>\n{"name": "f", "arguments": {"a": "x"}}\n</tool_call>'),
    ("qwen3_5_think", "<tool_call>\n<function=f>\n<parameter=a>\nx\n</parameter>\n</function>\n</tool_call>"),
    ("glm4moe", "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>x</arg_value>\n</tool_call>"),
    ("llama3_1", '{"name": "f", "parameters": {"a": "x"}}'),
]


@pytest.mark.parametrize(("name", "expected"), CALLS, ids=lambda value: value.split()[0][:15])
def test_a_turn_that_calls_a_tool_is_scored_as_the_template_writes_it(name: str, expected: str) -> None:
    messages = [*chat("user: a?"), CALL, *chat("tool: 7", "assistant: seven")]
    found = scored((TEMPLATES / f"{name}.jinja").read_text(), messages, tools=[TOOL])
    assert [answer for _, each in found for answer in each] == [expected, "seven"]
    assert all('"description": "d"' in text for text, _ in found)


def test_the_token_that_ends_a_call_is_not_scored_by_half() -> None:
    template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content or '' }}{% if m.tool_calls %}{{ m.tool_calls[0].function | tojson }}<|call|>"
        "{% else %}<|end|>{% endif %}{% endfor %}"
    )
    ((_, answers),) = scored(template, [*chat("user: a?"), CALL])
    assert answers == ['{"name": "f", "arguments": {"a": "x"}}']


def test_thoughts_that_the_template_cuts_off_are_not_scored() -> None:
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content.split('</think>')[-1] }}{% endfor %}{% if add_generation_prompt %}<assistant><think>\n{% endif %}"
    ((_, answers),) = scored(template, chat("user: a?", "assistant: <think>hm</think>\n\nyes"))
    assert answers == ["yes"]


ESCAPED = (  # opens a thought in the generation prompt, as DeepSeek-R1's, and escapes quotation marks
    "{% for m in messages %}<{{ m.role }}>{{ m.content | replace('\"', '&quot;') }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant><think>\n{% endif %}"
)


@pytest.mark.parametrize("after", [(), ("user: thanks",)])
def test_an_answer_that_the_template_escapes_is_scored_whole(after: Sequence[str]) -> None:
    said = '<b>He said "yes, it is so" twice.'  # its first character is also that of <think>
    ((text, answers),) = scored(ESCAPED, chat("user: a?", f"assistant: {said}", *after))
    assert answers == ["<b>He said &quot;yes, it is so&quot; twice."]
    assert text == f"<user>a?<end><assistant>{answers[0]}"


def test_an_answer_whose_beginning_the_template_cuts_off_is_scored_as_far_as_it_is_written() -> None:
    ((text, answers),) = scored(
        ESCAPED.replace("m.content |", "m.content[3:] |"), chat("user: Hm a?", 'assistant: Oh "yes", "yes"')
    )
    assert answers == ["&quot;yes&quot;, &quot;yes&quot;"]
    assert text == f"<user>a?<end><assistant>{answers[0]}"


def test_an_answer_that_is_cut_in_a_place_that_is_not_known_is_rejected() -> None:
    marked = ESCAPED.replace("{{ m.content", "{% generation %}{{ m.content[3:]").replace("<end>", "{% endgeneration %}<end>")
    with pytest.raises(RowRejected, match="has an answer that the chat template does not render: 'He said"):
        scored(marked, chat("user: Hm a?", 'assistant: He said "yes" twice.'))


def test_words_beside_a_call_are_scored_with_it() -> None:
    messages = [*chat("user: a?"), {**CALL, "content": "Let me see."}]
    ((_, answers),) = scored((TEMPLATES / "qwen2_5.jinja").read_text(), messages)
    assert answers == ['Let me see.\n<tool_call>\n{"name": "f", "arguments": {"a": "x"}}\n</tool_call>']


def test_an_answer_with_weight_0_is_only_read() -> None:
    messages = [*chat("user: a?"), {"role": "assistant", "content": "no", "weight": 0}, *chat("user: b?", "assistant: yes")]
    ((text, answers),) = scored(CHATML, messages)
    assert answers == ["yes"]
    assert "assistant\nno<|im_end|>" in text


def test_an_answer_that_is_not_written_is_rejected_when_it_is_rendered() -> None:
    template = "{% for m in messages %}{{ m.role }}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    renderer = ChatRenderer(Tokenizer(chat_template=template, special_tokens_map={}))
    with pytest.raises(
        RowRejected, match=r"^has a message 2 \(role assistant\) whose content the chat template does not render$"
    ):
        renderer.render(read_conversation({"messages": chat("user: a?", "assistant: yes")}))

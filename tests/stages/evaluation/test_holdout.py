"""What of a conversation is scored, and how sure the score is."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from finetune_stages.evaluation.rows import read_rows
from finetune_stages.kit import StageError

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


def renderer(template: str) -> Callable[..., str]:
    """A stand-in for the one method of a tokenizer that is used, with the template engine that transformers uses."""

    def refuse(message: str) -> None:
        raise TemplateError(message)

    compiled = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(
        template, {"raise_exception": refuse}
    )

    def render(messages: Sequence[dict[str, Any]], tokenize: bool, add_generation_prompt: bool = False) -> str:
        assert not tokenize
        return compiled.render(messages=messages, add_generation_prompt=add_generation_prompt)

    return render


def chat(*turns: str) -> list[dict[str, Any]]:
    """Messages from texts such as ``user: hello``."""
    return [dict(zip(("role", "content"), turn.split(": ", 1), strict=True)) for turn in turns]


def scored(template: str, *turns: str) -> list[tuple[str, list[str]]]:
    from finetune_stages.evaluation.chat_task import passages

    found = passages(chat(*turns), renderer(template))
    return [(passage.text, [passage.text[start:end] for start, end in passage.answers]) for passage in found]


def test_one_text_holds_all_answers_of_a_conversation() -> None:
    turns = ["system: be brief", "user: a?", "assistant: yes", "user: b?", "assistant: yes", "user: thanks"]
    ((text, answers),) = scored(CHATML, *turns)
    assert answers == ["yes", "yes"]
    assert text.startswith("<|im_start|>system\nbe brief<|im_end|>\n")
    assert text.endswith("<|im_start|>user\nb?<|im_end|>\n<|im_start|>assistant\nyes")


def test_white_space_around_an_answer_is_not_scored() -> None:
    for template in (CHATML, TRIMMED):
        assert [answers for _, answers in scored(template, "user: a?", "assistant:   two words \n")] == [["two words"]]


def test_an_answer_that_is_rendered_otherwise_later_gets_a_text_of_its_own() -> None:
    turns = ["user: a?", "assistant: <think>hm</think>\n\nyes", "user: b?", "assistant: no"]
    (first, first_answers), (second, second_answers) = scored(THINKING, *turns)
    assert first_answers == ["<think>\nhm\n</think>\n\nyes"]
    assert second_answers == ["no"]
    assert "hm" not in second
    assert first == "<user>\na?<end>\n<assistant>\n<think>\nhm\n</think>\n\nyes"
    assert second.endswith("<assistant>\n<think>\n\n</think>\n\nno")


REAL_TEMPLATES = sorted(Path(find_spec("trl").origin).parent.glob("chat_templates/*.jinja"))
FOR_PICTURES = ("idefics3", "smolvlm", "llava_next")
WITHOUT_SYSTEM = ("gemma.jinja", "gemma_training.jinja")


@pytest.mark.parametrize(
    "template", [path for path in REAL_TEMPLATES if not path.name.startswith(FOR_PICTURES)], ids=lambda p: p.stem
)
def test_the_answers_are_found_in_what_real_templates_make_of_them(template: Path) -> None:
    from finetune_stages.evaluation.chat_task import passages

    turns = ["user: Hi", "assistant: Hello there", "user: 2+2?", "assistant: It is 4."]
    thoughtful = [turns[0], "assistant: <think>\nhm\n</think>\n\nHello there", *turns[2:]]
    system = [] if template.name in WITHOUT_SYSTEM else ["system: Be kind."]
    render = real_renderer(template)
    for conversation, first in ((turns, "Hello there"), ([*system, *turns], "Hello there"), (thoughtful, None)):
        found = passages(chat(*conversation), render)
        answers = [passage.text[start:end] for passage in found for start, end in passage.answers]
        assert answers == [first or answers[0], "It is 4."]
        assert answers[0].endswith("Hello there")
        if conversation[0] == "system: Be kind.":
            assert all("Be kind." in passage.text for passage in found)


def real_renderer(template: Path) -> Callable[..., str]:
    """A tokenizer's method, without a tokenizer."""
    from transformers.utils.chat_template_utils import render_jinja_template

    def render(messages: Sequence[dict[str, Any]], tokenize: bool, add_generation_prompt: bool = False) -> str:
        rendered = render_jinja_template(
            [list(messages)], chat_template=template.read_text(), add_generation_prompt=add_generation_prompt,
            bos_token="<s>", eos_token="</s>",
        )  # fmt: skip
        return rendered[0][0]

    return render


def test_what_is_no_text_of_the_assistant_is_only_read() -> None:
    from finetune_stages.evaluation.chat_task import passages

    messages = [*chat("user: a?"), {"role": "assistant", "content": "", "tool_calls": []}, *chat("tool: 7", "assistant: seven")]
    (passage,) = passages(messages, renderer(CHATML))
    assert [passage.text[start:end] for start, end in passage.answers] == ["seven"]


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ raise_exception('System role not supported') }}", "System role not supported"),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "does not render the answer 'yes'"),
    ],
)
def test_a_row_that_the_template_refuses_is_named(template: str, words: str) -> None:
    from finetune_stages.evaluation.chat_task import ChatRows

    task = ChatRows("holdout", [{"messages": chat("user: a?", "assistant: yes")}], renderer(template))
    with pytest.raises(StageError, match="Row 1 of holdout: the model's chat template refuses it") as raised:
        task.build_all_requests()
    assert words in raised.value.message
    assert raised.value.reason.name == "BadRow"


def test_the_standard_error_is_that_of_resampled_rows() -> None:
    from finetune_stages.evaluation.chat_task import ratio_error

    draw = random.Random(1)
    pairs = [(draw.gauss(3.0, 1.0) * size, size) for size in (draw.randint(5, 80) for _ in range(400))]

    def ratio(rows: Sequence[tuple[float, int]]) -> float:
        return sum(value for value, _ in rows) / sum(size for _, size in rows)

    resampled = [ratio(draw.choices(pairs, k=len(pairs))) for _ in range(2000)]
    mean = sum(resampled) / len(resampled)
    spread = math.sqrt(sum((value - mean) ** 2 for value in resampled) / (len(resampled) - 1))
    assert ratio_error(pairs) == pytest.approx(spread, rel=0.1)
    assert ratio_error([(2.0, 1), (6.0, 3)]) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("lengths", "sizes"),
    [
        ([], []),
        ([5000], [1]),
        ([1024, 1024], [1, 1]),
        ([600, 500, 300, 300, 300, 1], [1, 2, 2, 3, 3, 3]),
        ([1] * 70, [64] * 64 + [6] * 6),
    ],
)
def test_batches_hold_as_many_texts_as_their_longest_allows(lengths: list[int], sizes: list[int]) -> None:
    from finetune_stages.evaluation.scorer import batch_sizes

    assert batch_sizes(lengths, tokens=1024, largest=64) == sizes


@pytest.mark.parametrize("length", [1, 2, 9, 10, 11, 12, 47, 100])
def test_windows_score_every_token_once_with_half_a_context_before_it(length: int) -> None:
    from finetune_stages.evaluation.scorer import Scorer

    room = 10
    windows = list(Scorer._windows(SimpleNamespace(max_length=room), 0, list(range(length))))
    covered = [token for window in windows for token in range(window.first, window.start + len(window.ids))]
    assert covered == list(range(1, length))
    for window in windows:
        assert window.ids == list(range(window.start, window.start + len(window.ids)))
        assert len(window.ids) <= room + 1
        assert window.start == 0 or window.first - window.start >= room // 2


@pytest.mark.parametrize(
    ("line", "words"),
    [("{", "line 2: not JSON"), ("[]", "line 2: not an object with a list of messages"), ('{"messages": ["x"]}', "line 2")],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "eval.jsonl").write_text('{"messages": []}\n' + line + "\n")
    with pytest.raises(StageError, match=words):
        read_rows(tmp_path / "eval.jsonl")


def test_no_file_no_rows_and_rows_without_an_answer_are_left_out(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "eval.jsonl") == []
    (tmp_path / "eval.jsonl").write_text('{"messages": [{"role": "user", "content": "x"}]}\n\n')
    assert read_rows(tmp_path / "eval.jsonl") == []

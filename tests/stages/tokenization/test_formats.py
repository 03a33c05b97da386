"""The examples of docs/chat-rows.md, through stages *dataset* and *tokenization*: what is learned of each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markdown_it import MarkdownIt

from finetune_contract import CONTRACT_VERSION
from finetune_contract.codec import encode
from finetune_contract.documents import DatasetInputs, StageDocument
from finetune_contract.row_formats import RowFields
from finetune_contract.workspace import Attempt
from finetune_stages.dataset.prepare import prepare
from finetune_stages.sdk import Context, Finished, StageError
from rendering import RUN, Tokenization, family

PAGE = Path(__file__).parents[3] / "docs/chat-rows.md"
USER = "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n"
FOUR = "[[4<|im_end|>]]\n"
RESULT = "<|im_start|>user\n<tool_response>\n4\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
BRIEF = "<|im_start|>system\nBe brief.<|im_end|>\n"
ROLES = "roles gpt as assistant, human as user"


def call(**arguments: int) -> str:
    return f'<tool_call>\n{{"name": "add", "arguments": {json.dumps(arguments)}}}\n</tool_call>'


def examples() -> dict[str, str]:
    """Return the examples of the page by the name in the first column of their table."""
    found: dict[str, str] = {}
    cells: list[Any] = []
    for token in MarkdownIt("commonmark").enable("table").parse(PAGE.read_text(encoding="utf-8")):
        if token.type == "tr_open":
            cells = []
        elif token.type == "inline":
            cells.append(token)
        elif token.type == "tr_close":
            rows = [child.content for cell in cells for child in cell.children or () if child.content.startswith('{"')]
            if rows and "enable_thinking" not in rows[0]:
                found[cells[0].content.strip("`")] = rows[0]
    return found


def prepared(workspace: Path, row: str, **inputs: Any) -> Finished:
    """Run stage *dataset* on a file with one row, which is also held out."""
    file = workspace / "in.jsonl"
    file.write_text(row + "\n", encoding="utf-8")
    document = StageDocument(CONTRACT_VERSION, "dataset", RUN, encode(DatasetInputs(str(file), eval_uri=str(file), **inputs)))
    context = Context(document, workspace, Attempt(1, 1), "0" * 64)
    context.path(context.layout.root).mkdir(parents=True, exist_ok=True)
    context.become_current()
    return prepare(context)


@pytest.fixture(scope="module")
def model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return family(tiny_model, tmp_path_factory.mktemp("model") / "qwen", "qwen2_5")


@pytest.fixture(scope="module")
def thinking(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return family(tiny_model, tmp_path_factory.mktemp("model") / "qwen", "qwen3")


@dataclass(frozen=True)
class Learned:
    """What follows from an example.

    Attributes:
        text: the end of the rendered row, with the learned tokens in brackets.
        mapping: the description of the conversion.
        inside: further text of the row.
    """

    text: str
    mapping: str = ""
    inside: str = ""


TABLE = {
    "messages": Learned(USER + FOUR),
    "conversations": Learned(USER + FOUR, f"format conversations, read from column conversations; {ROLES}"),
    "alpaca": Learned(
        "<|im_start|>user\nAdd the numbers.\n2, 2<|im_end|>\n<|im_start|>assistant\n" + FOUR,
        "format alpaca, read from columns instruction, input, output",
    ),
    "prompt-completion": Learned(USER + FOUR, "format prompt-completion, read from columns prompt, completion"),
    "tokenised": Learned("/[[01]]", "format tokenised, read from columns input_ids, labels"),
    "text": Learned("T[[wo and two make four.<|im_end|>]]", "format text, read from column text"),
    "conversations with role and content": Learned(USER + FOUR, "format conversations, read from column conversations"),
    "messages of ShareGPT": Learned(USER + FOUR, f"format conversations, read from column messages; {ROLES}"),
    "system message in a column": Learned(
        BRIEF + USER + FOUR, f"format conversations, read from columns conversations, system; {ROLES}"
    ),
    "tool call of LLaMA-Factory": Learned(
        f"{USER}[[{call(a=2, b=2)}<|im_end|>]]\n{RESULT}{FOUR}",
        "format conversations, read from column conversations; roles function_call as a tool call, gpt as assistant, human as user, observation as tool",
        '<tools>\n{"name": "add", "description": "Add", "parameters": {}}\n</tools>',
    ),
    "Alpaca with history": Learned(
        f"{BRIEF}{USER}{FOUR}<|im_start|>user\n3+3?<|im_end|>\n<|im_start|>assistant\n[[6<|im_end|>]]\n",
        "format alpaca, read from columns instruction, output, history, system",
    ),
    "prompt and completion as messages": Learned(USER + FOUR, "format prompt-completion, read from columns prompt, completion"),
    "OpenAI, with tools and weights": Learned(
        f"{USER}5<|im_end|>\n<|im_start|>user\nUse the tool.<|im_end|>\n<|im_start|>assistant\n"
        f"[[{call(a=2, b=2)}\n{call(a=3, b=3)}<|im_end|>]]\n<|im_start|>user\n<tool_response>\n4\n</tool_response>"
        f"\n<tool_response>\n6\n</tool_response><|im_end|>\n<|im_start|>assistant\n{FOUR}",
        inside="<|im_start|>system\nBe brief.\n\n# Tools",
    ),
    "content in text parts": Learned(USER + FOUR),
    "reasoning": Learned(f"{USER}[[<think>\nTwo more than two.\n</think>\n\n4<|im_end|>]]\n"),
    "older functions of OpenAI": Learned(
        f"{USER}[[{call()}<|im_end|>]]\n{RESULT}{FOUR}",
        inside='"function": {"name": "add", "description": "Add", "parameters": {"type": "object", "properties": {}}}',
    ),
    "tokens with padding": Learned("/[[0]]", "format tokenised, read from columns input_ids, labels, attention_mask"),
}


def test_every_example_has_an_expectation() -> None:
    assert list(examples()) == list(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_what_is_learned_of_each_example(name: str, tmp_path: Path, model: Path, thinking: Path) -> None:
    stage = Tokenization(tmp_path)
    stage.link_model(thinking if name == "reasoning" else model)
    finished = prepared(tmp_path, examples()[name])
    stage()
    expected = TABLE[name]
    assert stage.learned().endswith(expected.text)
    assert expected.inside in stage.learned()
    assert finished.message.partition("; ")[2] == expected.mapping
    if "token" in name:
        assert stage.scored() == []
        return
    ((scored,),) = stage.scored()
    assert scored.count("[[") == 1 if name == "text" else scored.count("[[") == expected.text.count("[[")


def test_context_of_a_prompt_is_not_learned(tmp_path: Path, model: Path) -> None:
    question, other = {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "5"}
    row = {"prompt": [question, other, question], "completion": [{"role": "assistant", "content": "4"}]}
    stage = Tokenization(tmp_path)
    stage.link_model(model)
    prepared(tmp_path, json.dumps(row))
    stage()
    assert stage.learned().endswith(f"{USER}5<|im_end|>\n{USER}{FOUR}")
    ((scored,),) = stage.scored()
    assert scored.endswith(f"{USER}5<|im_end|>\n{USER}[[4]]")


def test_a_document_that_ends_with_the_end_token_gets_no_second_one(tmp_path: Path, model: Path) -> None:
    stage = Tokenization(tmp_path)
    stage.link_model(model)
    prepared(tmp_path, json.dumps({"text": "Four.<|im_end|>"}))
    stage()
    assert stage.learned() == "F[[our.<|im_end|>]]"


def test_a_token_that_the_tokenizer_lacks(tmp_path: Path, model: Path) -> None:
    stage = Tokenization(tmp_path)
    stage.link_model(model)
    prepared(tmp_path, json.dumps({"input_ids": [1, 10**6, 2]}))
    with pytest.raises(StageError) as raised:
        stage()
    assert raised.value.reason.name == "BadRow"
    assert "row 1 (line 1) has token 1,000,000, and the tokenizer of the model has " in raised.value.message
    assert raised.value.message.endswith("(1 of 2 rows is rejected); correct it.")


def test_a_row_in_tokens_keeps_its_labels(tmp_path: Path, model: Path) -> None:
    stage = Tokenization(tmp_path)
    stage.link_model(model)
    ids, labels = [5, 6, 7, 8, 0], [5, -100, 7, 8, -100]
    row = {"ids": ids, "targets": labels, "attention_mask": [1, 1, 1, 1, 0]}
    prepared(tmp_path, json.dumps(row), fields=RowFields(input_ids="ids", labels="targets"))
    stage()
    assert np.load(stage.path("tokens/tokens.npy")).tolist() == ids[:4]
    assert np.load(stage.path("tokens/learned.npy")).tolist() == [False, False, True, True]

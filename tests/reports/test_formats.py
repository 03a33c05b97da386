"""Rows in other formats: how they are converted, and the whole message about each broken one."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.row_formats import RowFields
from reports.test_data import Published, Rejected, run_in_process

HUMAN, GPT = {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}
QUESTION, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
CHAT, SHARED = {"messages": [QUESTION, ANSWER]}, {"conversations": [HUMAN, GPT]}
ALPACA, PAIR = {"instruction": "i", "output": "o"}, {"prompt": "p", "completion": "c"}
DOCUMENT, TOKENS = {"text": "t"}, {"input_ids": [1, 2, 3]}


def talk(*messages: Any, **columns: Any) -> dict[str, Any]:
    return {"conversations": list(messages), **columns}


@dataclass(frozen=True)
class Case:
    """A row or rows, which are JSON values or lines, what is expected of them, and further inputs of the stage."""

    name: str
    given: Any
    expected: Any
    inputs: dict[str, Any] = field(default_factory=dict)


def cases(*table: Case) -> Any:
    return pytest.mark.parametrize("case", table, ids=lambda case: case.name)


def outcome(folder: Path, rows: list[Any], inputs: dict[str, Any]) -> Published | Rejected:
    """Run the stage on a file of rows."""
    file = folder / "in.jsonl"
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return run_in_process(folder, str(file), inputs)


@cases(
    Case("unknown-role", talk(HUMAN, {"from": "narrator", "value": "a"}), 'has a faulty message 2 in conversations: its role "narrator" is not known; use user, assistant, system or tool'),
    Case("role-that-is-no-text", talk({"from": 1, "value": "a"}, GPT), "has a faulty message 1 in conversations: its role 1 is none of system, developer, user, assistant, function, tool"),
    Case("no-role", talk({"value": "a"}, GPT), "has a faulty message 1 in conversations: it has no role"),
    Case("no-content", talk({"from": "human"}, GPT), "has a faulty message 1 in conversations: it has no content"),
    Case("content-null", talk({"from": "human", "value": None}, GPT), "has a faulty message 1 in conversations: it has no content"),
    Case("answer-blank", talk(HUMAN, {"from": "gpt", "value": " "}), "has a faulty message 2 in conversations: the assistant's content is empty"),
    Case("value-number", talk({"from": "human", "value": 5}, GPT), "has a faulty message 1 in conversations: its content is a number, not a string"),
    Case("msg-is-text", talk("hi", GPT), "has a faulty message 1 in conversations: it is a string, not an object"),
    Case("roles-contradict", talk({"from": "human", "role": "assistant", "value": "q"}, GPT), "has a faulty message 1 in conversations: its role and from contradict each other"),
    Case("contents-contradict", talk({"from": "human", "value": "q", "content": "x"}, GPT), "has a faulty message 1 in conversations: its content and value contradict each other"),
    Case("conversations-object", {"conversations": {"from": "human"}}, "has a column conversations that is an object, not a list of messages"),
    Case("conversations-text", {"conversations": "hello"}, 'has a column conversations with text that is not a JSON list: "hello"'),
    Case("conversations-bad-json", {"conversations": "[{"}, 'has a column conversations with text that is not a JSON list: "[{"'),
    Case("no-assistant", talk(HUMAN), "has no message of the assistant, so there is nothing to learn from it"),
    Case("call-not-json", talk(HUMAN, {"from": "function_call", "value": "add(2)"}, GPT), 'has a faulty message 2 in conversations: its tool call is not JSON: "add(2)"'),
    Case("call-number", talk(HUMAN, {"from": "function_call", "value": "5"}, GPT), "has a faulty message 2 in conversations: its tool call is not an object with name and arguments, or a list of them"),
    Case("call-empty-list", talk(HUMAN, {"from": "function_call", "value": "[]"}, GPT), "has a faulty message 2 in conversations: its tool call is not an object with name and arguments, or a list of them"),
    Case("call-no-name", talk(HUMAN, {"from": "function_call", "value": '{"arguments": {}}'}, GPT), "has a faulty message 2 in conversations: a tool call has no name"),
    Case("call-and-tool-calls", talk(HUMAN, {"from": "function_call", "value": '{"name": "f"}', "tool_calls": [{"name": "g"}]}, GPT), "has a faulty message 2 in conversations: it has tool_calls in addition to the tool call in its content; keep one"),
    Case("system-number", talk(HUMAN, GPT, system=5), "has a column system that is a number, not a string"),
    Case("two-systems", talk({"from": "system", "value": "A"}, HUMAN, GPT, system="B"), "has a system message and another one in the column system"),
    Case("image", talk({"from": "human", "value": [{"type": "image"}]}, GPT), 'has a faulty message 1 in conversations: its content has a part of type "image", and only text can be trained on'),
    Case("images-col", talk(HUMAN, GPT, images=["x.png"]), "has images, and only text can be trained on"),
    Case("audio-part", {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}, {"role": "assistant", "content": "a"}]}, 'has a faulty message 1: its content has a part of type "input_audio", and only text can be trained on'),
    Case("weight-2", talk(HUMAN, {"from": "gpt", "value": "a", "weight": 2}), "has a faulty message 2 in conversations: its weight is 2; this release reads 0 (not learned) and 1 (learned)"),
    Case("tools-not-json", talk(HUMAN, GPT, tools="x"), 'has tools that are text that is not JSON: "x"'),
    Case("half-char", '{"conversations": [{"from": "human", "value": "\\ud83d"}, {"from": "gpt", "value": "a"}]}', "has half a character: \\ud83d without the other half of its surrogate pair"),
    Case("nan", '{"conversations": [{"from": "human", "value": "q", "id": NaN}, {"from": "gpt", "value": "a"}]}', "has NaN or an infinite number in messages, which JSON does not have"),
    Case("instruction-null", {**ALPACA, "instruction": None}, "has a column instruction that is null"),
    Case("instruction-blank", {**ALPACA, "instruction": " "}, "has an empty instruction"),
    Case("instruction-list", {**ALPACA, "instruction": ["x"]}, "has a column instruction that is a list, not a string"),
    Case("input-number", {**ALPACA, "input": 3}, "has a column input that is a number, not a string"),
    Case("output-number", {**ALPACA, "output": 3}, "has a column output that is a number, not a string"),
    Case("output-blank", {**ALPACA, "output": ""}, "has an empty output"),
    Case("history-text", {**ALPACA, "history": "hello"}, 'has a column history with text that is not a JSON list: "hello"'),
    Case("history-object", {**ALPACA, "history": {"a": 1}}, "has a column history that is an object, not a list of pairs"),
    Case("history-triple", {**ALPACA, "history": [["a", "b", "c"]]}, 'has a column history whose entry 1 is not a pair of a question and its answer: ["a", "b", "c"]'),
    Case("history-blank", {**ALPACA, "history": [["a", "b"], ["a", ""]]}, 'has a column history whose entry 2 is not a pair of a question and its answer: ["a", ""]'),
    Case("completion-number", {**PAIR, "completion": 1}, "has a column completion that is a number, not a string"),
    Case("completion-blank", {**PAIR, "completion": ""}, "has an empty completion"),
    Case("prompt-null", {**PAIR, "prompt": None}, "has a column prompt that is null"),
    Case("prompt-role", {**PAIR, "prompt": [{"role": "bad", "content": "x"}]}, 'has a faulty message 1 in prompt: its role "bad" is not known; use user, assistant, system or tool'),
    Case("prompt-empty-list", {**PAIR, "prompt": []}, "has a column prompt with an empty list"),
    Case("completion-user", {**PAIR, "completion": [{"role": "user", "content": "x"}]}, "has no message of the assistant, so there is nothing to learn from it"),
    Case("text-number", {"text": 5}, "has a column text that is a number, not a string"),
    Case("text-blank", {"text": " "}, "has an empty text"),
    Case("text-half", '{"text": "\\ud83d"}', "has half a character: \\ud83d without the other half of its surrogate pair"),
    Case("ids-text", {"input_ids": "1 2"}, "has a column input_ids that is a string, not a list of tokens"),
    Case("ids-empty", {"input_ids": []}, "has a column input_ids that is an empty list, not a list of tokens"),
    Case("ids-neg", {"input_ids": [1, -1]}, "has a column input_ids with -1, which is not the number of a token"),
    Case("ids-float", {"input_ids": [1, 1.5]}, "has a column input_ids with 1.5, which is not the number of a token"),
    Case("ids-null", {"input_ids": [1, None]}, "has a column input_ids with null, which is not the number of a token"),
    Case("labels-short", {**TOKENS, "labels": [1]}, "has input_ids of length 3 and labels of length 1; each token needs a label"),
    Case("labels-text", {**TOKENS, "labels": "x"}, "has a column labels that is a string, not a list"),
    Case("labels-shifted", {**TOKENS, "labels": [2, 3, -100]}, "has label 2 for token 1, which is neither -100 nor the token itself (1)"),
    Case("mask-2", {**TOKENS, "attention_mask": [1, 2, 1]}, "has an attention_mask that is not a list with 0 or 1 for each token"),
    Case("mask-0", {**TOKENS, "attention_mask": [0, 0, 0]}, "has an attention_mask without a 1"),
    Case("mask-mid", {**TOKENS, "attention_mask": [1, 0, 1]}, "has an attention_mask with a 0 between two tokens"),
    Case("mask-label", {**TOKENS, "labels": [1, 2, 3], "attention_mask": [1, 1, 0]}, "has a label for a token with attention_mask 0"),
    Case("completion-mask", {**TOKENS, "completion_mask": [0, 1, 1]}, "has completion_mask and no labels, and only labels are read"),
)  # fmt: skip
def test_a_broken_row(case: Case, tmp_path: Path) -> None:
    message = f"IN: row 1 (line 1) {case.expected} (1 of 1 rows is bad); correct it."
    assert outcome(tmp_path, [case.given], case.inputs) == Rejected("BadRow", message)


NO_FORMAT = "IN: no row has the columns of a format (messages; conversations; instruction and output; prompt and completion; input_ids; text); the columns of row 1 (line 1) are: "
QUESTION_ROWS = [{"question": "a", "answer": "b", "topic": "c"}] * 12


@cases(
    Case("question-answer", QUESTION_ROWS, NO_FORMAT + "question, answer, topic; set dataset.fields to {prompt: question, completion: answer}."),
    Case("question-answer-drop", QUESTION_ROWS, NO_FORMAT + "question, answer, topic; set dataset.fields to {prompt: question, completion: answer}.", {"bad_rows": "Drop", "bad_rows_share": 0.1}),
    Case("capitals", [{"Prompt": "a", "Completion": "b"}], NO_FORMAT + "Prompt, Completion; set dataset.fields to {prompt: Prompt, completion: Completion}."),
    Case("dialog", [{"dialog": [QUESTION, ANSWER]}], NO_FORMAT + "dialog; set dataset.fields to {messages: dialog}."),
    Case("document", [{"Body": "x"}], NO_FORMAT + "Body; set dataset.fields to {text: Body}."),
    Case("preference", [{"prompt": "p", "chosen": "a", "rejected": "b"}], NO_FORMAT + "prompt, chosen, rejected; set dataset.fields to the columns to read, such as {prompt: COLUMN, completion: COLUMN}, {messages: COLUMN} or {text: COLUMN}."),
    Case("rows-inside", [{"version": 1, "data": [CHAT]}], NO_FORMAT + "version, data; if the objects in data are the rows, write each on a line of its own."),
    Case("declared-alpaca", QUESTION_ROWS, "IN: no row has the columns instruction and output of format alpaca; the columns of row 1 (line 1) are: question, answer, topic; set dataset.fields.instruction to question and dataset.fields.output to answer, or set dataset.format to the format of the rows.", {"format": "alpaca"}),
    Case("one-field", QUESTION_ROWS, "IN: no row has the column completion of format prompt-completion; the columns of row 1 (line 1) are: question, answer, topic; set dataset.fields.completion to answer.", {"fields": RowFields(prompt="question")}),
    Case("two-wrong-fields", QUESTION_ROWS, "IN: no row has the columns p and q of format prompt-completion; the columns of row 1 (line 1) are: question, answer, topic; set dataset.fields.prompt and dataset.fields.completion to columns of the rows.", {"fields": RowFields(prompt="p", completion="q")}),
)  # fmt: skip
def test_rows_without_the_columns_of_a_format(case: Case, tmp_path: Path) -> None:
    assert outcome(tmp_path, case.given, case.inputs) == Rejected("ColumnNotFound", case.expected)


def test_a_column_in_one_row_is_no_missing_column(tmp_path: Path) -> None:
    message = "IN: row 1 (line 1) has no messages (its keys are: x); row 2 (line 2) has an empty list of messages (2 of 2 rows are bad); correct them."
    assert outcome(tmp_path, [{"x": 1}, {"messages": []}], {}) == Rejected("BadRow", message)


@cases(
    Case("conversations-empty", [talk(), SHARED], ("BadRow", "IN: row 1 (line 1) has a column conversations with an empty list (1 of 2 rows is bad); correct it, or leave bad rows out with dataset.badRows.policy Drop and dataset.badRows.share 0.5.")),
    Case("not-object", [SHARED, "[1]"], ("BadRow", "IN: row 2 (line 2) is a list, not an object (1 of 2 rows is bad); correct it, or leave bad rows out with dataset.badRows.policy Drop and dataset.badRows.share 0.5.")),
    Case("not-json", ["{", SHARED], ("DatasetUnreadable", "IN: row 1 (line 1) is not JSON (Expecting property name enclosed in double quotes at character 2) (1 of 2 rows is not JSON); correct it, or write the file again.")),
    Case("output-missing", [ALPACA, {"instruction": "i"}], ("BadRow", "IN: row 2 (line 2) has no output (its keys are: instruction) (1 of 2 rows is bad); correct it, or leave bad rows out with dataset.badRows.policy Drop and dataset.badRows.share 0.5.")),
    Case("text-null", [{"text": None}, DOCUMENT], ("BadRow", "IN: row 1 (line 1) has a column text that is null (1 of 2 rows is bad); correct it, or leave bad rows out with dataset.badRows.policy Drop and dataset.badRows.share 0.5.")),
    Case("mixed1", [CHAT, CHAT, ALPACA], ("MixedFormats", "IN: row 1 (line 1) is in format messages and row 3 (line 3) is in format alpaca; set dataset.format to the one to use, or set a source with rows in one format.")),
    Case("mixed2", [ALPACA, CHAT], ("MixedFormats", "IN: row 1 (line 1) is in format alpaca and row 2 (line 2) is in format messages; set dataset.format to the one to use, or set a source with rows in one format.")),
    Case("mixed3", [{"x": 1}, DOCUMENT, PAIR], ("MixedFormats", "IN: row 2 (line 2) is in format text and row 3 (line 3) is in format prompt-completion; set dataset.format to the one to use, or set a source with rows in one format."), {"bad_rows": "Drop", "bad_rows_share": 1.0}),
    Case("mixed4", [CHAT, SHARED, CHAT], ("MixedFormats", "IN: row 1 (line 1) is in format messages and row 2 (line 2) is in format conversations; set dataset.format to the one to use, or set a source with rows in one format."), {"bad_rows": "Drop", "bad_rows_share": 1.0}),
    Case("mixed5", [DOCUMENT, {**DOCUMENT, "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}], ("MixedFormats", "IN: row 1 (line 1) is in format text and row 2 (line 2) is in format messages; set dataset.format to the one to use, or set a source with rows in one format.")),
    Case("declared", [CHAT, ALPACA], ("BadRow", "IN: row 2 (line 2) is in format alpaca, not messages (1 of 2 rows is bad); correct it, or leave bad rows out with dataset.badRows.policy Drop and dataset.badRows.share 0.5."), {"format": "messages"}),
    Case("declared2", [ALPACA, CHAT], ("BadRow", "IN: row 2 (line 2) is in format messages, not alpaca (1 of 2 rows is bad); correct it, or leave bad rows out with dataset.badRows.policy Drop and dataset.badRows.share 0.5."), {"format": "alpaca"}),
    Case("declared3", [CHAT, {"z": 1}], ("BadRow", "IN: row 2 (line 2) has no conversations (its keys are: z) (1 of 2 rows is bad); correct it, or leave bad rows out with dataset.badRows.policy Drop and dataset.badRows.share 0.5."), {"format": "conversations"}),
    Case("declared4", [SHARED], ("BadRow", "IN: row 1 (line 1) is in format conversations, not messages (1 of 1 rows is bad); correct it."), {"format": "messages"}),
    Case("declared5", [{}], ("BadRow", "IN: row 1 (line 1) has no text (it is empty) (1 of 1 rows is bad); correct it."), {"format": "text"}),
    Case("fields-missing", [{"q": 1}], ("ColumnNotFound", "IN: no row has the column a of format alpaca; the columns of row 1 (line 1) are: q; set dataset.fields.output to a column of the rows."), {"fields": RowFields(instruction="q", output="a")}),
    Case("fields-contradict", [ALPACA], ("BadDocument", "dataset.fields: no format reads all of instruction, text; keep those of one format."), {"fields": RowFields(instruction="q", text="a")}),
    Case("fields-format", [ALPACA], ("BadDocument", "dataset.fields: format text does not read all of instruction; keep those of one format."), {"format": "text", "fields": RowFields(instruction="q")}),
    Case("fields-roles", [{"dialog": [{"speaker": "human", "text": "q"}]}], ("BadRow", 'IN: row 1 (line 1) has a faulty message 1 in dialog: its role "human" is none of system, developer, user, assistant, function, tool (1 of 1 rows is bad); correct it.'), {"format": "messages", "fields": RowFields(messages="dialog", role="speaker", content="text")}),
)  # fmt: skip
def test_rejected_files(case: Case, tmp_path: Path) -> None:
    assert outcome(tmp_path, case.given, case.inputs) == Rejected(*case.expected)


@cases(
    Case("messages", CHAT, CHAT),
    Case("columns-keep-their-text", '{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "score": 1.50, "n": 1E2}',
         '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "score": 1.50, "n": 1E2}'),
    Case("columns-beside-lists", '{ "id":"\\u00e4 \\"}" ,"instruction" :"i","output":"o", "more" : {"a": [1, {"b": "]"}]} }',
         '{"messages": [{"role": "user", "content": "i"}, {"role": "assistant", "content": "o"}], "id": "\\u00e4 \\"}", "more": {"a": [1, {"b": "]"}]}}'),
    Case("names-of-roles", talk({"from": "Human", "value": "q"}, {"from": "ChatGPT", "value": "a"}, {"from": "USER", "value": "r"}, {"from": "bard", "value": "b"}),
         {"messages": [QUESTION, ANSWER, {"role": "user", "content": "r"}, {"role": "assistant", "content": "b"}]}),
    Case("conversation-of-one-name", {"conversation": [QUESTION, ANSWER]}, CHAT),
    Case("json-text", {"conversations": json.dumps([HUMAN, GPT])}, CHAT),
    Case("messages-as-json-text", {"messages": json.dumps([QUESTION, ANSWER])}, CHAT),
    Case("messages-of-sharegpt", {"messages": [HUMAN, GPT]}, CHAT),
    Case("weights-and-reasoning", talk(HUMAN, {**GPT, "weight": 0}, HUMAN, {**GPT, "reasoning_content": "r"}),
         {"messages": [QUESTION, {**ANSWER, "weight": 0}, QUESTION, {**ANSWER, "reasoning_content": "r"}]}),
    Case("content-parts", talk({"from": "human", "value": [{"type": "text", "text": "q"}]}, GPT),
         {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, ANSWER]}),
    Case("tool-calls-in-a-list", talk(HUMAN, {"from": "function-call", "value": [{"name": "f", "arguments": {}}, {"type": "function", "function": {"name": "g"}}]}, {"from": "observation", "value": "1"}, GPT),
         {"messages": [QUESTION, {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {}}}, {"type": "function", "function": {"name": "g"}}]},
                       {"role": "tool", "content": "1"}, ANSWER]}),
    Case("older-function-call", {"conversations": [QUESTION, {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}, {"role": "function", "name": "f", "content": "1"}, ANSWER]},
         {"messages": [QUESTION, {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}, {"role": "tool", "content": "1", "name": "f"}, ANSWER]}),
    Case("system-in-a-column", talk(HUMAN, GPT, system="s"), {"messages": [{"role": "system", "content": "s"}, QUESTION, ANSWER]}),
    Case("system-in-both", talk({"from": "system", "value": "s"}, HUMAN, GPT, system="s"), {"messages": [{"role": "system", "content": "s"}, QUESTION, ANSWER]}),
    Case("system-blank", talk(HUMAN, GPT, system=" "), CHAT),
    Case("tools-beside", talk(HUMAN, GPT, tools="[]"), {**CHAT, "tools": "[]"}),
    Case("alpaca-without-instruction", {**ALPACA, "instruction": "", "input": "i"}, {"messages": [{"role": "user", "content": "i"}, {"role": "assistant", "content": "o"}]}),
    Case("alpaca-with-json-history", {**ALPACA, "history": '[["q", "a"]]'}, {"messages": [QUESTION, ANSWER, {"role": "user", "content": "i"}, {"role": "assistant", "content": "o"}]}),
    Case("alpaca-without-history", {**ALPACA, "history": None}, {"messages": [{"role": "user", "content": "i"}, {"role": "assistant", "content": "o"}]}),
    Case("completion-as-one-message", {"prompt": QUESTION, "completion": ANSWER}, CHAT),
    Case("prompt-as-messages", {"prompt": [HUMAN], "completion": "a"}, CHAT),
    Case("context-with-a-weight", {"prompt": [QUESTION, {**ANSWER, "train": True}, QUESTION], "completion": [ANSWER]}, {"messages": [QUESTION, {**ANSWER, "train": True}, QUESTION, ANSWER]}),
    Case("messages-before-the-prompt", {**CHAT, **PAIR}, {**CHAT, **PAIR}),
    Case("null-messages", {"messages": None, **SHARED}, CHAT),
    Case("document", {**DOCUMENT, "url": "u"}, {**DOCUMENT, "url": "u"}),
    Case("tokens-with-a-null", {**TOKENS, "labels": None}, TOKENS),
    Case("tokens-without-labels-of-the-padding", {**TOKENS, "attention_mask": [0, 1, 1]}, {**TOKENS, "attention_mask": [0, 1, 1]}),
    Case("fields-of-alpaca", {"q": "q", "a": "a"}, CHAT, {"fields": RowFields(instruction="q", output="a")}),
    Case("fields-of-messages", {"dialog": [{"who": "user", "what": "q"}, {"who": "assistant", "what": "a"}], "sys": "s", "functions_json": "[]", "tools": "x"},
         {"messages": [{"role": "system", "content": "s"}, QUESTION, ANSWER], "tools": "[]"},
         {"fields": RowFields(messages="dialog", role="who", content="what", system="sys", tools="functions_json")}),
    Case("fields-of-messages-only", {"dialog": [QUESTION, ANSWER], "system": "s"}, {**CHAT, "system": "s"}, {"fields": RowFields(messages="dialog")}),
    Case("fields-of-conversations", {"dialog": [HUMAN, GPT]}, CHAT, {"fields": RowFields(messages="dialog")}),
    Case("fields-of-a-document", {"body": "t", "text": "x"}, DOCUMENT, {"fields": RowFields(text="body")}),
    Case("declared-against-the-order", {**CHAT, **ALPACA}, {"messages": [{"role": "user", "content": "i"}, {"role": "assistant", "content": "o"}]}, {"format": "alpaca"}),
    Case("declared-conversations-of-messages", {"messages": [{"role": "human", "content": "q"}, ANSWER]}, CHAT, {"format": "conversations"}),
)  # fmt: skip
def test_the_published_form(case: Case, tmp_path: Path) -> None:
    found = outcome(tmp_path, [case.given], case.inputs)
    assert isinstance(found, Published), found
    if isinstance(case.expected, str):
        assert (next(tmp_path.rglob("train.jsonl"))).read_text(encoding="utf-8") == case.expected + "\n"
    else:
        assert found.rows == [case.expected]


def test_a_row_with_a_part_of_the_columns_is_a_bad_row(tmp_path: Path) -> None:
    rows = [{**ALPACA, "text": "t"}, {"instruction": "i", "text": "t"}]
    message = (
        "IN: row 2 (line 2) has no output (its keys are: instruction, text) (1 of 2 rows is bad); correct it, or leave bad rows out with"
        " dataset.badRows.policy Drop and dataset.badRows.share 0.5."
    )
    assert outcome(tmp_path, rows, {}) == Rejected("BadRow", message)


def test_rows_keep_their_places(tmp_path: Path) -> None:
    """A bad row is left out, and the others have the numbers of the source."""
    inputs = {"bad_rows": "Drop", "bad_rows_share": 0.5}
    found = outcome(tmp_path, [SHARED, "", talk(HUMAN), json.dumps(SHARED)], inputs)
    assert found == Published([CHAT, CHAT], [[1, 1], [3, 4]])


def test_a_row_over_several_lines(tmp_path: Path) -> None:
    found = outcome(tmp_path, [json.dumps({**SHARED, "more": {"a": 1}}, indent=1)] * 2, {})
    assert found == Published([{**CHAT, "more": {"a": 1}}] * 2, [[1, 1], [2, 16]])


@pytest.mark.parametrize("column", ["messages", "conversations"])
@pytest.mark.parametrize("role", ["system", "user", "assistant", "function", "tool"])
def test_upstream_role_set(column: str, role: str, tmp_path: Path) -> None:
    """The rows that the component ``dataset_download`` accepts, with either of its columns, are published as messages."""
    found = outcome(tmp_path, [{column: [QUESTION, {"role": role, "content": "x"}, ANSWER]}], {})
    assert isinstance(found, Published), found
    assert [message["role"] for message in found.rows[0]["messages"]][::2] == ["user", "assistant"]


def test_upstream_prefers_messages(tmp_path: Path) -> None:
    """Of two columns with messages, the component reads ``messages``."""
    row = {"conversations": [{"role": "user", "content": "other"}, ANSWER], **CHAT}
    assert outcome(tmp_path, [row], {}) == Published([row], [[1, 1]])

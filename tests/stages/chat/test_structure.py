"""What a chat row is, and how a faulty one is named."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from finetune_stages.chat.structure import ROLES, Conversation, broken_text, fault, read_conversation

USER = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "a"}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": {"name": "f"}}]}


def call(name: str, arguments: object) -> dict[str, object]:
    return {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": name, "arguments": arguments}}]}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("text", "is a string, not an object"),
        (3, "is a number"),
        (None, "is null"),
        ([USER], "is a list"),
        ({}, "has no messages (it is empty)"),
        ({"a": 1, "b": 2}, "has no messages (its keys are: a, b)"),
        ({"messages": None, "a": 1}, "has messages that are null, not a list"),
        ({"messages": None, "conversations": [{"from": "human"}]}, "is in format conversations, not messages"),
        ({str(n): n for n in range(30)}, "7, ...)"),
        ({"messages": "hello"}, "has messages that are a string, not a list"),
        ({"messages": {"role": "user"}}, "has messages that are an object"),
        ({"messages": []}, "empty list of messages"),
        ({"messages": [USER, "hi"]}, "faulty message 2: it is a string, not an object with role and content"),
        ({"messages": [None]}, "faulty message 1: it is null"),
        ({"messages": [{"content": "x"}]}, "faulty message 1: it has no role"),
        ({"messages": [{"from": "human", "value": "x"}]}, "it has no role (from and value are keys of format conversations)"),
        (
            {"messages": [{"role": "human", "content": "x"}]},
            'its role "human" is none of system, developer, user, assistant, function, tool',
        ),
        ({"messages": [{"role": ["user"], "content": "x"}]}, 'its role ["user"] is none of'),
        ({"messages": [{"role": "User", "content": "x"}]}, 'its role "User" is none of'),
        ({"messages": [{"role": "x" * 90, "content": "x"}]}, "... is none of"),
        ({"messages": [USER, {"role": "assistant"}]}, "faulty message 2: it has no content"),
        ({"messages": [{"role": "user", "content": None}, ANSWER]}, "faulty message 1: it has no content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}, ANSWER]}, "a part whose text is null, not a string"),
        ({"messages": [{"role": "user", "content": ["hi"]}, ANSWER]}, "a part that is a string, not an object"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}, ANSWER]}, 'a part of type "image", and only text'),
        ({"messages": [USER, {**ANSWER, "weight": 2}]}, "its weight is 2; this release reads 0 (not learned) and 1 (learned)"),
        ({"messages": [USER, {**ANSWER, "loss": "no"}]}, 'its loss is "no"'),
        ({"messages": [USER, {**ANSWER, "weight": 0, "train": True}]}, "its weight and train contradict each other"),
        ({"messages": [USER, {**ANSWER, "loss_mask": [0]}]}, "its key loss_mask is not supported; use weight 0 or 1"),
        ({"messages": [USER, {**ANSWER, "thinking": ["x"]}]}, "its thinking is a list, not a string"),
        ({"messages": [{**USER, "tool_calls": CALL["tool_calls"]}, ANSWER]}, "it calls a tool, but its role is user"),
        ({"messages": [USER, {**CALL, "tool_calls": "[{"}]}, "its tool_calls are text that is not JSON"),
        ({"messages": [USER, {**CALL, "tool_calls": {"a": 1}}]}, "its tool_calls are an object, not a list"),
        (
            {"messages": [USER, {**CALL, "function_call": {"name": "g", "arguments": "{}"}}]},
            "its tool_calls and function_call contradict each other",
        ),
        (
            {"messages": [USER, {**CALL, "function_call": {"name": "f", "arguments": '{"a": 1}'}}]},
            "its tool_calls and function_call contradict each other",
        ),
        (
            {"messages": [USER, ANSWER], "tools": [{"function": {"name": "f"}}], "functions": [{"name": "f"}, {"name": "g"}]},
            "has tools and functions that contradict each other",
        ),
        ({"messages": [USER, ANSWER], "tools": [{"function": {"name": "f"}}], "functions": 1}, "has functions that are a number"),
        ({"messages": [USER, {**CALL, "function_call": 1}]}, "a tool call is a number, not an object"),
        ({"messages": [USER, {"role": "assistant", "tool_calls": " "}]}, "it has no content"),
        ({"messages": [USER, {**CALL, "tool_calls": [""]}]}, "a tool call is null, not an object"),
        ({"messages": [USER, ANSWER], "tools": ["{}", ""]}, "has a tool that is null, not an object"),
        ({"messages": [USER, {**CALL, "tool_calls": [1]}]}, "a tool call is a number, not an object"),
        ({"messages": [USER, {**CALL, "tool_calls": [{"function": {}}]}]}, "a tool call has no name"),
        ({"messages": [USER, call("f", "[1]")]}, 'the arguments of its call of "f" are a list, not an object'),
        ({"messages": [USER, call("f", "{x}")]}, 'the arguments of its call of "f" are text that is not JSON'),
        ({"messages": [USER, {"role": "assistant", "function_call": "f"}]}, "its function_call is text that is not JSON"),
        ({"messages": [USER, ANSWER], "tools": "x"}, "has tools that are text that is not JSON"),
        ({"messages": [USER, ANSWER], "tools": {"a": 1}}, "has tools that are an object, not a list"),
        ({"messages": [USER, ANSWER], "tools": [3]}, "has a tool that is a number, not an object"),
        ({"messages": [USER, ANSWER], "tools": [{"function": {"description": "x"}}]}, "has a tool without a name"),
        ({"messages": [USER, ANSWER], "functions": {"a": 1}}, "has functions that are an object, not a list"),
        ({"messages": [USER, ANSWER], "unmask": "false"}, 'has unmask that is "false", not true or false'),
        (
            {"messages": [USER, {**ANSWER, "thinking": "a", "reasoning_content": "b"}]},
            "its reasoning_content and thinking differ; keep one",
        ),
        (
            {"messages": [USER, {**ANSWER, "content": [{"type": "text", "text": "a", "weight": 0}]}]},
            "its content has a part with weight; state it for the whole message",
        ),
        ({"messages": [USER, ANSWER], "images": ["x.png"]}, "has images, and only text can be trained on"),
        ({"messages": [USER, ANSWER], "chat_template_kwargs": [1]}, "has chat_template_kwargs that are a list, not an object"),
        ({"messages": [USER, ANSWER], "chat_template_kwargs": {"tools": []}}, "with tools, which cannot be set there"),
        ({"messages": [{"role": "user", "content": 5}, ANSWER]}, "its content is a number"),
        ({"messages": [USER, {"role": "assistant", "content": ""}]}, "faulty message 2: the assistant's content is empty"),
        ({"messages": [USER, {"role": "assistant", "content": " \n"}]}, "the assistant's content is empty"),
        ({"messages": [USER]}, "has no message of the assistant"),
        ({"conversations": [{"from": "human", "value": "q"}]}, "is in format conversations, not messages"),
        ({"instruction": "i", "input": "", "output": "o"}, "is in format alpaca, not messages"),
    ],
)
def test_faulty_rows(row, words):
    assert words in fault(row)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, ANSWER]},
        {"messages": [{"role": "system", "content": ""}, USER, ANSWER], "unmask": True, "id": 1},
        {"messages": [USER, CALL, {"role": "tool", "content": "4", "name": "f"}, ANSWER]},
        {"messages": [USER, {k: v for k, v in CALL.items() if k != "content"}, {"role": "function", "content": "4"}]},
        {"messages": [ANSWER], "conversations": None, "instruction": "x", "output": "y"},
    ],
)
def test_good_rows(row):
    assert fault(row) is None


def test_one_form_whatever_the_spelling() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    new = {
        "messages": [
            USER,
            {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": None}}}]},
        ],
        "tools": [tool],
    }
    as_text = {
        "messages": [USER, {**call("f", '{"a": null}'), "content": ""}],
        "tools": json.dumps([tool]), "images": [], "parallel_tool_calls": None,
    }  # fmt: skip
    assert read_conversation(as_text) == read_conversation(new)
    assert read_conversation({**new, "tools": [json.dumps(tool)]}) == read_conversation(new)
    old = {
        "messages": [USER, {"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": '{"a": null}'}}],
        "functions": [tool["function"]],
    }
    found = read_conversation(old)
    assert found.tools == [tool]
    assert found.messages[1]["tool_calls"][0]["function"] == {"name": "f", "arguments": {"a": None}}
    assert read_conversation({"messages": [USER, call("f", " ")]}).messages[1]["tool_calls"] == call("f", {})["tool_calls"]


def test_what_is_learned_by_weight_and_unmask() -> None:
    system = {"role": "system", "content": "s"}
    row = {
        "messages": [system, {**USER, "weight": 1}, {**ANSWER, "loss": False}, {**USER, "train": 0}, {**ANSWER, "weight": 1.0}]
    }
    found = read_conversation(row)
    assert found.learned(unmask=False) == [False, False, False, False, True]
    assert found.learned(unmask=True) == [False, True, False, False, True]
    assert found.not_honored(unmask=False)
    assert not found.not_honored(unmask=True)
    assert read_conversation({**row, "unmask": True}).learned(unmask=False) == found.learned(unmask=True)


def test_what_has_no_effect_is_listed() -> None:
    row = {"messages": [USER, ANSWER], "parallel_tool_calls": False, "tool_choice": None, "documents": [], "id": 7}
    assert read_conversation(row) == Conversation([USER, ANSWER], [None, None], unused=frozenset(["parallel_tool_calls"]))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda x: st.lists(x) | st.dictionaries(st.text(), x),
)


@example({"\n": None})
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    json_values
    | st.fixed_dictionaries(
        {
            "messages": json_values
            | st.lists(st.fixed_dictionaries({"role": json_values | st.sampled_from(ROLES), "content": json_values}))
        }
    )
)
def test_any_json_value_is_checked_in_a_line_of_text(row):
    problem = fault(row)
    assert problem is None or ("\n" not in problem and 0 < len(problem) < 600)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (rb'{"a": "\ud83d\ude00"}', None),
        (rb'{"a": "\ud83d"}', "half a character: \\ud83d"),
        (rb'{"a": "\uDE00 x"}', "half a character: \\ude00"),
        (rb'{"a": "\\ud83d"}', None),
    ],
)
def test_half_a_character(text, words):
    found = broken_text(json.loads(text), text)
    assert found is None if words is None else words in found


def test_blank_text_is_no_value():
    """Text columns of CSV and Parquet have no null."""
    blank = {"tool_calls": "", "function_call": " ", "reasoning_content": ""}
    row = {
        "messages": [USER, {**ANSWER, **blank}], "tools": "", "functions": " \n", "chat_template_kwargs": " ", "tool_choice": "",
    }  # fmt: skip
    found = read_conversation(row)
    assert "tool_calls" not in found.messages[1]
    assert (found.tools, found.arguments, found.unused) == (None, {}, frozenset())


def test_the_old_and_the_new_form_of_the_same():
    tool = {"type": "function", "function": {"name": "f"}}
    message = {**CALL, "function_call": {"name": "f", "arguments": ""}}
    found = read_conversation({"messages": [USER, message], "tools": [tool], "functions": json.dumps([tool["function"]])})
    assert found.tools == [tool]
    assert found.messages[1]["tool_calls"] == [{"type": "function", "function": {"name": "f", "arguments": {}}}]
    empty = {**CALL, "function_call": {"name": None, "arguments": None}}
    assert read_conversation({"messages": [USER, empty]}).messages[1] == {
        key: found.messages[1][key] for key in ("role", "tool_calls")
    }

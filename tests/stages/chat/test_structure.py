"""What a chat row is, and how a faulty one is named."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from finetune_stages.dataset.chat import ROLES, broken_text, fault

USER = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "a"}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": {"name": "f"}}]}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("text", "is a string, not an object"),
        (3, "is a number"),
        (None, "is null"),
        ([USER], "is a list"),
        ({}, "has no messages (it is empty)"),
        ({"a": 1, "b": 2}, "has no messages (its keys are: a, b)"),
        ({"messages": None, "a": 1}, "has no messages"),
        ({str(n): n for n in range(30)}, "7, ...)"),
        ({"messages": "hello"}, "has messages that are a string, not a list"),
        ({"messages": {"role": "user"}}, "has messages that are an object"),
        ({"messages": []}, "empty list of messages"),
        ({"messages": [USER, "hi"]}, "faulty message 2: it is a string, not an object with role and content"),
        ({"messages": [None]}, "faulty message 1: it is null"),
        ({"messages": [{"content": "x"}]}, "faulty message 1: it has no role"),
        ({"messages": [{"from": "human", "value": "x"}]}, "it has no role (from and value are ShareGPT's keys)"),
        (
            {"messages": [{"role": "human", "content": "x"}]},
            'its role "human" is none of system, user, assistant, function, tool',
        ),
        ({"messages": [{"role": ["user"], "content": "x"}]}, 'its role ["user"] is none of'),
        ({"messages": [{"role": "User", "content": "x"}]}, 'its role "User" is none of'),
        ({"messages": [{"role": "x" * 90, "content": "x"}]}, "... is none of"),
        ({"messages": [USER, {"role": "assistant"}]}, "faulty message 2: it has no content"),
        ({"messages": [{"role": "user", "content": None}, ANSWER]}, "faulty message 1: it has no content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}, ANSWER]}, "its content is a list, not a string"),
        ({"messages": [{"role": "user", "content": 5}, ANSWER]}, "its content is a number"),
        ({"messages": [USER, {"role": "assistant", "content": ""}]}, "faulty message 2: the assistant says nothing"),
        ({"messages": [USER, {"role": "assistant", "content": " \n"}]}, "the assistant says nothing"),
        ({"messages": [USER]}, "has no message of the assistant"),
        ({"conversations": [{"from": "human", "value": "q"}]}, "looks like ShareGPT"),
        ({"instruction": "i", "input": "", "output": "o"}, "looks like Alpaca"),
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
def test_any_json_value_is_judged_in_a_line_of_text(row):
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

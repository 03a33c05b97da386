"""The fast check accepts nothing that the exact check rejects, and finds the same key; rows are generated and damaged."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune_stages.chat.structure import INTERPRETED, fault, read_row
from finetune_stages.dataset.usual_rows import UsualRows, has_empty_turn, messages_key
from finetune_stages.sources.json_text import has_non_finite, parse

GOOD = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
FRAGMENTS = [
    b"NaN", b"-Infinity", b"1e400", b"-1E+999", b"9" * 4301, b"01", b"1.", b"null", b"[]", b"{}", b'"', b'""', b"\\", b"\\ud800", b"\\udc00",
    b"\\u0000", b"\x00", b"\x1f", b"\x7f", b"\xff", b"\xc3", b"\xed\xa0\x80", "é\u2028".encode(), b"\r", b"\n", b"\t", b"\f", b"\xef\xbb\xbf",
    b",", b":", b"{", b"}", b"[", b"]", b'"role":"assistant",', b'"content":null,', b'"messages":[],', b'"tools":[],', b'"tools":[{}],',
    b'"unmask":true,', b'"unmask":[],', b'"image":"",', b'"image":"x",', b'"weight":0,', b'"tool_calls":null,', b'"x":[1,{"y":NaN}],',
]  # fmt: skip
"""What is inserted into the text of a row."""

scalars = st.none() | st.booleans() | st.integers(-(10**25), 10**25) | st.floats(allow_nan=True) | st.text(max_size=5)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2), max_leaves=4
)
contents = st.text(max_size=4) | st.sampled_from(["", " ", "\x1f", "\u2003", "a", None, [], [{"type": "text", "text": "a"}]])
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool", "function", "developer"]), "content": contents},
    optional={
        "name": st.none() | st.text(max_size=3),
        "weight": st.sampled_from([None, 0, 1, 2]),
        "tool_calls": st.sampled_from([None, [], "[]"]),
    },
)
rows = st.fixed_dictionaries(
    {"messages": st.lists(messages, max_size=3) | st.just(GOOD["messages"])},
    optional={key: st.sampled_from([None, [], "", True, "x", {}]) for key in sorted(INTERPRETED - {"messages"})}
    | {"id": values, "": values},
)


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    """Return the text of a row, with up to two fragments in it, or a part cut out."""
    text = json.dumps(draw(rows), ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass")
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(st.sampled_from(FRAGMENTS)) + text[place + draw(st.sampled_from([0, 0, 0, 1, 3])) :]
    return text


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(texts(), min_size=1, max_size=6))
def test_what_the_fast_check_accepts_the_exact_check_accepts(lines: list[bytes]) -> None:
    empty: set[int] = set()
    for position, (text, key) in enumerate(zip(lines, UsualRows().keys(lines, empty), strict=True)):
        if key is None:
            continue
        row = parse(text)
        assert fault(row, text) is None
        assert not has_non_finite(row)
        exact = read_row(row, text).messages
        assert key == messages_key(exact)
        assert (position in empty) == has_empty_turn(exact)


@pytest.mark.parametrize(
    ("row", "accepted"),
    [
        (GOOD, True),
        ({**GOOD, "id": 7, "tags": ["a"], "score": 0.5}, True),
        ({**GOOD, "tools": None, "image": [], "unmask": True}, True),
        ({**GOOD, "tools": [{"name": "f"}]}, True),
        ({"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "a"}]}, True),
        ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": [{"type": "text", "text": "a"}]}]}, True),
        ({**GOOD, "image": "x.png"}, False),
        ({"messages": [{"role": "user", "content": "q"}]}, False),
        ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": " "}]}, False),
        ({"messages": []}, False),
        ([GOOD], False),
    ],
)  # fmt: skip
def test_usual_rows_are_accepted_without_the_exact_check(row: object, accepted: bool) -> None:
    (key,) = UsualRows().keys([json.dumps(row).encode()], set())
    assert (key is not None) == accepted


def test_one_key_for_equal_messages_however_they_are_written() -> None:
    spaced = json.dumps({"id": 1, **GOOD}, indent=1).replace('"q"', '"\\u0071"').encode()
    parts = {"messages": [{"content": [{"type": "text", "text": "q"}], "name": None, "role": "user"}, GOOD["messages"][1]]}
    other = {"messages": [{"role": "user", "content": "Q"}, GOOD["messages"][1]]}
    first, second, third, fourth = UsualRows().keys([json.dumps(row).encode() for row in (GOOD, parts, other)] + [spaced], set())
    assert first == second == fourth != third

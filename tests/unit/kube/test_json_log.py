"""JSON logs: every record becomes a line."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from finetune_operator.kube.json_log import TotalJsonFormatter


@dataclasses.dataclass
class Holder:
    lock: Any


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no words")

    __str__ = __repr__


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


LOOP: dict[str, Any] = {}
LOOP["itself"] = LOOP
DEEP: list[Any] = []
for _ in range(50_000):
    DEEP = [DEEP]
EXTRAS = {
    "what cannot be copied": Holder(threading.Lock()), "what cannot be shown": Unprintable(), "a circle": LOOP, "a deep nest": DEEP,
    "keys that are no texts": {(1, 2): 3}, "no number": float("nan"), "bytes": b"\xff", "a surrogate": "\ud800", "a class": Holder,
    "an exception": UnprintableError(), "a set": {1},
}  # fmt: skip


def line(**values: Any) -> Any:
    record = logging.makeLogRecord({"name": "kopf", "levelname": "ERROR", "msg": "words", **values})
    text = TotalJsonFormatter().format(record)
    assert "\n" not in text
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


@pytest.mark.parametrize("extra", EXTRAS.values(), ids=EXTRAS)
def test_the_message_is_written_with_any_attached_object(extra: Any) -> None:
    found = line(settings=extra)
    assert (found["level"], found["logger"], found["message"]) == ("ERROR", "kopf", "words")
    assert datetime.fromisoformat(found["time"]) <= datetime.now(UTC)


@pytest.mark.parametrize("arguments", [{"msg": "%s %s", "args": (1,)}, {"msg": Unprintable()}, {"msg": "%d", "args": ("x",)}])
def test_a_message_that_does_not_fit_its_arguments(arguments: Any) -> None:
    assert line(**arguments)["level"] == "ERROR"


def test_an_exception_without_a_message_has_its_traceback() -> None:
    def fail() -> None:
        raise UnprintableError

    try:
        fail()
    except UnprintableError:
        for extra in ({}, {"settings": LOOP}):
            found = line(exc_info=sys.exc_info(), **extra)
            assert "UnprintableError" in found["exc_info"]
            assert "test_json_log.py" in found["exc_info"]


def test_json_values_stay_values() -> None:
    found = line(run="team/demo", generation=3, at=datetime(2026, 1, 1, tzinfo=UTC))
    assert (found["run"], found["generation"], found["at"]) == ("team/demo", 3, "2026-01-01T00:00:00+00:00")

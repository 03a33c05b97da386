"""Messages of unexpected exceptions: with the location where they were raised, and without a path of the machine."""

from __future__ import annotations

import json
import sys
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune_contract.crash import crash_location
from finetune_stages.sdk import fault


def told(act: Callable[[], object]) -> str:
    try:
        act()
    except Exception as error:  # noqa: BLE001 - whatever it is
        found = fault.classify(error)
        assert found.reason.name == "Crashed"
        return found.message
    raise AssertionError("nothing was raised")


def test_the_place_is_the_innermost_line_outside_of_pythons_own_modules() -> None:
    message = told(lambda: json.loads("{"))
    line = test_the_place_is_the_innermost_line_outside_of_pythons_own_modules.__code__.co_firstlineno + 1
    words = "JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
    assert message == f"{words} (at stages/sdk/test_fault.py:{line})"
    assert crash_location(message) == f"JSONDecodeError at stages/sdk/test_fault.py:{line}"


def test_a_library_is_named_as_it_is_imported() -> None:
    from packaging.version import InvalidVersion, Version

    with pytest.raises(InvalidVersion) as raised:
        Version("no version")
    inside = traceback.extract_tb(raised.value.__traceback__)[-1]
    assert Path(inside.filename).parts[-3:] == ("site-packages", "packaging", "version.py")
    message = fault.classify(raised.value).message
    assert message == f"InvalidVersion: Invalid version: 'no version' (at packaging/version.py:{inside.lineno})"


def test_the_causes_of_an_exception_end_at_from_none_and_in_a_circle() -> None:
    first, second, third = KeyError("1"), ValueError("2"), TypeError("3")
    second.__cause__ = first
    third.__context__ = second
    assert fault.causes(third) == [third, second, first]
    third.__suppress_context__ = True
    assert fault.causes(third) == [third, second, first], "HTTP libraries hide the fault of a certificate so"
    assert fault.causes(third, suppressed=False) == [third]
    first.__context__ = second
    assert fault.causes(second) == [second, first]


def test_a_program_in_an_archive_and_one_that_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "program.pyz"
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr("inside_archive/work.py", "def fail():\n    raise KeyError('a (b)')\n")
        target.writestr("inside_archive/__init__.py", "")
    monkeypatch.syspath_prepend(str(archive))
    from inside_archive import work  # type: ignore[import-not-found]

    message = told(work.fail)
    assert message == "KeyError: 'a (b)' (at inside_archive/work.py:2)"
    monkeypatch.setattr(sys, "path", [])
    assert told(work.fail) == "KeyError: 'a (b)' (at work.py:2)"
    generated: dict[str, Callable[[], object]] = {}
    exec("def fail():\n    return [][1]", generated)
    assert " (at test_fault.py:" in told(generated["fail"])


def test_an_exception_that_was_never_raised_has_no_place() -> None:
    assert fault.classify(KeyError("x")).message == "KeyError: 'x'"

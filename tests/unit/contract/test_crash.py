"""The message of a crash, written and compared."""

from __future__ import annotations

from finetune_contract.crash import crash_message, crash_place


def test_the_text_of_an_exception_does_not_count_but_its_kind_and_place_do() -> None:
    first = crash_message("IndexError", "index 5 is out of range (size 3)", "datasets/arrow_writer.py:12")
    assert first == "IndexError: index 5 is out of range (size 3) (at datasets/arrow_writer.py:12)"
    assert crash_place(first) == "IndexError at datasets/arrow_writer.py:12"
    assert crash_place(crash_message("IndexError", "index 7\nis out of range", "datasets/arrow_writer.py:12")) == crash_place(
        first
    )
    assert crash_place(crash_message("KeyError", "5", "datasets/arrow_writer.py:12")) != crash_place(first)
    assert crash_place(crash_message("IndexError", "5", "datasets/arrow_writer.py:13")) != crash_place(first)


def test_what_has_no_place_is_never_the_same() -> None:
    assert crash_message("IndexError", "words", None) == "IndexError: words"
    assert crash_place("IndexError: words") is None
    assert crash_place("The process ended with exit code 139 and no result.") is None
    assert crash_place("") is None

"""The message of a crash, written and compared."""

from __future__ import annotations

from finetune_contract.crash import crash_location, crash_message


def test_the_text_of_an_exception_does_not_count_but_its_kind_and_place_do() -> None:
    first = crash_message("IndexError", "index 5 is out of range (size 3)", "datasets/arrow_writer.py:12")
    assert first == "IndexError: index 5 is out of range (size 3) (at datasets/arrow_writer.py:12)"
    assert crash_location(first) == "IndexError at datasets/arrow_writer.py:12"
    assert crash_location(
        crash_message("IndexError", "index 7\nis out of range", "datasets/arrow_writer.py:12")
    ) == crash_location(first)
    assert crash_location(crash_message("KeyError", "5", "datasets/arrow_writer.py:12")) != crash_location(first)
    assert crash_location(crash_message("IndexError", "5", "datasets/arrow_writer.py:13")) != crash_location(first)


def test_what_has_no_place_is_never_the_same() -> None:
    assert crash_message("IndexError", "words", None) == "IndexError: words"
    assert crash_location("IndexError: words") is None
    assert crash_location("The process ended with exit code 139 and no result.") is None
    assert crash_location("") is None

"""A report: an input that failed here or in another project, and the correct outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class Report:
    """One row of a table in this directory.

    Attributes:
        name: names the test, in words with hyphens.
        source: the public thread that it comes from (``owner/repository#number``), or ``own`` for a variation of ours.
        given: the input, in the form that the table's test takes.
        expected: the right outcome, in the form that the table's test compares: a value, a reason with words of its message.
    """

    name: str
    source: str
    given: Any
    expected: Any


def reports(*table: Report) -> Callable[[Any], Any]:
    """Parametrize a test with ``report``, one case for each row of ``table``."""
    return pytest.mark.parametrize("report", _unique(table), ids=lambda report: report.name)


def _unique(table: Iterable[Report]) -> list[Report]:
    found = list(table)
    names = [report.name for report in found]
    assert len(set(names)) == len(names), "two reports have the same name"
    return found

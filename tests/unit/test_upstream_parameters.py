"""docs/migration.md lists every upstream parameter with a field that exists, or the reason why there is none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from finetune_operator.api.crd import schema
from finetune_operator.core.unsupported import UNSUPPORTED_VALUES

ROOT = Path(__file__).parents[2]
UPSTREAM: dict[str, list[str]] = yaml.safe_load((ROOT / "tests/unit/upstream_parameters.yaml").read_text())
ROW = re.compile(r"^\| `(?P<name>\w+)` \| (?:`(?P<field>[\w.]+)`|none) \| (?P<remark>.*) \|$")


def listed() -> dict[str, list[tuple[str, str | None, str]]]:
    """The rows of the page by heading."""
    tables: dict[str, list[tuple[str, str | None, str]]] = {}
    heading = ""
    for line in (ROOT / "docs/migration.md").read_text().splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ").removeprefix("Component ").replace("Pipeline parameters", "pipelines")
            tables[heading] = []
        elif found := ROW.match(line):
            tables[heading].append((found["name"], found["field"], found["remark"]))
    return tables


@pytest.mark.parametrize("component", UPSTREAM)
def test_every_upstream_parameter_is_listed_once_and_no_other(component: str) -> None:
    assert [name for name, _, _ in listed()[component]] == UPSTREAM[component]


def test_the_numbers_of_parameters_are_those_of_upstream() -> None:
    # sft 41, osft 44, lora 66, of which many are shared; three were removed upstream but are still in its guide.
    assert len(UPSTREAM["pipelines"]) == 88
    assert len(UPSTREAM["lora"]) == 32


@pytest.mark.parametrize("row", [row for rows in listed().values() for row in rows], ids=lambda row: row[0])
def test_a_row_names_an_existing_field_or_the_reason_why_there_is_none(row: tuple[str, str | None, str]) -> None:
    _, field, remark = row
    if field is None:
        assert remark
        return
    node = schema()["properties"]["spec"]
    for key in field.split("."):
        assert key in node["properties"], field
        node = node["properties"][key]


@pytest.mark.parametrize("row", [row for rows in listed().values() for row in rows], ids=lambda row: row[0])
def test_a_row_states_what_this_release_does_not_support(row: tuple[str, str | None, str]) -> None:
    _, field, remark = row
    entry = next((one for one in UNSUPPORTED_VALUES if field and f"{field}.".startswith(f"{one.path}.")), None)
    stated = remark.partition("not supported in this release")[2] if "not supported in this release" in remark else None
    expected = None if entry is None else "" if entry.values == "any value" else f": {entry.values}"
    assert stated == expected

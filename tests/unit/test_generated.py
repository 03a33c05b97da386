"""Tests of generated files (they are up to date, and the CRD describes every field) and of locks (hashes, no addresses)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_operator.api.crd import COLUMNS, crd
from finetune_operator.core.unsupported import UNSUPPORTED_VALUES, UnsupportedValue
from generate import published_crd

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))


def test_the_crd_in_the_tree_is_that_of_the_models() -> None:
    text = (ROOT / "crds/finetuneruns.finetunerun.io.yaml").read_text()
    assert yaml.safe_load(text) == published_crd()
    assert len(text) < 256 * 1024, "a client-side apply keeps the whole object in an annotation"


def without_descriptions(node: Any) -> Any:
    if isinstance(node, dict):
        return {
            key: without_descriptions(value) for key, value in node.items() if key != "description" or not isinstance(value, str)
        }
    return [without_descriptions(one) for one in node] if isinstance(node, list) else node


def test_only_descriptions_of_the_published_crd_differ_from_those_of_the_models() -> None:
    assert without_descriptions(published_crd()) == without_descriptions(crd())


def described(definition: dict[str, Any]) -> dict[str, str]:
    """Return the descriptions of the fields of ``spec``, by path."""
    found: dict[str, str] = {}

    def collect(node: dict[str, Any], path: str) -> None:
        for name, child in (node.get("properties") or {}).items():
            field = f"{path}.{name}".removeprefix(".")
            found[field] = child["description"]
            for below in (child, child.get("items") or {}, child.get("additionalProperties") or {}):
                collect(below, field)

    collect(definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"], "")
    return found


NOTE = "Not supported in this release"


def test_descriptions_of_unsupported_fields_and_values_and_no_others_begin_with_a_note() -> None:
    published, plain = described(published_crd()), described(crd())
    fields = {entry.path for entry in UNSUPPORTED_VALUES if entry.values == UnsupportedValue.values}
    values = {entry.path: entry.values for entry in UNSUPPORTED_VALUES if entry.path not in fields}
    for path, description in published.items():
        if path in values:
            assert description == f"{NOTE}: {values[path]}. {plain[path]}"
        elif any(path == field or path.startswith(f"{field}.") for field in fields):
            assert description == f"{NOTE}. {plain[path]}", path
        else:
            assert description == plain[path]
            assert NOTE not in description
    assert len(fields) > 5
    assert len(values) > 5


@pytest.mark.parametrize(
    ("path", "end"),
    [
        ("training.epochs", "Default: 1 (lora 2). Must be at least 1 and at most 10000."),
        ("training.learningRate", "Default: 5e-06 (lora 0.0002). Must be greater than 0 and at most 10."),
        ("training.lora.dropout", "Default: 0.0. Must be at least 0 and less than 1."),
        ("training.checkpoints.perEpoch", "Default: false (sft true)."),
        ("training.checkpoints.everySamples", "Default: 0 (sft). Must be at least 0."),
        ("training.sft.sharding", "Default: FULL_SHARD."),
        ("evaluation.tasks", 'Default: ["arc_easy"].'),
        ("limits.gpuHours", "Must be greater than 0."),
        ("registry.port", "or 443 if address begins with https://. Must be at least 1 and at most 65535."),
    ],
)
def test_descriptions_end_with_the_default_and_the_bounds(path: str, end: str) -> None:
    assert described(crd())[path].endswith(end)


def test_generated_files_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, ROOT / "hack/generate.py", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_columns_show_fields_that_exist() -> None:
    root = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for _, _, path, _, description in COLUMNS:
        assert description
        node = root
        if path.startswith(".metadata."):
            continue
        for key in path.removeprefix(".").split("."):
            node = node["properties"][key]


def test_every_field_has_a_description_and_every_list_and_text_a_bound() -> None:
    def check(node: dict[str, object], path: str) -> None:
        if path and not path.endswith(("[]", ".*")) and path not in ("apiVersion", "kind", "metadata"):
            assert node.get("description"), path
        if node.get("x-kubernetes-preserve-unknown-fields"):
            return
        if node.get("type") == "array":
            assert "maxItems" in node, path
            check(node["items"], f"{path}[]")  # type: ignore[arg-type]
        if node.get("type") == "string" and path.startswith("spec"):
            assert "maxLength" in node or "enum" in node, path
        for name, child in (node.get("properties") or {}).items():  # type: ignore[attr-defined]
            check(child, f"{path}.{name}".removeprefix("."))
        extra = node.get("additionalProperties")
        if isinstance(extra, dict):
            assert "maxProperties" in node, path
            check(extra, f"{path}.*")

    check(crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"], "")


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_locks_hold_hashes_and_no_address(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert not re.search(r"\b[\w-]+\.(org|com|io|net)\b", text)
    pins = re.findall(r"^[A-Za-z0-9][\w.-]*==[^ ;\\]+", text, flags=re.MULTILINE)
    assert len(pins) == len(re.findall(r"^[A-Za-z0-9]", text, flags=re.MULTILINE))
    assert text.count("--hash=sha256:") >= len(pins)

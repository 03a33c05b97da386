"""Generated files are up to date, and locks hold hashes and no address."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from finetune_operator.api.crd import COLUMNS, crd

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))


def test_the_crd_in_the_tree_is_that_of_the_models() -> None:
    text = (ROOT / "crds/finetuneruns.finetunerun.io.yaml").read_text()
    assert yaml.safe_load(text) == crd()
    assert len(text) < 256 * 1024, "a client-side apply keeps the whole object in an annotation"


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

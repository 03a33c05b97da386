"""Tests of the dataset component of the OpenShift AI pipelines, under their names, and its rules on random inputs.

``test_component_unit.py`` and the functions ``resolve_dataset`` and ``prepare_jsonl`` of ``shared/tests/test_data.py`` as far as they
are about data; the cases that its documentation implies (sizes of the split, rules of a row) follow. Where this project differs on
purpose, the test states what it does instead.
"""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune_contract.documents import DatasetInputs
from finetune_contract.uris import ClaimPath, HubId, S3Location, WebAddress, parse_uri
from finetune_operator.api.presets import preset
from finetune_stages.sdk import StageError
from hub import Hub
from preparation import Rows, prepared
from stages.conftest import StagePrograms
from web_server import FileServer


def rows(count: int) -> Rows:
    return [
        {"messages": [{"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": f"a{number}"}], "id": number}
        for number in range(count)
    ]


def write(path: Path, values: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


# test_component_unit.py


def test_component_has_expected_parameters() -> None:
    names = {field.name for field in dataclasses.fields(DatasetInputs)}
    assert {"uri", "train_split", "subset"} <= names
    assert not {name for name in names if "token" in name}


def test_component_default_values() -> None:
    defaults = DatasetInputs("x")
    assert (defaults.train_split, defaults.subset, defaults.seed, defaults.format) == (0.9, 0, 42, "auto")
    assert {preset(algorithm)["dataset"]["trainSplit"] for algorithm in ("sft", "osft", "lora")} == {0.9}


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("LipengCS/Table-GPT:All", HubId("LipengCS/Table-GPT", "All")),
        ("hf://LipengCS/Table-GPT:All", HubId("LipengCS/Table-GPT", "All")),
        ("bigcode/x", HubId("bigcode/x", None)),
        ("s3://bucket/rows.jsonl", S3Location),
        ("https://host/rows.jsonl", WebAddress),
        ("http://host/rows.jsonl", WebAddress),
        ("pvc://claim/rows.jsonl", ClaimPath),
    ],
)
def test_component_supports_multiple_uri_schemes(uri: str, expected: Any) -> None:
    found = parse_uri(uri, "dataset")
    assert isinstance(found, expected) if isinstance(expected, type) else found == expected


def test_component_with_mocked_huggingface(run_stage_program: StagePrograms, hub: Hub) -> None:
    """Upstream's test runs nothing; here the unmodified client asks a hub."""
    hub.add("dataset", "org/rows", {"train.jsonl": "".join(json.dumps(row) + "\n" for row in rows(10)).encode()})
    ended = run_stage_program("dataset", DatasetInputs("org/rows"), environment={"HF_ENDPOINT": hub.url, "HOME": "/nonexistent"})
    assert ended.code == 0, ended.errors
    assert (ended.result.outputs["trainRows"], ended.result.outputs["evalRows"]) == (9, 1)


# shared/tests/test_data.py: resolve_dataset and prepare_jsonl


def test_resolve_reuses_existing_nonempty_dir(tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", rows(10))
    first, *parts = prepared(tmp_path, source)
    again, *same = prepared(tmp_path, source)
    assert (first.reused, again.reused) == (False, True)
    assert same == parts


def test_resolve_copies_dir(tmp_path: Path) -> None:
    write(tmp_path / "rows/a.jsonl", rows(3))
    write(tmp_path / "rows/b.jsonl", rows(2))
    _, train, _ = prepared(tmp_path, tmp_path / "rows", train_split=1.0)
    assert [row["id"] for row in train] == [0, 1, 2, 0, 1]


def test_resolve_copies_file(tmp_path: Path) -> None:
    _, train, held_out = prepared(tmp_path, write(tmp_path / "rows.jsonl", rows(2)), train_split=1.0)
    assert (train, held_out) == (rows(2), [])


def test_resolve_file_without_extension_becomes_train_jsonl(tmp_path: Path) -> None:
    _, train, _ = prepared(tmp_path, write(tmp_path / "rows", rows(2)), train_split=1.0)
    assert train == rows(2)


def test_resolve_pvc_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_CLAIMS", str(tmp_path / "claims"))
    write(tmp_path / "claims/data/rows.jsonl", rows(2))
    _, train, _ = prepared(tmp_path, "pvc://data/rows.jsonl", train_split=1.0)
    assert train == rows(2)


def test_resolve_remote_jsonl(tmp_path: Path, web: FileServer) -> None:
    write(tmp_path / "web/rows.jsonl", rows(2))
    _, train, _ = prepared(tmp_path, f"{web.url}/rows.jsonl", train_split=1.0)
    assert train == rows(2)


def test_resolve_nothing_raises(tmp_path: Path) -> None:
    with pytest.raises(StageError) as raised:
        prepared(tmp_path, tmp_path / "missing.jsonl")
    assert raised.value.reason.name == "DatasetNotFound"


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.JSONL", "rows.txt"])
def test_prepare_jsonl_by_content(name: str, tmp_path: Path) -> None:
    """Upstream decides by the suffix and its case; here the content decides."""
    _, train, _ = prepared(tmp_path, write(tmp_path / name, rows(2)), train_split=1.0)
    assert train == rows(2)


# Cases that follow from its code


@pytest.mark.parametrize(("total", "sizes"), [(2, (1, 1)), (10, (9, 1)), (11, (9, 2)), (100, (90, 10))])
def test_split_sizes(total: int, sizes: tuple[int, int], tmp_path: Path) -> None:
    _, train, held_out = prepared(tmp_path, write(tmp_path / "rows.jsonl", rows(total)))
    assert (len(train), len(held_out)) == sizes


@pytest.mark.parametrize("ratio", [0.0, -1.0])
def test_split_ratio_of_zero_or_less_is_rejected(ratio: float, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"^inputs\.trainSplit: "):
        prepared(tmp_path, write(tmp_path / "rows.jsonl", rows(10)), train_split=ratio)


@pytest.mark.parametrize("role", ["system", "user", "assistant", "function", "tool"])
def test_roles_that_are_accepted(role: str, tmp_path: Path) -> None:
    row = {"messages": [{"role": role, "content": "x"}, *rows(1)[0]["messages"]]}
    _, train, _ = prepared(tmp_path, write(tmp_path / "rows.jsonl", [row]), train_split=1.0)
    assert train == [row]


FAULTS = {
    "neither field": {"text_": "x"}, "field is no list": {"messages": "x"}, "element is no object": {"messages": ["x"]},
    "no role": {"messages": [{"content": "x"}]}, "no content": {"messages": [{"role": "user"}]},
    "unknown role": {"messages": [{"role": "bot", "content": "x"}]},
}  # fmt: skip


@pytest.mark.parametrize("row", FAULTS.values(), ids=FAULTS)
def test_rows_that_are_rejected_wherever_they_are(row: Any, tmp_path: Path) -> None:
    """Upstream checks the first 100 rows only."""
    with pytest.raises(StageError, match=r"row 121 \(line 121\) ") as raised:
        prepared(tmp_path, write(tmp_path / "rows.jsonl", [*rows(120), row]))
    assert raised.value.reason.name == "BadRow"


def upstreams_rows(values: Rows, ratio: float, subset: int) -> tuple[list[int], list[int]]:
    """The ids of the training rows and of the held-out rows by upstream's component: its subset and its split."""
    from datasets import Dataset

    data = Dataset.from_list(values)
    if 0 < subset < len(data):
        random.seed(42)
        data = data.select(random.sample(range(len(data)), subset))
    if ratio >= 1:
        return data["id"][:], []
    parts = data.train_test_split(test_size=1 - ratio, seed=42)
    return parts["train"]["id"][:], parts["test"]["id"][:]


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 300), st.integers(1, 100).map(lambda percent: percent / 100) | st.floats(0.01, 1.5), st.integers(0, 320))
def test_rows_and_their_order_are_upstreams(
    tmp_path_factory: pytest.TempPathFactory, total: int, ratio: float, subset: int
) -> None:
    folder, values = tmp_path_factory.mktemp("work"), rows(total)
    source = write(folder / "rows.jsonl", values)
    inputs = {"train_split": min(1.0, ratio), "subset": subset}
    try:
        expected = upstreams_rows(values, ratio, subset)
    except ValueError:  # no row is left for training
        with pytest.raises(StageError) as raised:
            prepared(folder, source, **inputs)
        assert raised.value.reason.name == "TooFewRows"
        return
    _, train, held_out = prepared(folder, source, **inputs)
    assert ([row["id"] for row in train], [row["id"] for row in held_out]) == expected

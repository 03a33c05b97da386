"""What the API server and ``finetune validate`` answer to objects that cannot work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from crdlint import needs_go, verdicts
from finetune_operator.api.crd import crd
from finetune_operator.api.pods import RESERVED_VOLUMES
from finetune_operator.cli.documents import Document, read_documents
from finetune_operator.cli.validate import validate_document
from finetune_operator.core.manifests.pod import TERMINATION_LOG
from finetune_operator.core.resolve import SpecRejection, resolve
from finetune_operator.core.settings import Settings
from finetune_operator.validation import Validator
from finetune_stages.sdk import StageError
from finetune_stages.sources.origin import DATASET
from finetune_stages.sources.uri import parse_uri
from reports.report import Report, reports
from reports.resources import RESOURCES, manifest, spec

TRAINJOBS = Path(__file__).parents[1] / "golden/trainjobs"
_FILE = "is named like a file, but without ./ before it it is a hub id; write ./<file>"


@pytest.fixture(scope="module")
def validator() -> Validator:
    return Validator(crd())


def answers(validator: Validator, report: Report, base: Path) -> dict[str, str]:
    """Each field of the answer with its sentences."""
    found: dict[str, str] = {}
    for line in validate_document(validator, Document("run.yaml", manifest(report)), base):
        field, _, sentence = line.removeprefix("run.yaml: ").partition(": ")
        field, sentence = (field, sentence) if field.startswith("spec") else ("", f"{field}: {sentence}")
        found[field] = f"{found.get(field, '')}{sentence}\n"
    return found


@reports(*RESOURCES)
def test_validate_names_the_field_and_the_fix(report: Report, validator: Validator, tmp_path: Path) -> None:
    found = answers(validator, report, tmp_path)
    assert found.keys() == report.expected.keys(), found
    for field, words in report.expected.items():
        assert words in found[field]
        assert "evaluating rule" not in found[field]


@needs_go
def test_the_api_server_answers_the_same(validator: Validator) -> None:
    server = verdicts({"name": report.name, "object": manifest(report)} for report in RESOURCES)
    ours = {
        report.name: {(problem.field, str(problem.kind)) for problem in validator.create(manifest(report))}
        for report in RESOURCES
    }
    assert ours == {name: set(verdict.faults) for name, verdict in server.items()}


@reports(*(report for report in RESOURCES if not report.expected))
def test_what_is_valid_is_accepted_by_the_operator_too(report: Report) -> None:
    found = resolve(spec(report.given), Settings("local", "1", {}, "e"))
    assert not isinstance(found, SpecRejection), found


FILES = (
    Report("data-beside-the-run", "instructlab/instructlab#2257", {"dataset": {"uri": "rows.jsonl"}},
           {"spec.dataset.uri": "rows.jsonl means a hub ID, but the directory of run.yaml has a file of this name; write ./rows.jsonl for the file or hf://rows.jsonl for the hub"}),
    Report("data-in-a-directory", "own", {"dataset": {"uri": "data/rows.jsonl"}},
           {"spec.dataset.uri": "data/rows.jsonl means a hub ID, but the directory of run.yaml has a file of this name; write ./data/rows.jsonl for the file"}),
    Report("data-without-ending", "own", {"dataset": {"uri": "rows"}}, {"spec.dataset.uri": "the directory of run.yaml has a file of this name; write ./rows for the file"}),
    Report("data-with-backslashes", "own", {"dataset": {"uri": "data\\rows.jsonl"}},
           {"spec.dataset.uri": "the directory of run.yaml has a file of this name; write ./data/rows.jsonl for the file"}),
    Report("held-out-rows", "own", {"dataset": {"evalUri": "rows.jsonl"}}, {"spec.dataset.evalUri": "write ./rows.jsonl for the file"}),
    Report("model", "own", {"model": {"uri": "models/tiny"}}, {"spec.model.uri": "the directory of run.yaml has a file of this name; write ./models/tiny for the file"}),
    Report("data-of-a-drive", "instructlab/instructlab#2257", {"dataset": {"uri": "C:\\data\\rows.jsonl"}}, {"spec.dataset.uri": _FILE}),
    Report("data-that-is-not-there", "own", {"dataset": {"uri": "other.jsonl"}}, {"spec.dataset.uri": _FILE}),
    Report("data-with-a-name-too-long", "own", {"dataset": {"uri": "x" * 400}}, {}),
    Report("directory-of-no-model", "own", {"model": {"uri": "data"}}, {}),
    Report("directory-of-no-data", "own", {"dataset": {"uri": "data"}}, {}),
    Report("data-said-to-be-on-the-hub", "own", {"dataset": {"uri": "hf://rows"}}, {}),
    Report("path", "own", {"dataset": {"uri": "./rows.jsonl"}}, {}),
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with data and a model beside the run."""
    for name in ("rows", "rows.jsonl", "data/rows.jsonl", "models/tiny/config.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}\n")
    return tmp_path


@reports(*FILES)
def test_a_file_without_its_dot_is_reported_before_anything_starts(report: Report, validator: Validator, folder: Path) -> None:
    found = answers(validator, report, folder)
    assert found.keys() == report.expected.keys(), found
    for field, words in report.expected.items():
        assert words in found[field]
        assert found[field].count("\n") == 1


def test_a_cluster_is_offered_no_path(validator: Validator, folder: Path) -> None:
    document = Document("run.yaml", manifest(FILES[0]))
    assert validate_document(validator, document, folder, local=False) == [
        (
            "run.yaml: spec.dataset.uri: rows.jsonl means a hub ID, but the directory of run.yaml has a file of this name, which a cluster cannot"
            " read; upload the file to the hub, or write hf://rows.jsonl if it is there"
        )
    ]


VALUES = (
    Report("list-in-model-args", "own", {"evaluation": {"modelArgs": {"dtype": ["x"]}}},
           {"spec.evaluation.modelArgs.dtype": 'is ["x"]; use a string, a number, true or false'}),
    Report("object-in-model-args", "own", {"evaluation": {"modelArgs": {"a": {"b": [1]}}}},
           {"spec.evaluation.modelArgs.a": 'is {"b": [1]}; use a string, a number, true or false'}),
    Report("list-in-engine-args", "own", {"training": {"engineArgs": {"a": []}}},
           {"spec.training.engineArgs.a": "is []; use a string, a number, true or false"}),
    Report("fraction-without-quotes", "own", {"training": {"resources": {"cpu": 0.5}}},
           {"spec.training.resources.cpu": 'must be of type integer,string: "number"; write a quantity in quotes, such as 0.5, 500m, 2, 1e3'}),
)  # fmt: skip


@reports(*VALUES)
def test_values_that_no_rule_can_read_are_reported_by_the_users_field(
    report: Report, validator: Validator, tmp_path: Path
) -> None:
    found = {field: words for field, words in answers(validator, report, tmp_path).items() if field}
    assert found.keys() == report.expected.keys()
    assert all(words in found[field] for field, words in report.expected.items())


def test_the_operator_reports_the_same_about_them() -> None:
    for report in VALUES[:2]:
        found = resolve(spec(report.given), Settings("cluster", "1", {}, "e"))
        ((field, words),) = report.expected.items()
        assert isinstance(found, SpecRejection)
        assert found.message == f"{field}: {words}."


QUANTITIES = (
    Report("exponent", "own", "1e3", 1000), Report("exa", "own", "1Ei", "1Ei"), Report("quoted", "own", "'0.5'", "0.5"),
    Report("whole-with-point", "own", "1.0", 1), Report("large-exponent", "own", "5e10", 50_000_000_000),
)  # fmt: skip


@reports(*QUANTITIES)
def test_a_number_is_read_as_kubectl_reads_it(report: Report, validator: Validator, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "apiVersion: finetunerun.io/v1alpha1\nkind: FineTuneRun\nmetadata: {name: r}\nspec:\n  dataset: {uri: org/chat}\n"
        f"  training: {{resources: {{memory: {report.given}}}}}\n"
    )
    (document,) = read_documents(file)
    memory = document.content["spec"]["training"]["resources"]["memory"]
    assert (memory, type(memory)) == (report.expected, type(report.expected))
    assert validate_document(validator, document, tmp_path) == []


def test_a_generated_name_is_valid_where_its_length_is(validator: Validator, tmp_path: Path) -> None:
    def said(prefix: str) -> list[str]:
        content = {**manifest(FILES[-1]), "metadata": {"generateName": prefix}}
        return validate_document(validator, Document("run.yaml", content), tmp_path)

    assert said("gen-") == []
    (line,) = said(f"{'x' * 50}-")
    assert "metadata.generateName: Invalid value: " in line
    assert "must have at most 52 characters" in line
    (line,) = said("9-")
    assert "a letter first" in line


def test_a_uri_with_nul_is_rejected_by_the_stage_too() -> None:
    for uri in ("/data/a\0.jsonl", "https://example.com/a\0", "org/a\0", "file:///a\0"):
        with pytest.raises(
            StageError, match=r"dataset\.uri: .* has a control character or half of a character; remove it"
        ) as rejected:
            parse_uri(uri, DATASET)
        assert rejected.value.reason.name == "DatasetNotFound"
    for uri, problem in (
        ("https:///x", "it names no host"),
        ("https://[x/y", "its host or port is malformed"),
        ("http://:80/", "it names no host"),
        ("https://example.com:99999/x", "its host or port is malformed"),
    ):
        with pytest.raises(StageError) as rejected:
            parse_uri(uri, DATASET)
        assert rejected.value.message == f"dataset.uri: {uri} is not a web address, {problem}; write https://<host>/<file>."


def _found(value: Any, key: str) -> Iterator[dict[str, Any]]:
    """Every entry of every list ``key`` in a document."""
    if isinstance(value, dict):
        yield from value.get(key) or ()
        for item in value.values():
            yield from _found(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from _found(item, key)


def test_what_training_pods_have_is_reserved(validator: Validator) -> None:
    jobs = [yaml.safe_load(file.read_text()) for file in TRAINJOBS.glob("*-minimal-*.yaml")]
    assert jobs
    assert {volume["name"] for volume in _found(jobs, "volumes")} == set(RESERVED_VOLUMES)
    for path in {mount["mountPath"] for mount in _found(jobs, "volumeMounts")} | {TERMINATION_LOG}:
        mounts = {"volumes": [{"name": "a", "emptyDir": {}}], "volumeMounts": [{"name": "a", "mountPath": path}]}
        (problem,) = validator.create(manifest(Report("mount", "own", {"training": mounts}, None)))
        assert problem.detail.startswith("mountPath hides files that training needs"), path

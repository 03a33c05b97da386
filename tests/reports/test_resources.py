"""What the API server and ``finetune validate`` answer to objects that cannot work."""

from __future__ import annotations

from pathlib import Path

import pytest

from crdlint import needs_go, verdicts
from finetune_operator.api.crd import crd
from finetune_operator.cli.documents import Document, read_documents
from finetune_operator.cli.validate import judge_document
from finetune_operator.core.resolve import Refusal, resolve
from finetune_operator.core.settings import Settings
from finetune_operator.local.judge import Judge
from reports.report import Report, reports
from reports.resources import RESOURCES, manifest, spec


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge(crd())


def answers(judge: Judge, report: Report, base: Path) -> dict[str, str]:
    """Each field of the answer with its sentences."""
    found: dict[str, str] = {}
    for line in judge_document(judge, Document("run.yaml", manifest(report)), base):
        field, _, sentence = line.removeprefix("run.yaml: ").partition(": ")
        field, sentence = (field, sentence) if field.startswith("spec") else ("", f"{field}: {sentence}")
        found[field] = f"{found.get(field, '')}{sentence}\n"
    return found


@reports(*RESOURCES)
def test_validate_names_the_field_and_the_fix(report: Report, judge: Judge, tmp_path: Path) -> None:
    found = answers(judge, report, tmp_path)
    assert found.keys() == report.expected.keys(), found
    for field, words in report.expected.items():
        assert words in found[field]
        assert "evaluating rule" not in found[field]


@needs_go
def test_the_api_server_answers_the_same(judge: Judge) -> None:
    server = verdicts({"name": report.name, "object": manifest(report)} for report in RESOURCES)
    ours = {
        report.name: {(problem.field, str(problem.kind)) for problem in judge.create(manifest(report))} for report in RESOURCES
    }
    assert ours == {name: set(verdict.faults) for name, verdict in server.items()}


@reports(*(report for report in RESOURCES if not report.expected))
def test_what_is_valid_has_an_effect_or_none(report: Report) -> None:
    """An accepted object is refused later by the name of a field that this release lacks, or not at all."""
    found = resolve(spec(report.given), Settings("local", "1", {}, "e"))
    assert not isinstance(found, Refusal) or found.reason.name == "Unsupported", found

"""The corpus on a real API server: it rejects the bad objects of the corpus, accepts the others, and names the fields."""

from __future__ import annotations

import copy
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from controlplane.api import Api, RefusedError, eventually
from corpus_cases import Case, cases
from crdlint import DEFINITION
from finetune_operator.api.crd import crd
from finetune_operator.validation import Validator
from reports.resources import RESOURCES, manifest

Object = dict[str, Any]
ONE = pytest.mark.parametrize("control_plane", ["2.1"], indirect=True)
CASES = cases()
OURS = "finetunerun.io/v1alpha1"


@ONE
def test_each_object_is_accepted_or_rejected_as_the_corpus_states(api: Api, namespace: str) -> None:
    path = f"/apis/{OURS}/namespaces/{namespace}/finetuneruns"
    objects = [case for case in CASES if case.old is None]
    assert sum(case.name.startswith("bad/") for case in objects) >= 160
    answers = {case.name: _disagreement(case, api, "POST", path, _here(case, namespace)) for case in objects}
    assert {name: said for name, said in answers.items() if said is not None} == {}


@ONE
def test_each_report_is_answered_in_the_words_of_the_embedded_validation(api: Api, namespace: str) -> None:
    path, judge = f"/apis/{OURS}/namespaces/{namespace}/finetuneruns", Validator(crd())
    different = {}
    for report in RESOURCES:
        answer = _rejection(api, "POST", path, manifest(report))
        said = "" if answer is None else f"{answer.code} {answer}"
        problems = judge.create(manifest(report))
        if bool(said) != bool(problems) or any(problem.detail not in said or problem.field not in said for problem in problems):
            different[report.name] = (said, [str(problem) for problem in problems])
    assert different == {}


@ONE
def test_runs_are_selected_by_their_fields(api: Api, namespace: str) -> None:
    path = f"/apis/{OURS}/namespaces/{namespace}/finetuneruns"
    for name, algorithm in (("a", "sft"), ("b", "lora")):
        spec = {"dataset": {"uri": "org/chat"}, "training": {"algorithm": algorithm}}
        api.call("POST", path, {"apiVersion": OURS, "kind": "FineTuneRun", "metadata": {"name": name}, "spec": spec})
    failed = {"status": {"phase": "Failed", "failure": {"reason": "OutOfMemory", "message": "m", "hint": "h"}}}
    api.call("PATCH", f"{path}/b/status", failed, content="application/merge-patch+json")
    for selector, names in (
        ("spec.training.algorithm=sft", ["a"]), ("status.phase=Failed", ["b"]), ("status.phase!=Failed", ["a"]),
        ("status.failure.reason=OutOfMemory", ["b"]), ("status.phase=Failed,spec.training.algorithm=sft", []),
    ):  # fmt: skip
        found = api.call("GET", path, fieldSelector=selector)["items"]
        assert [run["metadata"]["name"] for run in found] == names, selector


@ONE
def test_each_change_is_accepted_or_rejected_as_the_corpus_states(api: Api, namespace: str, twin: Twin) -> None:
    changes = [case for case in CASES if case.old is not None]
    stored = {case.name: twin.store(case) for case in changes}
    twin.judge_as_ours()
    answers = {
        case.name: _disagreement(case, api, "PUT", twin.path_of(case), _after(case, stored[case.name])) for case in changes
    }
    assert {name: said for name, said in answers.items() if said is not None} == {}


@dataclass
class Twin:
    """Our kind in a group of its own: at first it takes anything, so that faults of an older release can be stored."""

    api: Api
    namespace: str
    definition: Object

    def store(self, case: Case) -> Object:
        """Return the first object of the case, as the cluster stores it."""
        assert case.old is not None
        manifest = self.of_this_group(case.old)
        manifest["metadata"].pop("uid", None)
        deleted = manifest["metadata"].pop("deletionTimestamp", None)
        path = self._path(manifest["metadata"]["name"])
        stored = self.api.call("POST", path.rpartition("/")[0], manifest)
        if "status" in case.old:
            stored = self.api.call("PUT", f"{path}/status", {**stored, "status": case.old["status"]})
        if deleted:
            self.api.call("DELETE", path)
            stored = self.api.call("GET", path)
        return stored

    def path_of(self, case: Case) -> str:
        """Where the change of a case is written to."""
        assert case.old is not None
        path = self._path(case.old["metadata"]["name"])
        return f"{path}/status" if case.subresource else path

    def of_this_group(self, manifest: Object) -> Object:
        """The same object in this group."""
        return {**copy.deepcopy(manifest), "apiVersion": f"{self.definition['spec']['group']}/v1alpha1"}

    def judge_as_ours(self) -> None:
        """From now on the schema and the rules are those of our kind."""
        ours = _definition()["spec"]["versions"]
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{self.definition['metadata']['name']}"
        self.api.call("PATCH", path, {"spec": {"versions": ours}}, content="application/merge-patch+json")
        bad = self.of_this_group({"kind": "FineTuneRun", "metadata": {"name": "a"}, "spec": {"dataset": {"uri": ""}}})
        eventually(lambda: _rejection(self.api, "POST", self._path(), bad) is not None, "the schema is in force")

    def _path(self, name: str = "") -> str:
        group = self.definition["spec"]["group"]
        return f"/apis/{group}/v1alpha1/namespaces/{self.namespace}/finetuneruns{'/' if name else ''}{name}"


@pytest.fixture
def twin(api: Api, namespace: str) -> Iterator[Twin]:
    definition = _definition()
    group = f"t{uuid.uuid4().hex[:8]}.finetunerun.io"
    definition["metadata"] = {"name": f"finetuneruns.{group}"}
    definition["spec"]["group"] = group
    for version in definition["spec"]["versions"]:
        version["schema"]["openAPIV3Schema"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        del version["selectableFields"]  # they need the fields in the schema
    api.create(definition)
    twin = Twin(api, namespace, definition)
    eventually(lambda: "items" in api.call("GET", twin._path()), "the twin is served")
    yield twin
    for item in api.call("GET", twin._path())["items"]:
        if item["metadata"].get("finalizers"):
            free = {"metadata": {"finalizers": None}}
            api.call("PATCH", twin._path(item["metadata"]["name"]), free, content="application/merge-patch+json")
    api.delete(definition)


def _definition() -> Object:
    found: Object = yaml.load(DEFINITION.read_bytes(), yaml.CSafeLoader)
    return found


def _here(case: Case, namespace: str) -> Object:
    """The object of a case; where a good one names a namespace, it is the test's own."""
    if case.fields or "namespace" not in case.object["metadata"]:
        return case.object
    return {**case.object, "metadata": {**case.object["metadata"], "namespace": namespace}}


def _after(case: Case, stored: Object) -> Object:
    """What a client sends that makes the change of a case: everything else is as it was read."""
    assert case.old is not None
    after = {**copy.deepcopy(case.object), "apiVersion": stored["apiVersion"]}
    kept = {"resourceVersion": stored["metadata"]["resourceVersion"]}
    if "deletionTimestamp" in after["metadata"]:
        kept["deletionTimestamp"] = stored["metadata"]["deletionTimestamp"]
    after["metadata"] |= kept
    return after


def _disagreement(case: Case, api: Api, method: str, path: str, manifest: Object) -> str | None:
    """Return the server's answer if it differs from what the case states."""
    rejected = _rejection(api, method, path, manifest)
    if rejected is None:
        return "taken" if case.fields else None
    if not case.fields:
        return str(rejected)
    if rejected.code == 422:
        return None if all(_named(field, str(rejected)) for field in case.fields) else str(rejected)
    # An object that cannot be parsed, or is of another kind, is rejected before the rules are evaluated; the first such field is named.
    last = {re.split(r"[.\[/]", field)[-1].lower() for field in case.fields}
    return None if any(word in str(rejected).lower() for word in last) else str(rejected)


def _named(field: str, message: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(field)}(?![\w.])", message) is not None


def _rejection(api: Api, method: str, path: str, manifest: Object) -> RefusedError | None:
    try:
        api.call(method, path, manifest, dryRun="All", fieldValidation="Strict")
    except RefusedError as error:
        return error
    return None

"""The validator on the corpus: compared with what each case states, and with the API server's own code."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import yaml

from corpus_cases import Case, cases
from crdlint import DEFINITION, Verdict, needs_go, verdicts
from finetune_operator.validation import Problem, Validator
from reports.resources import RESOURCES, manifest

CASES = cases()
MUTATIONS = 1500

# What a mutation puts in the place of a value. Left out are whole numbers with a point (1.0): the API server takes them for
# integers until a rule reads them and fails; they cannot come out of YAML.
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**63, -(2**63), 2**64, 0.5, 1e300, 1e-300, "", "a", "sft", "lora", "Drop", "x" * 70,
    "x" * 1100, "ä\n", "1Gi", "s3://b/x", "pvc://c/x", "hf://a", "2026-01-01T00:00:00Z", "24h", [], [1], ["a", "a"], {},
    {"a": "b"}, {"name": "x"}, {"key": 1}, [{}], [None], "\0", "😀", 2**53 + 1,
]  # fmt: skip


@pytest.fixture(scope="module")
def validator() -> Validator:
    return Validator(yaml.safe_load(DEFINITION.read_text(encoding="utf-8")))


def problems_of(validator: Validator, case: Case) -> list[Problem]:
    if case.old is None:
        return validator.create(case.object)
    return validator.update(case.object, case.old, status=case.subresource == "status")


def faults(problems: list[Problem]) -> set[tuple[str, str]]:
    return {(problem.field, str(problem.kind)) for problem in problems}


def test_there_is_a_corpus() -> None:
    assert len(CASES) > 200
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_case_is_rejected_for_the_fields_that_it_states(validator: Validator, case: Case) -> None:
    before = copy.deepcopy((case.object, case.old))
    assert {problem.field for problem in problems_of(validator, case)} - {""} == case.fields
    assert (case.object, case.old) == before, "judging changes nothing"


@needs_go
def test_the_api_server_agrees_on_the_corpus(validator: Validator) -> None:
    server = verdicts(case.as_line() for case in CASES)
    assert {case.name: faults(problems_of(validator, case)) for case in CASES} == {
        name: set(v.faults) for name, v in server.items()
    }


@needs_go
def test_the_api_server_agrees_on_mutations_of_the_corpus(validator: Validator) -> None:
    chance = random.Random(20261121)
    mutants = [_mutant(chance, number) for number in range(MUTATIONS)]
    server = verdicts(mutant.as_line() for mutant in mutants)
    different = {
        mutant.name: (mutant, faults(problems_of(validator, mutant)), server[mutant.name].faults)
        for mutant in mutants
        if not _agree(problems_of(validator, mutant), server[mutant.name])
    }
    assert different == {}
    assert MUTATIONS // 20 < sum(not verdict.faults for verdict in server.values()) < MUTATIONS // 2, "both verdicts occur"


def test_every_rule_rejects_something(validator: Validator) -> None:
    rules: set[str] = set()

    def gather(schema: dict[str, Any]) -> None:
        rules.update(rule["message"] for rule in schema.get("x-kubernetes-validations", ()))
        below = [schema.get("items"), schema.get("additionalProperties"), *schema.get("properties", {}).values()]
        for node in filter(None, below):
            gather(node)

    definition = yaml.safe_load(DEFINITION.read_text(encoding="utf-8"))
    gather(definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    problems = [problem for case in CASES for problem in problems_of(validator, case)]
    problems += [problem for report in RESOURCES for problem in validator.create(manifest(report))]
    assert rules - {problem.detail for problem in problems} == set()


def _agree(problems: list[Problem], server: Verdict) -> bool:
    return bool(problems) if server.undecodable else faults(problems) == server.faults


def _mutant(chance: random.Random, number: int) -> Case:
    case = chance.choice(CASES)
    changed = copy.deepcopy(case.object)
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        _mutate(chance, changed)
    old, subresource = case.old, case.subresource
    if old is None and not case.fields and chance.random() < 0.5:
        old, subresource = case.object, chance.choice(["", "status"])
    return Case(f"{number} of {case.name}", changed, frozenset(), old, subresource)


def _mutate(chance: random.Random, document: dict[str, Any]) -> None:
    places = list(_places(document))
    if not places:
        return
    parent, key = chance.choice(places)
    action = chance.random()
    if action < 0.5:
        parent[key] = copy.deepcopy(chance.choice(VALUES))
    elif action < 0.65 and isinstance(parent, dict):
        del parent[key]
    elif action < 0.8:
        giver, its_key = chance.choice(list(_places(chance.choice(CASES).object)) or places)
        parent[its_key if isinstance(parent, dict) and isinstance(its_key, str) else key] = copy.deepcopy(giver[its_key])
    elif isinstance(parent, list):
        parent.append(copy.deepcopy(parent[key]))
    else:
        parent["unheard"] = 1


def _places(document: Any, inside: bool = False) -> Any:
    """Every container with every key of it, within spec and status."""
    pairs = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in list(pairs):
        if inside:
            yield document, key
        if isinstance(value, (dict, list)) and (inside or key in ("spec", "status")):
            yield from _places(value, inside=True)

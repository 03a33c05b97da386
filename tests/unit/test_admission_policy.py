"""The sample of an admission policy decides about every field of a run: a new field must be in the policy, or here as harmless."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from finetune_operator.api.crd import crd

SAMPLE = Path(__file__).parents[2] / "manifests/samples/platform/admission-policy.yaml"
LIMITED = {
    "training.image",
    "training.runtimeRef",
    "serviceAccountName",
    "model.uri",
    "training.workers",
    "training.gpusPerWorker",
}
"""Fields whose values the policy limits."""
HARMLESS = """
dataset: uri evalUri split revision format fields subset subsetMode trainSplit splitBy splitField badRows seed sha256 endpoint region
  nearDuplicates sampleInStatus
model: uri revision endpoint region
training: enabled algorithm epochs effectiveBatchSize microBatchSize maxTokensPerGPU maxSeqLen learningRate warmupSteps scheduler
  schedulerArgs seed liger unmask gradientCheckpointing osft sft lora checkpoints engine engineArgs
evaluation: enabled tasks holdout baseline backend limit batchSize fewshot systemInstruction generation modelArgs logSamples verbosity
  onFailure
gate: requirements baseline approval onRejected
registry: kind address port name version onExisting author description format formatVersion alias
publish: uri serving
limits: pending stage total gpuHours
retry: transient crash lost outOfMemory
cleanup: ttlAfterFinished volume checkpoints pods cacheSize
rerun: id from
approval: decision of by note
suspend:
"""
"""Fields that neither shape a pod nor name another object of the cluster. URIs may name claims, which the policy has as entries of their own;
the operator's configuration limits hosts."""


def policy() -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(yaml.safe_load_all(SAMPLE.read_text(encoding="utf-8")))
    return found


def variables() -> dict[str, str]:
    return {one["name"]: one["expression"] for one in policy()["spec"]["variables"]}


def fields() -> Iterator[str]:
    """The fields of each section of a run, and those that are no section."""
    spec = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    for section, node in spec["properties"].items():
        if "properties" in node:
            yield from (f"{section}.{name}" for name in node["properties"])
        else:
            yield section


def given() -> dict[str, str]:
    """The fields in the policy, with the expression of each."""
    return dict(re.findall(r"^\s*'([^']+)': (.+?),?$", variables()["given"], re.MULTILINE))


def harmless() -> set[str]:
    found = set()
    for section, names in re.findall(r"^(\w+):((?:.*)(?:\n  .*)*)$", HARMLESS, re.MULTILINE):
        found |= {f"{section}.{name}" for name in names.split()} or {section}
    return found


def test_every_field_is_in_the_policy_or_harmless() -> None:
    shaping = {name for name in given() if not name.endswith(" of a claim")}
    assert shaping | harmless() >= set(fields()), sorted(set(fields()) - shaping - harmless())
    assert shaping | harmless() <= set(fields()), sorted((shaping | harmless()) - set(fields()))
    assert shaping & harmless() == set()


def test_what_holds_objects_of_other_kinds_is_not_harmless() -> None:
    """References by their names in the CRD, at any depth: a harmless section must not contain one."""
    spec = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]

    def below(node: Mapping[str, Any]) -> Iterator[str]:
        for name, inner in (node.get("properties") or {}).items():
            yield name
            yield from below(inner)
        if isinstance(node.get("items"), Mapping):
            yield from below(node["items"])

    references = re.compile(r"(Ref|Secrets|claimName|ClassName|volumes|env|image|placement|serviceAccountName)$")
    for field in harmless():
        section, _, name = field.partition(".")
        node = spec["properties"][section]
        node = node["properties"][name] if name else node
        assert not [one for one in (name or section, *below(node)) if references.search(one)], field


def test_every_expression_reads_the_field_that_it_is_named_after() -> None:
    for name, expression in given().items():
        path = "".join(f".?{part}" for part in name.removesuffix(" of a claim").split("."))
        presence = ".orValue(false) == true" if name == "model.trustRemoteCode" else ".hasValue()"
        end = ".orValue('').startsWith('pvc://')" if name.endswith(" of a claim") else presence
        assert expression == f"object.spec{path}{end}"


def test_only_fields_of_the_policy_are_allowed_by_it_and_values_that_it_limits_are() -> None:
    allowed = set(re.findall(r"'([^']+)'", variables()["allowed"]))
    assert allowed <= set(given())
    assert allowed >= LIMITED - {"model.uri"}
    dangerous = {"training.env", "training.volumes", "training.volumeMounts", "model.trustRemoteCode", "storage.claimName"}
    assert not allowed & dangerous
    assert not {name for name in allowed if name.endswith(("Ref", " of a claim")) and name != "training.runtimeRef"}


def test_the_policy_sees_every_change_of_a_field_that_it_knows() -> None:
    (condition,) = policy()["spec"]["matchConditions"]
    sections = {name.partition(".")[0] for name in given()}
    assert set(re.findall(r"object\.spec\.\?(\w+) != oldObject\.spec\.\?\1\b", condition["expression"])) == sections

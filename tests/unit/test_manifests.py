"""Tests that the manifests match the program: metrics, reasons, configuration, defaults, version."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_operator import __version__
from finetune_operator.api.reasons import OPERATOR_REASONS
from finetune_operator.api.status import CONDITIONS, PHASES
from finetune_operator.core.naming import STAGE_LABEL
from finetune_operator.core.resolve import SpecRejection, resolve
from finetune_operator.core.run import Run
from finetune_operator.core.stages import GRAPH
from finetune_operator.kube.configuration import IMAGE_VARIABLES, Configuration
from finetune_operator.kube.process import LEASE_NAME
from finetune_operator.kube.serving import Metrics
from finetune_operator.validation import DEFAULTS, DEFAULTS_KEY

Object = dict[str, Any]
MANIFESTS = Path(__file__).parents[2] / "manifests"
SAMPLES = sorted((MANIFESTS / "samples").glob("*.yaml"))


def load(path: str) -> Any:
    return yaml.safe_load((MANIFESTS / path).read_text(encoding="utf-8"))


def test_the_optional_ports_of_stages_are_valid_where_they_are() -> None:
    text = (MANIFESTS / "samples/platform/stage-network-policies.yaml").read_text(encoding="utf-8")
    ports = [
        {entry["port"] for entry in next(yaml.safe_load_all(each))["spec"]["egress"][1]["ports"]}
        for each in (text, text.replace("# - {", "- {"))
    ]
    assert ports[1] - ports[0] == {80, 5000, 9000}


def test_the_image_is_that_of_this_release() -> None:
    container = load("base/deployment.yaml")["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == f"finetune-operator:{__version__}"


def test_kustomize_does_not_rename_the_lease() -> None:
    # It replaces the name of a generated ConfigMap in every Role that has a resource of the same name.
    generated = [one["name"] for one in load("base/kustomization.yaml")["configMapGenerator"]]
    roles = [one for one in yaml.safe_load_all((MANIFESTS / "base/roles.yaml").read_text()) if one["kind"] == "Role"]
    named = [name for role in roles for rule in role["rules"] for name in rule.get("resourceNames", ())]
    assert named == [LEASE_NAME]
    assert not set(named) & set(generated)


def test_alerts_use_existing_metrics_reasons_and_phases() -> None:
    metrics = Metrics()
    metrics.transitions.labels("RunStarted").inc()
    metrics.runs.labels("Failed").set(1)
    series = {line.split("{")[0].split(" ")[0] for line in metrics.text().decode().splitlines() if not line.startswith("#")}
    rules = [rule for group in load("components/monitoring/rules.yaml")["spec"]["groups"] for rule in group["rules"]]
    expressions = " ".join(rule["expr"] for rule in rules)
    assert set(re.findall(r"finetune_\w+", expressions)) <= series
    reasons = {reason for found in re.findall(r'reason=~"([^"]*)"', expressions) for reason in found.split("|")}
    assert reasons
    assert reasons <= set(OPERATOR_REASONS)
    assert set(re.findall(r'phase="(\w+)"', expressions)) <= set(PHASES)


def test_argo_cd_uses_existing_conditions_and_stages_and_no_reasons() -> None:
    script = (MANIFESTS / "argocd/component/health.lua").read_text()
    assert set(re.findall(r'(?:holds\(|conditions\[)"(\w+)"', script)) <= set(CONDITIONS)
    assert not [reason for reason in OPERATOR_REASONS if reason in script]


def test_the_commented_configuration_has_every_key(tmp_path: Path) -> None:
    text = (MANIFESTS / "base/configuration.yaml").read_text()
    assert Configuration.load(MANIFESTS / "base/configuration.yaml", {}) == Configuration()
    assert IMAGE_VARIABLES["dataset"] in text
    head, _, keys = text.partition("\n")
    assert head.startswith("# ")
    (tmp_path / "all.yaml").write_text(re.sub(r"(?m)^# ", "", keys))
    shown = Configuration.load(tmp_path / "all.yaml", {})
    assert {name for name in Configuration.model_fields if getattr(shown, name)} == set(Configuration.model_fields)


CONFIGURATIONS = ["base/configuration.yaml", "overlays/kind/configuration.yaml", "samples/platform/operator-configuration.yaml"]


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.stem)
def test_samples_start_with_every_configuration_and_namespace_defaults(sample: Path, configuration: str) -> None:
    config_map = load("samples/platform/finetune-defaults.yaml")
    assert config_map["metadata"]["name"] == DEFAULTS
    own = yaml.safe_load(config_map["data"][DEFAULTS_KEY])
    given = Configuration.load(MANIFESTS / configuration, {})
    spec = yaml.safe_load(sample.read_text(encoding="utf-8"))["spec"]
    resolved = resolve(spec, given.settings(None, own))
    assert not isinstance(resolved, SpecRejection), resolved.message
    assert resolved["spec"]["registry"]["address"] == own["registry"]["address"]


def test_every_stage_with_pods_has_one_network_policy() -> None:
    documents = list(yaml.safe_load_all((MANIFESTS / "samples/platform/stage-network-policies.yaml").read_text(encoding="utf-8")))
    selected = [
        stage
        for document in documents
        for rule in document["spec"]["podSelector"]["matchExpressions"]
        if rule["key"] == STAGE_LABEL
        for stage in rule["values"]
    ]
    assert sorted(selected) == sorted(GRAPH.programs)
    offline = next(one for one in documents if one["metadata"]["name"] == "finetune-stages-without-network")
    names = offline["spec"]["podSelector"]["matchExpressions"][1]["values"]
    resolved = resolve({"dataset": {"uri": "org/data"}, "model": {"uri": "org/model"}}, Configuration().settings(None, {}))
    assert not isinstance(resolved, SpecRejection)
    run = Run("demo", "team", "u", 1, {}, {"resolved": resolved, "round": 1})
    secrets = {name for name in GRAPH.programs for one in GRAPH.programs[name].pod(run).environment if "valueFrom" in one}
    assert not secrets & set(names), "a stage with credentials needs the network"


def test_the_selected_overlay_binds_the_role_of_the_operator() -> None:
    binding = load("overlays/selected/opt-in.yaml")
    (role,) = (
        one
        for one in yaml.safe_load_all((MANIFESTS / "base/roles.yaml").read_text(encoding="utf-8"))
        if (one["kind"], one["metadata"]["name"]) == ("ClusterRole", "finetune-operator")
    )
    assert binding["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": role["kind"], "name": role["metadata"]["name"]}
    account = load("base/service-account.yaml")["metadata"]["name"]
    home = load("overlays/selected/kustomization.yaml")["namespace"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": home}]


def test_samples_set_no_control_fields() -> None:
    for sample in SAMPLES:
        assert not {"suspend", "rerun", "approval"} & set(yaml.safe_load(sample.read_text())["spec"]), sample

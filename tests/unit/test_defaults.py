"""Defaults of a namespace and of the operator are validated by the rules that runs obey, and each fault is reported with its origin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from api_server import application, serving
from faulty_defaults import FAULTY
from finetune_operator.api.crd import crd, defaults_schema
from finetune_operator.api.kinds import CONFIGMAP, FINETUNERUN
from finetune_operator.api.kubernetes_yaml import dump
from finetune_operator.cli.errors import CommandError
from finetune_operator.cli.local_backend import LocalBackend
from finetune_operator.core.resolve import SpecRejection, resolve
from finetune_operator.core.settings import Settings, Trainer
from finetune_operator.kube.client import ApiServer
from finetune_operator.kube.configuration import BadConfiguration, Configuration
from finetune_operator.kube.settings_provider import SettingsProvider
from finetune_operator.local.home import Home
from finetune_operator.local.machine import inspect_machine
from finetune_operator.local.platform import local_settings, with_defaults
from finetune_operator.local.store import Store
from finetune_operator.loop.controller import Controller
from finetune_operator.validation import DEFAULTS, DEFAULTS_KEY, Validator, defaults_of, reject_defaults
from world import SETTINGS

MINIMAL: dict[str, Any] = {"dataset": {"uri": "org/data"}}
NOW = datetime(2026, 11, 29, 12, 0, 0, tzinfo=UTC)


def config_map(values: Any, namespace: str = "team") -> dict[str, Any]:
    text = values if isinstance(values, str) else dump(values)
    metadata = {"name": DEFAULTS, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {DEFAULTS_KEY: text}}


def run(spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": "demo", "namespace": "team"}
    return {"apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "metadata": metadata, "spec": spec}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path / "store.db")
    yield store
    store.close()


@pytest.fixture
async def server(store: Store) -> AsyncIterator[ApiServer]:
    async with serving(application(store)) as address, aiohttp.ClientSession() as session:
        yield ApiServer(session, address)


@pytest.mark.parametrize(
    ("values", "sentence"), FAULTY, ids=lambda value: value.partition(":")[0] if isinstance(value, str) else ""
)
@pytest.mark.parametrize(
    ("origin", "prefix"),
    [("namespace", "ConfigMap finetune-defaults, "), ("operator", "the operator's configuration, defaults.")],
)
def test_a_fault_is_named_with_its_origin(origin: str, prefix: str, values: dict[str, Any], sentence: str) -> None:
    found = reject_defaults(origin, values, "cluster")
    assert found is not None
    assert (found.reason.name, found.message) == ("InvalidSpec", f"{prefix}{sentence}")


def test_an_api_server_rejects_a_run_with_the_same_values() -> None:
    """The rules have one source: no value is a fault in defaults only."""
    validator = Validator(crd())
    for values, sentence in FAULTY:
        spec = {**values, "dataset": {**MINIMAL["dataset"], **values.get("dataset", {})}}
        fields = [problem.field for problem in validator.create(run(spec))]
        assert f"spec.{sentence.partition(':')[0]}" in fields, (values, fields)


@pytest.mark.parametrize(
    "values",
    [
        {"training": {"algorithm": "sft", "osft": {"unfreezeRankRatio": 0.5}, "lora": {"rank": 8}, "sft": {"sharding": "NO_SHARD"}}},
        {"gate": {"onRejected": "RegisterAsRejected"}},
        {"dataset": {"split": "train_sft", "revision": "v1"}},
        {"training": {"placement": {"tolerations": [{"operator": "Exists"}]}, "env": [{"name": "A", "value": "b"}, {"name": "B", "value": "b"}]}},
        {"storage": {"claimName": "mine"}},
        {},
    ],
    ids=str,
)  # fmt: skip
def test_defaults_for_many_runs_are_valid(values: dict[str, Any]) -> None:
    assert reject_defaults("namespace", values, "cluster") is None
    assert reject_defaults("operator", values, "cluster") is None


def test_rules_that_only_a_run_must_obey() -> None:
    """What runs complete or choose from: the rest of the CRD's rules hold for defaults."""
    ours = _rules(defaults_schema())
    theirs = _rules(crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"])
    assert set(ours) < set(theirs)
    assert sorted(field for field, expression in set(theirs) - set(ours)) == [
        ".cleanup.volume", "dataset.endpoint", "dataset.region", "dataset.splitBy", "gate", "model.endpoint", "model.pullSecretRef", "model.region", "training.lora", "training.osft", "training.sft",
    ]  # fmt: skip


def _rules(node: dict[str, Any], path: str = "") -> list[tuple[str, str]]:
    found = [(f"{path}{rule.get('fieldPath', '')}", rule["rule"]) for rule in node.get("x-kubernetes-validations", ())]
    for name, below in node.get("properties", {}).items():
        found += _rules(below, f"{path}.{name}".removeprefix("."))
    for below in filter(None, (node.get("items"), node.get("additionalProperties"))):
        found += _rules(below, f"{path}[]")
    return found


async def test_the_operator_reads_every_fault_from_the_config_map(server: ApiServer) -> None:
    provider = SettingsProvider(server, Configuration())
    for number, (values, sentence) in enumerate(FAULTY):
        await server.create(config_map(values, f"team-{number}"))
        settings = await provider.settings(f"team-{number}")
        found = resolve(MINIMAL, settings)
        assert isinstance(found, SpecRejection)
        assert (found.reason.name, found.message) == ("InvalidSpec", f"ConfigMap finetune-defaults, {sentence}")


async def test_local_mode_reads_every_fault_from_the_config_map(store: Store, tmp_path: Path) -> None:
    settings = local_settings(Home(tmp_path), inspect_machine())
    for number, (values, sentence) in enumerate(FAULTY):
        await store.create(config_map(values, f"team-{number}"))
        found = resolve(MINIMAL, await with_defaults(settings, store, f"team-{number}"))
        assert isinstance(found, SpecRejection)
        assert (found.reason.name, found.message) == ("InvalidSpec", f"ConfigMap finetune-defaults, {sentence}")


def test_the_operator_does_not_start_with_a_fault_in_its_configuration(tmp_path: Path) -> None:
    file = tmp_path / "configuration.yaml"
    for values, sentence in FAULTY:
        file.write_text(dump({"defaults": values}))
        with pytest.raises(BadConfiguration) as problem:
            Configuration.load(file, {})
        assert str(problem.value) == f"{file}: defaults.{sentence.removesuffix('.')}"


async def test_a_run_with_faulty_defaults_fails_before_anything_is_created(store: Store, server: ApiServer) -> None:
    await store.create(config_map({"training": {"env": [{"name": "A"}]}}))
    await store.create(run(MINIMAL))
    provider = SettingsProvider(server, Configuration())
    await Controller(store, provider.settings, clock=lambda: NOW).reconcile(("team", "demo"))
    status = (await store.get(FINETUNERUN, "team", "demo"))["status"]
    assert (status["phase"], status["failure"]["reason"]) == ("Failed", "InvalidSpec")
    assert status["failure"]["message"] == (
        "ConfigMap finetune-defaults, training.env[0]: an entry of env needs exactly one of value and valueFrom."
    )


async def test_corrected_defaults_are_valid_at_once(server: ApiServer) -> None:
    """A new content is validated; what is cached belongs to the old one."""
    now = 0.0
    provider = SettingsProvider(server, Configuration(), lambda: now)
    await server.create(config_map({"training": {"env": [{"name": "A"}]}}))
    assert (await provider.settings("team")).problem
    now = 16.0
    fixed = {"data": {DEFAULTS_KEY: dump({"training": {"env": [{"name": "A", "value": "b"}]}})}}
    await server.patch(CONFIGMAP, "team", DEFAULTS, fixed)
    settings = await provider.settings("team")
    assert (settings.problem, settings.namespace_defaults) == (None, {"training": {"env": [{"name": "A", "value": "b"}]}})


async def test_namespaces_are_validated_side_by_side(server: ApiServer) -> None:
    """Validation runs in threads, which share the compiled rules."""
    provider = SettingsProvider(server, Configuration())
    cases = [(*FAULTY[number % len(FAULTY)], f"team-{number}") for number in range(40)]
    for values, _, namespace in cases:
        await server.create(config_map({**values, "serviceAccountName": namespace}, namespace))
    found = await asyncio.gather(*(provider.settings(namespace) for _, _, namespace in cases))
    assert [settings.problem for settings in found] == [f"ConfigMap finetune-defaults, {sentence}" for _, sentence, _ in cases]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({DEFAULTS_KEY: {"training": {}}}, "key spec.yaml: not a string; write the YAML after |."),
        (["training"], "key spec.yaml: not a string; write the YAML after |."),
        ({DEFAULTS_KEY: "- a"}, "key spec.yaml: not a mapping; write the fields of a FineTuneRun's spec."),
    ],
)
def test_a_config_map_of_another_form(data: Any, problem: str) -> None:
    assert defaults_of({"data": data}, "local").problem == f"ConfigMap finetune-defaults, {problem}"


@pytest.mark.parametrize(
    "data", [None, {}, {DEFAULTS_KEY: None}, {DEFAULTS_KEY: ""}, {"other": "a: b", DEFAULTS_KEY: ""}, {DEFAULTS_KEY: "# none"}]
)
def test_a_config_map_without_defaults(data: Any) -> None:
    found = defaults_of({"data": data}, "cluster")
    assert (dict(found.values), found.problem) == ({}, None)


@pytest.mark.parametrize(
    ("configmap", "problem"),
    [
        ({"binaryData": {DEFAULTS_KEY: "AA=="}}, "is in binaryData; write it in data, as text in UTF-8"),
        ({"data": {"spec.yml": "a: b"}}, "missing, but the ConfigMap has the key spec.yml; rename it or delete the ConfigMap."),
        ({"binaryData": {"x" * 99: "AA=="}}, f"missing, but the ConfigMap has the key {'x' * 64};"),
        ({"data": {DEFAULTS_KEY: "a: b\nc: \x1b"}}, "line 2: has the character U+001B, which YAML does not allow; remove it."),
    ],
    ids=["binary", "other key", "long key", "control character"],
)
def test_defaults_that_would_be_no_limits(configmap: dict[str, Any], problem: str) -> None:
    assert (defaults_of(configmap, "cluster").problem or "").startswith(f"ConfigMap finetune-defaults, key spec.yaml: {problem}")


async def test_local_mode_uses_the_defaults_of_its_namespace(store: Store) -> None:
    assert await with_defaults(SETTINGS, store, "team") is SETTINGS
    await store.create(config_map({"training": {"epochs": "7"}}))
    found = resolve(MINIMAL, await with_defaults(SETTINGS, store, "team"))
    assert not isinstance(found, SpecRejection)
    assert (found["spec"]["training"]["epochs"], found["origins"]["namespace"]) == (7, ["training.epochs"])


async def test_a_local_rerun_is_checked_with_the_defaults(store: Store, tmp_path: Path) -> None:
    backend = LocalBackend(Home(tmp_path))
    spec = {**MINIMAL, "training": {"effectiveBatchSize": 10, "gpusPerWorker": 0}}
    await backend.check_rerun(store, spec)
    await store.create(config_map({"training": {"microBatchSize": 4}}, backend.namespace))
    with pytest.raises(CommandError) as problem:
        await backend.check_rerun(store, spec)
    (line,) = problem.value.lines
    assert line == (
        "InvalidSpec: ConfigMap finetune-defaults, training.microBatchSize: 4 does not divide the 10 rows of each process per step; use a"
        " divisor of 10, or change training.effectiveBatchSize."
    )


@pytest.mark.parametrize("gpus", [0, 2])
def test_the_defaults_of_local_mode_itself_are_valid(tmp_path: Path, gpus: int) -> None:
    settings = local_settings(Home(tmp_path), replace(inspect_machine(), gpus=gpus))
    assert reject_defaults("operator", settings.operator_defaults, "local") is None


def test_other_reasons_than_an_invalid_value_are_kept() -> None:
    for values, reason in (({"limits": {"total": "1h"}}, "Unsupported"), ({"model": {"uri": "/model"}}, "LocalPathInCluster")):
        defaults = defaults_of(config_map(values), "cluster")
        assert defaults.problem is None
        place = Settings("cluster", "1", {}, "e" * 64, trainer=Trainer(), namespace_defaults=defaults.values)
        found = resolve(MINIMAL, place)
        assert isinstance(found, SpecRejection)
        assert found.reason.name == reason


async def test_defaults_are_read_again_only_after_a_change(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []

    def counted(configmap: Any, mode: Any) -> Any:
        reads.append(configmap["data"][DEFAULTS_KEY])
        return defaults_of(configmap, mode)

    monkeypatch.setattr("finetune_operator.kube.settings_provider.defaults_of", counted)
    now = 0.0
    provider = SettingsProvider(server, Configuration(), clock=lambda: now)

    async def seeds() -> list[Any]:
        nonlocal now
        found = []
        for _ in range(2):
            now += 60
            found.append((await provider.settings("team")).namespace_defaults.get("dataset", {}).get("seed"))
        return found

    await server.create(config_map({"dataset": {"seed": 1}}))
    assert await seeds() == [1, 1]
    await server.patch(CONFIGMAP, "team", DEFAULTS, {"data": {DEFAULTS_KEY: "dataset: {seed: 2}"}})
    assert await seeds() == [2, 2]
    await server.delete(CONFIGMAP, "team", DEFAULTS)
    assert await seeds() == [None, None]
    await server.create(config_map("dataset: {seed: 2}"))
    assert await seeds() == [2, 2]
    assert len(reads) == 3


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: &a [1]\nb: *a", "line 2: has an alias (*a), which is not supported here; write its value."),
        ("#" * 32768 + "\n", "has more than 32,768 bytes; remove what is not needed."),
        ("[" * 16000, "line 1: is nested in more than 100 levels; remove levels."),
        ("[" + "1," * 16000 + "]", "line 1: has more than 2000 values; remove what is not needed."),
    ],
)
def test_defaults_that_could_stop_the_operator_are_rejected(text: str, problem: str) -> None:
    found = defaults_of(config_map(text), "cluster")
    assert found.problem == f"ConfigMap finetune-defaults, key spec.yaml: {problem}"

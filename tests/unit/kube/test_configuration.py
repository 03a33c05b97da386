"""The operator's configuration file, and the defaults of a namespace."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from api_server import application, serving
from finetune_operator.core.settings import PROGRAMS, Trainer
from finetune_operator.kube.client import ApiServer
from finetune_operator.kube.configuration import BadConfiguration, Configuration
from finetune_operator.kube.settings_provider import SettingsProvider
from finetune_operator.local.store import Store


def load(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> Configuration:
    file = tmp_path / "configuration.yaml"
    file.write_text(text)
    return Configuration.load(file, environment or {})


def test_everything_has_a_default() -> None:
    settings = Configuration.load(None, {}).settings(Trainer(), {})
    assert set(settings.images) == set(PROGRAMS)
    assert (settings.mode, settings.problem, settings.local_registry) == ("cluster", None, False)
    assert settings.entry_archive


def test_a_file_and_the_environment_are_put_together(tmp_path: Path) -> None:
    text = """
    images: {dataset: registry.example.com/dataset:1, evaluation: registry.example.com/evaluation:1}
    defaults: {storage: {storageClassName: nfs-csi}}
    environment: {HF_ENDPOINT: https://hub.example.com}
    progressSeconds: 5
    """
    found = load(tmp_path, text, {"RELATED_IMAGE_DATASET": "registry.example.com/dataset@sha256:2", "RELATED_IMAGE_MODEL": ""})
    settings = found.settings(None, {"training": {"workers": 2}})
    assert settings.images["dataset"] == "registry.example.com/dataset@sha256:2"
    assert settings.images["evaluation"] == "registry.example.com/evaluation:1"
    assert settings.operator_defaults == {"storage": {"storageClassName": "nfs-csi"}}
    assert settings.namespace_defaults == {"training": {"workers": 2}}
    assert (settings.environment, settings.progress_seconds) == ({"HF_ENDPOINT": "https://hub.example.com"}, 5)
    assert settings.trainer is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image: {}", "image: Extra inputs are not permitted"),
        ("workers: 0", "workers: Input should be greater than or equal to 1"),
        ("images: {trainer: x}", "images.trainer: there is no such program; they are dataset, model"),
        ("images: [", "cannot be read"),
        ("fsGroup: -1", "fsGroup: Input should be greater than or equal to 0"),
        (
            "environment: {" + ", ".join(f"A{number}: x" for number in range(17)) + "}",
            "environment: Dictionary should have at most 16",
        ),
        (f"environment: {{A: {'x' * 513}}}", "environment.A: String should have at most 512"),
        ("podLabels: {a: 'b c'}", "podLabels.a: String should match pattern"),
        ("podLabels: {a b: c}", "podLabels.a b.[key]: String should match pattern"),
        (
            "podLabels: {job-name: a}",
            "podLabels: labels of finetunerun.io/, jobset.sigs.k8s.io/, batch.kubernetes.io/, trainer.kubeflow.org/, and",
        ),
        (
            "podLabels: {app.kubernetes.io/managed-by: a}",
            "job-name and controller-uid, belong to controllers; choose another key",
        ),
        ("podLabels: {finetunerun.io/stage: training}", "podLabels: labels of finetunerun.io/"),
        (
            "podAnnotations: {jobset.sigs.k8s.io/jobset-name: a}",
            "podAnnotations: annotations of finetunerun.io/, jobset.sigs.k8s.io/",
        ),
        ("podAnnotations: {a b: c}", "podAnnotations.a b.[key]: String should match pattern"),
    ],
)
def test_a_mistake_is_told_with_its_field(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(BadConfiguration) as mistake:
        load(tmp_path, text)
    assert words in str(mistake.value)
    assert str(mistake.value).startswith(str(tmp_path))


def test_the_image_of_training_is_the_default_of_the_field(tmp_path: Path) -> None:
    found = load(
        tmp_path, "fsGroup: 1001\ndefaults: {training: {workers: 2}}", {"RELATED_IMAGE_TRAINING": "registry.example.com/t:1"}
    )
    settings = found.settings(Trainer(), {})
    assert settings.operator_defaults == {"training": {"image": "registry.example.com/t:1", "workers": 2}}
    assert settings.fs_group == 1001


def test_pods_are_not_injected_unless_the_configuration_says_so(tmp_path: Path) -> None:
    settings = Configuration().settings(None, {})
    assert settings.pod_labels == {"sidecar.istio.io/inject": "false"}
    assert settings.pod_annotations == {"sidecar.istio.io/inject": "false", "linkerd.io/inject": "disabled"}
    mesh = load(tmp_path, "podLabels: {}\npodAnnotations: {team: a}", {}).settings(None, {})
    assert (mesh.pod_labels, mesh.pod_annotations) == ({}, {"team": "a"})


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match="cannot be read"):
        Configuration.load(tmp_path / "nothing.yaml", {})


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ApiServer]:
    store = Store(tmp_path / "store.db")
    async with serving(application(store)) as address, aiohttp.ClientSession() as session:
        yield ApiServer(session, address)
    store.close()


def defaults(text: str) -> dict[str, Any]:
    metadata = {"name": "finetune-defaults", "namespace": "team"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"spec.yaml": text}}


async def test_a_namespace_without_defaults(server: ApiServer) -> None:
    settings = await SettingsProvider(server, Configuration()).settings("team")
    assert (settings.namespace_defaults, settings.problem) == ({}, None)


async def test_a_namespace_with_defaults_is_remembered_for_a_moment(server: ApiServer) -> None:
    now = 0.0
    settings_provider = SettingsProvider(server, Configuration(), lambda: now)
    assert (await settings_provider.settings("team")).namespace_defaults == {}
    await server.create(defaults("storage: {size: 9Gi}"))
    assert (await settings_provider.settings("team")).namespace_defaults == {}
    now = 16.0
    assert (await settings_provider.settings("team")).namespace_defaults == {"storage": {"size": "9Gi"}}
    assert (await settings_provider.settings("other")).namespace_defaults == {}


@pytest.mark.parametrize(("text", "words"), [("a: [", "no YAML"), ("- a", "expected the fields of a FineTuneRun's spec.")])
async def test_defaults_that_cannot_be_read_are_a_problem_of_the_runs(server: ApiServer, text: str, words: str) -> None:
    await server.create(defaults(text))
    problem = (await SettingsProvider(server, Configuration()).settings("team")).problem
    assert problem
    assert problem.startswith("ConfigMap finetune-defaults, key spec.yaml: ")
    assert words in problem


async def test_another_trainer_is_learned_at_once(server: ApiServer) -> None:
    settings_provider = SettingsProvider(server, Configuration())
    assert (await settings_provider.settings("team")).trainer is None
    settings_provider.learn(Trainer())
    assert (await settings_provider.settings("team")).trainer == Trainer()

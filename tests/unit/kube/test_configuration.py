"""The operator's configuration file, and the defaults of a namespace."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from api_server import application, serving
from finetune_operator import __version__
from finetune_operator.api.kubernetes_yaml import parse
from finetune_operator.core.images import OF_JOBS
from finetune_operator.core.resolve import SpecRejection, resolve
from finetune_operator.core.settings import Machine, Trainer
from finetune_operator.kube.client import ApiServer
from finetune_operator.kube.configuration import BadConfiguration, Configuration
from finetune_operator.kube.settings_provider import SettingsProvider
from finetune_operator.local.home import Home
from finetune_operator.local.platform import local_settings
from finetune_operator.local.store import Store


def load(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> Configuration:
    file = tmp_path / "configuration.yaml"
    file.write_text(text)
    return Configuration.load(file, environment or {})


def test_everything_has_a_default() -> None:
    settings = Configuration.load(None, {}).settings(Trainer(), {})
    assert settings.images == {name: f"finetune-{name}:{__version__}" for name in OF_JOBS}
    assert (settings.mode, settings.problem, settings.local_registry) == ("cluster", None, False)
    assert settings.bundle_archive
    assert settings.engine_check is True


def test_hosts_that_are_not_listed_have_no_limit(tmp_path: Path) -> None:
    assert Configuration().settings(Trainer(), {}).allowed_hosts == {}
    listed = load(tmp_path, "allowedHosts: {registries: ['*.svc'], objectStores: []}")
    assert listed.settings(Trainer(), {}).allowed_hosts == {"registries": ("*.svc",), "objectStores": ()}


def test_private_addresses_are_allowed_and_downloads_limited_by_default(tmp_path: Path) -> None:
    settings = Configuration().settings(Trainer(), {})
    assert (settings.private_addresses, settings.download_limits) == ("allowed", {"dataset": 200 << 30, "model": 2 << 40})
    text = "{allowedHosts: {hosts: [a.example.com], privateAddresses: false}, downloadLimits: {dataset: 1500m, model: 5Gi}}"
    changed = load(tmp_path, text).settings(Trainer(), {})
    assert (changed.private_addresses, changed.download_limits) == ("listed", {"dataset": 2, "model": 5 << 30})
    assert changed.allowed_hosts == {"hosts": ("a.example.com",)}
    local = local_settings(Home(tmp_path), Machine(gpus=8, cpus=8, memory_bytes=1 << 40))
    assert (local.private_addresses, local.download_limits) == (None, {})


def test_the_engine_check_can_be_turned_off_and_local_runs_have_none(tmp_path: Path) -> None:
    assert load(tmp_path, "engineCheck: false").settings(Trainer(), {}).engine_check is False
    machine = Machine(gpus=8, cpus=8, memory_bytes=1 << 40)
    assert local_settings(Home(tmp_path), machine).engine_check is False


@pytest.mark.parametrize("allowed", [True, False])
def test_local_runs_have_code_in_task_files_only_if_the_command_allows_it(allowed: bool, tmp_path: Path) -> None:
    machine = Machine(gpus=8, cpus=8, memory_bytes=1 << 40)
    settings = local_settings(Home(tmp_path), machine, allow_code=allowed)
    resolved = resolve({"dataset": {"uri": "/data/rows.jsonl"}, "model": {"uri": "/data/model"}}, settings)
    assert not isinstance(resolved, SpecRejection)
    assert resolved.get("taskCode", True) is allowed
    assert local_settings(Home(tmp_path), machine).allowed.task_code is False


def test_the_environment_overrides_the_images_of_the_file(tmp_path: Path) -> None:
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


_KEY_FORM = "write a label's key, <name> or <prefix>/<name>: a name of at most 63 letters, digits, '-', '_' and '.', and a prefix that is a DNS name in lower case"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image: {}", "image: is not a field of this resource; remove it"),
        ("allowedHosts: {hubs: ['https://a']}", 'allowedHosts.hubs[0]: is "https://a"; write a host name, *.<domain>, or an IP address, without scheme and port'),
        ("allowedHosts: {hub: []}", "allowedHosts.hub: is not a field of this resource; remove it"),
        ("allowedHosts: {privateAddresses: [10.0.0.1]}", 'allowedHosts.privateAddresses: is ["10.0.0.1"]; use true or false'),
        ("downloadLimits: {dataset: 0}", "downloadLimits.dataset: not a quantity above 0; "),
        ("downloadLimits: {data: 5}", "downloadLimits.data: is not a field of this resource; remove it"),
        ("workers: 0", "workers: is 0; use a value greater than or equal to 1"),
        ("workers: many", 'workers: is "many"; use a whole number'),
        ("resyncSeconds: .5", "resyncSeconds: is 0.5; use a value greater than or equal to 1"),
        ("images: {trainer: x}", "images: trainer is not an image of a program; use one of dataset, model, evaluation, evaluation-cuda, registration, training,"),
        ("images: {dataset-cuda: x}", "images: dataset-cuda is not an image of a program"),
        ("images: {dataset: 'a b'}", 'images.dataset: is "a b"; write the name of an image, <registry>/<repository>:<tag>, without https:// and spaces, the repository in lower case'),
        ("images: {dataset: ''}", 'images.dataset: is ""; use at least 1 character'),
        ("images: {dataset: null}", "images.dataset: is null; use a string, or remove it"),
        ("images: dataset", 'images: is "dataset"; use an object'),
        ("images: [", "line 2: not YAML: "),
        ("- a", "is not an object; write the keys of the configuration"),
        ("namespaces: team", 'namespaces: is "team"; use a list'),
        ("namespaces: [team, Team_B]", 'namespaces[1]: is "Team_B"; write a name of lower-case letters, digits and'),
        ("namespaces: [5]", "namespaces[0]: is 5; use a string"),
        ("fsGroup: -1", "fsGroup: is -1; use a value greater than or equal to 0"),
        ("environment: {" + ", ".join(f"A{number}: x" for number in range(17)) + "}", "; use at most 16 items"),
        ("environment: {A: 5}", "environment.A: is 5; use a string"),
        (f"environment: {{A: {'x' * 513}}}", f'environment.A: is "{"x" * 76}...; use at most 512 characters'),
        ("podLabels: {a: 'b c'}", "podLabels.a: is \"b c\"; write a label's value: at most 63 letters"),
        ("podLabels: {a b: c}", f'podLabels: has the key "a b"; {_KEY_FORM}'),
        ("podLabels: {job-name: a}", "podLabels: labels of finetunerun.io/, jobset.sigs.k8s.io/, batch.kubernetes.io/, trainer.kubeflow.org/, and"),
        ("podLabels: {app.kubernetes.io/managed-by: a}", "job-name and controller-uid, belong to controllers; choose another key"),
        ("podLabels: {finetunerun.io/stage: training}", "podLabels: labels of finetunerun.io/"),
        ("podAnnotations: {jobset.sigs.k8s.io/jobset-name: a}", "podAnnotations: annotations of finetunerun.io/, jobset.sigs.k8s.io/"),
        ("podAnnotations: {a b: c}", f'podAnnotations: has the key "a b"; {_KEY_FORM}'),
        ("defaults: {training: {epoch: 3}}", "defaults.training.epoch: is not a field of this resource; remove it"),
        ("defaults: {training: {epochs: many}}", 'defaults.training.epochs: is "many"; use a whole number'),
        ("defaults: {training: {epochs: true}}", "defaults.training.epochs: is true; use a number"),
        ("defaults: {training: {engineArgs: {a: 1}}}", "defaults.training.engineArgs: this release does not support this field; remove it"),
        ("defaults: {suspend: true}", "defaults.suspend: has no effect as a default, because it controls a single run; remove it"),
        ("defaults: {model: {uri: /models/a}}", "defaults.model.uri: /models/a is a path of one machine, which no pod can read; use a hub id, hf://, oci://, s3:// or pvc://"),
        ("defaults: {training: {env: [{name: PET_X, value: a}]}}", "defaults.training.env[0].name: names that begin with PET_ or FINETUNE_ belong to"),
        ("defaults: 5", "defaults: is 5; use an object"),
        ("defaults: {training: 5}", "defaults.training: is 5; use an object"),
    ],
)  # fmt: skip
def test_an_error_names_its_field(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadConfiguration) as mistake:
        load(tmp_path, text)
    assert message in str(mistake.value)
    assert str(mistake.value).startswith(str(tmp_path))
    assert not re.search(r"Input should|Extra inputs|should have|errors.pydantic", str(mistake.value))


def test_a_key_without_a_value_sets_nothing(tmp_path: Path) -> None:
    text = "".join(f"{field.alias}:\n" for field in Configuration.model_fields.values())
    assert load(tmp_path, text) == Configuration()
    assert load(tmp_path, "# comments only") == Configuration()


def test_an_image_of_the_environment_is_checked(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration) as mistake:
        load(tmp_path, "{}", {"RELATED_IMAGE_MODEL": "a b"})
    assert str(mistake.value) == (
        'RELATED_IMAGE_MODEL: is "a b"; write the name of an image, <registry>/<repository>:<tag>, without https:// and spaces, the repository in lower case'
    )


CPU, CUDA = "registry.example.com/cpu:1", "registry.example.com/cuda:1"


def resolved(configuration: Configuration, spec: dict[str, Any]) -> Any:
    return resolve({"dataset": {"uri": "org/data"}, **spec}, configuration.settings(Trainer(), {}))


@pytest.mark.parametrize(
    ("images", "gpus", "training", "evaluation"),
    [
        ("{}", 1, None, "finetune-evaluation-cuda:"),
        ("{}", 0, None, "finetune-evaluation:"),
        (f"{{training: '{CPU}', training-cuda: '{CUDA}', evaluation: '{CPU}', evaluation-cuda: '{CUDA}'}}", 1, CUDA, CUDA),
        (f"{{training: '{CPU}', training-cuda: '{CUDA}', evaluation: '{CPU}', evaluation-cuda: '{CUDA}'}}", 0, CPU, CPU),
        (f"{{training-cuda: '{CUDA}', evaluation-cuda: '{CUDA}'}}", 0, CUDA, CUDA),
        (f"{{training: '{CPU}'}}", 1, None, "finetune-evaluation-cuda:"),
    ],
)
def test_the_gpus_of_a_stage_choose_its_image(tmp_path: Path, images: str, gpus: int, training: str, evaluation: str) -> None:
    found = resolved(load(tmp_path, f"images: {images}"), {"training": {"gpusPerWorker": gpus}, "evaluation": {"gpus": gpus}})
    assert found["spec"]["training"].get("image") == training
    assert found["images"]["evaluation"].startswith(evaluation)
    assert set(found["images"]) - {"training"} == {"dataset", "model", "evaluation", "registration"}
    assert found["images"].get("training") == training
    assert ("training.image" in found["origins"].get("operator", ())) == (training is not None)


def test_a_run_whose_evaluation_has_no_image_for_gpus_is_rejected_before_it_starts(tmp_path: Path) -> None:
    images = f"images: {{evaluation: '{CPU}'}}\n"
    found = resolved(load(tmp_path, images), {"evaluation": {"gpus": 1}})
    assert isinstance(found, SpecRejection)
    assert found.reason.name == "NotPossibleHere"
    assert found.message == (
        "spec.evaluation.gpus: 1 is not possible here, because the operator's configuration sets images.evaluation and not"
        " images.evaluation-cuda; remove it."
    )
    of_operator = resolved(load(tmp_path, f"{images}defaults: {{evaluation: {{gpus: 1}}}}"), {})
    assert isinstance(of_operator, SpecRejection)
    assert of_operator.message.startswith("the operator's configuration, defaults.evaluation.gpus: 1 is not possible here")
    assert resolved(load(tmp_path, images), {"evaluation": {"gpus": 0}})["images"]["evaluation"] == CPU


def test_an_image_of_a_run_or_of_the_defaults_precedes_that_of_the_configuration(tmp_path: Path) -> None:
    environment = {"RELATED_IMAGE_TRAINING_CUDA": CUDA}
    own = load(tmp_path, "fsGroup: 1001\ndefaults: {training: {image: 'registry.example.com/own:1'}}", environment)
    assert resolved(own, {})["spec"]["training"]["image"] == "registry.example.com/own:1"
    assert own.settings(None, {}).fs_group == 1001
    found = resolved(load(tmp_path, "{}", environment), {"training": {"image": "registry.example.com/run:1"}})
    assert found["spec"]["training"]["image"] == "registry.example.com/run:1"
    assert resolved(load(tmp_path, "{}", environment), {})["spec"]["training"]["image"] == CUDA


def test_pods_get_no_sidecar_unless_it_is_configured(tmp_path: Path) -> None:
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


async def test_the_defaults_of_a_namespace_are_cached(server: ApiServer) -> None:
    now = 0.0
    settings_provider = SettingsProvider(server, Configuration(), lambda: now)
    assert (await settings_provider.settings("team")).namespace_defaults == {}
    await server.create(defaults("storage: {size: 9Gi}"))
    assert (await settings_provider.settings("team")).namespace_defaults == {}
    now = 16.0
    assert (await settings_provider.settings("team")).namespace_defaults == {"storage": {"size": "9Gi"}}
    assert (await settings_provider.settings("other")).namespace_defaults == {}


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "not YAML"), ("- a", "not a mapping; write the fields of a FineTuneRun's spec.")]
)
async def test_invalid_defaults_are_a_problem_of_the_runs(server: ApiServer, text: str, message: str) -> None:
    await server.create(defaults(text))
    problem = (await SettingsProvider(server, Configuration()).settings("team")).problem
    assert problem
    assert problem.startswith("ConfigMap finetune-defaults, key spec.yaml: ")
    assert message in problem


@pytest.mark.parametrize(
    ("text", "value"),
    [("5e-1", 0.5), (".5", 0.5), ("'5e-1'", 0.5), ("1e3", 1000), ("0o17", 15), ("017", 15), ("0x10", 16), ("-1_000", -1000)],
)
async def test_a_bound_in_the_defaults_is_the_number_that_kubernetes_reads(
    tmp_path: Path, server: ApiServer, text: str, value: float
) -> None:
    gate = f"gate: {{requirements: [{{metric: arc_easy.acc, max: {text}}}]}}"
    await server.create(defaults(gate))
    in_the_namespace = await SettingsProvider(server, Configuration()).settings("team")
    in_the_operator = load(tmp_path, f"defaults: {{{gate}}}").settings(Trainer(), {})
    for settings in (in_the_namespace, in_the_operator):
        found = resolve({"dataset": {"uri": "org/data"}}, settings)
        assert not isinstance(found, SpecRejection), found
        (requirement,) = found["spec"]["gate"]["requirements"]
        assert (requirement["max"], type(requirement["max"])) == (value, float)


@pytest.mark.parametrize(
    ("text", "problem"),
    [("1:30", 'is "1:30"; use a number'), ("2026-11-21", 'is "2026-11-21"; use a number'), ("a", 'is "a"; use a number')],
)
async def test_a_bound_that_is_not_a_number_is_rejected_before_the_run_starts(server: ApiServer, text: str, problem: str) -> None:
    await server.create(defaults(f"gate: {{requirements: [{{metric: arc_easy.acc, max: {text}}}]}}"))
    found = resolve({"dataset": {"uri": "org/data"}}, await SettingsProvider(server, Configuration()).settings("team"))
    assert isinstance(found, SpecRejection)
    assert found.message == f"ConfigMap finetune-defaults, gate.requirements[0].max: {problem}."


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("training: {unmask: %s}", "yes", True), ("training: {unmask: %s}", "off", False), ("storage: {size: %s}", "1e9", 1_000_000_000),
        ("model: {revision: %s}", "2026-11-21", "2026-11-21"), ("model: {revision: %s}", "1:30", "1:30"),
        ("cleanup: {ttlAfterFinished: %s}", "90s", "90s"),
    ],
)  # fmt: skip
async def test_other_defaults_are_what_kubernetes_reads(server: ApiServer, field: str, text: str, value: Any) -> None:
    await server.create(defaults(field % text))
    found = resolve({"dataset": {"uri": "org/data"}}, await SettingsProvider(server, Configuration()).settings("team"))
    assert not isinstance(found, SpecRejection), found
    (section,) = parse(field % text)
    (name,) = parse(field % text)[section]
    assert found["spec"][section][name] == value


async def test_a_namespace_whose_defaults_are_comments(server: ApiServer) -> None:
    await server.create(defaults("# nothing yet"))
    settings = await SettingsProvider(server, Configuration()).settings("team")
    assert (settings.namespace_defaults, settings.problem) == ({}, None)


async def test_another_trainer_takes_effect_at_once(server: ApiServer) -> None:
    settings_provider = SettingsProvider(server, Configuration())
    assert (await settings_provider.settings("team")).trainer is None
    settings_provider.set_trainer(Trainer())
    assert (await settings_provider.settings("team")).trainer == Trainer()

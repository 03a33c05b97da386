"""TrainJobs before Kubeflow Trainer itself: its models, its API servers, and a cluster whose Trainer comes late and is upgraded."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.operators import install_rights, kubeconfig
from control_planes import built, connected, skip_without_go
from controlplane.api import Api, RefusedError
from controlplane.api import eventually as soon
from controlplane.binaries import find
from controlplane.cluster import ControlPlane
from controlplane.trainer import install
from finetune_contract.codec import encode
from finetune_contract.result import Result, termination_message
from finetune_operator.api.kinds import FINETUNERUN, POD, TRAINJOB
from finetune_operator.api.reasons import TRAINER_CHANGED
from finetune_operator.core.blockers import reason_of_rejection
from finetune_operator.core.observation import Rejection
from finetune_operator.core.settings import Trainer
from finetune_operator.core.times import stamp
from finetune_operator.core.trainjob_reports import RHOAI_STATUS
from finetune_operator.kube.client import ApiServer
from finetune_operator.kube.discovery import detect_trainer
from golden import FOLDER
from trainer_models.definitions import definition
from trainer_models.environments import round_trip
from waiting import eventually
from world import OUTPUTS

Object = dict[str, Any]
pytestmark = pytest.mark.timeout(600)

SHAPES = {
    "2.1": Trainer("podTemplateOverrides", pod_security=False, grace_period=False),
    "2.2": Trainer("runtimePatches", pod_security=True, grace_period=False),
    "2.3": Trainer("runtimePatches", pod_security=True, grace_period=True),
}


def jobs(release: str) -> list[Object]:
    """The golden TrainJobs for a release."""
    found = [yaml.safe_load(path.read_text()) for path in sorted((FOLDER / "trainjobs").glob(f"*-{release}.yaml"))]
    assert len(found) == 7
    return found


@pytest.mark.parametrize(("models", "release"), [("2.1", "2.1"), ("2.3", "2.2"), ("2.3", "2.3")])
def test_trainer_s_models_read_and_write_what_we_make(models: str, release: str) -> None:
    assert round_trip(models, jobs(release)) == jobs(release)


def test_the_models_drop_what_they_do_not_know() -> None:
    """Why one library is not enough, and what the test above would show."""
    (older, *_), (newer, *_) = round_trip("2.3", jobs("2.1")), round_trip("2.1", jobs("2.3"))
    assert set(jobs("2.1")[0]["spec"]) - set(older["spec"]) == {"podTemplateOverrides"}
    assert set(jobs("2.3")[0]["spec"]) - set(newer["spec"]) == {"runtimePatches"}


def try_out(api: Api, job: Object, namespace: str) -> Object:
    """Return what the API server would store, by a dry run that rejects unknown fields."""
    job = copy.deepcopy(job)
    job["metadata"]["namespace"] = namespace
    job["spec"]["runtimeRef"]["name"] = "torch-distributed"  # the one that is there
    path = api.path(job["apiVersion"], job["kind"], None, namespace)
    return api.call("POST", path, job, fieldValidation="Strict", dryRun="All")


def holds(stored: Any, wanted: Any) -> bool:
    """Return whether the stored object has everything that was requested; it may also have defaults."""
    if isinstance(wanted, dict):
        return isinstance(stored, dict) and all(key in stored and holds(stored[key], value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(stored, list) and len(stored) == len(wanted) and all(map(holds, stored, wanted))
    return bool(stored == wanted)


def test_the_api_server_with_trainer_takes_its_own_shape_whole_and_no_other(api: Api, namespace: str, generation: str) -> None:
    served = ("2.1",) if generation == "2.1" else ("2.2", "2.3")
    for release in SHAPES:
        for job in jobs(release):
            if release in served:
                wanted = {key: value for key, value in job["spec"].items() if key != "runtimeRef"}
                assert holds(try_out(api, job, namespace)["spec"], wanted)
            else:
                with pytest.raises(RefusedError, match='unknown field "spec') as rejected:
                    try_out(api, job, namespace)
                assert reason_of_rejection(Rejection(str(rejected.value))) == (TRAINER_CHANGED, True)


@pytest.fixture(scope="module")
def own_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane without Trainer that nobody else uses: what is defined here is for the whole cluster."""
    skip_without_go()
    plane = ControlPlane(tmp_path_factory.mktemp("plane"))
    plane.up(built(lambda: find(None)), None)
    yield plane
    plane.down()


@pytest.fixture
async def untrained(own_plane: ControlPlane) -> AsyncIterator[tuple[Api, ApiServer]]:
    """The same without any definition of Trainer's, as its administrator: by both clients."""
    with own_plane.api() as api:
        api.delete(definition("2.1"))
        async with connected(own_plane) as server:
            await eventually(lambda: detect_trainer(server), lambda trainer: trainer is None, 30)
            yield api, server


@pytest.mark.parametrize(("release", "trainer"), SHAPES.items())
async def test_the_schema_is_recognized_from_the_definition_of_each_release(
    untrained: tuple[Api, ApiServer], release: str, trainer: Trainer
) -> None:
    api, server = untrained
    install(api, [definition(release)])
    assert await eventually(lambda: detect_trainer(server), lambda found: found is not None, 30) == trainer
    for job in jobs(release):
        assert try_out(api, job, "default")["spec"]["trainer"] == job["spec"]["trainer"]
    if release == "2.2":
        with pytest.raises(RefusedError, match=r'unknown field "spec\S+terminationGracePeriodSeconds"'):
            try_out(api, jobs("2.3")[0], "default")


_OPERATOR = """
import asyncio, logging, sys
from pathlib import Path
from finetune_operator.kube.configuration import Configuration
from finetune_operator.kube.credentials import load_credentials
from finetune_operator.kube.process import Wiring, operate
logging.basicConfig(level=logging.INFO)
credentials, configuration = load_credentials(Path(sys.argv[1]), None), Configuration.load(Path(sys.argv[2]))
asyncio.run(operate(Wiring(credentials, configuration, host="127.0.0.1", port=0, probe_seconds=0.5)))
"""
"""The operator as its command starts it, but looking twice a second at what the cluster serves."""


@contextlib.contextmanager
def operating(plane: ControlPlane, api: Api, namespace: str, folder: Path) -> Iterator[None]:
    """An operator with exactly its rights."""
    install_rights(api, namespace)
    soon(lambda: bool(api.get("v1", "ServiceAccount", "default", namespace)), "the namespace has a ServiceAccount")
    config = kubeconfig(plane, api.token(namespace, "finetune-operator"), namespace, folder / "kubeconfig")
    configuration = folder / "configuration.yaml"
    configuration.write_text(
        yaml.safe_dump({"namespaces": [namespace], "progressSeconds": 1, "retrySeconds": 1, "engineCheck": False}),
        encoding="utf-8",
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", _OPERATOR, config, configuration], stdout=log, stderr=log, cwd=folder)
    try:
        yield
        assert process.poll() is None, (folder / "log").read_text(encoding="utf-8")[-3000:]
    finally:
        process.kill()
        process.wait()


class Life:
    """A run on a cluster without a node: this test ends its pods."""

    def __init__(self, api: Api, server: ApiServer, namespace: str) -> None:
        self.api, self.server, self.namespace = api, server, namespace

    async def status(self) -> Object:
        """Return the status of the run."""
        status: Object = (await self.server.get(FINETUNERUN, self.namespace, "demo")).get("status") or {}
        return status

    async def stalled(self) -> tuple[str, str]:
        """What it waits for."""
        conditions = {one["type"]: one for one in (await self.status()).get("conditions") or ()}
        found = conditions.get("Stalled") or {"status": "Unknown"}
        return (found["reason"], found["message"]) if found["status"] == "True" else ("", "")

    async def progress(self) -> Object:
        """How far it is."""
        found: Object = (await self.status()).get("progress") or {}
        return found

    async def uids(self) -> list[str]:
        """Of the children that the run knows."""
        return [(one.get("child") or {}).get("uid", "") for one in (await self.status()).get("stages") or ()]

    async def done(self, stage: str) -> None:
        """The pod of a stage does its work."""
        labels = {"finetunerun.io/run": "demo", "finetunerun.io/stage": stage}
        page = await eventually(lambda: self.server.list(POD, self.namespace, labels=labels), lambda page: bool(page.items), 60)
        (pod,) = page.items
        job = self.api.get("batch/v1", "Job", pod["metadata"]["labels"]["batch.kubernetes.io/job-name"], self.namespace)
        attempt = job["metadata"]["labels"]["finetunerun.io/attempt"]
        digest = job["metadata"]["annotations"]["finetunerun.io/inputs-digest"]
        result = Result(stage, attempt, digest, "Succeeded", metrics={"seconds": 1.0}, outputs=encode(OUTPUTS[stage]))
        ended = {"exitCode": 0, "reason": "Completed", "message": termination_message(result)}
        container = {
            "name": "stage",
            "image": "i",
            "imageID": "i",
            "ready": False,
            "restartCount": 0,
            "state": {"terminated": ended},
        }
        self.api.patch(pod, {"status": {"phase": "Succeeded", "containerStatuses": [container]}}, "status")

    async def trainjob(self, attempt: int) -> Object:
        """The TrainJob of an attempt, as soon as it is there."""
        name = f"demo-train-1-{attempt}"

        async def names() -> list[str]:
            return [one["metadata"]["name"] for one in (await self.server.list(TRAINJOB, self.namespace)).items]

        await eventually(names, lambda found: name in found, 60)
        return await self.server.get(TRAINJOB, self.namespace, name)


async def test_a_run_waits_for_trainer_and_each_attempt_has_the_shape_of_its_time(
    own_plane: ControlPlane, untrained: tuple[Api, ApiServer], tmp_path: Path
) -> None:
    api, server = untrained
    namespace = api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "late"}})["metadata"]["name"]
    life = Life(api, server, namespace)
    with operating(own_plane, api, namespace, tmp_path):
        spec = {"dataset": {"uri": "org/data"}, "model": {"uri": "org/tiny"}, "retry": {"lost": 5}}
        await server.create(
            {
                "apiVersion": "finetunerun.io/v1alpha1",
                "kind": "FineTuneRun",
                "metadata": {"name": "demo", "namespace": namespace},
                "spec": spec,
            }
        )
        await asyncio.gather(life.done("dataset"), life.done("model"))
        await life.done("tokenization")
        _, message = await eventually(life.stalled, lambda found: found[0] == "TrainerNotInstalled", 60)
        assert "Install Kubeflow Trainer 2.1 or later" in message

        install(api, [definition("2.0")])
        _, message = await eventually(life.stalled, lambda found: found[0] == "TrainerUnsupported", 60)
        assert "Upgrade Kubeflow Trainer to 2.1 or later" in message
        assert (await server.list(TRAINJOB, namespace)).items == [], "nothing is made in a shape that would lose its pods' labels"

        install(api, [definition("2.1")])
        job = await life.trainjob(1)
        assert job["spec"]["podTemplateOverrides"][0]["metadata"]["labels"]["finetunerun.io/run"] == "demo"
        await eventually(life.stalled, lambda found: found == ("", ""), 30)

        lost = 0
        for release, grace in (("2.2", None), ("2.3", 60)):
            install(api, [definition(release)])
            found: list[int | None] = []
            # Until the operator has looked, attempts have the shape of before: a rejected one is not lost, and 2.3 accepts that of 2.2.
            while grace not in found:
                lost += 1
                await eventually(life.uids, lambda uids, known=job["metadata"]["uid"]: known in uids, 30)  # type: ignore[misc]
                await server.delete(TRAINJOB, namespace, f"demo-train-1-{lost}")
                job = await life.trainjob(lost + 1)
                (replicated,) = job["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
                found.append(replicated["template"]["spec"]["template"]["spec"].get("terminationGracePeriodSeconds"))
        stages = {stage["name"]: stage for stage in (await life.status())["stages"]}
        assert stages["training"]["failures"] == {"Lost": lost}

        # Trainer's status server reports, then OpenShift AI's controller does.
        reported, later = (stamp(datetime.now(UTC) - timedelta(seconds=seconds)) for seconds in (20, 10))
        metrics = [{"name": "loss", "value": "1.5"}, {"name": "current_step", "value": "3"}]
        status = {"progressPercentage": 42, "estimatedRemainingSeconds": 90, "metrics": metrics, "lastUpdatedTime": reported}
        api.patch(job, {"status": {"trainerStatus": status}}, "status")
        progress = await eventually(life.progress, bool, 30)
        told = {"stage": "training", "percent": 42, "etaSeconds": 90, "step": 3, "loss": 1.5, "lastReport": reported}
        assert progress == told
        annotation = json.dumps({"progressPercentage": 50, "lastUpdatedTime": later})
        api.patch(job, {"metadata": {"annotations": {RHOAI_STATUS: annotation}}})
        progress = await eventually(life.progress, lambda found: found != told, 30)
        assert progress == {"stage": "training", "percent": 50, "lastReport": later}

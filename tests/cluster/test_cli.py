"""``finetune`` on a real control plane, as somebody with the rights that ``manifests/base`` gives to people who may edit runs."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.workdir import CommandResult, Workdir
from cluster.conftest import Connect
from cluster.kubelet_logs import LogNode
from cluster.operators import install_rights, kubeconfig
from cluster.sites import SPEC, Object, Site, site_at
from controlplane.api import Api
from controlplane.cluster import ControlPlane
from finetune_operator.api.kinds import FINETUNERUN, POD
from finetune_operator.core import naming
from finetune_operator.core.run import Run
from finetune_operator.kube.client import ApiServer
from waiting import eventually

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.parametrize("control_plane", ["2.1"], indirect=True),
]
PODS = [
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "get"]},
    {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
]


@dataclass(frozen=True)
class ClusterDesk(Workdir):
    """A folder with a kubeconfig, of whoever works in it."""

    namespace: str = ""

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, "KUBECONFIG": str(self.folder / "kubeconfig")}

    async def say(self, *arguments: str, **environment: str) -> CommandResult:
        """Run a command in the namespace, while the node of the test continues."""
        return await asyncio.to_thread(self.finetune, *arguments, environment=environment)

    async def here(self, *arguments: str) -> CommandResult:
        """The same in the namespace of ``-n``."""
        return await self.say(*arguments, "-n", self.namespace)


@pytest.fixture
def workdir(control_plane: ControlPlane, api: Api, namespace: str, tmp_path: Path) -> ClusterDesk:
    """The desk of a scientist."""
    install_rights(api, namespace)
    person = {"kind": "ServiceAccount", "name": "scientist", "namespace": namespace}
    named = {"metadata": {"name": "scientist", "namespace": namespace}}
    api.create({"apiVersion": "v1", "kind": "ServiceAccount", **named})
    rbac = "rbac.authorization.k8s.io"
    api.create({"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": {"name": "pods", "namespace": namespace}, "rules": PODS})
    for kind, role in (("ClusterRole", "finetunerun-viewer"), ("ClusterRole", "finetunerun-editor"), ("Role", "pods")):
        api.create({
            "apiVersion": f"{rbac}/v1", "kind": "RoleBinding", "metadata": {"name": role, "namespace": namespace},
            "roleRef": {"apiGroup": rbac, "kind": kind, "name": role}, "subjects": [person],
        })  # fmt: skip
    token = api.token(namespace, "scientist")
    api.close()  # a server closes a connection that is idle for long: the next call opens another
    folder = tmp_path / "desk"
    folder.mkdir()
    kubeconfig(control_plane, token, namespace, folder / "kubeconfig")
    return ClusterDesk(folder, namespace)


@pytest.fixture
async def site(
    control_plane: ControlPlane, connect: Connect, workdir: ClusterDesk, tmp_path: Path, tiny_model: Path
) -> AsyncIterator[Site]:
    async with connect() as cluster, site_at(control_plane, cluster, workdir.namespace, tmp_path, tiny_model) as site:
        yield site


@pytest.fixture
async def administrator(connect: Connect) -> AsyncIterator[ApiServer]:
    async with connect() as cluster:
        yield cluster


async def ended(process: subprocess.Popen[str], seconds: float = 240) -> CommandResult:
    out, err = await asyncio.to_thread(process.communicate, timeout=seconds)
    return CommandResult(process.returncode, out, err)


async def test_a_run_from_its_file_to_its_deletion(site: Site, workdir: ClusterDesk) -> None:
    slow = {**SPEC, "training": {**SPEC["training"], "epochs": 6}}
    workdir.write(slow, labels={"finetunerun.io/experiment": "trial"}, annotations={"argocd.argoproj.io/tracking-id": "x"})
    where = ("-n", workdir.namespace)
    async with site.operator():
        run = workdir.start("run", "run.yaml", *where)
        await eventually(lambda: _names(site), lambda names: names == ["demo"], 120)
        log = workdir.start("logs", "demo", "-f", "--stage", "training", "--context", "here")
        watch = workdir.start("get", "-w", *where)
        await eventually(lambda: _progress(site), lambda step: step > 0, 120)

        # -- suspended and resumed
        result = await workdir.here("suspend", "demo")
        assert (result.code, result.err) == (
            0,
            f"demo: suspension requested; follow it with: finetune get -w demo -n {workdir.namespace}\n",
        )
        result = await ended(run)
        assert result.code == 130
        assert "training: running" in result.out
        assert f"demo: suspended; continue it with: finetune resume demo -n {workdir.namespace}\n" in result.err
        assert re.search(r"^demo +osft +Suspended", (await workdir.here("get")).out, re.MULTILINE)
        assert (
            await workdir.here("resume", "demo")
        ).err == f"demo: resume requested; follow it with: finetune get -w demo -n {workdir.namespace}\n"
        again = await ended(workdir.start("run", "run.yaml", *where), 240)
        assert again.code == 0, again.out + again.err
        assert "gate passed" in again.out
        assert "model       pvc://demo-workspace/runs/demo-" in again.out

        # -- what was seen meanwhile
        result = await ended(log)
        assert result.code == 0, result.err
        printed = await workdir.here("logs", "demo", "--stage", "training")
        assert result.out.splitlines()[-1:] == printed.out.splitlines()[-1:], printed.err
        assert re.search(r"^ *\d+% step \d+/\d+ · loss", result.out, re.MULTILINE)
        watch.send_signal(signal.SIGINT)
        result = await ended(watch)
        assert result.code == 130
        assert "Traceback" not in result.err
        for phase in ("Training", "Suspended", "Succeeded"):
            assert re.search(rf"^demo +\S* +{phase}", result.out, re.MULTILINE), result.out

        # -- what there is to read
        found = (await workdir.here("get", "demo", "-o", "json")).object
        assert found["status"]["phase"] == "Succeeded"
        page = (await workdir.here("describe", "demo")).out
        assert f"namespace {workdir.namespace} of context here" in page
        assert f"events: you may not list events in namespace {workdir.namespace} of context here; ask for the role view." in page
        assert "training loss" in page
        assert (await workdir.here("get", "-o", "wide")).out.split("\n")[0].split()[-3:] == ["ETA", "QUEUE", "MESSAGE"]
        assert (await workdir.here("logs", "demo", "--rank", "all")).out.startswith("[rank 0] ")

        # -- once more in part, and the same under another name
        result = await workdir.here("rerun", "demo", "--from", "gate", "--id", "softer", "--set", "gate=null", "--wait")
        assert (result.code, result.err) == (0, "")
        assert "\nmodel       pvc://demo-workspace/runs/demo-" in result.out
        status = await site.status()
        assert status["rerunId"] == "softer"
        assert "finishedAt" in status
        result = await workdir.here("rerun", "demo", "--from", "registration")
        assert (result.code, result.err) == (
            0,
            f"demo: rerun from registration requested; follow it with: finetune get -w demo -n {workdir.namespace}\n",
        )
        printed = yaml.safe_load((await workdir.here("clone", "demo", "--set", "training.epochs=1", "-o", "yaml")).out)
        assert printed["metadata"] == {"name": "demo-2", "labels": {"finetunerun.io/experiment": "trial"}}
        assert set(printed) == {"apiVersion", "kind", "metadata", "spec"}
        assert "rerun" not in printed["spec"]
        result = await workdir.here("clone", "demo", "--name", "other", "--set", "suspend=true")
        assert (result.code, result.err) == (
            0,
            f"other: created in namespace {workdir.namespace} of context here; follow it with: finetune get -w other -n {workdir.namespace}\n",
        )
        assert (await workdir.here("get", "-o", "name")).out == "".join(
            f"finetunerun.finetunerun.io/{name}\n" for name in ("demo", "other")
        )

    result = await workdir.here("delete", "demo")
    assert result.code == 0
    assert result.out.startswith("demo: deleted; its files remain on PersistentVolumeClaim demo-workspace in runs/demo-")
    assert (await workdir.here("delete", "other")).code == 0
    assert (
        await workdir.here("get")
    ).err == f"namespace {workdir.namespace} of context here: no runs; create a file for one with: finetune init\n"


async def _names(site: Site) -> list[str]:
    return [run["metadata"]["name"] for run in (await site.cluster.list(FINETUNERUN, site.namespace)).items]


async def _progress(site: Site) -> int:
    progress = (await site.status()).get("progress") or {}
    return int(progress.get("step") or 0) if progress.get("stage") == "training" else 0


# -- logs, where the network is bad ------------------------------------------------------------------------------------


async def test_logs_continue_after_broken_connections_and_into_the_next_attempt(
    control_plane: ControlPlane, api: Api, administrator: ApiServer, workdir: ClusterDesk
) -> None:
    await administrator.create(_manifest(workdir, SPEC))
    async with LogNode(administrator, api, control_plane.authority.server("kubelet"), workdir.namespace) as node:
        run = await _stage(administrator, workdir, attempt=1)
        first = [
            await node.pod(naming.labels(run, "training", run.stages["training"].this_attempt), rank, _owners(run))
            for rank in (0, 1)
        ]
        log = workdir.start("logs", "demo", "-f", "--stage", "training", "--rank", "all", "-n", workdir.namespace)
        node.write(first[1], b"hello from 1\n")
        node.write(first[0], "one\ntwo\nthrä".encode()[:-1])
        await eventually(lambda: node.read_by(first[0]), lambda bytes_: bytes_ == 12)
        node.break_connections()
        node.write(first[0], "thrä".encode()[-1:] + b"\n")
        await node.end(first[0], "Succeeded")
        await node.end(first[1], "Failed")
        run = await _stage(administrator, workdir, attempt=2)
        second = await node.pod(naming.labels(run, "training", run.stages["training"].this_attempt), 0, _owners(run))
        node.write(second, b'FINETUNE_PROGRESS {"progressPercentage": 40, "currentStep": 4, "totalSteps": 10}\nlast words')
        await node.end(second, "Succeeded")
        await _stage(administrator, workdir, attempt=2, state="Succeeded")
        result = await ended(log)
        assert result.code == 0, result.err
        of_rank = {rank: [line for line in result.out.splitlines() if line.startswith(f"[rank {rank}] ")] for rank in (0, 1)}
        assert [line.removeprefix("[rank 0] ") for line in of_rank[0]] == [
            "one", "two", "thrä", " 40% step 4/10", "last words",
        ]  # fmt: skip
        assert of_rank[1] == ["[rank 1] hello from 1"]
        assert result.err == "demo: attempt 2 of stage training\n"

        result = await workdir.here("logs", "demo")
        assert result.out == " 40% step 4/10\nlast words\n"
        await administrator.delete(POD, workdir.namespace, second, grace_seconds=0)
        for words in ((), ("-f",)):
            result = await workdir.here("logs", "demo", *words)
            assert (result.code, result.out) == (66, "")
            kept = f"runs/demo-{run.uid[:8]}/training/logs/training.1.2.0.log"
            assert result.err == (
                f"demo: the pod of stage training, attempt 1.2, rank 0, no longer exists; read its log on PersistentVolumeClaim demo-workspace: {kept}\n"
            )


async def test_a_pod_without_a_node_has_no_output(api: Api, administrator: ApiServer, workdir: ClusterDesk) -> None:
    await administrator.create(_manifest(workdir, SPEC))
    run = await _stage(administrator, workdir, attempt=1)
    labels = naming.labels(run, "training", run.stages["training"].this_attempt)
    pod = {"metadata": {"name": "pending", "namespace": workdir.namespace, "labels": labels, "ownerReferences": _owners(run)}}
    api.create({**pod, "apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "node", "image": "example.com/x"}]}})
    result = await workdir.here("logs", "demo")
    assert (result.code, result.out) == (75, "")
    reason = "its pod is pending; show the reason with: finetune describe demo"
    assert result.err.startswith(f"demo: stage training has no output yet: {reason}")


def _manifest(workdir: ClusterDesk, spec: Object, name: str = "demo") -> Object:
    metadata = {"name": name, "namespace": workdir.namespace}
    return {"apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "metadata": metadata, "spec": spec}


def _owners(run: Run) -> list[Object]:
    kind = {"apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun"}
    return [{**kind, "name": run.name, "uid": run.uid, "controller": True, "blockOwnerDeletion": False}]


async def _stage(cluster: ApiServer, workdir: ClusterDesk, attempt: int, state: str = "Running") -> Run:
    """The run, whose training is in that attempt. The run is in place of the Job that controls the pods."""
    run = await cluster.get(FINETUNERUN, workdir.namespace, "demo")
    stage = {
        "name": "training",
        "state": state,
        "attempt": attempt,
        "round": 1,
        "child": {"kind": "Job", "name": f"t{attempt}", "uid": run["metadata"]["uid"]},
    }
    return Run.parse(await cluster.patch_status(FINETUNERUN, workdir.namespace, "demo", {"status": {"stages": [stage]}}))


# -- what can go wrong -------------------------------------------------------------------------------------------------


def _part(config: Object, path: str) -> Any:
    part: Any = config
    for key in path.split(".") if path else ():
        part = part[int(key) if key.isdecimal() else key]
    return part


def _set(path: str, value: Any) -> Callable[[Object], None]:
    parent, _, last = path.rpartition(".")
    return lambda config: _part(config, parent).__setitem__(last, value)


def _without(path: str) -> Callable[[Object], None]:
    parent, _, last = path.rpartition(".")
    return lambda config: _part(config, parent).__delitem__(last)


USER = "users.0.user"
EXPIRED = "e30.eyJleHAiOiAxfQ.e30"
SECRET = "a-secret-token"
LOGIN = {"apiVersion": "client.authentication.k8s.io/v1", "command": "false", "interactiveMode": "Never"}

PLACES: dict[str, tuple[Callable[[Object], None], tuple[str, ...], int, str]] = {
    "no such context": (
        _set("kind", "Config"), ("get", "--context", "prod"), 2,
        r"--context prod: no such context in \S+/kubeconfig; choose one of: here\.",
    ),
    "no current context": (
        _set("current-context", ""), ("get", "-A"), 2, r"\S+: no current context; choose one with --context: here\.",
    ),
    "no kubeconfig by that name": (
        _set("kind", "Config"), ("get", "--kubeconfig", "nothing"), 66, r"--kubeconfig nothing: no such file; give an existing one\.",
    ),
    "no contexts": (_set("contexts", 7), ("get", "-A"), 65, r"\S+: not a kubeconfig; give a YAML file with clusters, users and contexts\."),
    "unfinished context": (
        _set("contexts.0.context", {"user": "operator"}), ("get", "-A"), 65, r"\S+: context here cannot be used: Expected key cluster in .*",
    ),
    "unfinished user": (
        _set(USER, {"auth-provider": {"name": "oidc", "config": {"id-token": EXPIRED, "refresh-token": SECRET}}}), ("get", "-A"), 65,
        r"\S+: context here cannot be used: Expected key idp-issuer-url in \S+; log in again \(oc login\)\.",
    ),
    "broken certificate": (
        _set(USER, {"client-certificate-data": "x", "client-key-data": SECRET}), ("get", "-A"), 65,
        r"\S+: context here cannot be used: its cluster or user is malformed; log in again \(oc login\)\.",
    ),
    "no server": (
        _set("clusters.0.cluster.server", "https://127.0.0.1:9"), ("get", "-A"), 75,
        r"context here: cannot connect to https://127.0.0.1:9: Connect call failed.*; check the network and try again\.",
    ),
    "no such host": (
        _set("clusters.0.cluster.server", "https://nowhere.invalid"), ("get", "-A"), 75,
        r"context here: cannot connect to https://nowhere.invalid: .*",
    ),
    "strange certificate": (
        _without("clusters.0.cluster.certificate-authority"), ("get", "-A"), 65, r"context here: the certificate of \S+ is not trusted: .*certificate.*",
    ),
    "unknown token": (
        _set(f"{USER}.token", SECRET), ("get", "-A"), 77,
        r"context here: authentication failed \(Unauthorized\); log in again \(oc login\) or choose another --context\.",
    ),
    "no credentials": (_set(USER, {}), ("get", "-A"), 77, r"context here: authentication failed \(Unauthorized\); .*"),
    "a login program that fails": (
        _set(USER, {"exec": LOGIN}), ("get", "-A"), 77,
        r"context here: the login plug-in failed \(exec: process returned 1\); log in again\.",
    ),
    "no right in all namespaces": (
        _set("kind", "Config"), ("get", "-A"), 77,
        r"context here: \S+:scientist may not list finetuneruns in all namespaces; ask an administrator for the role view\.",
    ),
    "no right in that namespace": (
        _set("kind", "Config"), ("suspend", "demo", "-n", "default"), 77,
        r"context here: \S+ may not get finetuneruns in namespace default; .*",
    ),
}  # fmt: skip


async def test_a_place_that_cannot_be_reached_is_one_sentence(control_plane: ControlPlane, workdir: ClusterDesk) -> None:
    file = workdir.folder / "kubeconfig"
    good = file.read_text()
    for case, (change, words, code, sentence) in PLACES.items():
        config = yaml.safe_load(good)
        change(config)
        file.write_text(yaml.safe_dump(config))
        result = await workdir.say(*words)
        assert (case, result.code, result.out) == (case, code, ""), result.err
        assert re.fullmatch(sentence + "\n", result.err), (case, result.err)
        assert SECRET not in result.err


MISTAKES: dict[str, tuple[tuple[str, ...], int, str]] = {
    "near": (("describe", "dem"), 66, "dem: no run with this name in namespace NAMESPACE of context here; did you mean demo?"),
    "far": (
        ("logs", "x", "-f"), 66,
        "x: no run with this name in namespace NAMESPACE of context here; list the runs with: finetune get -n NAMESPACE",
    ),
    "nothing ran": (("logs", "demo"), 66, "demo: no stage has started; try again when a stage has started"),
    "rank": (("logs", "demo", "--rank", "first"), 2, "--rank first: not a rank; give a number from 0, or all."),
    "not ended": (
        ("rerun", "demo", "--from", "gate"), 65,
        "demo: the run has not ended; wait until it has ended, or start a new run with: finetune clone demo -n NAMESPACE",
    ),
    "purge": (
        ("delete", "demo", "--purge"), 2,
        "--purge: only for runs on this machine; remove the option.",
    ),
    "secret": (
        ("resume", "demo", "--secret", "hf-token=file"), 2,
        "--secret: only for runs on this machine; create the Secret: oc create secret generic hf-token --from-env-file=FILE -n NAMESPACE",
    ),
    "taken": (("clone", "demo", "--name", "demo", "--set", "training.epochs=9"), 65,
              "--name demo: a different run with this name exists; choose another name."),
    "unknown field": (("clone", "demo", "--set", "training.epoch=9"), 65,
                      "clone of demo: spec.training.epoch: unknown field; did you mean epochs?"),
    "two places": (("get", "--home", "."), 2, "--home, --namespace: a local folder and a cluster cannot be used together; remove one of them."),
    "two namespaces": (("get", "-A"), 2, "--namespace, --all-namespaces: they cannot be used together; remove one of them."),
    "another namespace": (("run", "run.yaml"), 2, "demo: metadata.namespace is other, but -n is NAMESPACE; remove one of them."),
}  # fmt: skip


async def test_a_mistake_is_one_sentence(control_plane: ControlPlane, administrator: ApiServer, workdir: ClusterDesk) -> None:
    await administrator.create(_manifest(workdir, SPEC))
    workdir.write(SPEC, namespace="other")
    for case, (words, code, sentence) in MISTAKES.items():
        result = await workdir.here(*words)
        told = sentence.replace("NAMESPACE", workdir.namespace)
        assert (case, result.code, result.out, result.err) == (case, code, "", told + "\n")


async def test_where_a_command_looks(control_plane: ControlPlane, api: Api, workdir: ClusterDesk) -> None:
    local = f"{workdir.folder}/.finetune: no runs;"
    there = f"namespace {workdir.namespace} of context here: no runs;"
    cases: list[tuple[tuple[str, ...], dict[str, str], str]] = [
        ((), {}, local),
        (("--context", "here"), {}, there),
        (("--kubeconfig", "kubeconfig"), {"KUBECONFIG": "nothing"}, there),
        ((), {"FINETUNE_CONTEXT": "here"}, there),
        (("--home", ".finetune"), {"FINETUNE_CONTEXT": "here"}, local),
        (("--context", "here"), {"FINETUNE_HOME": "x"}, there),
        (
            (),
            {"FINETUNE_CONTEXT": "here", "FINETUNE_HOME": "x"},
            "a local folder and a cluster cannot be used together; unset one of them.",
        ),
        (
            ("-n", workdir.namespace),
            {"KUBECONFIG": "nothing"},
            "kubeconfig nothing ($KUBECONFIG): no such file;",
        ),
    ]
    for words, environment, told in cases:
        result = await workdir.say("get", *words, **environment)
        assert told in result.err, (words, environment, result)
    # A cluster without our definition answers so at every path; this one has it, but not below there.
    file = workdir.folder / "kubeconfig"
    access = control_plane.access
    assert access is not None
    config = yaml.safe_load(access.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] += "/elsewhere"
    file.write_text(yaml.safe_dump(config))
    result = await workdir.here("get")
    assert (result.code, result.err) == (
        69, "context control-plane: FineTuneRun is not installed; ask an administrator to install the operator and its CRD.\n",
    )  # fmt: skip

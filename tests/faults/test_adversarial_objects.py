"""Objects that users write cannot stop the operator: its event loop serves other tasks while such an object is reconciled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from api_server import application
from api_server import serving as api_serving
from finetune_contract.progress import MARK
from finetune_operator.api.kinds import FINETUNERUN, JOB, POD
from finetune_operator.core.naming import container_name
from finetune_operator.core.settings import Settings, Trainer
from finetune_operator.core.trainjob_reports import RHOAI_STATUS
from finetune_operator.kube.client import ApiServer
from finetune_operator.kube.configuration import Configuration
from finetune_operator.kube.serving import Health, Metrics, serving
from finetune_operator.kube.settings_provider import SettingsProvider
from finetune_operator.local.store import Store
from finetune_operator.loop.controller import Controller
from finetune_operator.training_bundle import training_bundle
from finetune_operator.validation import DEFAULTS, DEFAULTS_KEY
from world import NOW, SETTINGS

KEY = ("team", "demo")
LONGEST = 1.0
"""CPU seconds of the loop's thread between two probes. Each of the objects below took between 4 seconds and forever, or ended the process."""
REAL = replace(SETTINGS, bundle_digest=training_bundle().digest, bundle_archive=training_bundle().archive)
BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    log = tmp_path / "log"
    store = Store(tmp_path / "store.db", log_file=lambda _pod, _container: log)
    spec = {"dataset": {"uri": "/data.jsonl"}, "storage": {"size": "1Gi"}}
    metadata = {"name": "demo", "namespace": "team"}
    await store.create({"apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "metadata": metadata, "spec": spec})
    yield store
    store.close()


@asynccontextmanager
async def probed() -> AsyncIterator[None]:
    """Probe the health of the operator again and again; fail if the loop was busy for too long between two probes."""
    health = Health()
    gaps: list[float] = []

    async def probe(session: aiohttp.ClientSession, address: str) -> None:
        before = time.thread_time()
        while True:
            async with session.get(address) as response:
                assert response.status == 200
            gaps.append(time.thread_time() - before)
            before = time.thread_time()
            await asyncio.sleep(0.005)

    async with serving(health, Metrics(), "127.0.0.1", 0) as port, aiohttp.ClientSession() as session:
        beating = asyncio.create_task(probe(session, f"http://127.0.0.1:{port}/healthz"))
        await asyncio.sleep(0.05)
        yield
        await asyncio.sleep(0.05)
        beating.cancel()
    assert len(gaps) > 2
    assert max(gaps) < LONGEST


async def failed_pod(store: Store, message: str, log: str, log_file: Path, code: int = 1) -> Controller:
    """Create the pod of the first stage, which has failed with this message and this log; return a controller that does not know it yet."""

    async def everywhere(_namespace: str) -> Settings:
        return REAL

    controller = Controller(store, everywhere, clock=lambda: NOW)
    while not (jobs := (await store.list(JOB, "team")).items):
        await controller.reconcile(KEY)
    labels = jobs[0]["metadata"]["labels"]
    container = container_name(labels["finetunerun.io/stage"])
    log_file.write_text(log)
    owner = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": jobs[0]["metadata"]["name"],
        "uid": jobs[0]["metadata"]["uid"],
        "controller": True,
    }
    metadata = {
        "name": "p", "namespace": "team", "labels": labels, "annotations": {RHOAI_STATUS: "[" * 200_000}, "ownerReferences": [owner],
    }  # fmt: skip
    await store.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [{"name": container}]}})
    state = {"terminated": {"exitCode": code, "message": message}}
    status = {"phase": "Failed" if code else "Succeeded", "containerStatuses": [{"name": container, "state": state}]}
    await store.patch_status(POD, "team", "p", {"status": status})
    return controller


@pytest.mark.parametrize(
    ("message", "log"),
    [
        ("", "NCCL" * 2000 + "ProcessGroup" * 400), ("", "x://" + "a" * 16_000), ("", (MARK + "[" * 4000 + "\n") * 4),
        ("[" * 4096, ""), ('{"finetune":' * 340, ""), ('{"finetune": {"contractVersion": 2, "metrics": {"a": NaN}}}', ""),
        ('{"finetune": {"contractVersion": ' + "9" * 4000 + "}}", ""), ('{"finetune": {"contractVersion": 2, "message": "\\ud800"}}', ""),
    ],
    ids=["timeouts", "login", "progress", "brackets", "objects", "NaN", "digits", "surrogate"],
)  # fmt: skip
@pytest.mark.parametrize("code", [0, 1])
async def test_a_pod_cannot_stop_the_loop(store: Store, tmp_path: Path, message: str, log: str, code: int) -> None:
    controller = await failed_pod(store, message, log, tmp_path / "log", code)
    async with probed():
        for _ in range(3):
            await controller.reconcile(KEY)
    run = await store.get(FINETUNERUN, *KEY)
    stage = next(one for one in run["status"]["stages"] if one["name"] == "dataset")
    assert stage["state"] in ("Retrying", "Failed", "Running")
    assert stage["failures"]
    assert stage["reason"] in ("Crashed", "ProcessGroupTimeout", "ResultMissing", "Starting")


@pytest.mark.parametrize(
    "text", ["[" * 1_000_000, BOMB, "- a\n" * 200_000, "- " * 500_000], ids=["brackets", "aliases", "list", "dashes"]
)
async def test_defaults_of_a_namespace_cannot_stop_the_loop(store: Store, text: str) -> None:
    metadata = {"name": DEFAULTS, "namespace": "team"}
    await store.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {DEFAULTS_KEY: text}})
    async with api_serving(application(store)) as address, aiohttp.ClientSession() as session:
        provider = SettingsProvider(ApiServer(session, address), Configuration(images=dict(SETTINGS.images)))
        provider.set_trainer(Trainer())
        controller = Controller(store, provider.settings, clock=lambda: NOW)
        async with probed():
            await controller.reconcile(KEY)
    run: dict[str, Any] = await store.get(FINETUNERUN, *KEY)
    assert run["status"]["failure"]["reason"] == "InvalidSpec"
    assert "ConfigMap finetune-defaults, key spec.yaml: " in run["status"]["failure"]["message"]

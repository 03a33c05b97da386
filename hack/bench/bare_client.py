"""The baseline of the operator: a client that makes no decisions and creates the same objects as soon as pods end.

It creates the runs too, since children must have an owner. Its manifests are the operator's own, from the same ``plan``.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import sys
from pathlib import Path
from typing import Any

import aiohttp

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from kubernetes_cluster import SPEC
from node_chain import ORDER
from runs import applied

from finetune_operator.api.kinds import POD
from finetune_operator.core.decision import Create
from finetune_operator.core.naming import MANAGED_BY, MANAGED_BY_LABEL, RUN_LABEL, STAGE_LABEL
from finetune_operator.kube.client import ApiServer
from finetune_operator.kube.configuration import Configuration
from finetune_operator.kube.credentials import load_credentials
from finetune_operator.kube.discovery import detect_trainer
from finetune_operator.loop.errors import AlreadyExists
from finetune_operator.loop.watch import list_watch
from world import World

Object = dict[str, Any]
_NAME, _UID, _NAMESPACE = "template-run", "template-uid", "template-namespace"
_AT_ONCE = 32
_GROUPS = ((), *ORDER)
"""Stages that must have succeeded before the next children are created: at first none, then group after group."""
_FIRST = (("Job", "tokenization"), ("TrainJob", "training"), ("Job", "evaluation"))
"""The children that start a group."""


async def main() -> None:
    """Run all runs to completion."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--active", type=int, required=True, help="runs at the same time")
    parser.add_argument("--rate", type=float, default=0.0, help="highest number of runs started each second")
    options = parser.parse_args()
    credentials = load_credentials(options.kubeconfig)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=_AT_ONCE)) as session:
        server = ApiServer(session, credentials.address, tls=credentials.tls())
        client = _Client(server, options.namespace, await _templates(server))
        watching = asyncio.create_task(client.watch())
        async for document in applied(server, options.namespace, options.runs, options.rate, client.slots(options.active)):
            client.begin(document)
        await client.ended(options.runs)
        watching.cancel()


class _Client:
    def __init__(self, server: ApiServer, namespace: str, templates: list[list[str]]) -> None:
        self._server, self._namespace, self._templates = server, namespace, templates
        self._uids: dict[str, str] = {}
        self._done: dict[str, set[str]] = {}
        self._shared: set[str] = set()
        self._count = 0
        self._one_ended = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(0)

    def slots(self, active: int) -> asyncio.Semaphore:
        """Return the semaphore that is acquired before a run is applied, and released at its end."""
        self._slots = asyncio.Semaphore(active)
        return self._slots

    def begin(self, document: Object) -> None:
        name = document["metadata"]["name"]
        self._uids[name], self._done[name] = document["metadata"]["uid"], set()
        self._make(name, 0)

    async def watch(self) -> None:
        async for change in list_watch(self._server, POD, self._namespace, {MANAGED_BY_LABEL: MANAGED_BY}):
            pod = change.object
            if pod.get("status", {}).get("phase") == "Succeeded":
                labels = pod["metadata"]["labels"]
                self._ended(labels[RUN_LABEL], labels[STAGE_LABEL])

    async def ended(self, runs: int) -> None:
        async with self._one_ended:
            await self._one_ended.wait_for(lambda: self._count >= runs)

    def _ended(self, name: str, stage: str) -> None:
        done = self._done[name]
        if stage in done:
            return
        done.add(stage)
        for number, group in enumerate(_GROUPS):
            if stage in group and done >= set(group):
                self._make(name, number)

    def _make(self, name: str, number: int) -> None:
        task = asyncio.create_task(self._create(name, number))
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            raise SystemExit(f"the bare client: {task.exception()}")

    async def _create(self, name: str, number: int) -> None:
        if number == len(self._templates):
            self._slots.release()
            async with self._one_ended:
                self._count += 1
                self._one_ended.notify_all()
            return
        for template in self._templates[number]:
            shared = _NAME not in template
            if shared and template in self._shared:
                continue
            self._shared.add(template)
            text = template.replace(_NAME, name).replace(_UID, self._uids[name]).replace(_NAMESPACE, self._namespace)
            try:
                await self._server.create(json.loads(text))
            except AlreadyExists:
                if not shared:
                    raise


async def _templates(server: ApiServer) -> list[list[str]]:
    """Return the manifests of a run's children, group by group, as JSON."""
    settings = Configuration().settings(await detect_trainer(server), {})
    world = World.new(copy.deepcopy(SPEC), claim=False)
    world.run["metadata"] |= {"name": _NAME, "uid": _UID, "namespace": _NAMESPACE}
    claim = {"name": SPEC["storage"]["claimName"], "namespace": _NAMESPACE}
    world.put({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": claim})
    world.scores["evaluation"] = 2.0
    groups: list[list[str]] = [[]]
    while not world.run.get("status", {}).get("finishedAt"):
        decision = world.decide(settings=settings)
        world.write_status(decision.status)
        made = [effect.manifest for effect in decision.effects if isinstance(effect, Create)]
        if any((one["kind"], one["metadata"].get("labels", {}).get(STAGE_LABEL)) in _FIRST for one in made):
            groups.append([])
        groups[-1] += [json.dumps(one) for one in made]
        for effect in decision.effects:
            world.apply_effect(effect)
        for ref in list(world.objects):
            world.finish(ref)
    return groups


if __name__ == "__main__":
    asyncio.run(main())

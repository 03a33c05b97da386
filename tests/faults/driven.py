"""A run in the embedded store, whose children the test finishes, and its way to the end."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from finetune_contract.codec import encode
from finetune_contract.result import Result, termination_message
from finetune_operator.api.kinds import FINETUNERUN, JOB, POD, TRAINJOB, Kind
from finetune_operator.core.naming import container_name
from finetune_operator.core.observation import ChildState, child_state
from finetune_operator.core.run import Run
from finetune_operator.core.settings import Settings
from finetune_operator.local.store import Store
from finetune_operator.loop.controller import Controller
from finetune_operator.loop.errors import ApiError
from finetune_operator.training_bundle import training_bundle
from world import NOW, OUTPUTS, SETTINGS

KEY = ("team", "demo")
IMAGE = f"registry.example.com/image@sha256:{'a' * 64}"
"""The image of every pod."""

REAL = replace(SETTINGS, bundle_digest=training_bundle().digest, bundle_archive=training_bundle().archive)
"""With the training bundle of this release, since the content of its ConfigMap must match the digest in its name."""


async def everywhere(_namespace: str) -> Settings:
    return REAL


SPEC: dict[str, Any] = {
    "dataset": {"uri": "/data.jsonl"},
    "evaluation": {"tasks": [], "baseline": True},
    "storage": {"size": "1Gi"},
}


async def finish_children(store: Store, skip: Kind | None = None) -> None:
    """Complete every running Job and TrainJob with the result that its program would write, but none of kind ``skip``."""
    for kind in (JOB, TRAINJOB):
        if kind == skip:
            continue
        for child in (await store.list(kind, "team")).items:
            if child_state(child) is not ChildState.ACTIVE:
                continue
            metadata = child["metadata"]
            labels = metadata["labels"]
            stage = labels["finetunerun.io/stage"]
            metrics = {"holdout.bits_per_byte": 2.0} if stage in ("evaluation", "baseline") else {}
            result = Result(
                stage, labels["finetunerun.io/attempt"], metadata["annotations"]["finetunerun.io/inputs-digest"], "Succeeded",
                metrics=metrics, outputs=encode(OUTPUTS[stage]),
            )  # fmt: skip
            await _make_pod(store, child, termination_message(result))
            await store.patch_status(
                kind, "team", metadata["name"], {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}
            )


def controlled_by(child: dict[str, Any]) -> list[dict[str, Any]]:
    """The owner references of a pod of a child, as the controllers of local mode write them."""
    metadata = child["metadata"]
    names = {"apiVersion": child["apiVersion"], "kind": child["kind"], "name": metadata["name"], "uid": metadata["uid"]}
    return [{**names, "controller": True}]


async def _make_pod(store: Store, child: dict[str, Any], message: str) -> None:
    name, labels = child["metadata"]["name"], child["metadata"]["labels"]
    container = container_name(labels["finetunerun.io/stage"])
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{name}-0", "namespace": "team", "labels": labels, "ownerReferences": controlled_by(child)},
        "spec": {"containers": [{"name": container, "image": IMAGE}]},
    }
    try:
        await store.create(pod)
    except ApiError:
        return
    state = {"terminated": {"exitCode": 0, "message": message}}
    await store.patch_status(
        POD, "team", f"{name}-0", {"status": {"phase": "Succeeded", "containerStatuses": [{"name": container, "state": state}]}}
    )


async def drive(store: Store, cluster: Any, passes: int = 80, pause: timedelta = timedelta()) -> Run:
    """Reconcile until the run has ended. A failed pass is repeated after ``pause``."""
    now = [NOW]
    controller = Controller(cluster, everywhere, clock=lambda: now[0])
    for _ in range(passes):
        try:
            await controller.reconcile(KEY)
        except ApiError:
            now[0] += pause
            continue
        run = Run.parse(await store.get(FINETUNERUN, *KEY))
        if run.ended:
            return run
        await finish_children(store)
    raise AssertionError(f"the run did not end: {(await store.get(FINETUNERUN, *KEY)).get('status')}")

"""A status that the API server rejects: it ends the run if the CRD rejects it for minutes, and is retried otherwise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from finetune_operator.api.kinds import FINETUNERUN, Kind
from finetune_operator.core.run import Run
from finetune_operator.local.store import Store
from finetune_operator.loop.cluster import Object
from finetune_operator.loop.controller import Controller
from finetune_operator.loop.errors import ApiError, Invalid
from world import NOW

from .driven import KEY, drive, everywhere


@dataclass
class _RejectingStatus:
    """A cluster that rejects every status in which training has succeeded."""

    inner: Store
    error: ApiError
    until: float = math.inf
    """The number of rejections after which the status is accepted."""
    rejected: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def patch_status(self, kind: Kind, namespace: str | None, name: str, patch: Object) -> Object:
        states = {one["name"]: one["state"] for one in patch["status"].get("stages") or ()}
        if kind == FINETUNERUN and states.get("training") == "Succeeded" and self.rejected < self.until:
            self.rejected += 1
            raise self.error
        return await self.inner.patch_status(kind, namespace, name, patch)


WEBHOOK = 'admission webhook "w" denied the request: no'
TOO_LONG = Invalid("status.engine.name: Too long", 422, causes=(("status.engine.name", "Too long"),))
POLICY = "finetuneruns.finetunerun.io \"demo\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no"


async def test_a_status_that_is_rejected_for_minutes_ends_the_run(store: Store) -> None:
    cluster = _RejectingStatus(store, TOO_LONG)
    run = await drive(store, cluster, pause=timedelta(minutes=2))
    assert (run.status["phase"], cluster.rejected) == ("Failed", 6)
    assert run.status["failure"]["reason"] == "StatusRejected"
    assert run.status["failure"]["message"].endswith("rejected the next status: status.engine.name: Too long")
    assert (run.stages["dataset"].state, run.stages["training"].state) == ("Succeeded", "Skipped")


async def test_a_status_that_is_rejected_until_the_crd_is_installed_ends_no_run(store: Store) -> None:
    cluster = _RejectingStatus(store, TOO_LONG, until=5)
    run = await drive(store, cluster, pause=timedelta(minutes=2))
    assert (run.status["phase"], cluster.rejected) == ("Succeeded", 5)


@pytest.mark.parametrize(
    "error",
    [
        Invalid(WEBHOOK, 403), Invalid(WEBHOOK, 422, causes=(("status.phase", "no"),)), Invalid(POLICY, 422, causes=(("", "no"),)),
        Invalid(POLICY, 422, causes=(("status.phase", "no"),)), Invalid("spec.x: Too long", 422, causes=(("spec.x", "Too long"),)),
        Invalid("too large", 413),
    ],
    ids=["webhook", "webhook with a field", "policy", "policy with a field", "spec", "size"],
)  # fmt: skip
async def test_a_status_that_is_rejected_for_another_reason_is_retried(store: Store, error: Invalid) -> None:
    cluster = _RejectingStatus(store, error, until=20)
    run = await drive(store, cluster, pause=timedelta(minutes=2))
    assert (run.status["phase"], cluster.rejected) == ("Succeeded", 20)


async def test_a_run_whose_first_status_is_rejected_is_stalled(store: Store) -> None:
    class NoStart(_RejectingStatus):
        async def patch_status(self, kind: Kind, namespace: str | None, name: str, patch: Object) -> Object:
            if "resolved" in patch["status"]:
                raise self.error
            return await self.inner.patch_status(kind, namespace, name, patch)

    with pytest.raises(Invalid, match="Too long"):
        await Controller(
            NoStart(store, Invalid("status.resolved: Too long", 422, causes=(("status.resolved", "Too long"),))),
            everywhere,
            clock=lambda: NOW,
        ).reconcile(KEY)
    run = Run.parse(await store.get(FINETUNERUN, *KEY))
    stalled = next(one for one in run.status["conditions"] if one["type"] == "Stalled")
    assert (stalled["status"], stalled["reason"], run.started) == ("True", "InternalError", False)

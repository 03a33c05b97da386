"""Which of several replicas works: a Lease of ``coordination.k8s.io``, with client-go's rules.

No lease is a fence: two replicas may work for a moment, and that harms nobody, because names of children are fixed and statuses
are written onto the version that was read. The lease only keeps the work from being done twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from finetune_operator.api.kinds import LEASE
from finetune_operator.loop.cluster import Cluster, Object
from finetune_operator.loop.errors import AlreadyExists, ApiError, Conflict, NotFound

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timing:
    """Seconds: how long a lease is good, how long its holder tries to renew it, how often both sides look."""

    duration: float = 15.0
    renew_deadline: float = 10.0
    retry: float = 2.0


def _now() -> float:
    return asyncio.get_running_loop().time()


class LeaseLost(Exception):
    """The lease could not be renewed in time: somebody else may work by now."""


class Lease:
    """One candidate for a lease.

    Whether another one's lease has run out is judged by this machine's own clock since its record last changed, so that the
    clocks of two machines need not agree.
    """

    def __init__(self, cluster: Cluster, namespace: str, name: str, identity: str, *, timing: Timing | None = None) -> None:
        self._cluster, self._namespace, self._name, self._identity = cluster, namespace, name, identity
        self._timing = timing or Timing()
        self._seen: tuple[str, float] = ("", 0.0)

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[asyncio.Task[None]]:
        """Wait until the lease is ours; inside the context it is renewed by the task that is handed out, and given back after.

        The task ends with :class:`LeaseLost` when renewing fails for too long: whoever holds the context must stop at once.
        """
        while not await self._try():  # noqa: ASYNC110 - what it waits for happens on another machine
            await asyncio.sleep(self._timing.retry)
        log.info("lease %s/%s is held by %s", self._namespace, self._name, self._identity)
        renewing = asyncio.create_task(self._renew())
        try:
            yield renewing
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            await self._give_back()

    async def _renew(self) -> None:
        renewed = _now()
        while True:
            await asyncio.sleep(self._timing.retry)
            if await self._try():
                renewed = _now()
            elif _now() - renewed > self._timing.renew_deadline:
                raise LeaseLost(
                    f"lease {self._namespace}/{self._name} could not be renewed for {self._timing.renew_deadline:g} s"
                )

    async def _try(self) -> bool:
        """Take or renew the lease. Whether it is ours now."""
        try:
            async with asyncio.timeout(self._timing.renew_deadline / 2):
                try:
                    found = await self._cluster.get(LEASE, self._namespace, self._name)
                except NotFound:
                    await self._cluster.create(self._manifest({}, 0))
                    return True
                if not self._is_free(found):
                    return False
                await self._cluster.patch(LEASE, self._namespace, self._name, self._patch(found))
                return True
        except (AlreadyExists, Conflict):  # another one was faster
            return False
        except (ApiError, TimeoutError) as error:
            log.warning("lease %s/%s: %s", self._namespace, self._name, str(error) or "no answer in time")
            return False

    def _is_free(self, found: Object) -> bool:
        holder, version = found["spec"].get("holderIdentity") or "", found["metadata"]["resourceVersion"]
        if version != self._seen[0]:
            self._seen = (version, _now())
        if holder in ("", self._identity):
            return True
        return _now() - self._seen[1] > float(found["spec"].get("leaseDurationSeconds") or self._timing.duration)

    def _manifest(self, spec: dict[str, Any], transitions: int) -> Object:
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
        ours = spec.get("holderIdentity") == self._identity
        return {
            "apiVersion": LEASE.api_version, "kind": LEASE.name, "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity, "leaseDurationSeconds": int(self._timing.duration), "renewTime": now,
                "acquireTime": spec.get("acquireTime") if ours else now, "leaseTransitions": transitions + int(bool(spec) and not ours),
            },
        }  # fmt: skip

    def _patch(self, found: Object) -> Object:
        manifest = self._manifest(found["spec"], int(found["spec"].get("leaseTransitions") or 0))
        return {"metadata": {"resourceVersion": found["metadata"]["resourceVersion"]}, "spec": manifest["spec"]}

    async def _give_back(self) -> None:
        """Let the next one begin at once."""
        try:
            async with asyncio.timeout(self._timing.retry):
                found = await self._cluster.get(LEASE, self._namespace, self._name)
                if found["spec"].get("holderIdentity") == self._identity:
                    version = found["metadata"]["resourceVersion"]
                    patch = {"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": ""}}
                    await self._cluster.patch(LEASE, self._namespace, self._name, patch)
        except (ApiError, TimeoutError) as error:
            log.warning("lease %s/%s was not given back: %s", self._namespace, self._name, str(error) or "no answer in time")

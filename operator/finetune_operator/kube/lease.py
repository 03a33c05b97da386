"""Leader election with a Lease of ``coordination.k8s.io`` and the rules of client-go.

A lease is not a fence: two replicas can be active for a moment. That does no harm, because names of children are fixed and each status
is written onto the version that was read. The lease only saves duplicate work.
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
    """Seconds, as in client-go: duration of a lease, deadline for its renewal, and interval between two attempts."""

    duration: float = 15.0
    renew_deadline: float = 10.0
    retry: float = 2.0


def _now() -> float:
    return asyncio.get_running_loop().time()


class LeaseLost(Exception):
    """The lease was not renewed in time: another replica may be active."""


class Lease:
    """A candidate for a lease.

    The lease of another replica has expired if it did not change for its duration on the clock of this machine. So the clocks of two
    machines need not agree.
    """

    def __init__(self, cluster: Cluster, namespace: str, name: str, identity: str, *, timing: Timing | None = None) -> None:
        self._cluster, self._namespace, self._name, self._identity = cluster, namespace, name, identity
        self._timing = timing or Timing()
        self._seen: tuple[str, float] = ("", 0.0)

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[asyncio.Task[None]]:
        """Acquire the lease. Inside the context, the task that is handed out renews it; at the end, it is released.

        The task raises :class:`LeaseLost` when renewals fail for too long: the caller must then stop at once.
        """
        while not await self._try():  # noqa: ASYNC110 - another machine releases the lease
            await asyncio.sleep(self._timing.retry)
        log.info("lease %s/%s: acquired by %s", self._namespace, self._name, self._identity)
        renewing = asyncio.create_task(self._renew())
        try:
            yield renewing
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            await self._release()

    async def _renew(self) -> None:
        renewed = _now()
        while True:
            await asyncio.sleep(self._timing.retry)
            if await self._try():
                renewed = _now()
            elif _now() - renewed > self._timing.renew_deadline:
                raise LeaseLost(
                    f"lease {self._namespace}/{self._name}: not renewed for {self._timing.renew_deadline:g} s; the process restarts"
                )

    async def _try(self) -> bool:
        """Acquire or renew the lease. Return whether this replica holds it."""
        try:
            async with asyncio.timeout(self._timing.renew_deadline / 2):
                try:
                    lease = await self._cluster.get(LEASE, self._namespace, self._name)
                except NotFound:
                    await self._cluster.create(self._manifest({}, 0))
                    return True
                if not self._is_free(lease):
                    return False
                await self._cluster.patch(LEASE, self._namespace, self._name, self._patch(lease))
                return True
        except (AlreadyExists, Conflict):  # another replica was faster
            return False
        except (ApiError, TimeoutError) as error:
            log.warning("lease %s/%s: %s", self._namespace, self._name, str(error) or "no response in time")
            return False

    def _is_free(self, lease: Object) -> bool:
        holder, version = lease["spec"].get("holderIdentity") or "", lease["metadata"]["resourceVersion"]
        if version != self._seen[0]:
            self._seen = (version, _now())
        if holder in ("", self._identity):
            return True
        return _now() - self._seen[1] > float(lease["spec"].get("leaseDurationSeconds") or self._timing.duration)

    def _manifest(self, spec: dict[str, Any], transitions: int) -> Object:
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
        is_holder = spec.get("holderIdentity") == self._identity
        return {
            "apiVersion": LEASE.api_version, "kind": LEASE.name, "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity, "leaseDurationSeconds": int(self._timing.duration), "renewTime": now,
                "acquireTime": spec.get("acquireTime") if is_holder else now, "leaseTransitions": transitions + int(bool(spec) and not is_holder),
            },
        }  # fmt: skip

    def _patch(self, lease: Object) -> Object:
        manifest = self._manifest(lease["spec"], int(lease["spec"].get("leaseTransitions") or 0))
        return {"metadata": {"resourceVersion": lease["metadata"]["resourceVersion"]}, "spec": manifest["spec"]}

    async def _release(self) -> None:
        """Release the lease, so that another replica can acquire it at once."""
        try:
            async with asyncio.timeout(self._timing.retry):
                lease = await self._cluster.get(LEASE, self._namespace, self._name)
                if lease["spec"].get("holderIdentity") == self._identity:
                    version = lease["metadata"]["resourceVersion"]
                    patch = {"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": ""}}
                    await self._cluster.patch(LEASE, self._namespace, self._name, patch)
        except (ApiError, TimeoutError) as error:
            log.warning("lease %s/%s: not released: %s", self._namespace, self._name, str(error) or "no response in time")

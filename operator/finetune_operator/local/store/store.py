"""The embedded API server: the calls of :class:`~finetune_operator.loop.cluster.Cluster` on one file.

Each call runs in the event loop's thread: it takes a fraction of a millisecond, a switch to another thread and back costs as much,
and SQLite allows one writer at a time anyway. Like a call over the network, every call first yields to other tasks.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from finetune_operator.api.crd import crd
from finetune_operator.api.kinds import CONFIGMAP, FINETUNERUN, JOB, KINDS, POD, Kind, kind_of
from finetune_operator.core.times import stamp
from finetune_operator.loop.cluster import PAGE, Object, Page, Propagation, WatchEvent
from finetune_operator.validation.config_map import check_config_map
from finetune_operator.validation.metadata import check_metadata, check_types, prune_metadata
from finetune_operator.validation.pod_template import check_job
from finetune_operator.validation.problem import Problem
from finetune_operator.validation.structure import identical
from finetune_operator.validation.validator import Validator

from . import deletion, field_selector, objects, rejections
from .database import Database, Event, encode
from .logs import LogFile, container_of, read_log
from .merge import merge_patch
from .notifier import Notifier
from .selector import Labels, Selector
from .snapshots import Snapshots
from .transaction import Transaction

_LOG_POLL_SECONDS = 0.2
_IDENTITY = ("apiVersion", "kind", "metadata")


class Store:
    """Objects in a file, with the semantics of the API server.

    Only FineTuneRuns are validated against a schema; of other kinds the metadata is validated, of Jobs the pod fields that a
    FineTuneRun can set, and of ConfigMaps the keys and their size.

    Args:
        path: the file; it is created if missing.
        log_file: returns the log file of a container.
        clock: the present time.

    Raises:
        StoreError: the file cannot be used.
    """

    def __init__(
        self, path: Path, *, log_file: LogFile | None = None, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._database = Database(path)
        self._log_file = log_file
        self._clock = clock
        self._notifier = Notifier(self._database.stamp)
        self._snapshots = Snapshots()

    def close(self) -> None:
        """Close the file. No call or watch may be in progress."""
        self._notifier.stop()
        self._database.close()

    @cached_property
    def validator(self) -> Validator:
        """The validator of FineTuneRuns."""
        return Validator(crd())

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object:
        """See :meth:`~finetune_operator.loop.cluster.Cluster.get`."""
        await asyncio.sleep(0)
        body = self._database.find(_served(kind), _key(kind, namespace), name)
        if body is None:
            raise rejections.not_found(kind, name)
        obj: Object = json.loads(body)
        return obj

    async def get_metadata(self, kind: Kind, namespace: str | None, name: str) -> Object:
        """See :meth:`~finetune_operator.loop.cluster.Cluster.get_metadata`."""
        return {key: value for key, value in (await self.get(kind, namespace, name)).items() if key in _IDENTITY}

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        labels: Labels | Selector | None = None,
        fields: Mapping[str, str] | None = None,
        limit: int = PAGE,
        continue_: str | None = None,
    ) -> Page:
        """See :meth:`~finetune_operator.loop.cluster.Cluster.list`; ``labels`` may be any selector."""
        await asyncio.sleep(0)
        if continue_:
            return self._snapshots.next(continue_, limit)
        field_selector.check(_served(kind), fields or {})
        items, version = self._present(kind, namespace, Selector.of(labels))
        items = [item for item in items if field_selector.match(item, fields)] if fields else items
        return self._snapshots.first(items, str(version), limit)

    async def watch(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        labels: Labels | Selector | None = None,
        resource_version: str | None = None,
        bookmark_seconds: float | None = None,
    ) -> AsyncIterator[WatchEvent]:
        """See :meth:`~finetune_operator.loop.cluster.Cluster.watch`; with bookmarks after ``bookmark_seconds`` without a change."""
        await asyncio.sleep(0)
        selector = Selector.of(labels)
        with self._notifier.waiting_for(_served(kind)) as changed:
            if resource_version in (None, "", "0"):
                items, position = self._present(kind, namespace, selector)
                for item in items:
                    yield WatchEvent("ADDED", item)
            else:
                position = self._position(str(resource_version))
            while True:
                changed.clear()
                events, position = self._since(kind, namespace, position)
                for event in events:
                    change = _change(event, selector)
                    if change is not None:
                        yield change
                if not events and not await _happens(changed, bookmark_seconds):
                    yield WatchEvent("BOOKMARK", _bookmark(kind, position))

    async def create(self, manifest: Object, *, dry_run: bool = False) -> Object:
        """See :meth:`~finetune_operator.loop.cluster.Cluster.create`."""
        await asyncio.sleep(0)
        try:
            kind = kind_of(manifest)
        except KeyError:
            raise rejections.no_such_kind() from None
        decoded, faults = self.decode(kind, _json(manifest))
        if faults:
            raise rejections.undecodable(kind, faults)
        with self._change() as transaction:
            obj = objects.created(kind, decoded, transaction.now)
            self._require_valid(kind, obj)
            metadata = obj["metadata"]
            if transaction.find(kind, metadata.get("namespace", ""), metadata["name"]):
                raise rejections.already_exists(kind, metadata["name"])
            if dry_run:
                return obj
            obj = transaction.write(kind, obj)
            deletion.collect_garbage(transaction, kind, obj)
        return obj

    async def patch(self, kind: Kind, namespace: str | None, name: str, patch: Object) -> Object:
        """See :meth:`~finetune_operator.loop.cluster.Cluster.patch`. Unknown fields are dropped."""
        await asyncio.sleep(0)
        with self._change() as transaction:
            old = _existing(transaction, _served(kind), _key(kind, namespace), name)
            new = self._patched(kind, old, patch, status=False)
            if identical(new, old):
                return old
            if "deletionTimestamp" in new["metadata"]:
                return deletion.continue_deletion(transaction, kind, new, old)
            new = transaction.write(kind, new, old)
            deletion.collect_garbage(transaction, kind, new)
        return new

    async def patch_status(self, kind: Kind, namespace: str | None, name: str, patch: Object) -> Object:
        """See :meth:`~finetune_operator.loop.cluster.Cluster.patch_status`. Unknown fields are dropped."""
        await asyncio.sleep(0)
        if kind not in objects.WITH_STATUS:
            raise rejections.no_such_kind()
        with self._change() as transaction:
            old = _existing(transaction, kind, _key(kind, namespace), name)
            new = self._patched(kind, old, patch, status=True)
            return old if identical(new, old) else transaction.write(kind, new, old)

    async def delete(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        propagation: Propagation = "Background",
        grace_seconds: int | None = None,
    ) -> None:
        """See :meth:`~finetune_operator.loop.cluster.Cluster.delete`. Owned objects are deleted in the same transaction."""
        await asyncio.sleep(0)
        with self._change() as transaction:
            obj = _existing(transaction, _served(kind), _key(kind, namespace), name)
            if uid is not None and obj["metadata"]["uid"] != uid:
                raise rejections.other_uid(kind, name, uid, obj["metadata"]["uid"])
            deletion.delete(transaction, kind, obj, propagation, grace_seconds)

    async def pod_log(
        self,
        namespace: str,
        pod: str,
        *,
        container: str | None = None,
        tail_lines: int | None = None,
        limit_bytes: int | None = None,
    ) -> str:
        """See :meth:`~finetune_operator.loop.cluster.Cluster.pod_log`."""
        log = await self.log_part(namespace, pod, container, tail_lines=tail_lines, limit_bytes=limit_bytes)
        return log.decode(errors="replace")

    async def follow_log(self, namespace: str, pod: str, *, container: str | None = None) -> AsyncGenerator[bytes, None]:
        """See :meth:`~finetune_operator.loop.cluster.Cluster.follow_log`."""
        start, ended = 0, False
        while not ended:
            status = (await self.get(POD, namespace, pod)).get("status") or {}
            ended = status.get("phase") in ("Succeeded", "Failed")
            part = await self.log_part(namespace, pod, container, start=start)
            start += len(part)
            if part:
                yield part
            await asyncio.sleep(0 if ended else _LOG_POLL_SECONDS)

    async def log_part(
        self,
        namespace: str,
        pod: str,
        container: str | None = None,
        *,
        tail_lines: int | None = None,
        limit_bytes: int | None = None,
        start: int = 0,
    ) -> bytes:
        """Return the bytes of a container's log from ``start``; otherwise like :meth:`pod_log`."""
        obj = await self.get(POD, namespace, pod)
        name = container_of(obj, container)
        if name is None:
            raise rejections.bad_request(f"container {container} is not valid for pod {pod}")
        try:
            if self._log_file is not None:
                return await asyncio.to_thread(read_log, self._log_file(obj, name), tail_lines, limit_bytes, start)
        except FileNotFoundError:
            pass
        if objects.is_bound(obj):
            raise rejections.not_started(name, pod)
        return b""

    def decode(self, kind: Kind, obj: Object, old: Object | None = None) -> tuple[Object, Sequence[Problem]]:
        """Return an object as the API server decodes it, and the problems that strict decoding finds.

        With ``old``, a stored object that ``obj`` was patched from, only the difference is checked.
        """
        if kind == FINETUNERUN:
            pruned, faults = self.validator.prune(obj, old)
        else:
            pruned, faults = dict(obj), []
            if isinstance(obj.get("metadata"), dict):
                pruned["metadata"] = prune_metadata(obj["metadata"], faults)
        return pruned, faults + check_types(pruned.setdefault("metadata", {}))

    def _patched(self, kind: Kind, old: Object, patch: Object, *, status: bool) -> Object:
        if not isinstance(patch, dict):
            raise rejections.bad_request("error decoding patch: a merge patch of an object is an object")
        name = old["metadata"]["name"]
        merged, faults = self.decode(kind, merge_patch(old, _json(patch)), old)
        malformed = [fault for fault in faults if fault.blocks_rules]
        if malformed:
            raise rejections.invalid(kind, name, malformed)
        new = objects.updated(kind, merged, old, status=status)
        self._require_valid(kind, new, old, status=status)
        return new

    def _require_valid(self, kind: Kind, obj: Object, old: Object | None = None, *, status: bool = False) -> None:
        if kind == FINETUNERUN:
            problems = self.validator.validate(obj, old, status=status)
        else:
            problems = check_metadata(obj["metadata"], None if old is None else old["metadata"])
            if kind == JOB and old is None:
                problems += check_job(obj)
            if kind == CONFIGMAP:
                problems += check_config_map(obj)
        if problems:
            raise rejections.invalid(kind, obj["metadata"].get("name", ""), problems)

    @contextmanager
    def _change(self) -> Iterator[Transaction]:
        with self._database.transaction():
            transaction = Transaction(self._database, stamp(self._clock()))
            yield transaction
        self._notifier.wake(transaction.touched)

    def _present(self, kind: Kind, namespace: str | None, selector: Selector) -> tuple[Sequence[Object], int]:
        with self._database.reading():
            version, bodies = self._database.version(), self._database.bodies(kind, namespace)
        items: Iterator[Object] = map(json.loads, bodies)
        return [item for item in items if selector.matches(item["metadata"].get("labels"))], version

    def _position(self, resource_version: str) -> int:
        if not resource_version.isdecimal():
            raise rejections.bad_request(f'resourceVersion: Invalid value: "{resource_version}": must be a number')
        version, oldest = int(resource_version), self._database.oldest()
        if version < oldest - 1 or version > self._database.version():
            raise rejections.too_old(version, oldest)
        return version

    def _since(self, kind: Kind, namespace: str | None, position: int) -> tuple[Sequence[Event], int]:
        with self._database.reading():
            version, oldest = self._database.version(), self._database.oldest()
            if position < oldest - 1:
                raise rejections.too_old(position, oldest)
            return self._database.events(kind, namespace, position, version), version


def _served(kind: Kind) -> Kind:
    if kind not in KINDS:
        raise rejections.no_such_kind()
    return kind


def _key(kind: Kind, namespace: str | None) -> str:
    return (namespace or "default") if kind.namespaced else ""


def _existing(transaction: Transaction, kind: Kind, namespace: str, name: str) -> Object:
    obj = transaction.find(kind, namespace, name)
    if obj is None:
        raise rejections.not_found(kind, name)
    return obj


def _json(value: Any) -> Any:
    """Return a copy of a document, which must be JSON."""
    try:
        return json.loads(encode(value))
    except (TypeError, ValueError) as error:
        raise rejections.bad_request(f"the object is not JSON: {error}") from None


def _change(event: Event, selector: Selector) -> WatchEvent | None:
    """Return an event as a watch with a selector reports it: an object that no longer matches is DELETED."""
    obj: Object = json.loads(event.body)
    labels = obj["metadata"].get("labels")
    before = labels if event.old_labels is None else json.loads(event.old_labels)
    now = selector.matches(labels)
    if event.type != "MODIFIED":
        return WatchEvent(event.type, obj) if now else None
    if selector.matches(before):
        return WatchEvent("MODIFIED" if now else "DELETED", obj)
    return WatchEvent("ADDED", obj) if now else None


def _bookmark(kind: Kind, position: int) -> Object:
    return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": {"resourceVersion": str(position)}}


async def _happens(event: asyncio.Event, seconds: float | None) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True

"""The store against a model of it: plain dictionaries, and rules of the garbage collector applied until nothing changes."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from finetune_operator.api.kinds import CONFIGMAP, FINETUNERUN, Kind
from finetune_operator.local.store import Store
from finetune_operator.local.store.deletion import FOREGROUND, ORPHAN
from finetune_operator.loop.cluster import Object, Propagation, WatchEvent
from finetune_operator.loop.errors import AlreadyExists, Conflict, NotFound

NAMES = "abcd"
HOLD = "test.io/hold"
LABELS = st.dictionaries(st.sampled_from(["x", "y"]), st.sampled_from(["1", "2"]), max_size=2)
POLICIES = st.sampled_from(["Background", "Foreground", "Orphan"])


@dataclass
class Known:
    """What the model knows of one object."""

    uid: str
    labels: dict[str, str] = field(default_factory=dict)
    value: int = 0
    status: str | None = None
    generation: int = 1
    finalizers: set[str] = field(default_factory=set)
    deleting: bool = False
    owners: dict[str, bool] = field(default_factory=dict)
    """Uid, and whether it blocks."""


class Model:
    """The objects, by kind and name."""

    def __init__(self) -> None:
        self.objects: dict[tuple[Kind, str], Known] = {}

    def delete(self, key: tuple[Kind, str], policy: Propagation) -> None:
        known = self.objects[key]
        known.finalizers -= {FOREGROUND, ORPHAN}
        known.finalizers |= {"Foreground": {FOREGROUND}, "Orphan": {ORPHAN}, "Background": set()}[policy]
        self._mark(key)
        self.settle()

    def settle(self) -> None:
        """The garbage collector, in any order, until it has nothing left to do."""
        while self._step():
            pass

    def _mark(self, key: tuple[Kind, str]) -> None:
        known = self.objects[key]
        if not known.deleting:
            known.deleting = True
            known.generation += key[0] == FINETUNERUN

    def _step(self) -> bool:
        alive = {known.uid for known in self.objects.values()}
        for key, known in self.objects.items():
            dependents = {other: one for other, one in self.objects.items() if known.uid in one.owners}
            if known.deleting and ORPHAN in known.finalizers:
                for one in dependents.values():
                    del one.owners[known.uid]
                known.finalizers.remove(ORPHAN)
                return True
            if known.deleting and FOREGROUND in known.finalizers:
                blockers = {other: one for other, one in dependents.items() if one.owners[known.uid]}
                for other, one in blockers.items():
                    if not one.deleting:
                        if any(one.uid in more.owners for more in self.objects.values()):
                            one.finalizers.add(FOREGROUND)
                        self._mark(other)
                        return True
                if not blockers:
                    known.finalizers.remove(FOREGROUND)
                    return True
            if known.deleting and not known.finalizers:
                del self.objects[key]
                return True
            dead = set(known.owners) - alive
            if dead and dead != set(known.owners):
                for uid in dead:
                    del known.owners[uid]
                return True
            if dead and not known.deleting:
                self._mark(key)
                return True
        return False


def _manifest(
    kind: Kind,
    name: str,
    owners: Sequence[Object] = (),
    finalizers: Collection[str] = (),
    labels: Mapping[str, str] | None = None,
) -> Object:
    metadata = {"name": name, "labels": labels or {}, "ownerReferences": list(owners), "finalizers": sorted(finalizers)}
    content: Object = {"spec": {"dataset": {"uri": "a/b"}}} if kind == FINETUNERUN else {"data": {"value": "0"}}
    return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, **content}


def _with_living_owners(objects: dict[tuple[Kind, str], Known]) -> dict[tuple[Kind, str], Known]:
    """Whether a reference to an owner that is gone stays on an object that goes too depends on the order of the collector."""
    alive = {known.uid for known in objects.values()}
    return {
        key: replace(known, owners={uid: b for uid, b in known.owners.items() if uid in alive}) for key, known in objects.items()
    }


class StoreMachine(RuleBasedStateMachine):
    """A store, its model, and a watcher of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store(Path(self.folder.name) / "store.db")
        self.model = Model()
        self.watched: dict[Kind, dict[str, Object]] = {CONFIGMAP: {}, FINETUNERUN: {}}
        self.watches = {kind: self._watch(kind) for kind in self.watched}

    def _run(self, call: Any) -> Any:
        return self.loop.run_until_complete(call)

    def _watch(self, kind: Kind) -> AsyncIterator[WatchEvent]:
        return self.store.watch(kind, "default", bookmark_seconds=0)

    def _any(self, data: st.DataObject) -> tuple[Kind, str]:
        """An object that is there."""
        return data.draw(st.sampled_from(sorted(self.model.objects, key=str)))

    @property
    def _free(self) -> list[tuple[Kind, str]]:
        return [(kind, name) for kind in self.watched for name in NAMES if (kind, name) not in self.model.objects]

    @invariant()
    def the_store_is_the_model(self) -> None:
        found = {}
        for kind in self.watched:
            for item in self._run(self.store.list(kind, "default")).items:
                metadata = item["metadata"]
                value = item["spec"]["dataset"].get("seed", 0) if kind == FINETUNERUN else int(item["data"]["value"])
                found[kind, metadata["name"]] = Known(
                    metadata["uid"], metadata.get("labels", {}), value, (item.get("status") or {}).get("phase"),
                    metadata.get("generation", 1), set(metadata.get("finalizers", ())), "deletionTimestamp" in metadata,
                    {owner["uid"]: owner["blockOwnerDeletion"] for owner in metadata.get("ownerReferences", ())},
                )  # fmt: skip
        assert _with_living_owners(found) == _with_living_owners(self.model.objects)

    @invariant()
    def a_watcher_knows_what_a_list_shows(self) -> None:
        for kind, watch in self.watches.items():
            self._run(self._follow(kind, watch))
            page = self._run(self.store.list(kind, "default"))
            assert self.watched[kind] == {item["metadata"]["name"]: item for item in page.items}

    async def _follow(self, kind: Kind, watch: AsyncIterator[WatchEvent]) -> None:
        """Apply every change until the watch has no more events: ADDED only of new, the others only of known objects."""
        seen, last = self.watched[kind], 0
        async for change in watch:
            if change.type == "BOOKMARK":
                return
            name, version = change.object["metadata"]["name"], int(change.object["metadata"]["resourceVersion"])
            assert (name in seen) == (change.type != "ADDED")
            assert version > last or not last or change.type == "ADDED"
            last = version
            if change.type == "DELETED":
                del seen[name]
            else:
                seen[name] = change.object

    def teardown(self) -> None:
        for watch in self.watches.values():
            self._run(watch.aclose())  # type: ignore[attr-defined]
        self.store.close()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
        self.folder.cleanup()


class OwnershipMachine(StoreMachine):
    """Who goes with whom: creations with owners, deletions of every kind, finalizers that hold."""

    @precondition(lambda self: self._free)
    @rule(data=st.data(), hold=st.booleans(), owners=st.sampled_from([0, 1, 1, 2]))
    def create(self, data: st.DataObject, hold: bool, owners: int) -> None:
        kind, name = data.draw(st.sampled_from(self._free))
        blocks: dict[tuple[Kind, str], bool] = {}
        for _ in range(min(owners, len(self.model.objects))):
            blocks[self._any(data)] = data.draw(st.booleans())
        references = [
            {"apiVersion": other.api_version, "kind": other.name, "name": its, "uid": self.model.objects[other, its].uid,
             "blockOwnerDeletion": blocking}
            for (other, its), blocking in blocks.items()
        ]  # fmt: skip
        finalizers = {HOLD} if hold else set()
        created = self._run(self.store.create(_manifest(kind, name, references, finalizers)))
        uids = {self.model.objects[key].uid: blocking for key, blocking in blocks.items()}
        self.model.objects[kind, name] = Known(created["metadata"]["uid"], finalizers=finalizers, owners=uids)
        self.model.settle()

    @precondition(lambda self: any(HOLD in known.finalizers for known in self.model.objects.values()))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        held = [key for key, known in self.model.objects.items() if HOLD in known.finalizers]
        kind, name = data.draw(st.sampled_from(sorted(held, key=str)))
        kept = sorted(self.model.objects[kind, name].finalizers - {HOLD})
        self._run(self.store.patch(kind, "default", name, {"metadata": {"finalizers": kept or None}}))
        self.model.objects[kind, name].finalizers = set(kept)
        self.model.settle()

    @precondition(lambda self: self.model.objects)
    @rule(data=st.data(), policy=POLICIES)
    def delete(self, data: st.DataObject, policy: Propagation) -> None:
        kind, name = self._any(data)
        uid = self.model.objects[kind, name].uid
        self._run(self.store.delete(kind, "default", name, uid=uid, propagation=policy))
        self.model.delete((kind, name), policy)


class ContentMachine(StoreMachine):
    """What objects hold: patches of everything, misses, restarts."""

    @precondition(lambda self: self._free)
    @rule(data=st.data(), labels=LABELS)
    def create(self, data: st.DataObject, labels: dict[str, str]) -> None:
        kind, name = data.draw(st.sampled_from(self._free))
        created = self._run(self.store.create(_manifest(kind, name, labels=labels)))
        self.model.objects[kind, name] = Known(created["metadata"]["uid"], labels)

    @precondition(lambda self: self.model.objects)
    @rule(data=st.data())
    def create_again(self, data: st.DataObject) -> None:
        kind, name = self._any(data)
        with pytest.raises(AlreadyExists):
            self._run(self.store.create(_manifest(kind, name)))

    @precondition(lambda self: self.model.objects)
    @rule(data=st.data(), value=st.integers(1, 3))
    def patch_content(self, data: st.DataObject, value: int) -> None:
        kind, name = self._any(data)
        patch = {"spec": {"dataset": {"seed": value}}} if kind == FINETUNERUN else {"data": {"value": str(value)}}
        self._run(self.store.patch(kind, "default", name, patch))
        known = self.model.objects[kind, name]
        known.generation += kind == FINETUNERUN and known.value != value
        known.value = value

    @precondition(lambda self: self.model.objects)
    @rule(data=st.data(), labels=LABELS)
    def patch_labels(self, data: st.DataObject, labels: dict[str, str]) -> None:
        kind, name = self._any(data)
        self._run(self.store.patch(kind, "default", name, {"metadata": {"labels": {"x": None, "y": None, **labels}}}))
        self.model.objects[kind, name].labels = labels

    @precondition(lambda self: any(kind == FINETUNERUN for kind, _ in self.model.objects))
    @rule(data=st.data(), phase=st.sampled_from(["Pending", "Training"]))
    def patch_status(self, data: st.DataObject, phase: str) -> None:
        name = data.draw(st.sampled_from(sorted(name for kind, name in self.model.objects if kind == FINETUNERUN)))
        self._run(self.store.patch_status(FINETUNERUN, "default", name, {"status": {"phase": phase}}))
        self.model.objects[FINETUNERUN, name].status = phase

    @precondition(lambda self: self.model.objects)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        kind, name = self._any(data)
        self._run(self.store.delete(kind, "default", name))
        self.model.delete((kind, name), "Background")

    @precondition(lambda self: self.model.objects)
    @rule(data=st.data())
    def delete_another(self, data: st.DataObject) -> None:
        kind, name = self._any(data)
        with pytest.raises(Conflict):
            self._run(self.store.delete(kind, "default", name, uid="another"))

    @precondition(lambda self: self._free)
    @rule(data=st.data())
    def miss(self, data: st.DataObject) -> None:
        kind, name = data.draw(st.sampled_from(self._free))
        for call in (self.store.get, self.store.delete):
            with pytest.raises(NotFound):
                self._run(call(kind, "default", name))

    @rule()
    def restart(self) -> None:
        for watch in self.watches.values():
            self._run(watch.aclose())  # type: ignore[attr-defined]
        self.store.close()
        self.store = Store(Path(self.folder.name) / "store.db")
        self.watched = {kind: {} for kind in self.watched}
        self.watches = {kind: self._watch(kind) for kind in self.watched}


OwnershipMachine.TestCase.settings = settings(
    max_examples=settings.default.max_examples * 3 // 2, stateful_step_count=25, deadline=None
)
ContentMachine.TestCase.settings = settings(
    max_examples=settings.default.max_examples * 2 // 5, stateful_step_count=25, deadline=None
)


@pytest.mark.timeout(900)  # a failing example is made small before it is shown
class TestOwnership(OwnershipMachine.TestCase):  # type: ignore[misc, name-defined]
    """Runs the first machine."""


@pytest.mark.timeout(900)
class TestContents(ContentMachine.TestCase):  # type: ignore[misc, name-defined]
    """Runs the second."""

"""The watch that does not end, and lists read page by page, on the embedded store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api.kinds import CONFIGMAP
from finetune_operator.local.store import Store
from finetune_operator.loop import watch
from finetune_operator.loop.errors import ApiError, Forbidden, Gone, NotFound, Transient
from finetune_operator.loop.pager import list_all, list_pages
from finetune_operator.loop.watch import list_watch


@pytest.fixture
async def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Store]:
    """A store with five ConfigMaps."""
    monkeypatch.setattr(watch, "_PAUSE_SECONDS", 0.0)
    store = Store(tmp_path / "store.db")
    for name in "abcde":
        metadata = {"name": name, "namespace": "team", "labels": {"parity": "even" if name in "bd" else "odd"}}
        await store.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    yield store
    store.close()


class Interrupted:
    """A cluster whose watches begin with errors."""

    def __init__(self, store: Store, *errors: ApiError) -> None:
        self._store, self._errors = store, list(errors)

    async def watch(self, *args: Any, **kwargs: Any) -> Any:
        if self._errors:
            raise self._errors.pop(0)
        async for event in self._store.watch(*args, **kwargs):
            yield event


async def first(events: Any) -> str:
    async with aclosing(events):
        event = await anext(events)
    return f"{event.type} {event.object['metadata']['name']}"


async def test_a_watch_is_repeated_after_errors_and_each_is_reported(store: Store) -> None:
    reported: list[tuple[str, str]] = []
    cluster = Interrupted(store, Transient("no connection"), Gone("too old"), Forbidden("cannot watch"))
    events = list_watch(cluster, CONFIGMAP, "team", on_error=lambda kind, error: reported.append((str(kind), str(error))))  # type: ignore[arg-type]
    assert await first(events) == "ADDED a"
    assert reported == [("ConfigMap", "no connection"), ("ConfigMap", "cannot watch")], "an old version is normal"


async def test_a_watch_warns_by_default(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    assert await first(list_watch(Interrupted(store, Transient("no connection")), CONFIGMAP, "team")) == "ADDED a"  # type: ignore[arg-type]
    assert "watch of ConfigMap failed and is repeated: no connection" in caplog.text


async def test_a_caller_can_end_a_watch_at_an_error(store: Store) -> None:
    def end(_kind: Any, error: ApiError) -> None:
        raise error

    with pytest.raises(NotFound):
        await first(list_watch(Interrupted(store, NotFound("no such kind")), CONFIGMAP, on_error=end))  # type: ignore[arg-type]


async def test_a_list_is_read_page_by_page(store: Store) -> None:
    pages = [page async for page in list_pages(store, CONFIGMAP, "team", limit=2)]
    assert [[item["metadata"]["name"] for item in page.items] for page in pages] == [["a", "b"], ["c", "d"], ["e"]]
    odd = [item["metadata"]["name"] async for item in list_all(store, CONFIGMAP, labels={"parity": "odd"}, limit=2)]
    assert odd == ["a", "c", "e"]
    named = [item["metadata"]["name"] async for item in list_all(store, CONFIGMAP, "team", fields={"metadata.name": "b"})]
    assert named == ["b"]

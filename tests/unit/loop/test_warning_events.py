"""How many Events, and how much of each, are read."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from finetune_operator.api.kinds import JOB
from finetune_operator.core.messages import READ_LIMIT
from finetune_operator.core.observation import Ref
from finetune_operator.local.store import Store
from finetune_operator.loop.warning_events import list_warning_events


async def test_only_some_events_and_the_beginning_of_their_messages_are_read(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.db")
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a", "namespace": "team"}}
    job["spec"] = {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}  # type: ignore[assignment]
    uid = (await store.create(job))["metadata"]["uid"]
    for number in range(205):
        about = {"kind": "Job", "name": "a", "namespace": "team", "uid": uid}
        metadata = {"name": f"e{number}", "namespace": "team"}
        await store.create({
            "apiVersion": "v1", "kind": "Event", "metadata": metadata, "involvedObject": about, "type": "Warning", "reason": "R", "message": "m" * 9000,
        })  # fmt: skip
    found = await list_warning_events(store, "team", [Ref(JOB, "a")], datetime.now(UTC))
    store.close()
    assert [len(event.message) for event in found[Ref(JOB, "a")]] == [READ_LIMIT] * 200

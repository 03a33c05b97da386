"""A program that writes into a store, for so many rounds or until it is killed: each line of its output is a write that the store acknowledged."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from finetune_operator.api.kinds import CONFIGMAP
from finetune_operator.local.store import Store
from finetune_operator.loop.errors import AlreadyExists


async def main(path: Path, rounds: float) -> None:
    store = Store(path)
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "counter"}, "data": {"count": "0", "again": "0"}}
    try:
        await store.create(manifest)
    except AlreadyExists:
        pass
    count = int((await store.get(CONFIGMAP, "default", "counter"))["data"]["count"])
    while rounds > 0:
        rounds -= 1
        count += 1
        data = {"count": str(count), "again": str(count), "ballast": "x" * (count % 50_000)}
        await store.patch(CONFIGMAP, "default", "counter", {"data": data})
        owner = await store.create({**manifest, "metadata": {"name": f"owner-{count}"}})
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": f"owner-{count}", "uid": owner["metadata"]["uid"]}
        await store.create({**manifest, "metadata": {"name": f"child-{count}", "ownerReferences": [reference]}})
        await store.delete(CONFIGMAP, "default", f"owner-{count}")
        print(count, flush=True)
    store.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2])))

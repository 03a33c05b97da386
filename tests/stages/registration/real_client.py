"""The real ``model-registry`` client at work, as a program: it patches asyncio for its whole process.

``python real_client.py <server> <action> <JSON arguments>`` prints what it found as JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any
from urllib.parse import urlsplit

from model_registry import ModelRegistry


def client(server: str) -> ModelRegistry:
    parts = urlsplit(server)
    return ModelRegistry(f"{parts.scheme}://{parts.hostname}", parts.port, author="Grace", is_secure=False)


def register(registry: ModelRegistry, **arguments: Any) -> Any:
    return registry.register_model(model_format_name="onnx", model_format_version="1", **arguments).id


def read(registry: ModelRegistry, name: str, version: str) -> Any:
    model = registry.get_registered_model(name)
    found = registry.get_model_version(name, version)
    artifact = registry.get_model_artifact(name, version)
    if model is None or found is None or artifact is None:
        return None
    return {
        "model": model.model_dump(mode="json"), "version": found.model_dump(mode="json"),
        "artifact": artifact.model_dump(mode="json"),
        "versions": [one.name for one in registry.get_model_versions(name).order_by_id()],
    }  # fmt: skip


def main() -> None:
    server, action, arguments = sys.argv[1:]
    done = {"register": register, "read": read}[action](client(server), **json.loads(arguments))
    print(json.dumps(done))


if __name__ == "__main__":
    main()

"""Downloads of a process with the guard of its connections: reads what to do from standard input, and prints how each download failed.

The guard cannot be removed from a process, so it has one of its own. ``names`` replaces DNS: each lookup of a name gets the next address.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune_contract.documents import RunInfo, StageDocument
from finetune_contract.uris import ImageReference, S3Location, WebAddress
from finetune_contract.workspace import Attempt
from finetune_stages.sdk import Context
from finetune_stages.sdk.address_guard import install_guard
from finetune_stages.sdk.fault import classify


def replace_names(names: dict[str, list[str]]) -> None:
    """Answer lookups of the names from the table; other lookups go to the system."""
    original = socket.getaddrinfo

    def lookup(host: Any, *arguments: Any, **options: Any) -> Any:
        found = names.get(host)
        return original((found.pop(0) if len(found) > 1 else found[0]) if found else host, *arguments, **options)

    socket.getaddrinfo = lookup


def web(url: str, folder: Path) -> None:
    """Download data from a web server."""
    from finetune_stages.dataset.web import download
    from finetune_stages.sources.origin import DATASET
    from finetune_stages.sources.progress import ProgressCounter

    context = Context(
        StageDocument(2, "dataset", RunInfo("demo", "team-a", "0123456789abcdef"), {}), folder, Attempt(1, 1), "0" * 64
    )
    download(WebAddress(url), folder / "data", DATASET, ProgressCounter(context, "downloading"))


def image(registry: str, _folder: Path) -> None:
    """Read a manifest and a blob of a registry."""
    from finetune_stages.sources.origin import MODEL
    from finetune_stages.sources.registry import Registry
    from finetune_stages.sources.registry_login import Login

    with Registry(ImageReference(registry, "team/model", "1"), Login(), MODEL) as client:
        client.manifest("1")


def s3(endpoint: str, _folder: Path) -> None:
    """Look up an object of an S3 server."""
    from finetune_stages.sources.origin import MODEL
    from finetune_stages.sources.s3 import Bucket, S3Access

    location = S3Location("data", "model/")
    Bucket(location, S3Access.of(location, MODEL, endpoint, None), MODEL).below()


def rest(address: str, _folder: Path) -> None:
    """Call a model registry."""
    from finetune_stages.registration.rest import Access, Rest

    with Rest(Access.of(address)) as client:
        client.get("/api")


def mlflow(address: str, _folder: Path) -> None:
    """Call an MLflow server."""
    from mlflow import MlflowClient

    from finetune_stages.registration.mlflow_faults import server_errors

    with server_errors(address):
        MlflowClient(address).get_registered_model("a")


def task(url: str, _folder: Path) -> None:
    """Read a file as the ``datasets`` library reads that of a task, with asyncio."""
    import fsspec

    with fsspec.open(url) as stream:
        stream.read()


def datagram(host: str, _folder: Path) -> None:
    """Send a datagram."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", (host, 9))


def main() -> None:
    """Do what standard input asks for."""
    orders = json.load(sys.stdin)
    replace_names(orders["names"])
    install_guard()
    calls: dict[str, Callable[[str, Path], None]] = {
        "web": web, "image": image, "s3": s3, "rest": rest, "mlflow": mlflow, "task": task, "datagram": datagram,
    }  # fmt: skip
    ended = []
    for kind, target in orders["calls"]:
        try:
            calls[kind](target, Path.cwd())
            ended.append(["", ""])
        except Exception as error:  # noqa: BLE001 - printed
            fault = classify(error)
            ended.append([fault.reason.name, fault.message])
    json.dump(ended, sys.stdout)


if __name__ == "__main__":
    main()

"""MLflow server: writes with MLflow's client, single lookups over the REST API.

MLflow's client takes seconds to import and retries a failed call for minutes, even if it may have succeeded. Its retries are disabled: the
stage retries its own idempotent steps (:func:`.registry.again`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from finetune_contract.progress import Progress
from finetune_stages.sdk import Context

from .mlflow_faults import server_errors
from .mlflow_registry import VERSION, MLflow
from .mlflow_store import imports
from .record import Record
from .registry import settled
from .rest import CALL_SECONDS, Access, Missing, Rest
from .versions import Entry

_API = "/api/2.0/mlflow/model-versions"
_NOT_OURS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_INSECURE_TLS")
"""Variables that would override the run's token and CA bundle in MLflow's client."""


@contextmanager
def mlflow_server(access: Access, record: Record, context: Context) -> Iterator[MLflow]:
    """Registry on a server. The server is checked before MLflow's client is imported.

    Raises:
        StageError: one of the registry's reasons.
    """
    with Rest(access) as rest:
        entry_named(rest, record.name, record.version)
    for name in _NOT_OURS:
        os.environ.pop(name, None)
    os.environ.update(_environment(access))
    with imports():
        context.report(Progress(percent=50, note="loading MLflow"), force=True)
        from mlflow import MlflowClient

        client: Any = Translated(MlflowClient(tracking_uri=access.address, registry_uri=access.address), access.address)
        context.report(Progress(percent=70, note=f"writing {record.name} into {access.address}"), force=True)
        with server_errors(access.address):
            yield MLflow(client)


class Translated:
    """Wrapper of MLflow's client that raises stage errors, except for codes that a caller handles.

    Idempotent calls are retried; calls that create something are not.
    """

    _ASKED_FOR = ("RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST")
    _MADE_ONCE = "create_"

    def __init__(self, client: Any, address: str) -> None:
        self._client, self._address = client, address

    def __getattr__(self, name: str) -> Any:
        from mlflow.exceptions import MlflowException

        method = getattr(self._client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            with server_errors(self._address):
                try:
                    return method(*args, **kwargs)
                except MlflowException as error:
                    if error.error_code not in self._ASKED_FOR:
                        raise
                    asked_for = error
            raise asked_for

        return call if name.startswith(self._MADE_ONCE) else lambda *args, **kwargs: settled(lambda: call(*args, **kwargs))


def entry_named(rest: Rest, name: str, version: str) -> Entry | None:
    """Return the entry with the tag ``version``, if any."""
    query: dict[str, str | int] = {"filter": f"name = '{name}'", "max_results": 1000}
    while True:
        page = rest.get(f"{_API}/search", **query)
        for found in page.get("model_versions", []):
            tags = {tag["key"]: tag.get("value", "") for tag in found.get("tags", [])}
            if tags.get(VERSION) == version:
                return Entry(version, str(found["version"]), tags)
        if not page.get("next_page_token"):
            return None
        query["page_token"] = page["next_page_token"]


def has_version(rest: Rest, name: str, number: str) -> bool:
    """Return whether MLflow's version ``number`` of a model is on the server."""
    try:
        rest.get(f"{_API}/get", name=name, version=number)
    except Missing:
        return False
    return True


def url(address: str, name: str, number: str) -> str:
    """Return the address of a version in MLflow's user interface."""
    return f"{address}/#/models/{quote(name, safe='')}/versions/{number}"


def _environment(access: Access) -> dict[str, str]:
    """Return the environment variables for MLflow's client."""
    variables = {
        "MLFLOW_ALLOW_HTTP_REDIRECTS": "false",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": f"{CALL_SECONDS:g}",
    }
    if access.token:
        variables["MLFLOW_TRACKING_TOKEN"] = access.token
    if access.ca:
        variables["MLFLOW_TRACKING_SERVER_CERT_PATH"] = str(access.ca)
    return variables

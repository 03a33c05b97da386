"""The work of the stages *registration* and *registry-check*.

Registration collects what is known of the model, writes it into the registry, and reads it back. The check before training asks
whether the version is free. What counts there is the name alone: the model does not exist yet, so an entry is another model's, also
one that an earlier round of the same run made. Only what that run began and left without a model is no entry: registration takes it
up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from finetune_contract import reasons
from finetune_contract.documents import RegistrationInputs, RegistryCheckInputs
from finetune_contract.progress import Progress
from finetune_contract.result import RegistrationOutputs, RegistryCheckOutputs, Result
from finetune_contract.workspace import MLFLOW_STORE
from finetune_stages.sdk import Context, Finished, StageError, run_stage

from . import mlflow_server, mlflow_store
from .kubeflow import Kubeflow
from .record import Record, read_record
from .registry import Registry, register
from .rest import Access, Missing, Rest
from .versions import Entry, version_exists

CHECK = "registry-check"


def main() -> int:
    """Run the stage and return its exit code."""
    return run_stage(("registration", CHECK), work, outputs_exist)


def work(context: Context) -> Finished:
    """Return the stage that the document names."""
    return check(context) if context.document.stage == CHECK else registration(context)


def outputs_exist(context: Context, result: Result) -> bool:
    """Return whether the version that an earlier result describes is still in the registry: one question, and MLflow is not imported.

    What the check found is no lasting fact: it is asked again.
    """
    if context.document.stage == CHECK:
        return False
    inputs = context.inputs(RegistrationInputs)
    name, number, url = (str(result.outputs.get(key)) for key in ("name", "registryVersion", "url"))
    if not inputs.address:
        return mlflow_store.has_version(context.path(MLFLOW_STORE), name, number)
    try:
        with Rest(Access.of(inputs.address)) as rest:
            if inputs.kind == "MLflow":
                return mlflow_server.has_version(rest, name, number)
            return url.startswith(rest.access.address) and rest.get(url.removeprefix(rest.access.address)).get("id") == number
    except Missing:
        return False
    except StageError as fault:  # then registering says what is wrong, or finds what is there
        print(f"registration: {fault.message}")
        return False


def registration(context: Context) -> Finished:
    """Register the model, or complete what an earlier attempt began.

    Raises:
        StageError: see :func:`.record.read_record` and :func:`.registry.register`.
    """
    inputs = context.inputs(RegistrationInputs)
    record = read_record(context, inputs)
    _require_address(inputs)
    _require_alias_that_may_be(inputs)
    context.report(Progress(percent=0, note=f"opening {inputs.address or MLFLOW_STORE}"), force=True)
    with _opened(inputs, record, context) as registry:
        entry = register(registry, record, inputs.on_existing)
        url = _url(inputs, registry, entry)
    outputs = RegistrationOutputs(
        kind=inputs.kind, name=record.name, version=entry.version, registry_version=entry.key, model_uri=record.model_uri,
        read_back=True, run_id=entry.run_id, url=url,
    )  # fmt: skip
    known_as = f"version {entry.key} in MLflow" if inputs.kind == "MLflow" else f"id {entry.key} in Model Registry"
    return Finished(outputs, message=f"{record.name} {entry.version}, {known_as}{', rejected' if record.rejected else ''}")


def check(context: Context) -> Finished:
    """Ask whether the version is free.

    Raises:
        StageError: ``VersionExists``, or what keeps the registry from answering.
    """
    inputs = context.inputs(RegistryCheckInputs)
    _require_address(inputs)
    entry = _existing(inputs, context)
    if entry:
        raise version_exists(inputs.name, entry)
    outputs = RegistryCheckOutputs(inputs.kind, inputs.name, inputs.version, free=True)
    return Finished(outputs, message=f"{inputs.name} {inputs.version} is free in {inputs.address or MLFLOW_STORE}")


def _existing(inputs: RegistryCheckInputs, context: Context) -> Entry | None:
    if not inputs.address:
        return mlflow_store.entry_named(context.path(MLFLOW_STORE), inputs.name, inputs.version)
    with Rest(Access.of(inputs.address)) as rest:
        if inputs.kind == "MLflow":
            return mlflow_server.entry_named(rest, inputs.name, inputs.version)
        entries = Kubeflow(rest).entries(inputs.name, context.document.run.uid)
        return next((entry for entry in entries if entry.version == inputs.version and entry.complete), None)


@contextmanager
def _opened(inputs: RegistrationInputs, record: Record, context: Context) -> Iterator[Registry]:
    """The registry that the inputs name."""
    if not inputs.address:
        with mlflow_store.workspace_store(record, context) as store:
            yield store
        return
    access = Access.of(inputs.address)
    if inputs.kind == "MLflow":
        with mlflow_server.mlflow_server(access, record, context) as server:
            yield server
        return
    with Rest(access) as rest:
        yield Kubeflow(rest)


def _url(inputs: RegistrationInputs, registry: Registry, entry: Entry) -> str | None:
    if isinstance(registry, Kubeflow):
        return registry.url(entry)
    return mlflow_server.url(inputs.address.rstrip("/"), inputs.name, entry.key) if inputs.address else None


def _require_address(inputs: RegistrationInputs | RegistryCheckInputs) -> None:
    if inputs.kind == "ModelRegistry" and not inputs.address:
        raise StageError(reasons.REGISTRY_REFUSED, "registry.address: kind ModelRegistry needs the address of its API.")


def _require_alias_that_may_be(inputs: RegistrationInputs) -> None:
    """MLflow keeps some aliases for itself; it would say so when all else is written."""
    alias = inputs.alias
    if inputs.kind == "MLflow" and alias and (alias.lower() == "latest" or re.fullmatch(r"[vV]\d+", alias)):
        raise StageError(
            reasons.REGISTRY_REFUSED, f"registry.alias: {alias!r} is reserved by MLflow; choose another, such as champion."
        )

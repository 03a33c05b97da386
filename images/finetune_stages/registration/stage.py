"""Program and work of stages *registration* and *registry-check*.

Registration collects the model's data, writes it to the registry, and reads it back. The check before training tests whether the version
is free. It compares names only: the model does not exist yet, so an existing entry is another model's, even if an earlier round of the
same run made it. An incomplete entry of the same run does not count, because registration completes it.
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
from finetune_stages.sdk import Context, Finished, StageError, read_seal, run_stage
from finetune_stages.sdk.identity import require_content, require_reported

from . import mlflow_server, mlflow_store
from .kubeflow import Kubeflow
from .record import MODEL_DIGEST, Record, read_record
from .registry import Registry, register
from .rest import Access, Missing, Rest
from .versions import Entry, version_exists

CHECK = "registry-check"


def main() -> int:
    """Run the stage and return its exit code."""
    return run_stage(("registration", CHECK), work, outputs_exist)


def work(context: Context) -> Finished:
    """Run the stage in the document."""
    return check(context) if context.document.stage == CHECK else registration(context)


def outputs_exist(context: Context, result: Result) -> bool:
    """Return whether the version of an earlier result is still in the registry. MLflow is not imported.

    Results of the check are never reused.
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
    except StageError as fault:  # the registration reports the error or finds the entry
        print(f"registration: {fault.message}")
        return False


def registration(context: Context) -> Finished:
    """Register the model, or complete the registration of an earlier attempt.

    Raises:
        StageError: ``ModelChanged``; see :func:`.record.read_record` and :func:`.registry.register`.
    """
    inputs = context.inputs(RegistrationInputs)
    record = read_record(context, inputs)
    _require_model(context, record)
    _require_address(inputs)
    _require_valid_alias(inputs)
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


def _require_model(context: Context, record: Record) -> None:
    """Check every byte of the model: it may have changed since it was measured. By hand, a model may be anywhere.

    Raises:
        StageError: ``ModelChanged``, ``ModelNotFound``.
    """
    if context.reads is None:
        return
    model = context.path(context.layout.final_model)
    seal = read_seal(model)
    if seal is None:
        raise StageError(reasons.MODEL_NOT_FOUND, f"{model}: there is no complete model; rerun from stage training.")
    require_reported(context, model, seal, "training")
    if record.identity[MODEL_DIGEST] != seal.digest:
        raise StageError(
            reasons.RESULT_CHANGED, f"{model}: the result of stage training is that of another model; rerun from stage training."
        )
    require_content(context, model, seal, "training")


def check(context: Context) -> Finished:
    """Check that the version is free.

    Raises:
        StageError: ``VersionExists``, or an error of the registry.
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
    """Registry in the inputs."""
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
        raise StageError(
            reasons.REGISTRY_REJECTED,
            "registry.address: it is missing, and kind ModelRegistry requires it; set the address of the registry's API.",
        )


def _require_valid_alias(inputs: RegistrationInputs) -> None:
    """Check that the alias is not reserved by MLflow, which checks it only after everything else is written."""
    alias = inputs.alias
    if inputs.kind == "MLflow" and alias and (alias.lower() == "latest" or re.fullmatch(r"[vV]\d+", alias)):
        raise StageError(
            reasons.REGISTRY_REJECTED, f"registry.alias: {alias!r} is reserved by MLflow; set another one, such as champion."
        )

"""Validation of a run's pods by the API server, before the run starts.

A TrainJob accepts values that no Job or pod accepts. The Job is created hours later by a controller whose error only its own log
shows. So the pods that carry values of users are created with ``dryRun=All`` when the run is resolved; an error about
a path of the pod is reported about the field of the run that its value comes from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from finetune_contract.workspace import Attempt
from finetune_operator.api import reasons
from finetune_operator.api.stages import TRAINING

from . import naming, stages
from .ended_run import pending_rerun
from .manifests import children
from .origins import origin_prefix
from .paths import Json, leaves
from .resolve import SpecRejection, resolve
from .run import Run, StageStatus
from .settings import Settings
from .stages import ProgramStage

Causes = Sequence[tuple[str, str]]
"""Field paths and messages of an error of the API server."""

_POD_FIELDS = (
    "placement", "resources", "env", "volumes", "volumeMounts", "imagePullSecrets", "sharedMemory", "image", "taskFiles",
)  # fmt: skip
"""The fields of a section that are copied into pods."""
_TEMPLATE = r"spec\.template\."
_CONTAINER = _TEMPLATE + r"spec\.containers\[0\]\."
_PATHS: tuple[tuple[re.Pattern[str], str], ...] = tuple((re.compile(pattern), field) for pattern, field in (
    (_TEMPLATE + r"(?:metadata\.)?labels", "placement.labels"),
    (_TEMPLATE + r"(?:metadata\.)?annotations", "placement.annotations"),
    (_TEMPLATE + r"spec\.nodeSelector", "placement.nodeSelector"),
    (_TEMPLATE + r"spec\.tolerations", "placement.tolerations"),
    (_TEMPLATE + r"spec\.affinity", "placement.affinity"),
    (_TEMPLATE + r"spec\.imagePullSecrets", "imagePullSecrets"),
    (_CONTAINER + r"resources\.(?:requests|limits)\[(cpu|memory)\]", r"resources.\1"),
    (_CONTAINER + r"resources\.(?:requests|limits)\[ephemeral-storage\]", "resources.ephemeralStorage"),
    (_CONTAINER + r"resources", "resources"),
    (_CONTAINER + r"image(?=$|:)", "image"),
))  # fmt: skip
"""Paths of the pod, and the field of the section that takes their place. Errors name labels without ``metadata``."""
_LIST = re.compile(_TEMPLATE + r"spec\.(?:containers\[0\]\.)?(volumeMounts|volumes)(?:\[(\d+)\])?")
_RUNTIME_IMAGE = "image-of-the-runtime"
"""Image of a training pod whose run and configuration set none. A dry run pulls nothing."""
_SHOWN = 3
_UNDECODABLE = re.compile(r"cannot be handled as a Job: (?!strict decoding error)(.*)", re.DOTALL)
"""Not of an API server that does not know a field that we write: JobSet's client would not ask for that."""


@dataclass(frozen=True)
class Preflight:
    """A Job with the pod of a stage, to be created in a dry run only."""

    stage: str
    manifest: Json


def due(run: Run) -> bool:
    """Return whether the next decision resolves the run, so that its pods are looked at first."""
    if run.deleting or (run.spec.get("suspend") and not run.ended):
        return False
    if run.started:
        return pending_rerun(run) is not None
    return not run.ended or run.generation != run.status.get("observedGeneration")


def preflights(run: Run, settings: Settings) -> tuple[Preflight, ...]:
    """Return the Jobs to try before the run starts: one for each section whose pod fields somebody has set."""
    if not due(run):
        return ()
    resolved = resolve(run.spec, settings)
    if isinstance(resolved, SpecRejection):
        return ()
    ready = replace(run, status={"resolved": resolved, "round": 1})
    return tuple(Preflight(stage.name, _job(ready, stage)) for stage in _shaped(ready))


def _shaped(run: Run) -> Iterator[ProgramStage]:
    origins = run.status["resolved"]["origins"]
    defaults = {path for origin, paths in origins.items() if origin.startswith(("preset", "derived")) for path in paths}
    for stage in stages.GRAPH.programs.values():
        pod_section = stage.definition.pod_section
        if pod_section is None or stage.skipped(run):
            continue
        section = run.resolved.values[pod_section]
        fields = {name: section[name] for name in _POD_FIELDS if section.get(name) is not None}
        if any(path not in defaults for path, _ in leaves(fields, pod_section)):
            yield stage


def _job(run: Run, stage: ProgramStage) -> Json:
    stage_status = StageStatus(stage.name, attempt=1, child_name=naming.child_name(run.name, stage.name, Attempt(1, 1)))
    job = children.job(run, stage_status, stage.program, stage.pod(run), _image(run, stage))
    metadata = {key: job["metadata"][key] for key in ("name", "namespace", "labels")}  # nothing that needs further rights
    return {**job, "metadata": metadata}


def _image(run: Run, stage: ProgramStage) -> str:
    if stage.definition is TRAINING:
        return run.resolved.training.image or _RUNTIME_IMAGE
    return str(run.status["resolved"]["images"][stage.definition.image])


def problems(code: int, message: str, causes: Causes) -> Causes:
    """Return the invalid fields of a Job in an error of the API server, nothing where the error is about something else.

    Rights, quotas, admission policies and webhooks may answer otherwise for a Job that JobSet creates, or later: they never
    reject a run. Of their errors none names a field.
    """
    if code == 422:
        return [(field, words) for field, words in causes if field]
    found = _UNDECODABLE.search(message) if code == 400 else None
    return [("", found[1])] if found else []


def rejection(resolved: Json, run: Run, rejected: Mapping[str, Causes]) -> SpecRejection | None:
    """Return why a run cannot start, given the fields of the pods of each stage that the API server rejected."""
    run = replace(run, status={"resolved": resolved, "round": 1})
    sentences: list[str] = []
    for stage, causes in rejected.items():
        program = stages.GRAPH.programs[stage]
        section = program.definition.pod_section
        assert section is not None, "only these are tried"  # for the type checker
        manifest = _job(run, program)
        sentences += [_sentence(resolved, section, manifest, *cause) for cause in causes]
    found = list(dict.fromkeys(sentences))
    if not found:
        return None
    more = f" (and {len(found) - _SHOWN} more)" if len(found) > _SHOWN else ""
    return SpecRejection(reasons.INVALID_SPEC, f"{'; '.join(found[:_SHOWN])}{more}; correct it.")


def _sentence(resolved: Json, section: str, manifest: Json, path: str, words: str) -> str:
    field = _field(resolved["spec"][section], manifest, path)
    if field is None:
        return f"spec.{section}: its pods are not valid: {path}{': ' if path else ''}{words}"
    return f"{_prefix(resolved, f'{section}.{field}')}{section}.{field}: {words}"


def _field(section: Mapping[str, Any], manifest: Json, path: str) -> str | None:
    """Return the field of a section that a path of its pods comes from."""
    for pattern, field in _PATHS:
        found = pattern.match(path)
        if found:
            return f"{found.expand(field)}{path[found.end() :]}"
    item = _LIST.match(path)
    return _item(section, manifest, item, path) if item else None


def _item(section: Mapping[str, Any], manifest: Json, item: re.Match[str], path: str) -> str | None:
    """Return the entry of a user's list, which the operator's own entries come before."""
    if item[2] is None:  # the API server names no entry for volumeMounts.subPath
        return path[item.start(1) :]
    name, index = item[1], int(item[2])
    spec = manifest["spec"]["template"]["spec"]
    entries = spec[name] if name == "volumes" else spec["containers"][0][name]
    own = section.get(name) or ()
    place = index - (len(entries) - len(own))
    if place >= 0:
        return f"{name}[{place}]{path[item.end() :]}"
    return {"shared-memory": "sharedMemory", "tasks": "taskFiles"}.get(entries[index]["name"])


def _prefix(resolved: Json, field: str) -> str:
    """Return the text before ``field`` in a message, from the origins as status has them: by origin, those of the run left out."""
    origins = {path: origin for origin, paths in resolved["origins"].items() for path in paths}
    stated = (path for path, _ in leaves(resolved["spec"]) if path not in origins)
    return origin_prefix({**dict.fromkeys(stated, "run"), **origins}, field)

"""The CustomResourceDefinition, generated from the models. ``hack/generate.py`` writes it to ``crds/``."""

from __future__ import annotations

from functools import cache
from typing import Any

from finetune_operator import __version__

from .finetunerun import GROUP, KIND, PLURAL, VERSION, FineTuneRun
from .schema import structural
from .spec import FineTuneRunSpec
from .status import UNOBSERVED

VERSION_ANNOTATION = f"{GROUP}/version"
"""Annotation of the definition: the release that it belongs to."""
COLUMNS = (
    ("Phase", "string", ".status.phase", 0, "Summary of the state"),
    ("Progress", "string", ".status.summary.progress", 0, "Progress of the running stage in percent"),
    ("Rows", "string", ".status.summary.rows", 0, "Number of training rows, and of rows that are left out"),
    ("Loss", "string", ".status.summary.loss", 0, "Last training loss"),
    ("Score", "string", ".status.summary.score", 0, "First metric of the gate, or else of the evaluation"),
    (
        "Model",
        "string",
        ".status.summary.model",
        0,
        "Name and version of the registered model; before registration, name of the base model",
    ),
    ("Age", "date", ".metadata.creationTimestamp", 0, "Time since the run was created"),
    ("Algorithm", "string", ".status.summary.algorithm", 1, "Training algorithm"),
    ("ETA", "string", ".status.summary.eta", 1, "Estimated remaining time of the running stage"),
    ("Queue", "string", ".status.summary.queue", 1, "Queue, and position in it"),
    ("Message", "string", ".status.summary.message", 1, "Current activity, or why the run waits or failed"),
)


SELECTABLE = (
    ".status.phase",
    ".status.summary.algorithm",
    ".status.failure.reason",
    ".spec.training.algorithm",
    ".spec.model.uri",
)
"""Fields for ``--field-selector`` (Kubernetes 1.31 and later). The experiment of a run is a label: ``-l finetunerun.io/experiment=<name>``."""


@cache
def schema() -> dict[str, Any]:
    """Return the structural schema of a FineTuneRun."""
    root = structural(FineTuneRun)
    for standard in ("apiVersion", "kind"):
        root["properties"][standard] = {"type": "string"}
    root["properties"]["metadata"] = {"type": "object"}
    root["required"] = ["spec"]
    root["properties"]["status"]["default"] = UNOBSERVED
    return root


@cache
def defaults_schema() -> dict[str, Any]:
    """Return the structural schema of ``spec`` for defaults of a namespace or of the operator, without the rules that only a run must obey."""
    return structural(FineTuneRunSpec, defaults=True)


def crd() -> dict[str, Any]:
    """Return the CustomResourceDefinition ``finetuneruns.finetunerun.io``."""
    columns = [
        {"name": name, "type": type_, "jsonPath": path, "priority": priority, "description": description}
        for name, type_, path, priority, description in COLUMNS
    ]
    names = {
        "kind": KIND, "listKind": f"{KIND}List", "plural": PLURAL, "singular": KIND.lower(), "shortNames": ["ftr"],
        "categories": ["ai"],
    }  # fmt: skip
    version = {
        "name": VERSION, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema()},
        "subresources": {"status": {}}, "additionalPrinterColumns": columns,
        "selectableFields": [{"jsonPath": path} for path in SELECTABLE],
    }  # fmt: skip
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}", "annotations": {VERSION_ANNOTATION: __version__}},
        "spec": {"group": GROUP, "names": names, "scope": "Namespaced", "versions": [version]},
    }

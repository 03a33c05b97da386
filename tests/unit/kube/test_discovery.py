"""Which Trainer is at hand, from the schema that it serves."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_operator.core.settings import Trainer
from finetune_operator.kube.discovery import trainer_of


def patched(**fields: Any) -> dict[str, Any]:
    """A schema in which a TrainJob may patch these fields of a pod."""
    schema: dict[str, Any] = {"properties": fields}
    for step in ("spec", "template", "spec", "template"):
        schema = {"properties": {step: schema}}
    schema = {"properties": {"replicatedJobs": {"items": schema}}}
    for step in ("spec", "template", "trainingRuntimeSpec"):
        schema = {"properties": {step: schema}}
    return {"runtimePatches": {"items": schema}}


@pytest.mark.parametrize(
    ("fields", "trainer"),
    [
        (patched(volumes={}, securityContext={}), Trainer("runtimePatches", pod_security=True, grace_period=False)),
        (
            patched(volumes={}, securityContext={}, terminationGracePeriodSeconds={}),
            Trainer("runtimePatches", pod_security=True, grace_period=True),
        ),
        ({"podTemplateOverrides": {}}, Trainer("podTemplateOverrides", pod_security=False, grace_period=False)),
        ({"podSpecOverrides": {}}, None),
        ({}, None),
    ],
    ids=["2.2", "2.3", "2.1", "2.0", "nothing"],
)
def test_the_shape_tells_the_release(fields: dict[str, Any], trainer: Trainer | None) -> None:
    assert trainer_of(fields) == trainer

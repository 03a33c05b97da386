"""Detection of Trainer's schema."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from finetune_operator.core.settings import Trainer
from finetune_operator.kube.client import ApiServer
from finetune_operator.kube.discovery import detect_trainer, trainer_of


def patched(**fields: Any) -> dict[str, Any]:
    """A schema in which a TrainJob can override these fields of a pod."""
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
        ({"podSpecOverrides": {}}, Trainer("podSpecOverrides", pod_security=False, grace_period=False)),
        ({}, Trainer("unknown", pod_security=False, grace_period=False)),
    ],
    ids=["2.2", "2.3", "2.1", "2.0", "nothing"],
)
def test_the_schema_determines_the_variant(fields: dict[str, Any], trainer: Trainer) -> None:
    assert trainer_of(fields) == trainer


@pytest.mark.parametrize("code", [200, 404])
async def test_a_crd_that_was_just_deleted_means_no_trainer(code: int) -> None:
    """A real API server returns 200 without content for half a second."""

    async def document(_: web.Request) -> web.Response:
        return web.Response(status=code)

    application = web.Application()
    application.router.add_get("/openapi/v3/apis/trainer.kubeflow.org/v1alpha1", document)
    async with TestServer(application) as served, aiohttp.ClientSession() as session:
        assert await detect_trainer(ApiServer(session, str(served.make_url("")).rstrip("/"))) is None

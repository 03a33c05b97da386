"""The HTTP face of the store, where it is more than the cluster protocol: what kubectl and kopf ask for."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from api_server import application, serving
from finetune_operator.api.kinds import CONFIGMAP, JOB, KINDS, POD
from finetune_operator.local.store import Store
from finetune_operator.local.store.database import RETAINED_EVENTS

RUNS = "/apis/finetunerun.io/v1alpha1/namespaces/default/finetuneruns"
MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
MERGE = {"Content-Type": "application/merge-patch+json"}


def run(name: str = "a", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "metadata": {"name": name},
        "spec": {"dataset": {"uri": "a/b"}, **spec},
    }  # fmt: skip


def config_map(name: str = "a", **fields: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, **fields}


def pod(name: str = "a") -> dict[str, Any]:
    spec = {"nodeName": "here", "containers": [{"name": "main", "image": "i"}, {"name": "side", "image": "i"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


@pytest.fixture
def store(tmp_path: Path) -> Any:
    store = Store(tmp_path / "store.db", log_file=lambda pod, container: tmp_path / f"{pod['metadata']['name']}-{container}.log")
    yield store
    store.close()


@pytest.fixture
async def http(store: Store) -> AsyncIterator[aiohttp.ClientSession]:
    async with serving(application(store, bookmark_seconds=0.1)) as address, aiohttp.ClientSession(address) as session:
        yield session


async def ask(http: aiohttp.ClientSession, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
    data = body if body is None else io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
    async with http.request(method, path, data=data, **more) as response:
        return response.status, await response.json(content_type=None)


async def test_discovery(http: aiohttp.ClientSession) -> None:
    assert (await ask(http, "GET", "/version"))[1]["major"] == "1"
    for path in ("/healthz", "/livez", "/readyz"):
        async with http.get(path) as response:
            assert await response.text() == "ok"
    assert (await ask(http, "GET", "/api"))[1]["versions"] == ["v1"]
    groups = (await ask(http, "GET", "/apis"))[1]["groups"]
    assert [group["name"] for group in groups] == [
        "batch",
        "coordination.k8s.io",
        "finetunerun.io",
        "jobset.x-k8s.io",
        "trainer.kubeflow.org",
    ]
    assert (await ask(http, "GET", "/apis/batch"))[1] == groups[0]
    served = {}
    for path in ("/api/v1", *(f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups)):
        document = (await ask(http, "GET", path))[1]
        served |= {(document["groupVersion"], entry["name"]): entry for entry in document["resources"]}
    for kind in KINDS:
        entry = served[kind.api_version, kind.plural]
        assert (entry["kind"], entry["namespaced"]) == (kind.name, kind.namespaced)
    assert served["finetunerun.io/v1alpha1", "finetuneruns"]["shortNames"] == ["ftr"]
    assert "patch" in served["finetunerun.io/v1alpha1", "finetuneruns/status"]["verbs"]
    assert ("v1", "configmaps/status") not in served
    assert ("v1", "pods/log") in served
    assert ("v1", "secrets") not in {name for _, name in served}


async def test_a_rejection_is_a_status(http: aiohttp.ClientSession) -> None:
    code, status = await ask(http, "POST", RUNS, run(dataset={"uri": "gs://x"}))
    assert code == status["code"] == 422
    assert (status["kind"], status["status"], status["reason"]) == ("Status", "Failure", "Invalid")
    details = status["details"]
    assert (details["group"], details["kind"], details["name"]) == ("finetunerun.io", "FineTuneRun", "a")
    assert [(cause["reason"], cause["field"]) for cause in details["causes"]] == [("FieldValueInvalid", "spec.dataset.uri")]
    code, status = await ask(http, "GET", f"{RUNS}/nothing")
    assert (code, status["reason"]) == (404, "NotFound")
    assert status["details"] == {"name": "nothing", "group": "finetunerun.io", "kind": "finetuneruns"}


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "code", "words"),
    [
        ("POST", RUNS, b'{"a":', {}, 400, "not JSON"),
        ("POST", RUNS, b"[1]", {}, 400, "not a JSON object"),
        ("POST", RUNS, config_map(), {}, 400, "must be of type FineTuneRun"),
        ("POST", RUNS, {**run(), "metadata": []}, {}, 422, "metadata"),
        ("POST", RUNS, {**run(), "metadata": {"name": "a", "namespace": "other"}}, {}, 400, "does not match the namespace"),
        ("PATCH", f"{RUNS}/there", b"{}", {}, 415, "application/merge-patch+json"),
        ("PATCH", f"{RUNS}/there", b"[]", MERGE, 400, "not a JSON object"),
        ("PUT", f"{RUNS}/there", b"{}", {}, 405, "Method Not Allowed"),
        ("DELETE", f"{RUNS}/there?propagationPolicy=Never", None, {}, 400, "propagationPolicy"),
        ("DELETE", f"{RUNS}/there?gracePeriodSeconds=soon", None, {}, 400, "gracePeriodSeconds"),
        ("GET", f"{RUNS}?labelSelector=a%20b", None, {}, 400, "unable to parse requirement"),
        ("GET", f"{RUNS}?fieldSelector=spec.suspend=a", None, {}, 400, "field label not supported: spec.suspend"),
        ("GET", f"{RUNS}?fieldSelector=metadata.name", None, {}, 400, "invalid field selector"),
        ("GET", f"{RUNS}?fieldSelector=metadata.name=a&watch=1", None, {}, 400, "fieldSelector"),
        ("GET", f"{RUNS}?limit=many", None, {}, 400, "limit"),
        ("GET", f"{RUNS}?limit=1&continue=x", None, {}, 400, "continue"),
        ("GET", "/apis/finetunerun.io/v1alpha1/namespaces/default/gadgets", None, {}, 404, "could not find the requested resource"),
        ("GET", "/api/v1/namespaces/default/secrets", None, {}, 404, "could not find the requested resource"),
        ("PATCH", f"{MAPS}/there/status", b"{}", MERGE, 404, "could not find the requested resource"),
        ("POST", MAPS, config_map("b", data={"k": "x" * 4_000_000}), {}, 413, "Too Large"),
    ],
)  # fmt: skip
async def test_bad_requests(
    http: aiohttp.ClientSession, method: str, path: str, body: Any, headers: dict[str, str], code: int, words: str
) -> None:
    await ask(http, "POST", RUNS, run("there"))
    answer, status = await ask(http, method, path, body, headers=headers)
    assert (answer, status["kind"], status["status"]) == (code, "Status", "Failure")
    assert words in status["message"]


@pytest.mark.parametrize(
    ("mode", "code", "warned"), [("Strict", 400, False), ("Warn", 201, True), ("", 201, True), ("Ignore", 201, False)]
)
async def test_field_validation_of_a_new_object(http: aiohttp.ClientSession, mode: str, code: int, warned: bool) -> None:
    query = {"fieldValidation": mode} if mode else {}
    async with http.post(RUNS, data=json.dumps(run(unheard=1)), params=query) as response:
        assert response.status == code
        assert ('299 - "unknown field \\"spec.unheard\\""' in response.headers.getall("Warning", [])) is warned
        assert "unheard" not in (await response.json()).get("spec", {})


@pytest.mark.parametrize(("mode", "code", "warned"), [("Strict", 422, False), ("Warn", 200, True), ("Ignore", 200, False)])
async def test_field_validation_of_a_patch(http: aiohttp.ClientSession, mode: str, code: int, warned: bool) -> None:
    await ask(http, "POST", RUNS, run())
    body = json.dumps({"spec": {"unheard": 1, "suspend": True}})
    async with http.patch(f"{RUNS}/a", data=body, params={"fieldValidation": mode}, headers=MERGE) as response:
        assert response.status == code
        assert bool(response.headers.getall("Warning", [])) is warned


async def test_deletion_answers_with_what_is_left(http: aiohttp.ClientSession) -> None:
    held = run()
    held["metadata"]["finalizers"] = ["test.io/hold"]
    _, created = await ask(http, "POST", RUNS, held)
    code, left = await ask(http, "DELETE", f"{RUNS}/a")
    assert (code, left["metadata"]["uid"]) == (200, created["metadata"]["uid"])
    assert left["metadata"]["deletionTimestamp"]
    await ask(http, "PATCH", f"{RUNS}/a", {"metadata": {"finalizers": None}}, headers=MERGE)
    await ask(http, "POST", MAPS, config_map())
    code, status = await ask(http, "DELETE", f"{MAPS}/a", {"kind": "DeleteOptions", "apiVersion": "v1"})
    assert (code, status["status"], status["details"]["kind"]) == (200, "Success", "configmaps")


async def test_lists_of_all_namespaces_and_pages(http: aiohttp.ClientSession, store: Store) -> None:
    for namespace in ("one", "two"):
        manifest = config_map()
        manifest["metadata"]["namespace"] = namespace
        await store.create(manifest)
    _, everything = await ask(http, "GET", "/api/v1/configmaps")
    assert (everything["kind"], everything["apiVersion"]) == ("ConfigMapList", "v1")
    assert [item["metadata"]["namespace"] for item in everything["items"]] == ["one", "two"]
    _, first = await ask(http, "GET", "/api/v1/configmaps?limit=1")
    _, second = await ask(http, "GET", f"/api/v1/configmaps?limit=1&continue={first['metadata']['continue']}")
    assert first["items"] + second["items"] == everything["items"]
    assert "continue" not in second["metadata"]


async def test_a_cluster_wide_kind(http: aiohttp.ClientSession) -> None:
    path = "/apis/trainer.kubeflow.org/v1alpha1/clustertrainingruntimes"
    runtime = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "ClusterTrainingRuntime",
        "metadata": {"name": "training-hub"},
    }
    code, created = await ask(http, "POST", path, {**runtime, "spec": {}})
    assert (code, "namespace" in created["metadata"]) == (201, False)
    assert (await ask(http, "GET", f"{path}/training-hub"))[1] == created
    assert (await ask(http, "GET", path))[1]["items"] == [created]


async def watch(http: aiohttp.ClientSession, path: str, count: int, **query: str) -> list[dict[str, Any]]:
    async with http.get(path, params={"watch": "1", **query}) as response:
        assert response.status == 200
        lines = []
        async for line in response.content:
            lines.append(json.loads(line))
            if len(lines) == count:
                break
        return lines


async def test_a_watch_sends_events_and_bookmarks(http: aiohttp.ClientSession) -> None:
    _, created = await ask(http, "POST", MAPS, config_map())
    added, bookmark = await watch(http, MAPS, 2, allowWatchBookmarks="true")
    assert added == {"type": "ADDED", "object": created}
    version = created["metadata"]["resourceVersion"]
    expected = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"resourceVersion": version}}
    assert bookmark == {"type": "BOOKMARK", "object": expected}


async def test_a_watch_ends_when_it_was_to_end(http: aiohttp.ClientSession) -> None:
    async with asyncio.timeout(20):
        assert await watch(http, MAPS, 100, timeoutSeconds="1") == []


async def test_a_watch_of_a_version_that_is_too_old(http: aiohttp.ClientSession, store: Store) -> None:
    await store.create(config_map())
    for number in range(RETAINED_EVENTS + 10):
        await store.patch(CONFIGMAP, "default", "a", {"data": {"key": str(number)}})
    (error,) = await watch(http, MAPS, 1, resourceVersion="2")
    assert (error["type"], error["object"]["code"], error["object"]["reason"]) == ("ERROR", 410, "Expired")


async def test_a_server_that_stops_ends_its_watches(store: Store) -> None:
    async with asyncio.timeout(20):
        async with serving(application(store)) as address:
            session = aiohttp.ClientSession(address)
            response = await session.get(MAPS, params={"watch": "1"})
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
        response.close()
        await session.close()


async def test_a_caller_that_goes_leaves_no_watch(store: Store) -> None:
    app = application(store)
    async with serving(app) as address, aiohttp.ClientSession(address) as session:
        async with session.get(MAPS, params={"watch": "1"}):
            assert any(store._notifier._waiting.values())
        async with asyncio.timeout(20):
            while any(store._notifier._waiting.values()):
                await asyncio.sleep(0.01)


async def test_only_the_bearer_of_the_token_may_call(store: Store) -> None:
    async with serving(application(store, token="sesame")) as address, aiohttp.ClientSession(address) as session:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer"}):
            code, status = await ask(session, "GET", RUNS, headers=headers)
            assert (code, status["reason"]) == (401, "Unauthorized")
        assert (await ask(session, "GET", RUNS, headers={"Authorization": "Bearer sesame"}))[0] == 200


async def read_log(http: aiohttp.ClientSession, **query: str) -> tuple[int, str]:
    async with http.get(f"{PODS}/a/log", params=query) as response:
        return response.status, await response.text()


async def test_logs(http: aiohttp.ClientSession, tmp_path: Path) -> None:
    await ask(http, "POST", PODS, pod())
    code, text = await read_log(http)
    assert (code, json.loads(text)["message"]) == (400, 'container "main" in pod "a" is waiting to start: ContainerCreating')
    (tmp_path / "a-main.log").write_text("one\ntwo\nthree\n")
    (tmp_path / "a-side.log").write_text("aside")
    assert await read_log(http) == (200, "one\ntwo\nthree\n")
    assert await read_log(http, tailLines="2") == (200, "two\nthree\n")
    assert await read_log(http, tailLines="2", limitBytes="5") == (200, "two\nt")
    assert await read_log(http, tailLines="0") == (200, "")
    assert await read_log(http, container="side") == (200, "aside")
    assert (await read_log(http, container="other"))[0] == 400


async def test_a_log_that_is_followed(http: aiohttp.ClientSession, store: Store, tmp_path: Path) -> None:
    await ask(http, "POST", PODS, pod())
    log = tmp_path / "a-main.log"
    log.write_text("one\ntwo\n")
    async with asyncio.timeout(20), http.get(f"{PODS}/a/log", params={"follow": "true", "tailLines": "1"}) as response:
        assert await response.content.readline() == b"two\n"
        with log.open("a") as writer:
            writer.write("three\n")
        assert await response.content.readline() == b"three\n"
        with log.open("a") as writer:
            writer.write("the end")
        await store.patch_status(POD, "default", "a", {"status": {"phase": "Succeeded"}})
        assert await response.read() == b"the end"


async def test_an_unforeseen_fault_is_a_status_too(
    http: aiohttp.ClientSession, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_args: Any, **_options: Any) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(store, "get", broken)
    code, status = await ask(http, "GET", f"{RUNS}/a")
    assert (code, status["reason"], status["message"]) == (500, "InternalError", "ZeroDivisionError: by nothing")
    assert "by nothing" in caplog.text


async def test_a_job_s_status_is_not_its_creator_s(http: aiohttp.ClientSession, store: Store) -> None:
    path = "/apis/batch/v1/namespaces/default/jobs"
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}, "spec": {}, "status": {"succeeded": 1}}
    assert "status" not in (await ask(http, "POST", path, job))[1]
    await ask(http, "PATCH", f"{path}/a/status", {"status": {"active": 1}}, headers=MERGE)
    assert (await store.get(JOB, "default", "a"))["status"] == {"active": 1}

"""Get, create, patch and status of every implementation of the cluster protocol."""

from __future__ import annotations

import re

import pytest

from contract_objects import Maker
from finetune_operator.api.kinds import CLAIM, CONFIGMAP, EVENT, FINETUNERUN, JOB, POD
from finetune_operator.api.status import UNOBSERVED
from finetune_operator.loop.cluster import Cluster, Object
from finetune_operator.loop.errors import AlreadyExists, Conflict, Invalid, NotFound

STARTED = {"startedAt": "2026-11-21T10:00:00Z", "phase": "Training"}


async def seen(cluster: Cluster, make: Maker) -> Object:
    """A run whose status was written. An API server stores the default of ``status`` with the first write of any field."""
    await cluster.create(make.run())
    return await cluster.patch_status(FINETUNERUN, "default", make.name(), {"status": STARTED})


def fields(rejection: pytest.ExceptionInfo[Invalid]) -> set[str]:
    return {field for field, _ in rejection.value.causes}


async def test_a_new_object_gets_its_metadata(cluster: Cluster, make: Maker) -> None:
    created = await cluster.create(make.run())
    metadata = created["metadata"]
    assert metadata["generation"] == 1
    assert metadata["namespace"] == "default"
    assert int(metadata["resourceVersion"]) > 0
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", metadata["uid"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", metadata["creationTimestamp"])
    assert await cluster.get(FINETUNERUN, "default", make.name()) == created


async def test_metadata_alone(cluster: Cluster, make: Maker) -> None:
    created = await cluster.create(make.config_map())
    found = await cluster.get_metadata(CONFIGMAP, "default", make.name())
    assert set(found) == {"apiVersion", "kind", "metadata"}
    assert (found["apiVersion"], found["kind"]) == ("v1", "ConfigMap")
    assert {key: found["metadata"][key] for key in ("name", "uid", "resourceVersion")} == {
        key: created["metadata"][key] for key in ("name", "uid", "resourceVersion")
    }
    with pytest.raises(NotFound):
        await cluster.get_metadata(CONFIGMAP, "default", "nothing")


async def test_a_create_cannot_set_the_fields_of_the_server(cluster: Cluster, make: Maker) -> None:
    manifest = {**make.run(), "status": STARTED}
    manifest["metadata"] |= {"uid": "mine", "generation": 7, "creationTimestamp": "2001-01-01T00:00:00Z"}
    created = await cluster.create(manifest)
    assert created["status"] == UNOBSERVED
    assert created["metadata"]["uid"] != "mine"
    assert created["metadata"]["generation"] == 1
    assert not created["metadata"]["creationTimestamp"].startswith("2001")


async def test_generated_names(cluster: Cluster, make: Maker) -> None:
    manifest = make.config_map()
    manifest["metadata"]["generateName"] = manifest["metadata"].pop("name") + "-"
    names = {(await cluster.create(manifest))["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3
    assert all(re.fullmatch(rf"{make.name()}-[a-z0-9]{{5}}", name) for name in names)


async def test_nulls_of_a_manifest_are_absent(cluster: Cluster, make: Maker) -> None:
    created = await cluster.create(make.run(model=None, training={"epochs": None}))
    assert created["spec"] == {"dataset": {"uri": "tatsu-lab/alpaca"}, "training": {}}


async def test_names_are_unique(cluster: Cluster, make: Maker) -> None:
    await cluster.create(make.run())
    with pytest.raises(AlreadyExists, match=f'finetuneruns.finetunerun.io "{make.name()}" already exists') as rejection:
        await cluster.create(make.run())
    assert (rejection.value.code, rejection.value.reason) == (409, "AlreadyExists")
    assert isinstance(rejection.value, Conflict)
    await cluster.create(make.config_map())  # another kind


async def test_an_invalid_object_is_rejected_with_its_fields(cluster: Cluster, make: Maker) -> None:
    with pytest.raises(Invalid) as rejection:
        await cluster.create(make.run(dataset={"uri": "gs://bucket"}, training={"epochs": 0}))
    assert (rejection.value.code, rejection.value.reason) == (422, "Invalid")
    assert fields(rejection) == {"spec.dataset.uri", "spec.training.epochs"}
    assert rejection.value.message.startswith(f'FineTuneRun.finetunerun.io "{make.name()}" is invalid: [')
    with pytest.raises(NotFound):
        await cluster.get(FINETUNERUN, "default", make.name())


async def test_a_dry_run_validates_and_stores_nothing(cluster: Cluster, make: Maker) -> None:
    found = await cluster.create(make.config_map(), dry_run=True)
    assert found["data"] == {"key": "value"}
    with pytest.raises(NotFound):
        await cluster.get(CONFIGMAP, "default", make.name())
    bad = make.config_map()
    bad["metadata"]["labels"] = {"no key": "x"}
    with pytest.raises(Invalid) as rejection:
        await cluster.create(bad, dry_run=True)
    assert (rejection.value.code, fields(rejection)) == (422, {"metadata.labels"})
    await cluster.create(make.config_map())
    with pytest.raises(AlreadyExists):
        await cluster.create(make.config_map(), dry_run=True)


async def test_rules_run_only_on_a_well_formed_object(cluster: Cluster, make: Maker) -> None:
    with pytest.raises(Invalid) as rejection:
        await cluster.create(make.run(dataset={"uri": "gs://bucket"}, training={"epochs": "three"}))
    assert fields(rejection) == {"spec.training.epochs", ""}
    assert "some validation rules were not checked" in rejection.value.message


async def test_unknown_fields_of_a_new_object_are_rejected(cluster: Cluster, make: Maker) -> None:
    manifest = make.run(dataset={"uri": "a/b", "url": "x"}, epochs=3)
    manifest["metadata"]["label"] = {}
    with pytest.raises(Invalid) as rejection:
        await cluster.create(manifest)
    assert (rejection.value.code, rejection.value.reason) == (400, "BadRequest")
    for field in ("spec.dataset.url", "spec.epochs", "metadata.label"):
        assert f'unknown field "{field}"' in rejection.value.message


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"name": "No_Name"}, "metadata.name"),
        ({"labels": {"no key": "x"}}, "metadata.labels"),
        ({"labels": {"a": "no value!"}}, "metadata.labels"),
        ({"annotations": {"/x": ""}}, "metadata.annotations"),
        ({"finalizers": ["no finalizer"]}, "metadata.finalizers"),
    ],
)
@pytest.mark.parametrize("kind", ["run", "config_map"])
async def test_metadata_is_validated(cluster: Cluster, make: Maker, kind: str, metadata: dict[str, object], field: str) -> None:
    manifest = make.run() if kind == "run" else make.config_map()
    manifest["metadata"] |= metadata
    with pytest.raises(Invalid) as rejection:
        await cluster.create(manifest)
    assert field in fields(rejection)


async def test_a_kind_that_is_not_served(cluster: Cluster, make: Maker) -> None:
    with pytest.raises(NotFound):
        await cluster.create({**make.config_map(), "kind": "Gadget"})


async def test_missing_objects(cluster: Cluster, make: Maker) -> None:
    with pytest.raises(NotFound, match=f'finetuneruns.finetunerun.io "{make.name()}" not found') as rejection:
        await cluster.get(FINETUNERUN, "default", make.name())
    assert (rejection.value.code, rejection.value.reason) == (404, "NotFound")
    with pytest.raises(NotFound, match=f'configmaps "{make.name()}" not found'):
        await cluster.patch(CONFIGMAP, "default", make.name(), {"data": {}})
    with pytest.raises(NotFound):
        await cluster.patch_status(FINETUNERUN, "default", make.name(), {"status": {}})
    with pytest.raises(NotFound):
        await cluster.delete(FINETUNERUN, "default", make.name())
    with pytest.raises(NotFound):
        await cluster.pod_log("default", make.name())


async def test_a_patch_merges(cluster: Cluster, make: Maker) -> None:
    before = await cluster.create(make.run(model={"uri": "a/b"}, evaluation={"tasks": ["x", "y"], "limit": 3}))
    after = await cluster.patch(
        FINETUNERUN, "default", make.name(),
        {"spec": {"model": None, "evaluation": {"tasks": ["z"]}, "training": {"epochs": 2}}},
    )  # fmt: skip
    assert after["spec"] == {
        "dataset": {"uri": "tatsu-lab/alpaca"}, "evaluation": {"tasks": ["z"], "limit": 3}, "training": {"epochs": 2},
    }  # fmt: skip
    assert after["metadata"]["generation"] == 2
    assert int(after["metadata"]["resourceVersion"]) > int(before["metadata"]["resourceVersion"])
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert await cluster.get(FINETUNERUN, "default", make.name()) == after


async def test_a_patch_without_a_change_creates_no_version(cluster: Cluster, make: Maker) -> None:
    before = await seen(cluster, make)
    for patch in (
        {},
        {"spec": {"dataset": {"uri": "tatsu-lab/alpaca"}}},
        {"spec": {"model": None}, "metadata": {"annotations": None}},
    ):
        after = await cluster.patch(FINETUNERUN, "default", make.name(), patch)
        assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    status = before["metadata"]
    again = (await cluster.patch_status(FINETUNERUN, "default", make.name(), {"status": {"phase": "Training"}}))["metadata"]
    assert again["resourceVersion"] == status["resourceVersion"]


async def test_generation_counts_changes_of_spec(cluster: Cluster, make: Maker) -> None:
    await cluster.create(make.run())
    labelled = await cluster.patch(FINETUNERUN, "default", make.name(), {"metadata": {"labels": {"more": "x"}}})
    assert labelled["metadata"]["generation"] == 1
    reported = await cluster.patch_status(FINETUNERUN, "default", make.name(), {"status": STARTED})
    assert reported["metadata"]["generation"] == 1
    suspended = await cluster.patch(FINETUNERUN, "default", make.name(), {"spec": {"suspend": True}})
    assert suspended["metadata"]["generation"] == 2


async def test_a_patch_cannot_write_status_or_the_fields_of_the_server(cluster: Cluster, make: Maker) -> None:
    before = await seen(cluster, make)
    patch = {"status": {"phase": "Succeeded"}, "metadata": {"generation": 99, "creationTimestamp": "2001-01-01T00:00:00Z"}}
    assert await cluster.patch(FINETUNERUN, "default", make.name(), patch) == before


@pytest.mark.parametrize("status", [False, True])
async def test_a_patch_for_another_version_is_rejected(cluster: Cluster, make: Maker, status: bool) -> None:
    apply = cluster.patch_status if status else cluster.patch
    change = {"status": STARTED} if status else {"spec": {"suspend": True}}
    created = await cluster.create(make.run())
    await cluster.patch(FINETUNERUN, "default", make.name(), {"metadata": {"labels": {"more": "x"}}})
    version = created["metadata"]["resourceVersion"]
    with pytest.raises(Conflict, match="the object has been modified") as rejection:
        await apply(FINETUNERUN, "default", make.name(), {"metadata": {"resourceVersion": version}, **change})
    assert not isinstance(rejection.value, AlreadyExists)
    assert (rejection.value.code, rejection.value.reason) == (409, "Conflict")
    version = (await cluster.get(FINETUNERUN, "default", make.name()))["metadata"]["resourceVersion"]
    await apply(FINETUNERUN, "default", make.name(), {"metadata": {"resourceVersion": version}, **change})


@pytest.mark.parametrize(
    ("metadata", "code"), [({"uid": "x"}, 422), ({"deletionTimestamp": "2026-11-21T10:00:00Z"}, 422), ({"name": "x"}, 400),
                           ({"namespace": "x"}, 400), ({"labels": {"a": 5}}, 422)],
)  # fmt: skip
async def test_identity_and_type_cannot_change(cluster: Cluster, make: Maker, metadata: dict[str, object], code: int) -> None:
    before = await cluster.create(make.run())
    with pytest.raises(Invalid) as rejection:
        await cluster.patch(FINETUNERUN, "default", make.name(), {"metadata": metadata})
    assert rejection.value.code == code
    assert await cluster.get(FINETUNERUN, "default", make.name()) == before


async def test_unknown_fields_of_a_patch_are_dropped(cluster: Cluster, make: Maker) -> None:
    before = await seen(cluster, make)
    assert await cluster.patch(FINETUNERUN, "default", make.name(), {"spec": {"unheard": 1}}) == before


async def test_a_patch_is_validated_as_an_update(cluster: Cluster, make: Maker) -> None:
    await cluster.create(make.run(storage={"size": "2Gi"}))
    with pytest.raises(Invalid) as rejection:
        await cluster.patch(FINETUNERUN, "default", make.name(), {"spec": {"storage": {"size": "1Gi"}}})
    assert fields(rejection) == {"spec.storage.size"}
    await cluster.patch_status(FINETUNERUN, "default", make.name(), {"status": STARTED})
    with pytest.raises(Invalid, match=r"spec\.dataset is frozen since the run started") as rejection:
        await cluster.patch(FINETUNERUN, "default", make.name(), {"spec": {"dataset": {"seed": 1}}})
    assert fields(rejection) == {"spec.dataset"}
    await cluster.patch(FINETUNERUN, "default", make.name(), {"spec": {"storage": {"size": "3Gi"}}})


async def test_status_is_written_separately(cluster: Cluster, make: Maker) -> None:
    before = await cluster.create(make.run())
    patch = {"status": {**STARTED, "round": 1}, "spec": {"suspend": True}, "metadata": {"labels": {"more": "x"}}}
    after = await cluster.patch_status(FINETUNERUN, "default", make.name(), patch)
    assert after["status"] == {**UNOBSERVED, **STARTED, "round": 1}
    assert after["spec"] == before["spec"]
    assert after["metadata"].get("labels") == make.labels
    changed = await cluster.patch_status(FINETUNERUN, "default", make.name(), {"status": {"round": None, "rerunId": "2"}})
    assert changed["status"] == {**UNOBSERVED, **STARTED, "rerunId": "2"}
    removed = await cluster.patch_status(FINETUNERUN, "default", make.name(), {"status": None})
    assert removed["status"] == UNOBSERVED


async def test_status_is_validated(cluster: Cluster, make: Maker) -> None:
    await cluster.create(make.run())
    with pytest.raises(Invalid) as rejection:
        await cluster.patch_status(FINETUNERUN, "default", make.name(), {"status": {"progress": {"percent": 101}}})
    assert fields(rejection) == {"status.progress.percent"}
    with pytest.raises(Invalid) as rejection:
        await cluster.patch_status(FINETUNERUN, "default", make.name(), {"status": {"phase": "Sleeping"}})
    assert fields(rejection) == {"status.phase", ""}


async def test_status_of_built_in_kinds(cluster: Cluster, make: Maker) -> None:
    await cluster.create(make.pod())
    pod = await cluster.patch_status(POD, "default", make.name(), {"status": {"phase": "Running", "message": "x"}})
    assert (pod["status"]["phase"], pod["status"]["message"]) == ("Running", "x")
    claim = make.config_map()
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": claim["metadata"],
             "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}  # fmt: skip
    await cluster.create(claim)
    bound = await cluster.patch_status(CLAIM, "default", make.name(), {"status": {"phase": "Bound"}})
    assert bound["status"]["phase"] == "Bound"


async def test_kinds_without_a_status(cluster: Cluster, make: Maker) -> None:
    await cluster.create(make.config_map())
    with pytest.raises(NotFound):
        await cluster.patch_status(CONFIGMAP, "default", make.name(), {"status": {}})


async def test_an_immutable_config_map(cluster: Cluster, make: Maker) -> None:
    await cluster.create(make.config_map(immutable=True))
    for patch, field in (
        ({"data": {"key": "other"}}, "data"),
        ({"data": {"more": "x"}}, "data"),
        ({"immutable": None}, "immutable"),
    ):
        with pytest.raises(Invalid) as rejection:
            await cluster.patch(CONFIGMAP, "default", make.name(), patch)
        assert fields(rejection) == {field}
    await cluster.patch(CONFIGMAP, "default", make.name(), {"metadata": {"labels": {"more": "x"}}})
    await cluster.delete(CONFIGMAP, "default", make.name())


async def test_a_job_counts_generations(cluster: Cluster, make: Maker) -> None:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "example.com/image"}]}}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": make.config_map()["metadata"]}
    created = await cluster.create({**job, "spec": {"template": template, "suspend": True}})
    assert created["metadata"]["generation"] == 1
    resumed = await cluster.patch(JOB, "default", make.name(), {"spec": {"suspend": False}})
    assert resumed["metadata"]["generation"] == 2


async def test_an_event(cluster: Cluster, make: Maker) -> None:
    run = await cluster.create(make.run())
    about = {name: run[name] for name in ("apiVersion", "kind")} | {"name": make.name(), "namespace": "default"}
    event = {"apiVersion": "v1", "kind": "Event", "metadata": make.config_map("event")["metadata"], "involvedObject": about,
             "reason": "Started", "message": "x", "type": "Normal"}  # fmt: skip
    await cluster.create(event)
    assert (await cluster.get(EVENT, "default", make.name("event")))["reason"] == "Started"


async def test_the_log_of_a_pod_without_a_node_is_empty(cluster: Cluster, make: Maker) -> None:
    await cluster.create(make.pod())
    assert await cluster.pod_log("default", make.name(), tail_lines=10, limit_bytes=100) == ""


async def test_the_log_of_an_unknown_container(cluster: Cluster, make: Maker) -> None:
    await cluster.create(make.pod())
    with pytest.raises(Invalid, match=f"container other is not valid for pod {make.name()}"):
        await cluster.pod_log("default", make.name(), container="other")


async def test_following_a_log_ends_with_the_pod(cluster: Cluster, make: Maker) -> None:
    await cluster.create(make.pod())
    await cluster.patch_status(POD, "default", make.name(), {"status": {"phase": "Succeeded"}})
    assert [part async for part in cluster.follow_log("default", make.name())] == []
    with pytest.raises(Invalid, match="container other is not valid"):
        await anext(cluster.follow_log("default", make.name(), container="other"))
    with pytest.raises(NotFound):
        await anext(cluster.follow_log("default", make.name("other")))

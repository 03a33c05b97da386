"""The sample runtimes before both generations of Trainer: taken, and what they make of a run's TrainJob passes pod security."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane.api import Api, eventually
from finetune_operator import __version__
from finetune_operator.core.manifests.children import TERMINATION_GRACE_SECONDS
from golden import FOLDER
from images.recipes import RECIPES, ROOT

Object = dict[str, Any]
RUNTIMES = sorted(ROOT.glob("manifests/samples/runtimes/*.yaml"))


def runtime(path: Path) -> Object:
    (document,) = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    assert document["metadata"]["name"] == path.stem
    return dict(document)


@pytest.mark.parametrize("path", RUNTIMES, ids=lambda path: path.stem)
def test_their_images_are_ones_that_are_built_here(path: Path) -> None:
    (job,) = runtime(path)["spec"]["template"]["spec"]["replicatedJobs"]
    (container,) = job["template"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] in {f"{recipe.title}:{__version__}" for recipe in RECIPES.values()}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", RUNTIMES, ids=lambda path: path.stem)
def test_a_run_trains_on_them(path: Path, api: Api, restricted_namespace: str, generation: str) -> None:
    """The pod has from the runtime the fields that a TrainJob of Trainer 2.1 lacks; a restricted namespace rejects pods without them."""
    document = runtime(path)
    document["metadata"]["name"] = f"{path.stem}-{restricted_namespace}"  # the control plane is shared
    job: Object = yaml.safe_load((FOLDER / "trainjobs" / f"osft-minimal-{generation}.yaml").read_text(encoding="utf-8"))
    job["metadata"] = {"name": "demo", "namespace": restricted_namespace, "labels": job["metadata"]["labels"]}
    job["spec"]["runtimeRef"]["name"] = document["metadata"]["name"]
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "finetune-stage", "namespace": restricted_namespace},
    }
    api.create(document)
    try:
        api.create(account)
        created = api.create(copy.deepcopy(job))
        eventually(lambda: bool(api.list("v1", "Pod", restricted_namespace)), "the pod is there")
        (batch,) = api.list("batch/v1", "Job", restricted_namespace)
        pod = api.list("v1", "Pod", restricted_namespace)[0]["spec"]
        api.delete(created)
    finally:
        api.delete(document)
    assert batch["spec"]["backoffLimit"] == 0
    assert (pod["restartPolicy"], pod["terminationGracePeriodSeconds"]) == ("Never", TERMINATION_GRACE_SECONDS)
    assert pod["securityContext"]["runAsNonRoot"] is True
    (container,) = pod["containers"]
    assert container["command"][0] == "python"
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert {"workspace", "scratch", "training-bundle"} <= {mount["name"] for mount in container["volumeMounts"]}

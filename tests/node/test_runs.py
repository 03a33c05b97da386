"""The whole way in real containers: ``kubectl apply`` of a FineTuneRun, the operator from its image, TrainJobs on a real kubelet."""

from __future__ import annotations

import time
from typing import Any

import pytest

from controlplane.api import eventually
from deployed import Site
from finetune_operator.kube.client import ApiServer
from model_registry_server import ModelRegistryServer

Object = dict[str, Any]
pytestmark = pytest.mark.timeout(900)
DATA: Object = {"uri": "org/chat"}
UNEVALUATED: Object = {"enabled": False}
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"
FORBIDDEN = (("", "get", "secrets"), ("", "list", "pods"), ("", "create", "pods"), ("finetunerun.io", "get", "finetuneruns"))


@pytest.fixture(scope="module")
def smallest(site: Site) -> Object:
    """The status at its end of a run that sets only the source of its data."""
    site.apply("smallest", {"dataset": DATA})
    return site.ended("smallest")


def test_the_smallest_run_succeeds(site: Site, smallest: Object) -> None:
    assert smallest["phase"] == "Succeeded", (smallest.get("failure"), smallest.get("stages"))
    assert smallest["resolved"]["spec"]["training"]["algorithm"] == "osft"
    assert smallest["model"]["uri"].startswith("pvc://smallest-workspace/")
    assert "holdout.bits_per_byte" in smallest["metrics"]["evaluation"]
    assert set(smallest["estimate"]) == {"stepsPerEpoch", "steps", "tokens", "memoryBytes", "computeTeraflop"}
    assert "Succeeded" in site.kubectl("get", "ftr", "smallest")
    pods = site.pods("smallest")
    assert {pod["metadata"]["labels"]["finetunerun.io/stage"] for pod in pods} == {
        "dataset",
        "model",
        "tokenization",
        "training",
        "evaluation",
    }
    # The operator continues as soon as a container has ended; the kubelet updates the pod a moment later.
    eventually(lambda: {pod["status"]["phase"] for pod in site.pods("smallest")} == {"Succeeded"}, "every pod has succeeded")


def test_stages_have_no_rights(site: Site, smallest: Object) -> None:
    pods = site.pods("smallest")
    mounts = [mount["mountPath"] for pod in pods for one in pod["spec"]["containers"] for mount in one["volumeMounts"]]
    assert "/workspace" in mounts
    assert TOKEN not in mounts
    (account,) = {pod["spec"]["serviceAccountName"] for pod in pods}
    for group, verb, resource in FORBIDDEN:
        about = {"namespace": site.namespace, "group": group, "verb": verb, "resource": resource}
        spec = {"user": f"system:serviceaccount:{site.namespace}:{account}", "resourceAttributes": about}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        answer = site.api.call("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
        assert answer["status"]["allowed"] is False, about


async def test_our_end_of_a_log_is_kubectls(site: Site, smallest: Object, cluster: ApiServer) -> None:
    (pod,) = site.pods("smallest", "training")
    name = pod["metadata"]["name"]
    theirs = site.kubectl("logs", name, "--tail=5")
    assert theirs.count("\n") == 5
    assert await cluster.pod_log(site.namespace, name, tail_lines=5) == theirs


def test_sft_trains(site: Site) -> None:
    site.apply("sft", {"dataset": DATA, "training": {"algorithm": "sft", "epochs": 1}, "evaluation": UNEVALUATED})
    status = site.ended("sft")
    assert status["phase"] == "Succeeded", (status.get("failure"), status.get("stages"))
    assert status["metrics"]["training"]
    (pod,) = site.pods("sft", "training")
    eventually(lambda: "Complete" in _conditions(site, _job(pod)), "the TrainJob is complete")


def test_what_lora_trains_passes_its_gate_and_is_registered(site: Site) -> None:
    training = {"algorithm": "lora", "lora": {"quantization": "none"}, "epochs": 1}
    gate = {"requirements": [{"metric": "holdout.bits_per_byte", "maxRegression": 0.5}]}
    with ModelRegistryServer(host=site.plane.gateway) as server:
        registry = {"address": server.url, "name": "tiny"}
        site.apply("lora", {"dataset": DATA, "training": training, "gate": gate, "registry": registry})
        status = site.ended("lora")
        assert status["phase"] == "Succeeded", (status.get("failure"), status.get("stages"))
        assert status["gate"]["passed"]
        (version,) = server.versions("tiny")
        assert server.artifacts(version)[0]["uri"] == status["model"]["uri"]
    worked = {pod["metadata"]["labels"]["finetunerun.io/stage"] for pod in site.pods("lora")}
    assert worked == {"dataset", "model", "tokenization", "training", "baseline", "evaluation", "registration"}
    (pod,) = site.pods("lora", "training")
    eventually(lambda: "Complete" in _conditions(site, _job(pod)), "the TrainJob is complete")


def test_two_pods_train_together(site: Site) -> None:
    training = {"algorithm": "sft", "workers": 2, "resources": {"cpu": "250m", "memory": "2Gi"}}
    site.apply("pair", {"dataset": DATA, "training": training, "evaluation": UNEVALUATED})
    status = site.ended("pair")
    assert status["phase"] == "Succeeded", (status.get("failure"), status.get("stages"))
    pods = site.pods("pair", "training")
    assert len({pod["status"]["podIP"] for pod in pods}) == 2
    for pod in pods:
        (container,) = pod["spec"]["containers"]
        variables = {one["name"]: one.get("value") for one in container["env"]}
        job = _job(pod)
        assert variables["PET_MASTER_ADDR"] == f"{job}-node-0-0.{job}"  # a name that only the cluster's DNS knows


def test_an_image_that_is_not_there_is_a_condition_soon(site: Site) -> None:
    training = {"image": "registry.example.com/nobody/nothing:1", "algorithm": "sft"}
    site.apply("imageless", {"dataset": DATA, "training": training, "evaluation": UNEVALUATED})
    eventually(lambda: bool(site.pods("imageless", "training")), "the training has a pod", 200)
    began = time.monotonic()

    def told() -> bool:
        conditions = site.status("imageless").get("conditions") or ()
        return any(one["reason"] == "ImagePullFailed" and "nobody/nothing:1" in one["message"] for one in conditions)

    eventually(told, "a condition tells of the image", 30)
    assert time.monotonic() - began < 15
    site.kubectl("delete", "ftr", "imageless")
    eventually(lambda: not site.pods("imageless"), "its pods have gone with it", 60)


def test_an_image_for_cpus_fails_a_run_on_gpus_before_a_gpu_is_requested(site: Site) -> None:
    training = {"algorithm": "sft", "gpusPerWorker": 1}
    site.apply("cpus", {"dataset": DATA, "training": training, "evaluation": UNEVALUATED})
    failure = site.ended("cpus", 200)["failure"]
    assert (failure["stage"], failure["reason"]) == ("engine-check", "EngineMissing"), failure
    assert "the pod requests 1 GPU, and PyTorch in finetune-stages:test is built for CPUs" in failure["message"]
    assert not site.pods("cpus", "training")
    (pod,) = site.pods("cpus", "engine-check")
    assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "0"


def _conditions(site: Site, trainjob: str) -> set[str]:
    status = site.api.get("trainer.kubeflow.org/v1alpha1", "TrainJob", trainjob, site.namespace).get("status") or {}
    return {one["type"] for one in status.get("conditions") or () if one["status"] == "True"}


def _job(pod: Object) -> str:
    return str(pod["metadata"]["labels"]["jobset.sigs.k8s.io/jobset-name"])

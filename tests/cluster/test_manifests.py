"""The manifests on a real API server: built by kustomize, applied by kubectl, and their rights asked for one by one."""

from __future__ import annotations

import os
import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

from controlplane.api import Api, RefusedError, eventually
from controlplane.binaries import Binaries
from controlplane.cluster import ControlPlane
from controlplane.programs import KUBECTL

Object = dict[str, Any]
ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
OPERATOR_CONFIGURATION = MANIFESTS / "samples/platform/operator-configuration.yaml"
SAMPLES = sorted((MANIFESTS / "samples").glob("*.yaml"))
pytestmark = pytest.mark.parametrize("control_plane", ["2.1"], indirect=True)


class Kubectl:
    """kubectl as the administrator of a control plane."""

    def __init__(self, plane: ControlPlane) -> None:
        access = plane.access
        assert access is not None
        self._start = [str(Binaries(access.binaries).path(KUBECTL)), f"--kubeconfig={access.kubeconfig}"]

    def __call__(self, *words: str | Path, given: str | None = None) -> str:
        """What a command prints.

        Raises:
            RuntimeError: it failed; the message is its output.
        """
        done = subprocess.run([*self._start, *map(str, words)], input=given, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        return done.stdout

    def built(self, folder: Path) -> list[Object]:
        """What kustomize makes of a folder."""
        return [one for one in yaml.load_all(self("kustomize", folder), yaml.CSafeLoader) if one]


@pytest.fixture(scope="module")
def kubectl(control_plane: ControlPlane) -> Kubectl:
    return Kubectl(control_plane)


@pytest.fixture(scope="module")
def installed(control_plane: ControlPlane, kubectl: Kubectl) -> Iterator[str]:
    """The overlay for plain Kubernetes, applied as its comment states; its namespace."""
    name = "finetune-operator"
    # The names of an overlay are fixed: processes of one test run install it one after the other.
    with FileLock(control_plane.state / "installed.lock"), control_plane.api() as api:
        eventually(lambda: not _exists(api, name), "an earlier test's namespace is gone", seconds=60)
        kubectl("apply", "--server-side", "--force-conflicts", "-k", MANIFESTS / "overlays/kubernetes")
        yield name
        _remove(api, name, [name, "finetune-operator-runtimes"])


@pytest.fixture
def confined(kubectl: Kubectl, api: Api, namespace: str, tmp_path: Path) -> Iterator[str]:
    """The overlay for one namespace, with the namespace of the test written into it as its comment states."""
    copied = tmp_path / "manifests"
    for folder in ("manifests/base", "manifests/overlays/namespaced", "crds"):
        _copy(ROOT / folder, tmp_path / folder)
    file = copied / "overlays/namespaced/kustomization.yaml"
    file.write_text(file.read_text().replace("namespace: finetune\n", f"namespace: {namespace}\n"))
    kubectl("apply", "--server-side", "--force-conflicts", "-k", file.parent)
    yield namespace
    _remove(api, None, [f"finetune-operator-runtimes.{namespace}"])


def _copy(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for file in source.glob("*.yaml"):
        (target / file.name).write_bytes(file.read_bytes())


def _exists(api: Api, namespace: str) -> bool:
    try:
        return api.get("v1", "Namespace", namespace) != {}
    except RefusedError:
        return False


def _remove(api: Api, namespace: str | None, bindings: list[str]) -> None:
    """What would give rights to a later ServiceAccount of the same name; the roles are those of other tests, too."""
    for name in bindings:
        api.delete({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name}})
    if namespace is not None:
        api.delete({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})


# -- rights ------------------------------------------------------------------------------------------------------------

OURS, TRAINER = "finetunerun.io", "trainer.kubeflow.org"
NEEDED = {
    (OURS, "finetuneruns"): "get list watch",
    (OURS, "finetuneruns/status"): "patch",
    (OURS, "finetuneruns/finalizers"): "update",
    ("batch", "jobs"): "get list watch create patch delete",
    (TRAINER, "trainjobs"): "get list watch create patch delete",
    ("jobset.x-k8s.io", "jobsets"): "get",
    ("", "pods"): "get list watch",
    ("", "pods/log"): "get",
    ("", "configmaps"): "get list create delete",
    ("", "persistentvolumeclaims"): "get create",
    ("", "serviceaccounts"): "get create",
    ("", "events"): "create list",
}
FORBIDDEN = {
    ("", "secrets"): "get list watch create update patch delete",
    (OURS, "finetuneruns"): "create update patch delete deletecollection approve approve-on-behalf",
    (OURS, "finetuneruns/status"): "update",
    ("", "pods"): "create update patch delete",
    ("", "pods/exec"): "create get",
    ("", "pods/ephemeralcontainers"): "patch update",
    ("", "serviceaccounts/token"): "create",
    ("", "serviceaccounts"): "update patch delete impersonate",
    ("", "configmaps"): "update patch",
    ("", "persistentvolumeclaims"): "delete update",
    ("", "nodes"): "get list",
    ("", "namespaces"): "get list create delete",
    ("rbac.authorization.k8s.io", "roles"): "create bind escalate",
    ("rbac.authorization.k8s.io", "clusterrolebindings"): "create",
    (TRAINER, "clustertrainingruntimes"): "create update patch delete",
    ("jobset.x-k8s.io", "jobsets"): "list watch create update patch delete",
    ("*", "*"): "get *",
}
IN_THE_LEASE = {("coordination.k8s.io", "leases"): "get patch"}


class Rights:
    """What a ServiceAccount may do."""

    def __init__(self, api: Api, namespace: str, account: str = "finetune-operator") -> None:
        self._api, self._user = api, f"system:serviceaccount:{namespace}:{account}"

    def __call__(self, table: dict[tuple[str, str], str], namespace: str | None, name: str = "") -> dict[str, bool]:
        """The answers of the API server to each verb of a table, in a namespace or in all."""
        return {
            f"{verb} {resource}.{group}": self._ask(group, resource, verb, namespace or "", name)
            for (group, resource), verbs in table.items()
            for verb in verbs.split()
        }

    def _ask(self, group: str, resource: str, verb: str, namespace: str, name: str) -> bool:
        resource, _, subresource = resource.partition("/")
        about = {
            "group": group, "resource": resource, "subresource": subresource, "verb": verb, "namespace": namespace, "name": name,
        }  # fmt: skip
        groups = ["system:serviceaccounts", "system:authenticated"]
        spec = {"user": self._user, "groups": groups, "resourceAttributes": about}
        kind = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {}}
        review = self._api.call("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", {**kind, "spec": spec})
        return bool(review["status"]["allowed"])


def all_of(answers: dict[str, bool], expected: bool) -> None:
    assert [question for question, allowed in answers.items() if allowed is not expected] == []


def test_the_operator_of_a_cluster_may_what_it_needs_and_no_more(api: Api, installed: str, namespace: str) -> None:
    rights = Rights(api, installed)
    for place in (namespace, None):
        all_of(rights(NEEDED, place), True)
        all_of(rights(FORBIDDEN, place), False)
    all_of(rights({(TRAINER, "clustertrainingruntimes"): "get list"}, None), True)
    all_of(rights(IN_THE_LEASE, installed, "finetune-operator"), True)
    all_of(rights(IN_THE_LEASE, installed, "somebody-else"), False)
    all_of(rights(IN_THE_LEASE, namespace, "finetune-operator"), False)


def test_the_operator_of_a_namespace_has_no_right_elsewhere(api: Api, confined: str) -> None:
    rights = Rights(api, confined)
    all_of(rights(NEEDED, confined), True)
    all_of(rights(FORBIDDEN, confined), False)
    all_of(rights(IN_THE_LEASE, confined, "finetune-operator"), True)
    for elsewhere in ("default", None):
        all_of(rights({**NEEDED, **IN_THE_LEASE}, elsewhere), False)
        all_of(rights(FORBIDDEN, elsewhere), False)
    all_of(rights({(TRAINER, "clustertrainingruntimes"): "get list"}, None), True)


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("view", "get list watch"),
        ("edit", "get list watch create update patch delete"),
        ("admin", "get list watch create update patch delete approve"),
        ("finetunerun-approver", "get list watch patch approve"),
        ("finetunerun-approver-on-behalf", "get patch approve-on-behalf"),
    ],
)
def test_people_get_their_rights_with_the_roles_of_the_cluster(
    api: Api, installed: str, namespace: str, role: str, may: str
) -> None:
    verbs = ["get", "list", "watch", "create", "update", "patch", "delete", "approve", "approve-on-behalf"]
    somebody = f"{role}-{uuid.uuid4().hex[:6]}"
    api.create({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": somebody, "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": somebody}],
    })  # fmt: skip
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    kind = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {}}

    def allowed() -> list[str]:
        about = {"group": OURS, "resource": "finetuneruns", "namespace": namespace}
        asked = {verb: {"user": somebody, "resourceAttributes": {**about, "verb": verb}} for verb in verbs}
        return [verb for verb in verbs if api.call("POST", path, {**kind, "spec": asked[verb]})["status"]["allowed"]]

    # Controllers add the rules to the cluster's roles in their own time.
    eventually(lambda: allowed() == may.split(), f"{role} may {may}")


# -- what is applied ---------------------------------------------------------------------------------------------------


def test_the_operator_s_pods_are_admitted_in_a_restricted_namespace(api: Api, installed: str) -> None:
    labels = api.get("v1", "Namespace", installed)["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    eventually(lambda: len(api.list("v1", "Pod", installed)) == 2, "both replicas have their pods")
    (pod, _) = api.list("v1", "Pod", installed)
    (configuration,) = [one["configMap"]["name"] for one in pod["spec"]["volumes"] if "configMap" in one]
    assert api.get("v1", "ConfigMap", configuration, installed)["data"].keys() == {"configuration.yaml"}


def test_the_overlay_of_a_namespace_holds_nothing_else_of_the_cluster(kubectl: Kubectl, confined: str) -> None:
    built = kubectl.built(MANIFESTS / "overlays/namespaced")
    cluster_wide = {(one["kind"], one["metadata"]["name"]) for one in built if "namespace" not in one["metadata"]}
    assert cluster_wide == {
        ("ClusterRole", "finetune-operator-runtimes"),
        ("ClusterRoleBinding", "finetune-operator-runtimes.finetune"),
    }
    found = kubectl("get", "configmap", "-n", confined, "-o", "jsonpath={.items[*].data.configuration\\.yaml}")
    assert yaml.safe_load(found) == {"namespaces": [confined]}


@pytest.mark.parametrize("overlay", ["kubernetes", "openshift", "kind", "selected"])
def test_overlays_are_taken_by_the_api_server(kubectl: Kubectl, installed: str, overlay: str) -> None:
    documents = kubectl.built(MANIFESTS / "overlays" / overlay)
    foreign = [one for one in documents if one["apiVersion"] == "monitoring.coreos.com/v1"]
    assert {one["kind"] for one in foreign} == ({"ServiceMonitor", "PrometheusRule"} if overlay == "openshift" else set())
    text = yaml.safe_dump_all([one for one in documents if one not in foreign])
    said = kubectl("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-", given=text)
    assert len(said.splitlines()) == len(documents) - len(foreign)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.stem)
def test_samples_are_taken_by_the_api_server(kubectl: Kubectl, namespace: str, sample: Path) -> None:
    kubectl("create", "-n", namespace, "--validate=strict", "--dry-run=server", "-f", sample)
    assert "created" in kubectl("create", "-n", namespace, "--validate=strict", "-f", sample)


def test_samples_for_the_platform_are_taken_by_the_api_server(kubectl: Kubectl, namespace: str) -> None:
    platform = MANIFESTS / "samples/platform"
    kubectl("create", "-n", namespace, "-f", platform / "finetune-defaults.yaml")
    said = kubectl("create", "--validate=strict", "--dry-run=server", "-f", platform / "admission-policy.yaml")
    assert len(said.splitlines()) == 5


def test_argo_cd_s_configmap_keeps_what_others_wrote(kubectl: Kubectl, api: Api, namespace: str) -> None:
    theirs = {"url": "https://argocd.example.com", "resource.customizations.health.batch_Job": "return {}"}
    api.create(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "argocd-cm", "namespace": namespace}, "data": theirs}
    )
    kubectl("apply", "--server-side", "-n", namespace, "-k", MANIFESTS / "argocd")
    data = api.get("v1", "ConfigMap", "argocd-cm", namespace)["data"]
    assert theirs.items() <= data.items()
    assert {key.split(".")[2] for key in data if key.endswith("finetunerun.io_FineTuneRun")} == {
        "health", "actions", "ignoreDifferences", "ignoreResourceUpdates",
    }  # fmt: skip


def test_a_kustomization_of_argo_cd_takes_the_component(kubectl: Kubectl, tmp_path: Path) -> None:
    theirs = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "argocd-cm"},
        "data": {"url": "https://argocd.example.com"},
    }
    (built,) = _over(kubectl, tmp_path, theirs, components=[MANIFESTS / "argocd/component"])
    assert (built["metadata"]["name"], built["data"]["url"], len(built["data"])) == ("argocd-cm", "https://argocd.example.com", 5)


def test_another_configuration_recreates_the_pods(kubectl: Kubectl, tmp_path: Path) -> None:
    (comment,) = re.findall(r"(?m)(^#     configMapGenerator:\n(?:^#     .*\n)+)", OPERATOR_CONFIGURATION.read_text())
    (tmp_path / OPERATOR_CONFIGURATION.name).write_bytes(OPERATOR_CONFIGURATION.read_bytes())
    plain = _configured(kubectl.built(MANIFESTS / "overlays/kubernetes"))
    changed = yaml.safe_load(re.sub(r"(?m)^#     ", "", comment))
    other = _configured(_over(kubectl, tmp_path, None, resources=[MANIFESTS / "overlays/kubernetes"], **changed))
    assert plain[0] != other[0]
    assert other[1] == OPERATOR_CONFIGURATION.read_text()


def _over(kubectl: Kubectl, folder: Path, own: Object | None, **kustomization: Any) -> list[Object]:
    """What comes of a kustomization over some of our folders."""
    for field in ("resources", "components"):
        kustomization[field] = [os.path.relpath(one, folder) for one in kustomization.get(field, ())]
    if own is not None:
        (folder / "own.yaml").write_text(yaml.safe_dump(own))
        kustomization["resources"].append("own.yaml")
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return kubectl.built(folder)


def _configured(documents: list[Object]) -> tuple[str, str]:
    """Name and text of the configuration that the Deployment mounts."""
    (deployment,) = [one for one in documents if one["kind"] == "Deployment"]
    volumes = deployment["spec"]["template"]["spec"]["volumes"]
    (name,) = [volume["configMap"]["name"] for volume in volumes if "configMap" in volume]
    (text,) = [
        one["data"]["configuration.yaml"] for one in documents if one["kind"] == "ConfigMap" and one["metadata"]["name"] == name
    ]
    return name, text


def test_the_stages_account_has_no_rights_and_no_token(api: Api, namespace: str) -> None:
    golden = yaml.safe_load((ROOT / "tests/golden/children/minimal/serviceaccount-account.yaml").read_text())
    golden["metadata"]["namespace"] = namespace
    assert api.create(golden)["automountServiceAccountToken"] is False
    rights = Rights(api, namespace, golden["metadata"]["name"])
    all_of(rights({**NEEDED, **FORBIDDEN}, namespace), False)

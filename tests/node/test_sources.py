"""Runs on data and base models from each kind of source, in real containers: their servers, Secrets, CA bundles and claims."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

import pydocs
from certificates import self_signed
from controlplane.api import eventually
from deployed import STAGES, Site
from registry_server import RegistryServer, layer, model_files
from s3_server import S3Server
from web_server import Answer, FileServer, Request

Object = dict[str, Any]
pytestmark = [pytest.mark.go, pytest.mark.timeout(900)]
LOGIN = "Bearer a-login-of-tests"
ROWS = {"objects": 40, "web": 44, "claimed": 48, "hub": 120}
"""Rows of the data of each run. No two sources have equally many, so that the count in the status names the source."""
TRAINING: Object = {"algorithm": "sft", "epochs": 1, "checkpoints": {"perEpoch": False}}
CLAIM = "sources"
FILL = (
    "import sys, tarfile, urllib.request as web; tarfile.open(fileobj=web.urlopen(sys.argv[1]), mode='r|').extractall('/claim')"
)


class LockedServer(FileServer):
    """A web server that requires a login."""

    def answer(self, request: Request, body: bytes) -> Answer:
        return super().answer(request, body) if request.headers.get("authorization") == LOGIN else Answer(401)


def rows(count: int) -> bytes:
    """Return JSON Lines."""
    return "".join(json.dumps(row) + "\n" for row in pydocs.rows("signature", count)).encode()


def apply(site: Site, *objects: Object) -> None:
    """Apply objects to the namespace of the site."""
    site.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all({"apiVersion": "v1", **one} for one in objects))


def fill_claim(site: Site, model: Path, folder: Path) -> None:
    """Create a claim with data in two files and with a model, which a pod writes there."""
    half = rows(ROWS["claimed"] // 2)
    files = {
        "rows/a.jsonl": half,
        "rows/b.jsonl": half,
        **{f"models/tiny/{path.name}": path.read_bytes() for path in model.iterdir()},
    }
    with tarfile.open(folder / "claim.tar", "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with FileServer(folder, host=site.plane.gateway) as server:
        claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
        container = {
            "name": "fill", "image": STAGES, "imagePullPolicy": "IfNotPresent", "command": ["python", "-c", FILL, f"{server.url}/claim.tar"],
            "volumeMounts": [{"name": "claim", "mountPath": "/claim"}],
        }  # fmt: skip
        volume = {"name": "claim", "persistentVolumeClaim": {"claimName": CLAIM}}
        apply(
            site,
            {"kind": "PersistentVolumeClaim", "metadata": {"name": CLAIM}, "spec": claim},
            {
                "kind": "Pod",
                "metadata": {"name": "fill"},
                "spec": {"restartPolicy": "Never", "containers": [container], "volumes": [volume]},
            },
        )
        pod = lambda: site.api.get("v1", "Pod", "fill", site.namespace)  # noqa: E731
        eventually(lambda: pod()["status"].get("phase") == "Succeeded", "the claim is filled", 60)


@pytest.fixture(scope="module")
def specs(site: Site, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Object]]:
    """Specs of runs by name, and the servers, Secrets, ConfigMap and claim of their sources."""
    folder, host = tmp_path_factory.mktemp("sources"), site.plane.gateway
    certificate = self_signed(folder, host)
    (folder / "web").mkdir()
    (folder / "web/rows.jsonl").write_bytes(rows(ROWS["web"]))
    with ExitStack() as stack:
        s3 = stack.enter_context(S3Server(folder / "s3", host=host))
        web = stack.enter_context(LockedServer(folder / "web", certificate, host))
        registry = stack.enter_context(RegistryServer(folder / "registry", password=True, certificate=certificate, address=host))
        s3.bucket("sources")
        s3.client.put_object(Bucket="sources", Key="rows/chat.jsonl", Body=rows(ROWS["objects"]))
        for path in tiny_model.iterdir():
            s3.client.put_object(Bucket="sources", Key=f"models/tiny/{path.name}", Body=path.read_bytes())
        registry.push("team/tiny:1", [layer(model_files(tiny_model), "gzip")])
        login = base64.b64encode(":".join(registry.USER).encode()).decode()
        pull = {".dockerconfigjson": json.dumps({"auths": {registry.host: {"auth": login}}})}
        apply(
            site,
            {"kind": "Secret", "metadata": {"name": "keys"}, "stringData": s3.KEYS},
            {"kind": "Secret", "metadata": {"name": "connection"}, "stringData": {**s3.KEYS, "AWS_S3_ENDPOINT": s3.url}},
            {"kind": "Secret", "metadata": {"name": "login"}, "stringData": {"token": LOGIN}},
            {"kind": "Secret", "metadata": {"name": "pull"}, "type": "kubernetes.io/dockerconfigjson", "stringData": pull},
            {"kind": "ConfigMap", "metadata": {"name": "ca"}, "data": {"ca.crt": _public(certificate)}},
        )
        fill_claim(site, tiny_model, folder)
        yield {
            "objects": {
                "dataset": {"uri": "s3://sources/rows/", "endpoint": s3.url, "secretRef": {"name": "keys"}},
                "model": {"uri": f"oci://{registry.host}/team/tiny:1", "pullSecretRef": {"name": "pull"}, "caRef": {"name": "ca"}},
            },
            "web": {
                "dataset": {"uri": f"{web.url}/rows.jsonl", "secretRef": {"name": "login", "key": "token"}, "caRef": {"name": "ca"}},
                "model": {"uri": "s3://sources/models/tiny/", "secretRef": {"name": "connection"}},
            },
            "claimed": {"dataset": {"uri": f"pvc://{CLAIM}/rows"}, "model": {"uri": "Qwen/Qwen2.5-1.5B-Instruct"}},
            "hub": {"dataset": {"uri": "org/chat"}, "model": {"uri": f"pvc://{CLAIM}/models/tiny"}},
        }  # fmt: skip


def test_a_run_on_each_source_succeeds(site: Site, specs: dict[str, Object]) -> None:
    for name, spec in specs.items():
        site.apply(name, {**spec, "training": TRAINING, "evaluation": {"enabled": False}})
    found = {name: site.ended(name) for name in specs}
    assert {name: (one["phase"], one.get("failure")) for name, one in found.items()} == dict.fromkeys(specs, ("Succeeded", None))
    assert {name: one["rows"]["source"] for name, one in found.items()} == ROWS
    assert len({one["model"]["baseDigest"] for one in found.values()}) == 1  # the same model, whatever its source is
    for name in ("claimed", "hub"):
        mounts = [mount for pod in site.pods(name) for mount in _mounts(pod) if mount["mountPath"].endswith(f"/{CLAIM}")]
        assert [mount["readOnly"] for mount in mounts] == [True]


def _mounts(pod: Object) -> list[Object]:
    return [mount for container in pod["spec"]["containers"] for mount in container["volumeMounts"]]


def _public(certificate: Path) -> str:
    """Return the certificate without its key."""
    text = certificate.read_text(encoding="utf-8")
    return text[text.index("-----BEGIN CERTIFICATE") :]

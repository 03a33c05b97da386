"""The operator's image, built and run: any user, a read-only root, nothing but what its bill of materials lists. The stages' runs on a real node."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import time
from pathlib import Path

import pytest

from control_planes import built
from finetune_operator import __version__
from images import archives, builds, package_index, sandbox, trials
from images.engines import Buildah, Trial
from images.recipes import OPERATOR

ADDED_MB = 70
"""What may come on top of a slim base of some 45 MB, compressed: a pull of 120 MB at most."""


@pytest.fixture(scope="module")
def image() -> builds.Image:
    """The operator's image of these sources, on Debian packages."""
    missing = [name for name in ("buildah", "runc", "mmdebstrap") if not shutil.which(name)]
    if missing or os.geteuid() != 0:
        pytest.skip(f"an image is built here by root with {', '.join(missing) or 'buildah'}: python hack/images packages")
    image = built(lambda: builds.find(OPERATOR, "debian", "test"))
    Buildah().load(image.archive, image.tag, image.built_as)
    return image


def test_it_runs_as_anybody_on_a_file_system_that_nobody_may_write(image: builds.Image) -> None:
    for finding in trials.attempt(image, Buildah()):
        assert finding.passed, finding.said


def test_its_labels_describe_it(image: builds.Image) -> None:
    found = archives.configuration(image.archive)["config"]
    assert (found["User"], found["Entrypoint"]) == ("1001:0", ["python", "-m", "finetune_operator"])
    labels = {name.rpartition(".")[2]: text for name, text in found["Labels"].items()}
    assert labels["version"] == __version__
    assert labels["licenses"] == "Apache-2.0"
    assert labels["sbom"] == builds.SBOM_INSIDE
    assert len(labels["revision"].removesuffix("-modified")) == 40


def test_it_is_small(image: builds.Image) -> None:
    _, *own = archives.contents(image.archive).layers
    assert sum(layer.compressed for layer in own) / 1e6 <= ADDED_MB


def test_it_contains_what_its_list_states_and_no_installer(image: builds.Image) -> None:
    script = (
        "import importlib.metadata as m, importlib.util as u, json, pathlib, sys;"
        f"print(pathlib.Path({builds.SBOM_INSIDE!r}).read_text());"
        "print(json.dumps(sorted({d.metadata['Name'] for d in m.distributions(path=[p for p in sys.path if '/opt/venv' in p])})));"
        "print(json.dumps([name for name in ('pip', 'setuptools', 'torch') if u.find_spec(name)]))"
    )
    done = Buildah().run(image.built_as, Trial(["python", "-c", script], {}, {}))
    inside, installed, unwanted = done.stdout.rpartition("}")[0] + "}", *done.stdout.splitlines()[-2:]
    assert json.loads(inside) == json.loads(image.sbom.read_text())
    listed = {component["name"] for component in json.loads(inside)["components"]}
    assert listed == set(json.loads(installed))
    assert {"kopf", "pydantic", "aiohttp"} <= listed
    assert json.loads(unwanted) == []


def test_nothing_of_the_build_s_machine_is_in_it(image: builds.Image, tmp_path: Path) -> None:
    """Neither secrets of the build nor its paths: settings and authorities were shown to one step only."""
    with tarfile.open(image.archive) as archive:
        described = archive.extractfile("manifest.json")
        assert described is not None
        for layer in json.load(described)[0]["Layers"][1:]:
            with tarfile.open(fileobj=archive.extractfile(layer)) as files:
                names = {member.name.partition("/")[0] for member in files if not member.isdir()}
                assert names <= {"opt", "app"}
    assert str(package_index.secrets(tmp_path).get("ca.pem", "/no/where")) not in json.dumps(
        archives.configuration(image.archive)
    )


def test_it_needs_no_init_to_be_ended(image: builds.Image, tmp_path: Path) -> None:
    """Python is process 1, to which the kernel delivers only signals that it handles. It waits for an API server that is not there."""
    kubeconfig = tmp_path / "kubeconfig"
    user, cluster = {"token": "x"}, {"server": "https://127.0.0.1:9"}
    document = {
        "apiVersion": "v1", "kind": "Config", "current-context": "a", "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "clusters": [{"name": "a", "cluster": cluster}], "users": [{"name": "a", "user": user}],
    }  # fmt: skip
    kubeconfig.write_text(json.dumps(document))
    kubeconfig.chmod(0o644)
    tmp_path.chmod(0o755)
    command = ["python", "-m", "finetune_operator", "--kubeconfig", "/etc/finetune/kubeconfig"]
    trial = Trial(command, {}, {tmp_path: "/etc/finetune"})
    with Buildah().confined(image.built_as, trial) as confined, sandbox.started(confined) as (process, name):
        assert process.stdout is not None
        first = process.stdout.readline()
        began = time.monotonic()
        sandbox.send_signal(name, "TERM")
        rest, _ = process.communicate(timeout=30)
    assert json.loads(first)["level"], rest
    assert "Traceback" not in rest
    assert time.monotonic() - began < 10

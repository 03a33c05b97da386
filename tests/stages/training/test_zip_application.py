"""The program as one zip file, on an image that has the engine and nothing of this project."""

from __future__ import annotations

import base64
import sys
import sysconfig
from pathlib import Path

import pytest

from finetune_operator.training_bundle import training_bundle


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """The zip application, as the operator makes it, in a folder of its own."""
    target = tmp_path / "bundle" / "training.pyz"
    target.parent.mkdir()
    target.write_bytes(base64.b64decode(training_bundle().archive))
    return target


@pytest.fixture
def image(tmp_path: Path) -> dict[str, str]:
    """Environment of an interpreter that sees the installed libraries but not this project: ``-S`` reads no ``.pth`` file."""
    return {"PYTHONPATH": sysconfig.get_path("purelib")}


@pytest.fixture
def command(archive: Path) -> list[str]:
    return [sys.executable, "-S", str(archive)]


def test_it_trains_in_one_process(bench, inputs, command, image, tmp_path):
    ended = bench.train(inputs(), command=command, environment=image, cwd=tmp_path)
    assert ended.code == 0, ended.errors
    assert ended.result.outputs["samplesSeen"] == 100


def test_it_starts_itself_again_for_each_process(bench, inputs, command, image, tmp_path):
    loopback = {"GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo"}
    ended = bench.train(inputs(), command=command, environment={**image, **loopback, "PET_NPROC_PER_NODE": "2"}, cwd=tmp_path)
    assert ended.code == 0, ended.errors
    assert (ended.result.outputs["samplesSeen"], ended.result.outputs["processes"]) == (100, 2)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_an_image_without_the_engine_is_named(bench, inputs, archive, processes):
    environment = {"FINETUNE_IMAGE": "quay.io/team/plain:1", "PET_NPROC_PER_NODE": processes}
    ended = bench.train(inputs(), command=[sys.executable, "-I", "-S", str(archive)], environment=environment)
    assert (ended.code, ended.reason) == (65, "EngineMissing")
    assert "requires the Python package torch" in ended.result.message
    assert ended.result.message.startswith("training.image: quay.io/team/plain:1: engine portable cannot be used: ")
    assert "Traceback" not in ended.errors

"""Runs whose training image has the libraries of OpenShift AI 3.3 and nothing of this project, in real containers.

``python hack/compat node`` builds the image, runs this module, and shows losses and scores. The name keeps it out of the other test runs,
because the image takes minutes to build and to load.
"""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from control_planes import built
from deployed import Site
from images import builds
from images.recipes import LIBRARIES

pytestmark = pytest.mark.timeout(1200)
IMAGE = f"{LIBRARIES.title}:test"
TRAINING = {"image": IMAGE}


@pytest.fixture(scope="module", autouse=True)
def image(site: Site) -> None:
    """Load the image into the node."""
    site.plane.provide(built(partial(builds.find, LIBRARIES, "debian", "test")).archive)


@pytest.fixture(scope="module")
def older_model(site: Site, tiny_model: Path) -> str:
    """The tiny model as transformers 4 writes it, on the hub."""
    files = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    config, tokenizer = (json.loads(files[name]) for name in ("config.json", "tokenizer_config.json"))
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
    site.hub.add("model", "org/older", files | {
        "config.json": json.dumps(config).encode(), "tokenizer_config.json": json.dumps(tokenizer).encode(),
    })  # fmt: skip
    return "org/older"


@pytest.mark.parametrize("algorithm", ["osft", "sft", "lora"])
def test_a_run_with_defaults_succeeds(site: Site, older_model: str, algorithm: str) -> None:
    spec: dict[str, Any] = {"dataset": {"uri": "org/chat"}, "model": {"uri": older_model}, "training": {**TRAINING}}
    if algorithm != "osft":  # not the default run: it learns enough for another score, and has that of the base model
        spec["training"] |= {"algorithm": algorithm, "learningRate": 5e-3}
        spec["evaluation"] = {"baseline": True}
    if algorithm == "lora":
        spec["training"]["lora"] = {"quantization": "none"}
    name = f"older-{algorithm}"
    site.apply(name, spec)
    status = site.ended(name, 900)
    assert status["phase"] == "Succeeded", (status.get("failure"), status.get("stages"))
    engine = status["engine"]
    assert engine["name"] == "portable"
    assert (engine["versions"]["torch"], engine["versions"]["transformers"]) == ("2.9.0", "4.57.1")
    metrics = status["metrics"]
    scores = {stage: metrics[stage]["holdout.bits_per_byte"] for stage in ("baseline", "evaluation") if stage in metrics}
    assert scores["evaluation"] < scores.get("baseline", math.inf)
    print(json.dumps({"algorithm": algorithm, "scores": scores, "training": metrics["training"]}))


def test_a_model_that_these_libraries_misread_is_rejected(site: Site) -> None:
    site.apply("newer", {"dataset": {"uri": "org/chat"}, "training": TRAINING, "evaluation": {"enabled": False}})
    status = site.ended("newer", 600)
    assert (status["phase"], status["failure"]["reason"]) == ("Failed", "EngineMissing")
    assert "saved with transformers 5" in status["failure"]["message"]
    assert IMAGE in status["failure"]["message"]

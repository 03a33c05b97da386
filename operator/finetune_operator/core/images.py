"""Images of the stage programs. The operator's configuration can name two for a program that can use GPUs: ``<program>`` and
``<program>-cuda``.

A pod that requests GPUs runs the second one. Any other pod runs the first one, or the second one if there is no first: libraries for
GPUs also compute on CPUs, but not the reverse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune_operator.api.stages import EVALUATION, IMAGES, TRAINING

from .paths import lookup

CUDA = "-cuda"
"""Suffix of the name of an image for GPUs."""
GPU_FIELDS = {TRAINING.image: "training.gpusPerWorker", EVALUATION.image: "evaluation.gpus"}
"""Field with the number of GPUs of a program's pods, by program; other programs use none."""
OF_JOBS = tuple(
    f"{program}{suffix}"
    for program in IMAGES
    if program != TRAINING.image
    for suffix in ("", CUDA)[: 1 + (program in GPU_FIELDS)]
)
"""Names of the images of Jobs. Pods of TrainJobs have an image of their own: that of their runtime."""
CONFIGURABLE = (*OF_JOBS, TRAINING.image, f"{TRAINING.image}{CUDA}")
"""Names of the images in the operator's configuration."""


def default_images(configured: Mapping[str, str], version: str) -> dict[str, str]:
    """Return the images of a release for Jobs whose program has no image in the configuration.

    A registry with one image of a program does not imply that the other one can be pulled by the name of the release.
    """
    programs = {name.removesuffix(CUDA) for name in configured}
    return {name: f"finetune-{name}:{version}" for name in OF_JOBS if name.removesuffix(CUDA) not in programs}


def image_of(program: str, images: Mapping[str, str], spec: Mapping[str, Any]) -> str | None:
    """Return the image of a program's pods, ``None`` if there is none. ``spec`` has the effective values of the run."""
    for_gpus = images.get(f"{program}{CUDA}")
    return for_gpus if lookup(spec, GPU_FIELDS.get(program, "")) else images.get(program) or for_gpus


def images_of_programs(images: Mapping[str, str], spec: Mapping[str, Any]) -> dict[str, str]:
    """Return the image of each program that has one. ``spec`` has the effective values of the run."""
    found = {program: image_of(program, images, spec) for program in IMAGES}
    return {program: image for program, image in found.items() if image is not None}

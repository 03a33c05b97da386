"""The operator's configuration: one checked YAML file, and what becomes of it for the runs of a namespace."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from finetune_operator import __version__
from finetune_operator.api.pods import ANNOTATIONS_REFUSED, LABELS_REFUSED, RESERVED_ANNOTATIONS, RESERVED_LABELS
from finetune_operator.api.presets import overlay
from finetune_operator.api.section import LABEL_KEY, LabelValue
from finetune_operator.core.settings import PROGRAMS, Settings, Trainer
from finetune_operator.training_bundle import training_bundle

IMAGE_VARIABLES = {program: f"RELATED_IMAGE_{program.upper()}" for program in PROGRAMS}
"""Environment variables that name the images, as OpenShift's mirroring tools look for them."""


_Key = Annotated[str, Field(max_length=317, pattern=LABEL_KEY)]


def _without(reserved: str, words: str) -> AfterValidator:
    """Reject the keys that a run may not set either."""

    def check(found: dict[str, str]) -> dict[str, str]:
        if any(re.search(reserved, key) for key in found):
            raise ValueError(words)
        return found

    return AfterValidator(check)


PodLabels = Annotated[dict[_Key, LabelValue], Field(max_length=16), _without(RESERVED_LABELS, LABELS_REFUSED)]
PodAnnotations = Annotated[
    dict[_Key, Annotated[str, Field(max_length=512)]], Field(max_length=16), _without(RESERVED_ANNOTATIONS, ANNOTATIONS_REFUSED)
]
"""As many, and as long, as a run's status can record."""


class BadConfiguration(Exception):
    """The configuration cannot be used: the message names file and field."""


class Configuration(BaseModel):
    """What an administrator decides. Everything has a default."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True, frozen=True)

    namespaces: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    """Where runs are looked for; everywhere, if there is none."""
    images: dict[str, str] = Field(default_factory=dict)
    """Image of each stage program. Without one for training, its pods run the image of their runtime."""
    defaults: dict[str, Any] = Field(default_factory=dict)
    """Values in the shape of ``spec`` that go above the presets: storage class, runtime, placement."""
    environment: Annotated[dict[str, Annotated[str, Field(max_length=512)]], Field(max_length=16)] = Field(default_factory=dict)
    """Variables for every stage: hub endpoint, proxies. As many as a run's status can record."""
    pod_labels: PodLabels = Field(default_factory=lambda: {"sidecar.istio.io/inject": "false"})
    """Labels of the pods of every stage. By default Istio adds no proxy: it would never end, and a stage's pod must."""
    pod_annotations: PodAnnotations = Field(
        default_factory=lambda: {"sidecar.istio.io/inject": "false", "linkerd.io/inject": "disabled"}
    )
    """Annotations of the pods of every stage. By default the same for older releases of Istio, OpenShift Service Mesh 2 and Linkerd."""
    fs_group: Annotated[int, Field(ge=0, le=2_147_483_647)] | None = None
    """Group that a node gives the workspace's volume to. OpenShift chooses one itself; elsewhere a fresh volume is root's."""
    workers: Annotated[int, Field(ge=1, le=256)] = 32
    """Runs that are looked at at the same time."""
    resync_seconds: Annotated[float, Field(ge=1)] = 300.0
    """Every run that has not ended is looked at at least that often."""
    progress_seconds: Annotated[float, Field(ge=1)] = 10.0
    """Least time between two looks at a running stage's log."""
    retry_seconds: Annotated[float, Field(gt=0)] = 10.0
    """First pause after a passing fault; it doubles."""

    @classmethod
    def load(cls, file: Path | None, environment: Mapping[str, str] = os.environ) -> Configuration:
        """The configuration of a file (none: all defaults), with images from ``RELATED_IMAGE_*`` over it.

        Raises:
            BadConfiguration: the file cannot be read, is no YAML, or has a field that is unknown or wrong.
        """
        try:
            document = yaml.safe_load(file.read_text(encoding="utf-8")) if file else {}
            found = cls.model_validate(document or {})
        except (OSError, yaml.YAMLError) as error:
            raise BadConfiguration(f"{file}: cannot be read: {error}") from error
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            raise BadConfiguration(
                f"{file}: {'.'.join(map(str, problem['loc']))}: {problem['msg'].removeprefix('Value error, ')}"
            ) from error
        unknown = set(found.images) - set(PROGRAMS)
        if unknown:
            raise BadConfiguration(f"{file}: images.{min(unknown)}: there is no such program; they are {', '.join(PROGRAMS)}")
        named = {program: environment[variable] for program, variable in IMAGE_VARIABLES.items() if environment.get(variable)}
        return found.model_copy(update={"images": {**found.images, **named}})

    def settings(self, trainer: Trainer | None, namespace_defaults: Mapping[str, Any], problem: str | None = None) -> Settings:
        """What the place is like for the runs of a namespace."""
        bundle = training_bundle()
        images = {program: f"finetune-{program}:{__version__}" for program in PROGRAMS}
        training = {"training": {"image": self.images["training"]}} if "training" in self.images else {}
        return Settings(
            mode="cluster", operator_version=__version__, images={**images, **self.images}, entry_digest=bundle.digest,
            entry_archive=bundle.archive, operator_defaults=overlay(training, self.defaults), namespace_defaults=namespace_defaults,
            environment=self.environment, retry_seconds=self.retry_seconds, progress_seconds=self.progress_seconds, trainer=trainer,
            fs_group=self.fs_group, problem=problem, pod_labels=self.pod_labels, pod_annotations=self.pod_annotations,
        )  # fmt: skip

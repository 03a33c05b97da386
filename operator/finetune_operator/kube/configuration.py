"""Configuration of the operator: a validated YAML file, and the settings that follow from it for the runs of a namespace."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from finetune_contract.hosts import HOST_PATTERN, HOST_USES
from finetune_operator import __version__
from finetune_operator.api.kubernetes_yaml import InvalidYAML, parse
from finetune_operator.api.pods import ANNOTATIONS_REJECTED, LABELS_REJECTED, RESERVED_ANNOTATIONS, RESERVED_LABELS
from finetune_operator.api.section import LABEL_KEY, LabelValue, ObjectName, ShortName, Size, form_of, text
from finetune_operator.api.training import BEGINNING_OF_IMAGES, IMAGE
from finetune_operator.core.images import CONFIGURABLE, default_images
from finetune_operator.core.origins import PREFIXES
from finetune_operator.core.quantities import amount
from finetune_operator.core.settings import Allowed, Settings, Trainer
from finetune_operator.core.values import first_fault
from finetune_operator.training_bundle import training_bundle
from finetune_operator.validation import reject_defaults

IMAGE_VARIABLES = {name: f"RELATED_IMAGE_{name.upper().replace('-', '_')}" for name in CONFIGURABLE}
"""Environment variables with the images: OpenShift's mirroring tools look for these names."""


_Key = Annotated[str, Field(max_length=317, pattern=LABEL_KEY)]


def _without(reserved: str, message: str) -> AfterValidator:
    """Return a validator that rejects the keys that a run cannot set either."""

    def check(entries: dict[str, str]) -> dict[str, str]:
        if any(re.search(reserved, key) for key in entries):
            raise ValueError(message)
        return entries

    return AfterValidator(check)


PodLabels = Annotated[dict[_Key, LabelValue], Field(max_length=16), _without(RESERVED_LABELS, LABELS_REJECTED)]
PodAnnotations = Annotated[
    dict[_Key, Annotated[str, Field(max_length=512)]], Field(max_length=16), _without(RESERVED_ANNOTATIONS, ANNOTATIONS_REJECTED)
]
"""Number and length are limited because the status of a run records them."""


Image = Annotated[
    str,
    text(
        512,
        IMAGE,
        "the name of an image, <registry>/<repository>:<tag>, without https:// and spaces, the repository in lower case",
    ),
]


def _known_images(images: dict[str, str]) -> dict[str, str]:
    unknown = sorted(set(images) - set(CONFIGURABLE))
    if unknown:
        raise ValueError(f"{unknown[0]} is not an image of a program; use one of {', '.join(CONFIGURABLE)}")
    return images


OPERATOR_ACCOUNT = "finetune-operator"
"""ServiceAccount of the operator in ``manifests/base``."""
Host = Annotated[str, text(128, HOST_PATTERN, "a host name, *.<domain>, or an IP address, without scheme and port")]
Hosts = Annotated[tuple[Host, ...], Field(max_length=16)]
"""Number and length are limited because the status of a run records them."""


class AllowedHosts(BaseModel):
    """Hosts that the stages may contact. A key that is not set allows all; an empty list allows none."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True, frozen=True)

    registries: Hosts | None = None
    """Model registries. A token is sent to them by http, too."""
    hubs: Hosts | None = None
    """Hubs of Hugging Face. The hub of the stages is ``HF_ENDPOINT`` in ``environment``."""
    object_stores: Hosts | None = None
    """S3 servers; ``s3.amazonaws.com`` for all of AWS."""
    images: Hosts | None = None
    """Registries of images with base models."""
    hosts: Hosts | None = None
    """Web servers with data, and those to which they redirect."""
    private_addresses: bool = True
    """Whether hosts that no list has may have private addresses, such as those of the cluster's Services."""

    @property
    def lists(self) -> dict[str, tuple[str, ...]]:
        """The lists that are set, by use."""
        return {use: hosts for use, hosts in self.model_dump(by_alias=True).items() if use in HOST_USES and hosts is not None}


class DownloadLimits(BaseModel):
    """Largest sizes of what a stage downloads. Without them, a server that sends without an end would fill a shared volume."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True, frozen=True)

    dataset: Size = "200Gi"
    """Size of the data at one location. A dataset of 10 billion tokens has about 50 GB."""
    model: Size = "2Ti"
    """Size of a base model. The largest open models have about 1.3 TB."""

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes in bytes, by stage."""
        return {stage: math.ceil(amount(size)) for stage, size in self.model_dump().items()}


class BadConfiguration(Exception):
    """The configuration is invalid. The message names file and field."""


_Names = Annotated[tuple[ObjectName, ...], Field(max_length=64)]


def _no_account_of_the_operator(names: tuple[str, ...]) -> tuple[str, ...]:
    if OPERATOR_ACCOUNT in names:
        raise ValueError(f"{OPERATOR_ACCOUNT} is the account of the operator, whose rights no run may have; remove it")
    return names


_Beginning = Annotated[
    str,
    text(512, BEGINNING_OF_IMAGES, "a registry, a namespace, a repository or an image, such as registry.example.com/team/"),
]


class Allow(BaseModel):
    """What runs may do, beyond what is safe on a cluster that several teams share."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True, frozen=True)

    remote_code: bool = False
    """Whether a run may set ``model.trustRemoteCode``: code of the model then runs in the pods of all stages."""
    task_code: bool = False
    """Whether task files may have functions, which run in the pods of the evaluation."""
    training_images: Annotated[tuple[_Beginning, ...], Field(max_length=64)] | None = None
    """Registries, namespaces, repositories and images that ``training.image`` may name; all images if it is null."""
    service_accounts: Annotated[_Names, AfterValidator(_no_account_of_the_operator)] = ()
    """Accounts that ``serviceAccountName`` may name beside ``finetune-stage``."""
    claims: _Names | None = None
    """Claims of its namespace that a run may mount beside its own; all claims if it is null."""


class Configuration(BaseModel):
    """Configuration by an administrator. Every field has a default."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True, frozen=True)

    namespaces: Annotated[tuple[ShortName, ...], Field(max_length=64)] = ()
    """Namespaces that are watched; all namespaces if the list is empty."""
    images: Annotated[dict[str, Image], AfterValidator(_known_images)] = Field(default_factory=dict)
    """Image of each stage program, and of pods that request GPUs (:mod:`finetune_operator.core.images`)."""
    defaults: dict[str, Any] = Field(default_factory=dict)
    """Default values of ``spec`` that override the presets, such as storage class, runtime and placement."""
    environment: Annotated[dict[str, Annotated[str, Field(max_length=512)]], Field(max_length=16)] = Field(default_factory=dict)
    """Environment variables of every stage, such as hub endpoint and proxies. The status of a run records them."""
    allowed_hosts: AllowedHosts | None = None
    """Hosts that the stages may contact; all by default."""
    download_limits: DownloadLimits = Field(default_factory=DownloadLimits)
    """Largest sizes of what a stage downloads."""
    pod_labels: PodLabels = Field(default_factory=lambda: {"sidecar.istio.io/inject": "false"})
    """Labels of the pods of every stage. By default Istio adds no proxy, which would keep the pod from completing."""
    pod_annotations: PodAnnotations = Field(
        default_factory=lambda: {"sidecar.istio.io/inject": "false", "linkerd.io/inject": "disabled"}
    )
    """Annotations of the pods of every stage. The default does the same for older Istio, OpenShift Service Mesh 2 and Linkerd."""
    engine_check: bool = True
    """Whether a training image that is not known yet is checked in a pod without GPUs, before a GPU is requested."""
    allow: Allow = Field(default_factory=Allow)
    """What runs may do, beyond what is safe on a cluster that several teams share."""
    isolate_training: bool = False
    """Whether the pods of training can write to one folder of the workspace only. Nodes need Kubernetes 1.35 or later."""
    fs_group: Annotated[int, Field(ge=0, le=2_147_483_647)] | None = None
    """``fsGroup`` of the pods, which owns the workspace. OpenShift sets one itself; elsewhere a new volume belongs to root."""
    workers: Annotated[int, Field(ge=1, le=256)] = 32
    """Number of runs that are reconciled at the same time."""
    resync_seconds: Annotated[float, Field(ge=1, le=86_400)] = 300.0
    """Interval in seconds between two passes over every run that has not ended."""
    progress_seconds: Annotated[float, Field(ge=1, le=86_400)] = 10.0
    """Minimum interval in seconds between two reads of the log of a running stage."""
    retry_seconds: Annotated[float, Field(gt=0, le=86_400)] = 10.0
    """First pause in seconds after a transient fault. It doubles with each further one."""

    @classmethod
    def load(cls, file: Path | None, environment: Mapping[str, str] = os.environ) -> Configuration:
        """Return the configuration of a file, or all defaults without a file. ``RELATED_IMAGE_*`` override its images.

        Raises:
            BadConfiguration: the file cannot be read, is not YAML, or has an unknown or invalid field.
            CelMissing: the package that evaluates the rules of the CRD is not installed.
        """
        try:
            document = parse(file.read_text(encoding="utf-8")) if file else None
        except InvalidYAML as error:
            raise BadConfiguration(f"{file}: {error}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise BadConfiguration(f"{file}: cannot be read: {error}; pass a readable YAML file to --config") from error
        if not isinstance(document, dict | None):
            raise BadConfiguration(f"{file}: is not an object; write the keys of the configuration")
        stated = {
            key: value for key, value in (document or {}).items() if value is not None
        }  # a key without a value sets nothing
        try:
            configuration = cls.model_validate(stated)
        except ValidationError as error:
            fault = first_fault(cls, stated, error)
            raise BadConfiguration(f"{file}: {fault.path}: {fault.problem}") from error
        rejection = reject_defaults("operator", configuration.defaults, "cluster")
        if rejection:
            message = rejection.message.removeprefix(PREFIXES["operator"]).removesuffix(".")
            raise BadConfiguration(f"{file}: defaults.{message}")
        named = {name: environment[variable] for name, variable in IMAGE_VARIABLES.items() if environment.get(variable)}
        for name, image in named.items():
            if not re.fullmatch(IMAGE, image):
                raise BadConfiguration(f"{IMAGE_VARIABLES[name]}: is {json.dumps(image)}; write {form_of(IMAGE)}")
        return configuration.model_copy(update={"images": {**configuration.images, **named}})

    def settings(self, trainer: Trainer | None, namespace_defaults: Mapping[str, Any], problem: str | None = None) -> Settings:
        """Return the settings for the runs of a namespace.

        Args:
            trainer: the installed Kubeflow Trainer, if any.
            namespace_defaults: the default values of ``spec`` in the namespace.
            problem: why these defaults cannot be used.
        """
        bundle = training_bundle()
        hosts = self.allowed_hosts or AllowedHosts()
        images = {**default_images(self.images, __version__), **self.images}
        return Settings(
            mode="cluster", operator_version=__version__, images=images, bundle_digest=bundle.digest,
            bundle_archive=bundle.archive, operator_defaults=self.defaults, namespace_defaults=namespace_defaults,
            environment=self.environment, retry_seconds=self.retry_seconds, progress_seconds=self.progress_seconds, trainer=trainer,
            allowed_hosts=hosts.lists, private_addresses="allowed" if hosts.private_addresses else "listed",
            download_limits=self.download_limits.sizes, engine_check=self.engine_check, allowed=Allowed(**self.allow.model_dump()),
            isolation="mounts" if self.isolate_training else "digests", fs_group=self.fs_group, problem=problem, pod_labels=self.pod_labels, pod_annotations=self.pod_annotations,
        )  # fmt: skip

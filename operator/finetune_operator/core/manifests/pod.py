"""The parts of the pods of all stages: environment, references to Secrets, placement, security context.

Pods meet the Pod Security Standard ``restricted`` and run under any user id, because OpenShift assigns one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from finetune_contract.addresses import PRIVATE_ADDRESSES_VARIABLE
from finetune_contract.codec import encode
from finetune_contract.documents import (
    AGAIN_VARIABLE,
    ATTEMPT_VARIABLE,
    CACHE_LIMIT_VARIABLE,
    CONFIG_VARIABLE,
    DOCUMENT_DIGEST_VARIABLE,
    DOWNLOAD_LIMIT_VARIABLE,
    FIRST_VARIABLE,
    IMAGE_VARIABLE,
    INPUTS_DIGEST_VARIABLE,
    READS_VARIABLE,
    RESULT_VARIABLE,
    SECRETS_VARIABLE,
    WORKSPACE_VARIABLE,
    ReadResult,
)
from finetune_contract.hosts import ALLOWED_HOSTS_VARIABLE
from finetune_operator.api.stages import (
    DATASET,
    ENGINE_CHECK,
    MODEL,
    STAGES,
    TRAINING,
)
from finetune_operator.core import naming
from finetune_operator.core.isolation import finds_no_result, ignores_cached_results
from finetune_operator.core.paths import lookup
from finetune_operator.core.quantities import amount
from finetune_operator.core.resolved_spec import Placement, Resources, SecretRef
from finetune_operator.core.run import Run, StageStatus

Json = dict[str, Any]

WORKSPACE_PATH = "/workspace"
DOCUMENTS_PATH = "/etc/finetune"
TASK_FILES_PATH = "/etc/finetune-tasks"
REGISTRY_CA_PATH = "/etc/finetune-registry-ca"
SOURCE_CA_PATH = "/etc/finetune-source-ca"
CLAIMS_PATH = "/mnt/claims"
BUNDLE_PATH = "/opt/finetune"
BUNDLE_FILE = "training.pyz"
SCRATCH_PATH = "/tmp"  # noqa: S108 - a path inside the container
TERMINATION_LOG = "/dev/termination-log"
GPU = "nvidia.com/gpu"
SCRATCH_LIMIT = "16Gi"

HF_SECRET = ("hf-token", ("HF_TOKEN",))
"""Standard Secret and keys for the Hugging Face Hub, with the names of the OpenShift AI pipelines."""
AWS_SECRET = ("s3-secret", ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"))
"""Standard Secret and keys for S3."""
AWS_SERVER = ("s3-secret", ("AWS_S3_ENDPOINT", "AWS_DEFAULT_REGION"))
"""Keys with the server in the Secrets of OpenShift AI's data connections."""
PULL_SECRET = ("oci-pull-secret-model-download", ("OCI_PULL_SECRET_MODEL_DOWNLOAD",))
"""Standard Secret and key for ``oci://`` models, with the names of the OpenShift AI pipelines."""
PULL_SECRET_KEY = ".dockerconfigjson"  # noqa: S105 - a name, no secret
"""Key of Secrets of type ``kubernetes.io/dockerconfigjson``."""
REGISTRY_SECRET = ("registry-token", ("REGISTRY_TOKEN",))
"""Standard Secret and key for the model registry."""
STANDARD_KEYS = frozenset(key for _, keys in (HF_SECRET, AWS_SECRET, AWS_SERVER) for key in keys)
"""Standard keys whose values go to known hosts: the hub and S3. A login for the web or a registry would go to any host that a run names."""


@dataclass(frozen=True)
class PodNeeds:
    """What the pods of a stage need in addition to what all pods have."""

    resources: Resources = field(default_factory=Resources)
    gpus: int = 0
    environment: tuple[Json, ...] = ()
    placement: Placement = field(default_factory=Placement)
    volumes: tuple[Json, ...] = ()
    mounts: tuple[Json, ...] = ()
    pull_secrets: tuple[Json, ...] = ()
    shared_memory: str | int | None = None

    @property
    def requirements(self) -> Json:
        """The container's ``resources``: requests equal limits."""
        asked = {
            "cpu": self.resources.cpu, "memory": self.resources.memory, "ephemeral-storage": self.resources.ephemeral_storage,
            GPU: self.gpus or None,
        }  # fmt: skip
        amounts = {name: str(amount) for name, amount in asked.items() if amount is not None}
        return {"requests": amounts, "limits": dict(amounts)} if amounts else {}


def secrets(reference: SecretRef | None, *standards: tuple[str, tuple[str, ...]]) -> tuple[Json, ...]:
    """Return environment variables from Secrets: the standard keys of the standard Secrets, or of the Secret in ``reference``.

    They are optional, so that a pod starts without them. A key in ``reference`` is required, and its value is that of the first variable.
    """
    if reference is not None and reference.key:
        variable = standards[0][1][0]
        return (secret_variable(variable, reference.name, reference.key, optional=False),)
    return tuple(
        secret_variable(key, secret if reference is None else reference.name, key, optional=True)
        for secret, keys in standards
        for key in keys
    )


def secret_variable(variable: str, secret: str, key: str, *, optional: bool) -> Json:
    """Return an environment variable with the value of a key of a Secret."""
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key, "optional": optional}}}


def environment(run: Run, stage_status: StageStatus, needs: PodNeeds, image: str | None) -> list[Json]:
    """Return the environment of a stage's container. Variables of the operator are last, so that no other entry replaces them."""
    scratch = {
        "HOME": f"{SCRATCH_PATH}/home", "USER": "finetune", "TMPDIR": SCRATCH_PATH, "HF_HOME": f"{SCRATCH_PATH}/huggingface",
        "XDG_CACHE_HOME": f"{SCRATCH_PATH}/cache", "PYTHONUNBUFFERED": "1",
    }  # fmt: skip
    resolved = run.status.get("resolved") or {}
    document = (resolved.get("documents") or {}).get(stage_status.name)
    own = {
        CONFIG_VARIABLE: f"{DOCUMENTS_PATH}/{stage_status.name}.json",
        WORKSPACE_VARIABLE: WORKSPACE_PATH,
        RESULT_VARIABLE: TERMINATION_LOG,
        ATTEMPT_VARIABLE: str(stage_status.this_attempt),
        INPUTS_DIGEST_VARIABLE: stage_status.inputs_digest or "",
        **({DOCUMENT_DIGEST_VARIABLE: document} if document else {}),
        **_read_results(run, stage_status),
        **({FIRST_VARIABLE: "1"} if finds_no_result(run, stage_status) else {}),
        **({IMAGE_VARIABLE: image} if image else {}),
        **({AGAIN_VARIABLE: "1"} if _is_rerun(run, stage_status) or ignores_cached_results(run, stage_status) else {}),
        **_cache_limit(run, stage_status),
    }
    general = resolved.get("environment") or {}
    hosts = resolved.get("allowedHosts")
    if hosts:
        own[ALLOWED_HOSTS_VARIABLE] = json.dumps(hosts, sort_keys=True)
    own |= _download_rules(resolved, stage_status.name)
    entries = [*_plain(scratch), *_plain(general), *needs.environment, *_plain(own)]
    found = {entry["name"]: entry for entry in entries}
    secret = ",".join(sorted(name for name, entry in found.items() if lookup(entry, "valueFrom.secretKeyRef")))
    return [*found.values(), *_plain({SECRETS_VARIABLE: secret} if secret else {})]


def _read_results(run: Run, stage_status: StageStatus) -> dict[str, str]:
    """Return the variable with the results that the stage reads, as status has them: files of the workspace are compared with it."""
    reads = next(stage.reads for stage in STAGES if stage.name == stage_status.name)
    ended = {name: run.stages[name] for name in reads if name in run.stages and run.stages[name].state == "Succeeded"}
    found = {name: encode(ReadResult(one.output_digest, one.result_digest)) for name, one in ended.items()}
    return {READS_VARIABLE: json.dumps(found, separators=(",", ":"), sort_keys=True)} if reads else {}


def _is_rerun(run: Run, stage_status: StageStatus) -> bool:
    """Return whether the rerun starts from this stage: it runs again even with the same inputs; later stages run if their inputs changed."""
    return run.round > 1 and (run.spec.get("rerun") or {}).get("from") == stage_status.name


def _cache_limit(run: Run, stage_status: StageStatus) -> dict[str, str]:
    """Return the limit of the caches, for the stages that add to them. It is not an input: the results do not depend on it."""
    size = run.cleanup.cache_size
    if size is None or stage_status.name not in (DATASET.name, MODEL.name):
        return {}
    return {CACHE_LIMIT_VARIABLE: str(int(amount(size)))}


def _download_rules(resolved: Json, stage: str) -> dict[str, str]:
    """Return the variables with the rules for downloads. The pods of training connect to each other, at any address, and download nothing."""
    if stage in (ENGINE_CHECK.name, TRAINING.name):
        return {}
    private, limit = resolved.get("privateAddresses"), (resolved.get("downloadLimits") or {}).get(stage)
    return {
        **({PRIVATE_ADDRESSES_VARIABLE: private} if private else {}),
        **({DOWNLOAD_LIMIT_VARIABLE: str(limit)} if limit else {}),
    }


def _plain(values: Mapping[str, str]) -> list[Json]:
    return [{"name": name, "value": value} for name, value in values.items()]


def container_security() -> Json:
    """Return the security context of a container: Pod Security ``restricted``, with a read-only root file system."""
    return {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip


def volume_group(run: Run) -> Json:
    """Return the group that owns the workspace's volume, if the operator's configuration sets one: OpenShift assigns it itself."""
    group = (run.status.get("resolved") or {}).get("fsGroup")
    return {} if group is None else {"fsGroup": group, "fsGroupChangePolicy": "OnRootMismatch"}


def placed(run: Run, needs: PodNeeds) -> Json:
    """Return the fields of a pod's spec for its placement and its ServiceAccount."""
    spec = needs.placement
    fields = {
        "nodeSelector": spec.node_selector, "tolerations": list(spec.tolerations), "affinity": spec.affinity,
        "imagePullSecrets": list(needs.pull_secrets), "serviceAccountName": run.resolved.service_account_name,
    }  # fmt: skip
    return {name: value for name, value in fields.items() if value}


def pod_metadata(run: Run, stage_status: StageStatus, needs: PodNeeds) -> Json:
    """Return labels and annotations of a stage's pods: of the configuration, overridden by the run's placement, and by the operator's labels.

    Service meshes read some keys as a label and as an annotation (``sidecar.istio.io/inject``), and the label takes precedence.
    So a key that the run sets as either one replaces the operator's label and annotation.
    """
    resolved, placement = run.status.get("resolved") or {}, needs.placement
    found: dict[str, dict[str, str]] = {"labels": dict(placement.labels), "annotations": dict(placement.annotations)}
    chosen = {*found["labels"], *found["annotations"]}
    for group, general in (("labels", "podLabels"), ("annotations", "podAnnotations")):
        defaults = {key: value for key, value in (resolved.get(general) or {}).items() if key not in chosen}
        found[group] = {**defaults, **found[group]}
    labels = {**found["labels"], **naming.labels(run, stage_status.name, stage_status.this_attempt)}
    return {"labels": labels, **({"annotations": found["annotations"]} if found["annotations"] else {})}

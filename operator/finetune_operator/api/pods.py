"""Pod fields that a user can set: resources, environment, volumes and scheduling. Descriptions are those of Kubernetes."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field

from finetune_contract.uris import LOGIN_IN_TEXT, SIGNATURE

from .references import ConfigMapRef
from .section import LABEL_KEY, DataKey, LabelValue, ObjectName, Quantity, Rule, Section, ShortName, text

RESERVED_VOLUMES = (
    "workspace", "training-folder", "training-results", "documents", "scratch", "shared-memory", "training-bundle",
)  # fmt: skip
"""Names of the volumes that every training pod has."""


CODE_VARIABLES = (
    "^(PYTHON.*|LD_.*|PATH|BASH_ENV|ENV|BASH_FUNC_.*|SHELLOPTS|GCONV_PATH|GLIBC_TUNABLES|HOME|XDG_.*|HF_HOME|HF_MODULES_CACHE|OPENSSL_.*"
    "|OMP_TOOL.*|NCCL_.*PLUGIN|CUDA_INJECTION.*|TORCHINDUCTOR_.*|TORCH_EXTENSIONS_DIR|TRITON_.*|CC|CXX|GIT_.*|AWS_.*_FILE)$"
)
"""RE2: environment variables that change which code the interpreter, the shell, the loader and the libraries run."""
HARMLESS_VARIABLES = (
    "^(NCCL_(DEBUG|DEBUG_SUBSYS|P2P_DISABLE|P2P_LEVEL|SHM_DISABLE|SOCKET_IFNAME|TIMEOUT|IB_DISABLE|IB_HCA|IB_TIMEOUT|IB_GID_INDEX)"
    "|CUDA_(VISIBLE_DEVICES|LAUNCH_BLOCKING|DEVICE_MAX_CONNECTIONS)|PYTORCH_(CUDA_)?ALLOC_CONF|TORCH_DISTRIBUTED_DEBUG"
    "|TORCH_NCCL_(ASYNC_ERROR_HANDLING|BLOCKING_WAIT|ENABLE_MONITORING)|(OMP|MKL)_NUM_THREADS|TOKENIZERS_PARALLELISM"
    "|TRANSFORMERS_VERBOSITY|INSTRUCTLAB_NCCL_TIMEOUT_MS|HF_HUB_OFFLINE|HF_TOKEN|WANDB_(MODE|DISABLED|API_KEY|PROJECT)|LOG_LEVEL|NO_COLOR)$"
)
"""RE2: environment variables that never change which code runs. With any other variable, a training may run code of the user."""


class Resources(Section):
    """Compute resources of one pod. Requests and limits are equal. GPUs are set elsewhere."""

    cpu: Quantity | None = Field(None, description="CPU cores, as a quantity such as 4 or 500m.")
    memory: Quantity | None = Field(None, description="Memory, as a quantity in bytes such as 32Gi.")
    ephemeral_storage: Quantity | None = Field(
        None, description="Local ephemeral storage, as a quantity in bytes such as 20Gi. Default: no request and no limit."
    )


class SecretKeySelector(Section):
    """SecretKeySelector selects a key of a Secret."""

    name: ObjectName = Field(description="Name of the Secret.")
    key: DataKey = Field(description="The key of the Secret to select from. Must be a valid secret key.")
    optional: bool | None = Field(
        None, description="Specify whether the Secret or its key must be defined. Default: false, which means that they must be."
    )


class EnvVarSource(Section):
    """EnvVarSource represents a source for the value of an EnvVar."""

    secret_key_ref: SecretKeySelector = Field(description="Selects a key of a Secret in the namespace of the run.")


class EnvVar(Section):
    """EnvVar represents an environment variable present in the training container."""

    RULES = (
        Rule(
            "has(self.value) != has(self.valueFrom)",
            "an entry of env needs exactly one of value and valueFrom",
        ),
        Rule(
            "!self.name.startsWith('PET_') && !self.name.startsWith('FINETUNE_')",
            "names that begin with PET_ or FINETUNE_ belong to Kubeflow Trainer and to the operator; choose another name",
            field=".name",
        ),
        Rule(
            f"!self.name.matches(r'{CODE_VARIABLES}')",
            "the variable makes the interpreter, the shell, the loader or a library run other code; put the code into an image and set"
            " training.image, or remove the variable",
            field=".name",
        ),
        Rule(
            f"!has(self.value) || !self.value.contains('://') || !(self.value.matches(r'{LOGIN_IN_TEXT}') || self.value.matches(r'{SIGNATURE}'))",
            "the value has a login, a signature or a token, which anyone who can read the run could read; put it into a Secret and set"
            " valueFrom",
            field=".value",
        ),
        Rule(
            r"!has(self.value) || !self.value.matches(r'[\x00-\x08]')",
            "the value has a control character such as NUL, which no environment variable can have; remove it",
            field=".value",
        ),
    )

    name: Annotated[str, text(128, r"^[A-Za-z_][A-Za-z0-9_]*$", "a name of letters, digits and '_'")] = Field(
        description="Name of the environment variable. Names that begin with PET_ or FINETUNE_ are reserved, "
        "as are PATH, HOME, LD_*, PYTHON*, OPENSSL_* and other names that change which code runs."
    )
    value: Annotated[str, Field(max_length=1024)] | None = Field(
        None, description="Value of the environment variable. Exactly one of value and valueFrom must be set."
    )
    value_from: EnvVarSource | None = Field(
        None, description="Source for the environment variable's value. Exactly one of value and valueFrom must be set."
    )


class ClaimSource(Section):
    """References a PersistentVolumeClaim in the same namespace."""

    claim_name: ObjectName = Field(description="Name of a PersistentVolumeClaim in the same namespace as the run.")
    read_only: bool | None = Field(None, description="Will force the ReadOnly setting in volumeMounts. Default: false.")


class SecretSource(Section):
    """Adapts a Secret into a volume. The keys of the Secret are the names of the files."""

    secret_name: ObjectName = Field(description="Name of the Secret in the namespace of the run to use.")


class EmptyDirSource(Section):
    """Represents an empty directory for a pod. It is deleted with the pod."""

    medium: Literal["", "Memory"] | None = Field(
        None,
        description="What type of storage medium should back this directory. Must be an empty string or Memory. "
        "Default: the empty string, which means to use the node's default medium.",
    )
    size_limit: Quantity | None = Field(
        None,
        description="Total amount of local storage required for this EmptyDir volume, as a quantity in bytes such as "
        "10Gi. Default: no limit.",
    )


class Volume(Section):
    """Volume represents a named volume in a pod that may be accessed by any container in the pod. Exactly one source must be set."""

    RULES = (
        Rule(
            "[has(self.persistentVolumeClaim), has(self.configMap), has(self.secret), has(self.emptyDir)]"
            ".filter(given, given).size() == 1",
            "a volume needs exactly one of persistentVolumeClaim, configMap, secret and emptyDir",
        ),
        Rule(
            f"!(self.name in {list(RESERVED_VOLUMES)})",
            f"the volume names {', '.join(RESERVED_VOLUMES)} belong to the operator; choose another name",
            field=".name",
        ),
    )

    name: ShortName = Field(description="Name of the volume. Must be a DNS_LABEL and unique within the pod.")
    persistent_volume_claim: ClaimSource | None = Field(
        None, description="Represents a reference to a PersistentVolumeClaim in the same namespace."
    )
    config_map: ConfigMapRef | None = Field(None, description="Represents a ConfigMap that should populate this volume.")
    secret: SecretSource | None = Field(None, description="Represents a Secret that should populate this volume.")
    empty_dir: EmptyDirSource | None = Field(None, description="Represents a temporary directory that shares a pod's lifetime.")


_SEGMENT = r"([^/.:\x00-\x1f\x7f]|\.[^/.:\x00-\x1f\x7f]|\.\.[^/:\x00-\x1f\x7f])[^/:\x00-\x1f\x7f]*"
_CLEAN_PATH = rf"(/{_SEGMENT})+/?"


class VolumeMount(Section):
    """VolumeMount describes a mounting of a Volume within a container."""

    RULES = (
        Rule(
            rf"self.mountPath.matches(r'^{_CLEAN_PATH}$')",
            "mountPath is not a clean absolute path; write it with single slashes, without . and .. and without colons, such as /data",
            field=".mountPath",
        ),
        Rule(
            r"!self.mountPath.matches(r'^/((workspace|etc|opt/finetune|opt/app-root|dev|proc|sys|usr|bin|sbin|lib(32|64|x32)?|root|home|var|run)(/|$)|(tmp|opt)/?$|.*/(site|dist)-packages(/|$))')",
            "mountPath hides files that training needs; choose a path that is not /tmp or /opt and not in /workspace, /etc,"
            " /opt/finetune, /opt/app-root, /dev, /proc, /sys, /usr, /bin, /sbin, /lib, /lib32, /lib64, /root, /home, /var, /run or a directory of Python packages",
            field=".mountPath",
        ),
        Rule(
            r"!has(self.subPath) || !self.subPath.matches(r'^/|(^|/)\.\.(/|$)|[\x00-\x1f\x7f]')",
            "subPath leaves the volume; write a relative path without ..",
            field=".subPath",
        ),
    )

    name: ShortName = Field(description="This must match the name of a volume.")
    mount_path: Annotated[str, Field(min_length=2, max_length=256)] = Field(
        description="Path within the container at which the volume should be mounted. Must not contain ':'."
    )
    sub_path: Annotated[str, text(256)] | None = Field(
        None,
        description="Path within the volume from which the container's volume should be mounted. Default: the volume's root.",
    )
    read_only: bool | None = Field(None, description="Mounted read-only if true, read-write otherwise. Default: false.")


class Toleration(Section):
    """The pod this Toleration is attached to tolerates any taint that matches the triple <key,value,effect> using the matching operator <operator>."""

    RULES = (
        Rule(
            "has(self.key) || (has(self.operator) && self.operator == 'Exists')",
            "a toleration without key tolerates every taint and needs operator: Exists; add key, or set operator: Exists",
        ),
        Rule(
            "!has(self.value) || self.value == '' || !has(self.operator) || self.operator != 'Exists'",
            "operator Exists takes no value; remove value, or set operator: Equal",
            field=".value",
        ),
        Rule(
            "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            "tolerationSeconds counts only with effect: NoExecute; set that effect, or remove tolerationSeconds",
            field=".tolerationSeconds",
        ),
    )

    key: Annotated[str, Field(max_length=317, pattern=LABEL_KEY)] | None = Field(
        None,
        description="Taint key that the toleration applies to. If the key is empty, operator must be Exists; this "
        "combination matches all values and all keys.",
    )
    operator: Literal["Exists", "Equal"] | None = Field(
        None, description="Represents a key's relationship to the value. Valid operators are Exists and Equal. Default: Equal."
    )
    value: LabelValue | None = Field(
        None, description="Taint value the toleration matches to. If the operator is Exists, the value must be empty."
    )
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="Taint effect to match. Default: all taint effects."
    )
    toleration_seconds: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="Period of time in seconds that the toleration (which must be of effect NoExecute) tolerates the "
        "taint. Default: forever.",
    )


_VALUES_IN_A_SET = Rule(
    "!(self.operator in ['In', 'NotIn']) || (has(self.values) && self.values.size() > 0)",
    "operators In and NotIn need values; add values, or use Exists or DoesNotExist",
    field=".values",
)
_NO_VALUES = Rule(
    "!(self.operator in ['Exists', 'DoesNotExist']) || !has(self.values) || self.values.size() == 0",
    "operators Exists and DoesNotExist take no values; remove values, or use In or NotIn",
    field=".values",
)


class LabelRequirement(Section):
    """A selector that contains values, a key, and an operator that relates the key and values."""

    RULES = (_VALUES_IN_A_SET, _NO_VALUES)

    key: Annotated[str, Field(min_length=1, max_length=317, pattern=LABEL_KEY)] = Field(
        description="The label key that the selector applies to."
    )
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(
        description="Represents a key's relationship to a set of values. Valid operators are In, NotIn, Exists and DoesNotExist."
    )
    values: Annotated[list[LabelValue], Field(max_length=16)] | None = Field(
        None,
        description="An array of string values. If the operator is In or NotIn, the values array must be non-empty. "
        "If the operator is Exists or DoesNotExist, the values array must be empty.",
    )


class SelectorRequirement(Section):
    """A node selector requirement is a selector that contains values, a key, and an operator that relates the key and values."""

    RULES = (
        _VALUES_IN_A_SET,
        _NO_VALUES,
        Rule(
            "!(self.operator in ['Gt', 'Lt']) || (has(self.values) && self.values.size() == 1 && self.values[0].matches('^[0-9]+$'))",
            "operators Gt and Lt need one value that is a whole number; correct values",
            field=".values",
        ),
    )

    key: Annotated[str, Field(min_length=1, max_length=317, pattern=LABEL_KEY)] = Field(
        description="The label key that the selector applies to."
    )
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = Field(
        description="Represents a key's relationship to a set of values. Valid operators are In, NotIn, Exists, "
        "DoesNotExist, Gt, and Lt."
    )
    values: Annotated[list[LabelValue], Field(max_length=16)] | None = Field(
        None,
        description="An array of string values. If the operator is In or NotIn, the values array must be non-empty. "
        "If the operator is Exists or DoesNotExist, the values array must be empty. If the operator is Gt "
        "or Lt, the values array must have a single element, which will be interpreted as an integer.",
    )


class FieldRequirement(Section):
    """A node selector requirement on a field of the node."""

    key: Literal["metadata.name"] = Field(description="The field that the selector applies to. Only metadata.name is supported.")
    operator: Literal["In", "NotIn"] = Field(
        description="Represents the field's relationship to the value. Valid operators are In and NotIn."
    )
    values: Annotated[list[ObjectName], Field(min_length=1, max_length=1)] = Field(
        description="An array with the name of one node."
    )


class NodeSelectorTerm(Section):
    """A null or empty node selector term matches no objects. The requirements of them are ANDed."""

    match_expressions: Annotated[list[SelectorRequirement], Field(max_length=8)] | None = Field(
        None, description="A list of node selector requirements by node's labels."
    )
    match_fields: Annotated[list[FieldRequirement], Field(max_length=8)] | None = Field(
        None, description="A list of node selector requirements by node's fields."
    )


class NodeSelector(Section):
    """A node selector represents the union of the results of one or more label queries over a set of nodes; that is, it represents the OR of the selectors represented by the node selector terms."""

    RULES = (
        Rule(
            """self.nodeSelectorTerms.all(term, (has(term.matchExpressions) && term.matchExpressions.size() > 0)
              || (has(term.matchFields) && term.matchFields.size() > 0))""",
            "an empty term of nodeSelectorTerms matches no node; add matchExpressions or matchFields, or remove the term",
            field=".nodeSelectorTerms",
        ),
    )

    node_selector_terms: Annotated[list[NodeSelectorTerm], Field(min_length=1, max_length=8)] = Field(
        description="Required. A list of node selector terms. The terms are ORed."
    )


Weight = Annotated[int, Field(ge=1, le=100)]


class PreferredNodes(Section):
    """A preferred scheduling term: nodes that match the preference get the weight added to their score."""

    weight: Weight = Field(description="Weight associated with matching the corresponding nodeSelectorTerm.")
    preference: NodeSelectorTerm = Field(description="A node selector term, associated with the corresponding weight.")


class NodeAffinity(Section):
    """Node affinity is a group of node affinity scheduling rules."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = Field(
        None,
        description="If the affinity requirements specified by this field are not met at scheduling time, the pod "
        "will not be scheduled onto the node.",
    )
    preferred_during_scheduling_ignored_during_execution: Annotated[list[PreferredNodes], Field(max_length=8)] | None = Field(
        None,
        description="The scheduler will prefer to schedule pods to nodes that satisfy the affinity expressions "
        "specified by this field, but it may choose a node that violates one or more of the expressions.",
    )


def _label_keys(field: str) -> Rule:
    """Return a rule that every key of the map ``self.<field>`` is a label key."""
    return Rule(
        rf"!has(self.{field}) || self.{field}.all(key, key.matches(r'{LABEL_KEY}') && key.matches(r'{_SHORT_PREFIX}'))",
        f"{field} has a key that is not a label's key; write <name> or <prefix>/<name>: a name of at most 63 letters, digits, '-', '_'"
        " and '.', and a prefix that is a DNS name in lower case",
        field=f".{field}",
    )


_SHORT_PREFIX = r"^([^/]{1,253}/)?[^/]+$"


class LabelSelector(Section):
    """A label query over a set of pods. The results of matchLabels and matchExpressions are ANDed."""

    RULES = (_label_keys("matchLabels"),)

    match_labels: dict[Annotated[str, Field(max_length=317)], LabelValue] | None = Field(
        None,
        description="A map of {key,value} pairs. A single {key,value} in the matchLabels map is equivalent to an "
        "element of matchExpressions, whose key field is key, the operator is In, and the values array "
        "contains only value.",
        max_length=8,
    )
    match_expressions: Annotated[list[LabelRequirement], Field(max_length=8)] | None = Field(
        None, description="A list of label selector requirements. The requirements are ANDed."
    )


class PodAffinityTerm(Section):
    """Defines a set of pods (those matching the labelSelector) that the pod should be co-located (affinity) or not co-located (anti-affinity) with, where co-located means running on a node whose value of the label with key topologyKey matches that of any node on which a pod of the set of pods is running."""

    label_selector: LabelSelector | None = Field(None, description="A label query over a set of pods. Default: matches no pods.")
    topology_key: Annotated[str, text(317, LABEL_KEY)] = Field(
        description="Key of the node label that defines co-location, such as kubernetes.io/hostname or "
        "topology.kubernetes.io/zone. Empty topologyKey is not allowed."
    )


class WeightedPodAffinityTerm(Section):
    """The weights of all of the matched WeightedPodAffinityTerm fields are added per-node to find the most preferred nodes."""

    weight: Weight = Field(description="Weight associated with matching the corresponding podAffinityTerm.")
    pod_affinity_term: PodAffinityTerm = Field(description="A pod affinity term, associated with the corresponding weight.")


class PodAffinity(Section):
    """Pod affinity or anti-affinity is a group of inter-pod scheduling rules."""

    required_during_scheduling_ignored_during_execution: Annotated[list[PodAffinityTerm], Field(max_length=4)] | None = Field(
        None,
        description="If the requirements specified by this field are not met at scheduling time, the pod will not be "
        "scheduled onto the node.",
    )
    preferred_during_scheduling_ignored_during_execution: Annotated[list[WeightedPodAffinityTerm], Field(max_length=4)] | None = (
        Field(
            None,
            description="The scheduler will prefer to schedule pods to nodes that satisfy the expressions specified "
            "by this field, but it may choose a node that violates one or more of the expressions.",
        )
    )


class Affinity(Section):
    """Affinity is a group of affinity scheduling rules."""

    node_affinity: NodeAffinity | None = Field(None, description="Describes node affinity scheduling rules for the pod.")
    pod_affinity: PodAffinity | None = Field(
        None,
        description="Describes pod affinity scheduling rules (e.g. co-locate this pod in the same node, zone, etc. as "
        "some other pods).",
    )
    pod_anti_affinity: PodAffinity | None = Field(
        None,
        description="Describes pod anti-affinity scheduling rules (e.g. avoid putting this pod in the same node, "
        "zone, etc. as some other pods).",
    )


_RESERVED = ("finetunerun.io", "jobset.sigs.k8s.io", "batch.kubernetes.io", "trainer.kubeflow.org")
_RESERVED_PREFIXES = "|".join(re.escape(prefix) for prefix in _RESERVED)
_RESERVED_WORDS = ", ".join(f"{prefix}/" for prefix in _RESERVED)
_RESERVED_NAMES = r"app\.kubernetes\.io/managed-by|job-name|controller-uid"
RESERVED_ANNOTATIONS = f"(?i)^({_RESERVED_PREFIXES})/"
"""RE2: annotation keys that are reserved for controllers."""
RESERVED_LABELS = f"{RESERVED_ANNOTATIONS}|^({_RESERVED_NAMES})$"
"""RE2: label keys that are reserved for controllers."""
LABELS_REJECTED = (
    f"labels of {_RESERVED_WORDS}, and app.kubernetes.io/managed-by, job-name and controller-uid, belong to controllers; choose"
    " another key"
)
ANNOTATIONS_REJECTED = f"annotations of {_RESERVED_WORDS} belong to controllers; choose another key"


class Placement(Section):
    """Scheduling, labels and annotations of the pods of a stage."""

    RULES = (
        _label_keys("nodeSelector"),
        _label_keys("labels"),
        Rule(
            # Kubernetes compares annotation keys in lower case.
            rf"""!has(self.annotations)
              || self.annotations.all(key, key.matches(r'(?i){LABEL_KEY}') && key.matches(r'{_SHORT_PREFIX}'))""",
            "annotations has a key that is not an annotation's key; write <name> or <prefix>/<name>: a name of at most 63 letters,"
            " digits, '-', '_' and '.', and a prefix that is a DNS name",
            field=".annotations",
        ),
        Rule(
            f"!has(self.labels) || !self.labels.exists(key, key.matches(r'{RESERVED_LABELS}'))",
            LABELS_REJECTED,
            field=".labels",
        ),
        Rule(
            f"!has(self.annotations) || !self.annotations.exists(key, key.matches(r'{RESERVED_ANNOTATIONS}'))",
            ANNOTATIONS_REJECTED,
            field=".annotations",
        ),
    )

    node_selector: dict[Annotated[str, Field(max_length=317)], LabelValue] | None = Field(
        None, description="Selector which must match a node's labels for the pod to be scheduled on that node.", max_length=16
    )
    tolerations: Annotated[list[Toleration], Field(max_length=16)] | None = Field(None, description="The pod's tolerations.")
    affinity: Affinity | None = Field(None, description="The pod's scheduling constraints.")
    labels: dict[Annotated[str, Field(max_length=317)], LabelValue] | None = Field(
        None,
        description="Labels of the pods. Keys of the operator and of Kubernetes' own controllers are reserved.",
        max_length=16,
    )
    annotations: dict[Annotated[str, Field(max_length=317)], Annotated[str, Field(max_length=1024)]] | None = Field(
        None,
        description="Annotations of the pods. Keys of the operator and of Kubernetes' own controllers are reserved.",
        max_length=16,
    )
    priority_class_name: ObjectName | None = Field(None, description="Name of the PriorityClass of the pods.")

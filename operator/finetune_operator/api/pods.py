"""What a user may say about the pods of a stage: resources, environment, volumes, where they run."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field

from .references import ConfigMapRef
from .section import LABEL_KEY, DataKey, LabelValue, ObjectName, Quantity, Rule, Section, ShortName, text

RESERVED_VOLUMES = ("workspace", "documents", "scratch", "shared-memory", "entry")
"""Volumes that every training pod has."""


class Resources(Section):
    """What one pod requests and is limited to: requests and limits are equal. GPUs are counted elsewhere."""

    cpu: Quantity | None = Field(None, description="Processor cores.")
    memory: Quantity | None = Field(None, description="Memory in bytes.")
    ephemeral_storage: Quantity | None = Field(None, description="Scratch space on the node, in bytes. Default: not limited.")


class SecretKeySelector(Section):
    """One key of a Secret."""

    name: ObjectName = Field(description="Name of the Secret.")
    key: DataKey = Field(description="Key in the Secret.")
    optional: bool | None = Field(None, description="Start without it where it is missing. Default: false.")


class EnvVarSource(Section):
    """Where an environment variable's value comes from."""

    secret_key_ref: SecretKeySelector = Field(description="A key of a Secret in the run's namespace.")


class EnvVar(Section):
    """An environment variable of the training processes."""

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
            r"!has(self.value) || !self.value.matches(r'[\x00-\x08]')",
            "the value has a control character such as NUL, which no environment variable can have; remove it",
            field=".value",
        ),
    )

    name: Annotated[str, text(128, r"^[A-Za-z_][A-Za-z0-9_]*$", "a name of letters, digits and '_'")] = Field(
        description="Name of the variable."
    )
    value: Annotated[str, Field(max_length=1024)] | None = Field(None, description="Its value.")
    value_from: EnvVarSource | None = Field(None, description="Where its value comes from.")


class ClaimSource(Section):
    """A PersistentVolumeClaim of the run's namespace."""

    claim_name: ObjectName = Field(description="Name of the claim.")
    read_only: bool | None = Field(None, description="Mount it read-only. Default: false.")


class SecretSource(Section):
    """A Secret as files."""

    secret_name: ObjectName = Field(description="Name of the Secret.")


class EmptyDirSource(Section):
    """Scratch space that ends with the pod."""

    medium: Literal["", "Memory"] | None = Field(None, description="Memory for a tmpfs. Default: the node's disk.")
    size_limit: Quantity | None = Field(None, description="Largest size in bytes.")


class Volume(Section):
    """A volume beside the workspace."""

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

    name: ShortName = Field(description="Name that volumeMounts refer to.")
    persistent_volume_claim: ClaimSource | None = Field(None, description="A claim.")
    config_map: ConfigMapRef | None = Field(None, description="A ConfigMap as files.")
    secret: SecretSource | None = Field(None, description="A Secret as files.")
    empty_dir: EmptyDirSource | None = Field(None, description="Scratch space.")


_SEGMENT = r"([^/.:\x00-\x1f\x7f]|\.[^/.:\x00-\x1f\x7f]|\.\.[^/:\x00-\x1f\x7f])[^/:\x00-\x1f\x7f]*"
_CLEAN_PATH = rf"(/{_SEGMENT})+/?"


class VolumeMount(Section):
    """Where a volume appears in the training container."""

    RULES = (
        Rule(
            rf"self.mountPath.matches(r'^{_CLEAN_PATH}$')",
            "mountPath is not a clean absolute path; write it with single slashes, without . and .. and without colons, such as /data",
            field=".mountPath",
        ),
        Rule(
            r"!self.mountPath.matches(r'^/((workspace|etc/finetune|opt/finetune|dev|proc|sys)(/|$)|(tmp|etc|opt)/?$)')",
            "mountPath hides files that training needs; choose a path that is not /tmp, /etc or /opt and not in /workspace,"
            " /etc/finetune, /opt/finetune, /dev, /proc or /sys",
            field=".mountPath",
        ),
        Rule(
            r"!has(self.subPath) || !self.subPath.matches(r'^/|(^|/)\.\.(/|$)|[\x00-\x1f\x7f]')",
            "subPath leaves the volume; write a relative path without ..",
            field=".subPath",
        ),
    )

    name: ShortName = Field(description="Name of the volume.")
    mount_path: Annotated[str, Field(min_length=2, max_length=256)] = Field(description="Absolute path.")
    sub_path: Annotated[str, text(256)] | None = Field(None, description="A path inside the volume.")
    read_only: bool | None = Field(None, description="Mount it read-only. Default: false.")


class Toleration(Section):
    """A taint that the pods tolerate, as in a pod's specification."""

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

    key: Annotated[str, Field(max_length=317, pattern=LABEL_KEY)] | None = Field(None, description="Key of the taint.")
    operator: Literal["Exists", "Equal"] | None = Field(None, description="Default: Equal.")
    value: LabelValue | None = Field(None, description="Value of the taint, with operator Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(None, description="Default: every effect.")
    toleration_seconds: Annotated[int, Field(ge=0)] | None = Field(
        None, description="How long NoExecute is tolerated, in seconds."
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
    """A condition on a label of a pod."""

    RULES = (_VALUES_IN_A_SET, _NO_VALUES)

    key: Annotated[str, Field(min_length=1, max_length=317, pattern=LABEL_KEY)] = Field(description="Key of the label.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(description="How values are compared.")
    values: Annotated[list[LabelValue], Field(max_length=16)] | None = Field(None, description="The values.")


class SelectorRequirement(Section):
    """A condition on a label of a node."""

    RULES = (
        _VALUES_IN_A_SET,
        _NO_VALUES,
        Rule(
            "!(self.operator in ['Gt', 'Lt']) || (has(self.values) && self.values.size() == 1 && self.values[0].matches('^[0-9]+$'))",
            "operators Gt and Lt need one value that is a whole number; correct values",
            field=".values",
        ),
    )

    key: Annotated[str, Field(min_length=1, max_length=317, pattern=LABEL_KEY)] = Field(description="Key of the label.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = Field(description="How values are compared.")
    values: Annotated[list[LabelValue], Field(max_length=16)] | None = Field(None, description="The values.")


class FieldRequirement(Section):
    """A condition on a field of a node."""

    key: Literal["metadata.name"] = Field(description="The field: a node can be chosen by its name only.")
    operator: Literal["In", "NotIn"] = Field(description="How the value is compared.")
    values: Annotated[list[ObjectName], Field(min_length=1, max_length=1)] = Field(description="The name of one node.")


class NodeSelectorTerm(Section):
    """Conditions on a node that must all hold."""

    match_expressions: Annotated[list[SelectorRequirement], Field(max_length=8)] | None = Field(
        None, description="Conditions on the node's labels."
    )
    match_fields: Annotated[list[FieldRequirement], Field(max_length=8)] | None = Field(
        None, description="Conditions on the node's name."
    )


class NodeSelector(Section):
    """Terms of which one must hold."""

    RULES = (
        Rule(
            """self.nodeSelectorTerms.all(term, (has(term.matchExpressions) && term.matchExpressions.size() > 0)
              || (has(term.matchFields) && term.matchFields.size() > 0))""",
            "an empty term of nodeSelectorTerms matches no node; add matchExpressions or matchFields, or remove the term",
            field=".nodeSelectorTerms",
        ),
    )

    node_selector_terms: Annotated[list[NodeSelectorTerm], Field(min_length=1, max_length=8)] = Field(description="The terms.")


Weight = Annotated[int, Field(ge=1, le=100)]


class PreferredNodes(Section):
    """A wish for nodes."""

    weight: Weight = Field(description="How much the wish counts, 1 to 100.")
    preference: NodeSelectorTerm = Field(description="The nodes.")


class NodeAffinity(Section):
    """Which nodes the pods need or like."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = Field(None, description="Needed.")
    preferred_during_scheduling_ignored_during_execution: Annotated[list[PreferredNodes], Field(max_length=8)] | None = Field(
        None, description="Liked."
    )


def _label_keys(field: str) -> Rule:
    """A rule that every key of the map ``self.<field>`` is a label's key."""
    return Rule(
        rf"!has(self.{field}) || self.{field}.all(key, key.matches(r'{LABEL_KEY}') && key.matches(r'{_SHORT_PREFIX}'))",
        f"{field} has a key that is not a label's key; write <name> or <prefix>/<name>: a name of at most 63 letters, digits, '-', '_'"
        " and '.', and a prefix that is a DNS name in lower case",
        field=f".{field}",
    )


_SHORT_PREFIX = r"^([^/]{1,253}/)?[^/]+$"


class LabelSelector(Section):
    """A selection of pods by labels."""

    RULES = (_label_keys("matchLabels"),)

    match_labels: dict[Annotated[str, Field(max_length=317)], LabelValue] | None = Field(
        None, description="Labels that must be equal.", max_length=8
    )
    match_expressions: Annotated[list[LabelRequirement], Field(max_length=8)] | None = Field(
        None, description="Conditions that must hold."
    )


class PodAffinityTerm(Section):
    """Pods that ours want to be near to, or far from."""

    label_selector: LabelSelector | None = Field(None, description="The pods.")
    topology_key: Annotated[str, text(317, LABEL_KEY)] = Field(
        description="What near means: kubernetes.io/hostname, topology.kubernetes.io/zone."
    )


class WeightedPodAffinityTerm(Section):
    """A wish about other pods."""

    weight: Weight = Field(description="How much the wish counts, 1 to 100.")
    pod_affinity_term: PodAffinityTerm = Field(description="The pods.")


class PodAffinity(Section):
    """Which pods ours need or like to be near to (or far from)."""

    required_during_scheduling_ignored_during_execution: Annotated[list[PodAffinityTerm], Field(max_length=4)] | None = Field(
        None, description="Needed."
    )
    preferred_during_scheduling_ignored_during_execution: Annotated[list[WeightedPodAffinityTerm], Field(max_length=4)] | None = (
        Field(None, description="Liked.")
    )


class Affinity(Section):
    """Rules of attraction, as in a pod's specification."""

    node_affinity: NodeAffinity | None = Field(None, description="To nodes.")
    pod_affinity: PodAffinity | None = Field(None, description="To other pods.")
    pod_anti_affinity: PodAffinity | None = Field(None, description="Away from other pods.")


_RESERVED = ("finetunerun.io", "jobset.sigs.k8s.io", "batch.kubernetes.io", "trainer.kubeflow.org")
_RESERVED_PREFIXES = "|".join(re.escape(prefix) for prefix in _RESERVED)
_RESERVED_WORDS = ", ".join(f"{prefix}/" for prefix in _RESERVED)
_RESERVED_NAMES = r"app\.kubernetes\.io/managed-by|job-name|controller-uid"
RESERVED_ANNOTATIONS = f"(?i)^({_RESERVED_PREFIXES})/"
"""RE2: keys of annotations that belong to controllers."""
RESERVED_LABELS = f"{RESERVED_ANNOTATIONS}|^({_RESERVED_NAMES})$"
"""RE2: keys of labels that belong to controllers."""
LABELS_REFUSED = (
    f"labels of {_RESERVED_WORDS}, and app.kubernetes.io/managed-by, job-name and controller-uid, belong to controllers; choose"
    " another key"
)
ANNOTATIONS_REFUSED = f"annotations of {_RESERVED_WORDS} belong to controllers; choose another key"


class Placement(Section):
    """Where the pods of a stage run, and what is written on them."""

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
            LABELS_REFUSED,
            field=".labels",
        ),
        Rule(
            f"!has(self.annotations) || !self.annotations.exists(key, key.matches(r'{RESERVED_ANNOTATIONS}'))",
            ANNOTATIONS_REFUSED,
            field=".annotations",
        ),
    )

    node_selector: dict[Annotated[str, Field(max_length=317)], LabelValue] | None = Field(
        None, description="Labels that a node must have.", max_length=16
    )
    tolerations: Annotated[list[Toleration], Field(max_length=16)] | None = Field(None, description="Taints that are tolerated.")
    affinity: Affinity | None = Field(None, description="Rules of attraction.")
    labels: dict[Annotated[str, Field(max_length=317)], LabelValue] | None = Field(
        None, description="Labels of the pods.", max_length=16
    )
    annotations: dict[Annotated[str, Field(max_length=317)], Annotated[str, Field(max_length=1024)]] | None = Field(
        None, description="Annotations of the pods.", max_length=16
    )
    priority_class_name: ObjectName | None = Field(None, description="PriorityClass of the pods.")

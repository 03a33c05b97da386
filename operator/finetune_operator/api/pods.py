"""What a user may say about the pods of a stage: resources, environment, volumes, where they run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .references import ConfigMapRef
from .section import DataKey, LabelKey, LabelValue, ObjectName, Quantity, Rule, Section, ShortName, text


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
    )

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = Field(
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
    )

    name: ShortName = Field(description="Name that volumeMounts refer to.")
    persistent_volume_claim: ClaimSource | None = Field(None, description="A claim.")
    config_map: ConfigMapRef | None = Field(None, description="A ConfigMap as files.")
    secret: SecretSource | None = Field(None, description="A Secret as files.")
    empty_dir: EmptyDirSource | None = Field(None, description="Scratch space.")


class VolumeMount(Section):
    """Where a volume appears in the training container."""

    name: ShortName = Field(description="Name of the volume.")
    mount_path: Annotated[str, Field(min_length=2, max_length=256, pattern=r"^/[^:]+$")] = Field(description="Absolute path.")
    sub_path: Annotated[str, text(256)] | None = Field(None, description="A path inside the volume.")
    read_only: bool | None = Field(None, description="Mount it read-only. Default: false.")


class Toleration(Section):
    """A taint that the pods tolerate, as in a pod's specification."""

    key: Annotated[str, Field(max_length=317, pattern=LabelKey)] | None = Field(None, description="Key of the taint.")
    operator: Literal["Exists", "Equal"] | None = Field(None, description="Default: Equal.")
    value: LabelValue | None = Field(None, description="Value of the taint, with operator Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(None, description="Default: every effect.")
    toleration_seconds: Annotated[int, Field(ge=0)] | None = Field(
        None, description="How long NoExecute is tolerated, in seconds."
    )


class SelectorRequirement(Section):
    """A condition on a label."""

    key: Annotated[str, Field(min_length=1, max_length=317, pattern=LabelKey)] = Field(description="Key of the label.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = Field(description="How values are compared.")
    values: Annotated[list[LabelValue], Field(max_length=16)] | None = Field(None, description="The values.")


Requirements = Annotated[list[SelectorRequirement], Field(max_length=8)]


class NodeSelectorTerm(Section):
    """Conditions on a node that must all hold."""

    match_expressions: Requirements | None = Field(None, description="On the node's labels.")
    match_fields: Requirements | None = Field(None, description="On the node's fields (metadata.name).")


class NodeSelector(Section):
    """Terms of which one must hold."""

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


class LabelSelector(Section):
    """A selection of pods by labels."""

    match_labels: dict[Annotated[str, Field(max_length=317)], LabelValue] | None = Field(
        None, description="Labels that must be equal.", max_length=8
    )
    match_expressions: Requirements | None = Field(None, description="Conditions that must hold.")


class PodAffinityTerm(Section):
    """Pods that ours want to be near to, or far from."""

    label_selector: LabelSelector | None = Field(None, description="The pods.")
    topology_key: Annotated[str, text(317, LabelKey)] = Field(
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


class Placement(Section):
    """Where the pods of a stage run, and what is written on them."""

    RULES = (
        Rule(
            "!has(self.labels) || self.labels.all(key, !key.startsWith('finetunerun.io/'))",
            "labels that begin with finetunerun.io/ belong to the operator; choose another prefix",
            field=".labels",
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

"""Every reason that a condition, a stage or a failure can carry: one closed, documented list.

The stages' own are in :mod:`finetune_contract.reasons`; here are the control plane's, and the words of conditions that are no
failure. ``docs/reasons.md`` is generated from this.
"""

from __future__ import annotations

from finetune_contract.reasons import STAGE_REASONS, Cause, Reason

CONTROL_REASONS: dict[str, Reason] = {}
"""Failures that the control plane itself finds, by name."""

STATE_REASONS: dict[str, str] = {}
"""Words of conditions that are no failure, with their meaning."""


def _reason(name: str, cause: Cause, meaning: str, remedy: str) -> Reason:
    reason = Reason(name, cause, meaning, remedy)
    CONTROL_REASONS[name] = reason
    return reason


def _state(name: str, meaning: str) -> str:
    STATE_REASONS[name] = meaning
    return name


# Refused before anything starts.
INVALID_SPEC = _reason(
    "InvalidSpec", Cause.USER, "The run's specification contradicts itself or the CRD's rules were bypassed.",
    "Correct the field that the message names.",
)  # fmt: skip
UNSUPPORTED = _reason(
    "Unsupported", Cause.USER, "The run uses a field that this release does not act on yet.",
    "Remove the field; docs/unsupported.md lists them all.",
)  # fmt: skip
NOT_POSSIBLE_HERE = _reason(
    "NotPossibleHere", Cause.USER, "The run asks for something that this machine, mode or engine cannot do.",
    "Leave the field out to get what is possible here, or run where it is.",
)  # fmt: skip
SPEC_TOO_LARGE = _reason(
    "SpecTooLarge", Cause.USER, "The specification is larger than 24 KiB, so that no room is left for status.",
    "Shorten it: move long texts and task definitions into a ConfigMap.",
)  # fmt: skip
LOCAL_PATH_IN_CLUSTER = _reason(
    "LocalPathInCluster", Cause.USER, "A path of a laptop means nothing to a pod.",
    "Put it where pods can read it: data at hf:// or https://, a model at hf://.",
)  # fmt: skip

# Children.
NAME_CONFLICT = _reason(
    "NameConflict", Cause.USER, "An object of the name that the run needs belongs to somebody else.",
    "Delete or rename that object, or make the run under another name.",
)  # fmt: skip
CHILD_LOST = _reason(
    "ChildLost", Cause.LOST, "The Job or TrainJob of a stage disappeared before its result was recorded.",
    "Find out what deletes Jobs and TrainJobs in the namespace.",
)  # fmt: skip
CHILD_REFUSED = _reason(
    "ChildRefused", Cause.USER, "The API server refused an object that the run needs.",
    "Correct what its message names; a quota, a policy or a missing right.",
)  # fmt: skip
CHILD_SUSPENDED = _reason(
    "ChildSuspended", Cause.USER, "Somebody suspended the Job or TrainJob of a stage, and the run is not suspended.",
    "Set spec.suspend of that object to false, or let the queue that holds it admit it; to suspend a run, set spec.suspend of the run.",
)  # fmt: skip
API_UNAVAILABLE = _reason(
    "ApiUnavailable", Cause.TRANSIENT, "The API server or an admission webhook does not answer the cluster's own controllers.",
    "Wait: the controllers try again; if it lasts, check the service that the message names.",
)  # fmt: skip
RESULT_MISSING = _reason(
    "ResultMissing", Cause.LOST, "A stage ended with success but its pod, which carries the result, is gone.",
    "Find out what deletes finished pods in the namespace: the result of a stage is in its pod.",
)  # fmt: skip
PROOF_MISSING = _reason(
    "ProofMissing", Cause.CRASH, "A stage ended with exit code 0 but its result does not prove the work.",
    "Read the stage's log; exit code 0 alone never makes a model.",
)  # fmt: skip
KILLED = _reason(
    "Killed", Cause.LOST, "The stage's process was killed from outside (signal 9).",
    "If the machine's memory was short, raise resources.memory of the stage.",
)  # fmt: skip
EVICTED = _reason(
    "Evicted", Cause.LOST, "The stage's pod was evicted, preempted or lost its node.",
    "Find out why its node evicts pods: memory, disk, preemption or maintenance.",
)  # fmt: skip
SHUT_DOWN = _reason(
    "ShutDown", Cause.INTERRUPTED, "The machine or the local runner was shut down.", "Nothing to do: it goes on with the next start.",
)  # fmt: skip
INIT_CONTAINER_FAILED = _reason(
    "InitContainerFailed", Cause.TRANSIENT, "An init container that the cluster added to the stage's pod failed.",
    "Read the log of the init container that the message names; whoever adds it (a service mesh, an agent) must correct it.",
)  # fmt: skip
INSUFFICIENT_RESOURCES = _reason(
    "InsufficientResources", Cause.USER, "The machine has not the processor, memory, GPUs or disk that the stage requests.",
    "Lower the resources of the stage that the message names, or run on a larger machine.",
)  # fmt: skip
DEADLINE_EXCEEDED = _reason(
    "DeadlineExceeded", Cause.USER, "A limit of spec.limits was reached.", "Raise the limit, or make the work smaller.",
)  # fmt: skip
CONTRACT_UNKNOWN = _reason(
    "ContractUnknown", Cause.USER, "A result or a status is of a contract version that this release does not know.",
    "Run the release that wrote it, or a later one.",
)  # fmt: skip

# The gate.
METRIC_MISSING = _reason(
    "MetricMissing", Cause.USER, "The gate names a metric that was not measured.",
    "Name one of the metrics that the message lists, or add its task to evaluation.tasks; then rerun from gate or evaluation.",
)  # fmt: skip
DIRECTION_UNKNOWN = _reason(
    "DirectionUnknown", Cause.USER, "maxRegression cannot be judged: the task does not say whether a high value is good.",
    "Use min or max for that metric, or state higher_is_better in the task's file; then rerun from gate.",
)  # fmt: skip

# Pods that do not start: the run waits and goes on by itself once the cause is gone.
IMAGE_PULL_FAILED = _reason(
    "ImagePullFailed", Cause.USER, "An image cannot be pulled.", "Push the image or correct the pull secret, and the run resumes; another image needs a new run.",
)  # fmt: skip
SECRET_MISSING = _reason(
    "SecretMissing", Cause.USER, "A Secret, a ConfigMap or a key in it is missing.", "Create it; the run goes on by itself.",
)  # fmt: skip
START_FAILED = _reason(
    "StartFailed", Cause.USER, "A container cannot be started.", "Correct what the message names.",
)  # fmt: skip
UNSCHEDULABLE = _reason(
    "Unschedulable", Cause.USER, "No node can take the pod.",
    "Wait for a node that fits, or change its labels or taints, and the run resumes; another placement needs a new run.",
)  # fmt: skip
GPU_UNAVAILABLE = _reason(
    "GPUUnavailable", Cause.USER, "No node has as many free GPUs as the pod requests.",
    "Wait for one, or add a GPU node, and the run resumes; fewer GPUs (training.gpusPerWorker, evaluation.gpus) need a new run.",
)  # fmt: skip
NODES_TOO_SMALL = _reason(
    "NodesTooSmall", Cause.USER, "No node has the processor, memory or disk that the pod requests.",
    "Wait for one, or add a larger node, and the run resumes; smaller resources need a new run.",
)  # fmt: skip
NO_PODS = _reason(
    "NoPods", Cause.USER, "The pods of a stage do not appear, and no Event says why.",
    "Read also the logs of the controllers of JobSet and Kubeflow Trainer; the run goes on by itself once its pods appear.",
)  # fmt: skip
QUOTA_EXCEEDED = _reason(
    "QuotaExceeded", Cause.USER, "A ResourceQuota of the namespace is used up.",
    "Wait until something ends, or raise the quota, and the run resumes; smaller resources need a new run.",
)  # fmt: skip
POD_SECURITY = _reason(
    "PodSecurity", Cause.USER, "The namespace's pod security standard does not admit the stage's pods.",
    "Use a runtime whose pods carry the security context that the standard asks for; manifests/samples/runtimes has one.",
)  # fmt: skip
SERVICE_ACCOUNT_NOT_FOUND = _reason(
    "ServiceAccountNotFound", Cause.USER, "The ServiceAccount that serviceAccountName names does not exist.",
    "Create it, and the run resumes; another serviceAccountName needs a new run.",
)  # fmt: skip
STORAGE_CLASS_NOT_FOUND = _reason(
    "StorageClassNotFound", Cause.USER, "The StorageClass of the workspace's claim does not exist.",
    "Create it; or delete the run and its claim, and name another in storage.storageClassName.",
)  # fmt: skip
NO_SHARED_VOLUMES = _reason(
    "NoSharedVolumes", Cause.USER, "The StorageClass cannot make volumes that several nodes write to (ReadWriteMany).",
    "Delete the run and its claim, and name a class of NFS, CephFS, EFS or Azure Files in storage.storageClassName.",
)  # fmt: skip
CLAIM_PENDING = _reason(
    "ClaimPending", Cause.USER, "The workspace's claim gets no volume.",
    "Repair the provisioner of its StorageClass, or bind a volume to it, and the run resumes.",
)  # fmt: skip
CLAIM_LOST = _reason(
    "ClaimLost", Cause.USER, "The workspace's claim has lost its volume, or is being deleted.",
    "Restore the PersistentVolume or the claim, and the run resumes; if its files are gone, delete the run and create it again.",
)  # fmt: skip
FORBIDDEN = _reason(
    "Forbidden", Cause.USER, "The operator lacks a right that the run needs.",
    "Give its ServiceAccount the verb on the resource that the message names: manifests/base/roles.yaml has them all.",
)  # fmt: skip
CLAIM_NOT_FOUND = _reason(
    "ClaimNotFound", Cause.USER, "The claim that storage.claimName names does not exist.",
    "Create it, and the run resumes; another storage.claimName needs a new run.",
)  # fmt: skip
TRAINER_NOT_INSTALLED = _reason(
    "TrainerNotInstalled", Cause.USER, "The cluster has no Kubeflow Trainer.",
    "Install Kubeflow Trainer 2.1 or later; the run goes on by itself.",
)  # fmt: skip
TRAINER_UNSUPPORTED = _reason(
    "TrainerUnsupported", Cause.USER, "The TrainJobs of the cluster's Kubeflow Trainer have a shape that is not known, as in 2.0.",
    "Upgrade Kubeflow Trainer to 2.1 or later; the run goes on by itself.",
)  # fmt: skip
TRAINER_CHANGED = _reason(
    "TrainerChanged", Cause.TRANSIENT, "Kubeflow Trainer was exchanged just now: its TrainJobs have another shape.",
    "Nothing to do: the run goes on by itself within a minute or two.",
)  # fmt: skip
RUNTIME_NOT_FOUND = _reason(
    "RuntimeNotFound", Cause.USER, "The ClusterTrainingRuntime does not exist.",
    "Create it, and the run resumes; another training.runtimeRef needs a new run.",
)  # fmt: skip
INTERNAL_ERROR = _reason(
    "InternalError", Cause.CRASH, "The operator raised an exception in its own program while it planned the run's next step.",
    "Report the type of the exception, the version of FineTuneRun and the operator's log entry with the exception to its maintainers,"
    " without private data; the operator retries, and the run resumes with a release that contains the fix.",
)  # fmt: skip

# Words of conditions.
WAITING = _state("Waiting", "The stage has not begun: others come first.")
RUNNING = _state("Running", "It is under way.")
STARTING = _state("Starting", "Its pods are starting.")
RETRYING = _state("Retrying", "The last attempt failed for a passing reason; the next one follows.")
SUCCEEDED = _state("Succeeded", "It is done.")
REUSED = _state("Reused", "It was done before with the same inputs.")
SUSPENDED = _state("Suspended", "spec.suspend is true.")
NOT_SUSPENDED = _state("NotSuspended", "spec.suspend is not true.")
SUSPENDING = _state("Suspending", "spec.suspend is true; what still runs is being stopped.")
STOPPING = _state("Stopping", "The run has failed; what still runs is being stopped.")
SETTLED = _state("Settled", "Nothing is left to do.")
CLAIM_NOT_BOUND = _state(
    "ClaimNotBound", "The workspace's claim exists and is not bound yet; with WaitForFirstConsumer, its first pod binds it."
)
EVALUATION_DISABLED = _state("EvaluationDisabled", "evaluation.enabled is false.")
BASELINE_NOT_ASKED = _state("BaselineNotAsked", "Neither evaluation.baseline nor the gate asks for the base model's scores.")
REGISTRY_NOT_CONFIGURED = _state(
    "RegistryNotConfigured", "No registry is configured: the model stays where status.model.uri says."
)
GATE_NOT_ASKED = _state("GateNotAsked", "The run has no gate.")
GATE_PASSED = _state("GatePassed", "Every requirement of the gate is met.")
GATE_REJECTED = _state("GateRejected", "A requirement of the gate is not met: the model is kept, and not registered.")
CHECK_NOT_ASKED = _state("CheckNotAsked", "Only registry.onExisting: Fail asks the registry before training starts.")
RUN_FAILED = _state("RunFailed", "The run failed before the stage could begin.")

CLAIM_REASONS = frozenset({CLAIM_NOT_FOUND, CLAIM_PENDING, CLAIM_LOST, STORAGE_CLASS_NOT_FOUND, NO_SHARED_VOLUMES})
"""What keeps the workspace's claim from a volume."""
_CAPACITY = frozenset({GPU_UNAVAILABLE, NODES_TOO_SMALL, UNSCHEDULABLE, QUOTA_EXCEEDED})


def resumes_alone(reason: Reason) -> bool:
    """Whether a run that waits for this needs nobody: capacity becomes free, and a transient fault passes."""
    return reason in _CAPACITY or reason.cause is Cause.TRANSIENT


REASONS: dict[str, Reason] = {**STAGE_REASONS, **CONTROL_REASONS}
"""All failures by name."""

"""The closed list of reasons of conditions, stages and failures.

Reasons that stage programs report are in :mod:`finetune_contract.reasons`. Those of the control plane, and reasons of conditions that are
not failures, are here. ``docs/reasons.md`` is generated from both.
"""

from __future__ import annotations

from finetune_contract.reasons import STAGE_REASONS, Cause, Reason

OPERATOR_REASONS: dict[str, Reason] = {}
"""Failures that the control plane detects, by name."""

STATE_REASONS: dict[str, str] = {}
"""Reasons of conditions that are not failures, with their meaning."""


def _reason(name: str, cause: Cause, meaning: str, remedy: str) -> Reason:
    reason = Reason(name, cause, meaning, remedy)
    OPERATOR_REASONS[name] = reason
    return reason


def _state(name: str, meaning: str) -> str:
    STATE_REASONS[name] = meaning
    return name


# Rejected before anything starts.
INVALID_SPEC = _reason(
    "InvalidSpec", Cause.USER, "A value in the run's spec is invalid, or two values contradict each other.",
    "Correct the field that the message names.",
)  # fmt: skip
UNSUPPORTED = _reason(
    "Unsupported", Cause.USER, "The run sets a field or value that this release does not support.",
    "Remove the field; docs/unsupported.md lists what is not supported.",
)  # fmt: skip
NOT_POSSIBLE_HERE = _reason(
    "NotPossibleHere", Cause.USER, "This machine, mode or engine cannot honor a value that the run sets.",
    "Remove the field to use a value that is possible here, or run where the value is possible.",
)  # fmt: skip
NOT_ALLOWED = _reason(
    "NotAllowed", Cause.USER, "The configuration of the operator does not allow a value of the run or of the namespace.",
    "Remove the value, or ask an administrator to allow it.",
)  # fmt: skip
SPEC_TOO_LARGE = _reason(
    "SpecTooLarge", Cause.USER, "The spec is larger than 24 KiB and leaves no room for status.",
    "Shorten it: move long texts and task definitions into a ConfigMap.",
)  # fmt: skip
LOCAL_PATH_IN_CLUSTER = _reason(
    "LocalPathInCluster", Cause.USER, "A URI is a path on one machine, which pods cannot read.",
    "Put the files where pods can read them: data at hf://, https://, s3:// or pvc://, a model at hf://, oci://, s3:// or pvc://.",
)  # fmt: skip

# Children.
NAME_CONFLICT = _reason(
    "NameConflict", Cause.USER, "An object with a name that the run needs already exists and does not belong to the run.",
    "Delete or rename that object, or create the run under another name.",
)  # fmt: skip
CHILD_LOST = _reason(
    "ChildLost", Cause.LOST, "The Job or TrainJob of a stage was deleted or replaced before its result was recorded.",
    "Find out what deletes Jobs and TrainJobs in the namespace.",
)  # fmt: skip
CHILD_REJECTED = _reason(
    "ChildRejected", Cause.USER, "The API server rejected an object that the run needs.",
    "Correct what the message names: a quota, a policy or a missing permission.",
)  # fmt: skip
CHILD_SUSPENDED = _reason(
    "ChildSuspended", Cause.USER, "Somebody else suspended the Job or TrainJob of a stage; the run itself is not suspended.",
    "Set spec.suspend of that object to false, or let the queue that holds it admit it; to suspend a run, set spec.suspend of the run.",
)  # fmt: skip
API_UNAVAILABLE = _reason(
    "ApiUnavailable", Cause.TRANSIENT, "The cluster's controllers get no answer from the API server or from an admission webhook.",
    "Wait, the controllers retry; if it persists, check the service that the message names.",
)  # fmt: skip
RESULT_MISSING = _reason(
    "ResultMissing", Cause.LOST, "A stage succeeded, but the pod that held its result is gone.",
    "Find out what deletes finished pods in the namespace: a pod holds the result of its stage.",
)  # fmt: skip
PROOF_MISSING = _reason(
    "ProofMissing", Cause.CRASH, "A stage ended with exit code 0, but its result does not prove the work.",
    "Read the log of the stage; exit code 0 alone is not accepted as success.",
)  # fmt: skip
KILLED = _reason(
    "Killed", Cause.LOST, "Something outside of the stage killed its process (signal 9).",
    "If the machine was short of memory, raise training.resources.memory or evaluation.resources.memory, or use a smaller model.",
)  # fmt: skip
EVICTED = _reason(
    "Evicted", Cause.LOST, "The pod of a stage was evicted or preempted, or its node was lost.",
    "Find out why the node evicts pods: memory, disk, preemption or maintenance.",
)  # fmt: skip
SHUT_DOWN = _reason(
    "ShutDown", Cause.INTERRUPTED, "The machine or the local runner was shut down.",
    "No action is needed: the run continues at the next start.",
)  # fmt: skip
INIT_CONTAINER_FAILED = _reason(
    "InitContainerFailed", Cause.TRANSIENT, "An init container that the cluster added to the pod of a stage failed.",
    "Read the log of the init container that the message names; the owner of that container (a service mesh, an agent) must correct it.",
)  # fmt: skip
INSUFFICIENT_RESOURCES = _reason(
    "InsufficientResources", Cause.USER, "The machine has less CPU, memory, disk or fewer GPUs than the stage requests.",
    "Lower training.resources, training.gpusPerWorker, evaluation.resources or evaluation.gpus, or use a larger machine.",
)  # fmt: skip
CONTRACT_UNKNOWN = _reason(
    "ContractUnknown", Cause.USER, "A result or a status has a contract version, a form or values that this release does not support.",
    "Use the release that wrote it, or a later one; a training image of your own must write results within the bounds of status.",
)  # fmt: skip

# The gate.
METRIC_MISSING = _reason(
    "MetricMissing", Cause.USER, "The gate names a metric that was not measured.",
    "Name one of the metrics that the message lists, or add its task to evaluation.tasks; then rerun from gate or evaluation.",
)  # fmt: skip
DIRECTION_UNKNOWN = _reason(
    "DirectionUnknown", Cause.USER, "A requirement has maxRegression, but its task does not define whether higher values are better.",
    "Use min or max for that metric, or set higher_is_better in the file of the task; then rerun from gate.",
)  # fmt: skip

# Pods that do not start: the run waits, and resumes when the cause is gone.
IMAGE_PULL_FAILED = _reason(
    "ImagePullFailed", Cause.USER, "An image cannot be pulled.",
    "Push the image or correct the pull secret, and the run resumes; another image needs a new run.",
)  # fmt: skip
SECRET_MISSING = _reason(
    "SecretMissing", Cause.USER, "A Secret, a ConfigMap or a key in one of them does not exist.",
    "Create it, and the run resumes.",
)  # fmt: skip
START_FAILED = _reason(
    "StartFailed", Cause.USER, "A container cannot be started.",
    "Correct what the message names.",
)  # fmt: skip
UNSCHEDULABLE = _reason(
    "Unschedulable", Cause.USER, "No node matches the pod.",
    "Wait for a node that matches, or change the labels or taints of one, and the run resumes; another placement needs a new run.",
)  # fmt: skip
GPU_UNAVAILABLE = _reason(
    "GPUUnavailable", Cause.USER, "No node has as many free GPUs as the pod requests.",
    "Wait for free GPUs or add a GPU node, and the run resumes; fewer GPUs (training.gpusPerWorker, evaluation.gpus) need a new run.",
)  # fmt: skip
NODES_TOO_SMALL = _reason(
    "NodesTooSmall", Cause.USER, "No node has the CPU, memory or disk that the pod requests.",
    "Wait for free resources or add a larger node, and the run resumes; smaller resources need a new run.",
)  # fmt: skip
NO_PODS = _reason(
    "NoPods", Cause.USER, "The pods of a stage do not appear, and no Event explains why.",
    "Also read the logs of the JobSet and Kubeflow Trainer controllers; the run resumes when the pods appear.",
)  # fmt: skip
QUOTA_EXCEEDED = _reason(
    "QuotaExceeded", Cause.USER, "A ResourceQuota of the namespace is exhausted.",
    "Wait until other workloads end, or raise the quota, and the run resumes; smaller resources need a new run.",
)  # fmt: skip
POD_SECURITY = _reason(
    "PodSecurity", Cause.USER, "The Pod Security Standard of the namespace does not admit the pods of the stage.",
    "Use a runtime whose pods have the required security context; manifests/samples/runtimes contains one.",
)  # fmt: skip
SERVICE_ACCOUNT_NOT_FOUND = _reason(
    "ServiceAccountNotFound", Cause.USER, "The ServiceAccount in serviceAccountName does not exist.",
    "Create it, and the run resumes; another serviceAccountName needs a new run.",
)  # fmt: skip
STORAGE_CLASS_NOT_FOUND = _reason(
    "StorageClassNotFound", Cause.USER, "The StorageClass of the workspace's claim does not exist.",
    "Create it; or delete the run and its claim, and set another storage.storageClassName.",
)  # fmt: skip
NO_SHARED_VOLUMES = _reason(
    "NoSharedVolumes", Cause.USER, "The StorageClass cannot provide volumes that several nodes can write to (ReadWriteMany).",
    "Delete the run and its claim, and set storage.storageClassName to a class of NFS, CephFS, EFS or Azure Files.",
)  # fmt: skip
CLAIM_PENDING = _reason(
    "ClaimPending", Cause.USER, "The claim of the workspace, or that of a pvc:// location, is not bound to a volume.",
    "Repair the provisioner of its StorageClass, or bind a volume to the claim, and the run resumes.",
)  # fmt: skip
CLAIM_LOST = _reason(
    "ClaimLost", Cause.USER, "The claim of the workspace, or that of a pvc:// location, has lost its volume, or is being deleted.",
    "Restore the PersistentVolume or the claim, and the run resumes; if the files are gone, delete the run and create it again.",
)  # fmt: skip
FORBIDDEN = _reason(
    "Forbidden", Cause.USER, "The operator lacks a permission that the run needs.",
    "Grant its ServiceAccount the verb on the resource that the message names; manifests/base/roles.yaml contains all of them.",
)  # fmt: skip
CLAIM_NOT_FOUND = _reason(
    "ClaimNotFound", Cause.USER, "The claim in storage.claimName, or that of a pvc:// location, does not exist.",
    "Create it, and the run resumes; another claim needs a new run.",
)  # fmt: skip
TRAINER_NOT_INSTALLED = _reason(
    "TrainerNotInstalled", Cause.USER, "Kubeflow Trainer is not installed in the cluster.",
    "Install Kubeflow Trainer 2.1 or later, and the run resumes.",
)  # fmt: skip
TRAINER_UNSUPPORTED = _reason(
    "TrainerUnsupported", Cause.USER, "The TrainJob schema of the installed Kubeflow Trainer is not supported, for example that of 2.0.",
    "Upgrade Kubeflow Trainer to 2.1 or later, and the run resumes.",
)  # fmt: skip
TRAINER_CHANGED = _reason(
    "TrainerChanged", Cause.TRANSIENT, "Kubeflow Trainer was just upgraded; its TrainJob schema changed.",
    "No action is needed: the run resumes within two minutes.",
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
STATUS_REJECTED = _reason(
    "StatusRejected", Cause.CRASH, "The API server rejected the status of the run for 10 minutes, so that the run could not continue.",
    "Report the message and the version of FineTuneRun to its maintainers; if the CRD is of another release, install the matching one.",
)  # fmt: skip

# Conditions.
WAITING = _state("Waiting", "The stage has not started; it waits for other stages.")
RUNNING = _state("Running", "The run or the stage is running.")
STARTING = _state("Starting", "The pods of the stage are starting.")
SUCCEEDED = _state("Succeeded", "The run or the stage succeeded.")
REUSED = _state("Reused", "The result of an earlier run or round with the same inputs is reused.")
SUSPENDED = _state("Suspended", "spec.suspend is true.")
NOT_SUSPENDED = _state("NotSuspended", "spec.suspend is not true.")
SUSPENDING = _state("Suspending", "spec.suspend is true, and running pods are being stopped.")
STOPPING = _state("Stopping", "The run has failed, and running pods are being stopped.")
RUN_FINISHED = _state("RunFinished", "The run has ended.")
CLAIM_NOT_BOUND = _state(
    "ClaimNotBound", "The workspace's claim exists and is not bound yet; with WaitForFirstConsumer, its first pod binds it."
)
EVALUATION_DISABLED = _state("EvaluationDisabled", "evaluation.enabled is false.")
BASELINE_NOT_REQUESTED = _state(
    "BaselineNotRequested", "Neither evaluation.baseline nor the gate needs the scores of the base model."
)
REGISTRY_NOT_CONFIGURED = _state("RegistryNotConfigured", "The run has no registry: the model stays at status.model.uri.")
GATE_NOT_REQUESTED = _state("GateNotRequested", "The run has no gate.")
GATE_PASSED = _state("GatePassed", "All requirements of the gate are met.")
GATE_REJECTED = _state("GateRejected", "A requirement of the gate is not met: the model is kept and not registered.")
CHECK_NOT_REQUESTED = _state("CheckNotRequested", "The registry is checked before training only with registry.onExisting: Fail.")
ENGINE_CHECK_DISABLED = _state(
    "EngineCheckDisabled", "The operator's configuration has engineCheck: false; a local run has no engine check either."
)
TRAINING_WITHOUT_GPU = _state("TrainingWithoutGPU", "Training requests no GPU, so that its own start shows what its image has.")
OWN_TRAINING_IMAGE = _state("OwnTrainingImage", "The training image is that of the operator's configuration.")
RUN_FAILED = _state("RunFailed", "The run failed before the stage could start.")

CLAIM_REASONS = frozenset({CLAIM_NOT_FOUND, CLAIM_PENDING, CLAIM_LOST, STORAGE_CLASS_NOT_FOUND, NO_SHARED_VOLUMES})
"""Reasons why the workspace's claim has no volume."""
_CAPACITY = frozenset({GPU_UNAVAILABLE, NODES_TOO_SMALL, UNSCHEDULABLE, QUOTA_EXCEEDED})


def resumes_alone(reason: Reason) -> bool:
    """Return whether a run that waits for this resumes without an action: capacity becomes free, and transient faults end."""
    return reason in _CAPACITY or reason.cause is Cause.TRANSIENT


REASONS: dict[str, Reason] = {**STAGE_REASONS, **OPERATOR_REASONS}
"""All reasons of failures, by name."""

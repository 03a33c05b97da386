"""The closed list of reasons why a stage can fail, each with its cause, its meaning and its remedy.

The cause decides whether the control loop retries. ``api/reasons.py`` adds the reasons of the control plane.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from . import exitcodes


class Cause(StrEnum):
    """Why an attempt failed, as far as retries are concerned."""

    USER = "User"
    """The user must change something. Not retried."""
    TRANSIENT = "Transient"
    """A temporary fault outside of the program: the network, a busy service."""
    CRASH = "Crash"
    """The program ended without a result."""
    OUT_OF_MEMORY = "OutOfMemory"
    """The device or the machine ran out of memory. Not retried."""
    LOST = "Lost"
    """The child, its pod or its result disappeared: an eviction, a deletion, a lost node."""
    INTERRUPTED = "Interrupted"
    """The attempt was stopped. It is repeated, and no limit counts it."""


_EXIT_CODES = {
    Cause.USER: exitcodes.USER_ERROR,
    Cause.OUT_OF_MEMORY: exitcodes.USER_ERROR,
    Cause.TRANSIENT: exitcodes.TRY_AGAIN,
    Cause.INTERRUPTED: exitcodes.INTERRUPTED,
}


@dataclass(frozen=True)
class Reason:
    """One reason: its CamelCase name in conditions and results, and its documentation."""

    name: str
    cause: Cause
    meaning: str
    remedy: str

    def __str__(self) -> str:
        return self.name

    @property
    def exit_code(self) -> int:
        """The exit code of a stage program that ends for this reason."""
        return _EXIT_CODES.get(self.cause, 1)


STAGE_REASONS: dict[str, Reason] = {}
"""The reasons that stage programs report, by name."""


def _reason(name: str, cause: Cause, meaning: str, remedy: str) -> Reason:
    reason = Reason(name, cause, meaning, remedy)
    STAGE_REASONS[name] = reason
    return reason


# The workspace and the program itself.
WORKSPACE_NOT_WRITABLE = _reason(
    "WorkspaceNotWritable", Cause.USER, "The stage has no permission to write to the workspace volume.",
    "Give the volume a group that the user of the pod belongs to, or use a volume that every user can write to.",
)  # fmt: skip
WORKSPACE_FULL = _reason(
    "WorkspaceFull", Cause.USER, "The workspace volume is full.",
    "Raise storage.size, or delete old runs and caches from the volume.",
)  # fmt: skip
BAD_DOCUMENT = _reason(
    "BadDocument", Cause.USER, "The stage program cannot read its input document.",
    "Use images of the same release as the operator.",
)  # fmt: skip
INPUTS_REPLACED = _reason(
    "InputsReplaced", Cause.LOST, "A ConfigMap that the pod mounts does not have the content that the operator wrote.",
    "Find out who replaces the ConfigMaps of the run. The operator does not start the stage again until the ConfigMap is its own.",
)  # fmt: skip
SUPERSEDED = _reason(
    "Superseded", Cause.INTERRUPTED, "A newer attempt of the stage started while this one was still running.",
    "No action is needed: the newer attempt continues.",
)  # fmt: skip
INTERRUPTED = _reason(
    "Interrupted", Cause.INTERRUPTED, "The stage was stopped before it finished.",
    "No action is needed: the next attempt continues.",
)  # fmt: skip
CRASHED = _reason(
    "Crashed", Cause.CRASH, "The stage program ended without a result.",
    "Read the last lines of the log; if the program is at fault, file a bug report with them.",
)  # fmt: skip

# Data.
DATASET_NOT_FOUND = _reason(
    "DatasetNotFound", Cause.USER, "There is no data at dataset.uri.",
    "Correct dataset.uri (and dataset.revision).",
)  # fmt: skip
DATASET_FORBIDDEN = _reason(
    "DatasetForbidden", Cause.USER, "The data set is private or gated and the token grants no access, or its file is not readable.",
    "Accept the terms of the data set and put a token that has access into the Secret hf-token (or dataset.secretRef).",
)  # fmt: skip
S3_CREDENTIALS_MISSING = _reason(
    "S3CredentialsMissing", Cause.USER, "The data or the model is at an s3:// location, and the stage has no access key, or only a part of one.",
    "Put AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY into the Secret s3-secret (or that of dataset.secretRef or model.secretRef).",
)  # fmt: skip
DATASET_UNTRUSTED = _reason(
    "DatasetUntrusted", Cause.USER, "The certificate of the server of the data is not trusted, or the CA bundle cannot be read.",
    "Put the certificate of the server's CA, in PEM form, into the ConfigMap in dataset.caRef.",
)  # fmt: skip
DATASET_UNREACHABLE = _reason(
    "DatasetUnreachable", Cause.TRANSIENT, "The server of the data did not answer.",
    "Check the address in dataset.uri, the network and the proxy.",
)  # fmt: skip
DATASET_UNREADABLE = _reason(
    "DatasetUnreadable", Cause.USER, "The data has a format that this release does not read, or a file is damaged.",
    "Correct the row or the file that the message names.",
)  # fmt: skip
DATASET_EMPTY = _reason(
    "DatasetEmpty", Cause.USER, "The data set has no rows.",
    "Set dataset.uri (and dataset.split) to data that has rows.",
)  # fmt: skip
DATASET_CHANGED = _reason(
    "DatasetChanged", Cause.USER, "The digest of the data is not the one in dataset.sha256, or the data changed while it was read.",
    "Correct dataset.sha256, or find out who changed the data.",
)  # fmt: skip
SPLIT_NOT_FOUND = _reason(
    "SplitNotFound", Cause.USER, "The data set has no split or configuration with that name.",
    "Set dataset.split to a split that the message lists, or append a configuration that it lists to dataset.uri after a colon.",
)  # fmt: skip
TOO_FEW_ROWS = _reason(
    "TooFewRows", Cause.USER, "The split leaves no row for training or for evaluation.",
    "Use more rows, or set dataset.trainSplit to 1.",
)  # fmt: skip
BAD_ROW = _reason(
    "BadRow", Cause.USER, "A row is broken, in another format than dataset.format, or has no value in dataset.splitField.",
    "Correct the row that the message names, or set dataset.badRows.policy to Drop.",
)  # fmt: skip
COLUMN_NOT_FOUND = _reason(
    "ColumnNotFound", Cause.USER, "No row has a column of its format, or the column in dataset.splitField.",
    "Set dataset.fields, dataset.format or dataset.splitField as the message shows.",
)  # fmt: skip
MIXED_FORMATS = _reason(
    "MixedFormats", Cause.USER, "The rows of a source are in more than one format.",
    "Set dataset.format to the format to use, or use a source with rows in one format.",
)  # fmt: skip
TOO_MANY_ROWS_LEFT_OUT = _reason(
    "TooManyRowsLeftOut", Cause.USER, "More rows are left out than dataset.badRows.share allows.",
    "Raise training.maxSeqLen, shorten or correct the rows, or raise dataset.badRows.share.",
)  # fmt: skip

# The base model.
MODEL_NOT_FOUND = _reason(
    "ModelNotFound", Cause.USER, "There is no model at model.uri.",
    "Correct model.uri (and model.revision).",
)  # fmt: skip
MODEL_FORBIDDEN = _reason(
    "ModelForbidden", Cause.USER, "The model is private or gated and the token grants no access, or its files are not readable.",
    "Accept the terms of the model and put a token that has access into the Secret hf-token (or model.secretRef).",
)  # fmt: skip
MODEL_UNTRUSTED = _reason(
    "ModelUntrusted", Cause.USER, "The certificate of the server of the model is not trusted, or the CA bundle cannot be read.",
    "Put the certificate of the server's CA, in PEM form, into the ConfigMap in model.caRef.",
)  # fmt: skip
MODEL_UNREACHABLE = _reason(
    "ModelUnreachable", Cause.TRANSIENT, "The server of the model did not answer.",
    "Check model.uri, the network and the proxy.",
)  # fmt: skip
MODEL_INCOMPLETE = _reason(
    "ModelIncomplete", Cause.USER, "The model lacks a file or a tensor that training needs.",
    "Use a complete model directory: config.json, all weights and a tokenizer.",
)  # fmt: skip
MODEL_CORRUPT = _reason(
    "ModelCorrupt", Cause.USER, "A file of the model cannot be read, or does not match the other files.",
    "Correct what the message names, or download or save the model again.",
)  # fmt: skip
MODEL_CHANGED = _reason(
    "ModelChanged", Cause.USER, "The model in the workspace is not the one that an earlier stage of the run reported.",
    "Find out which program wrote to the workspace.",
)  # fmt: skip
RESULT_CHANGED = _reason(
    "ResultChanged", Cause.USER, "A result, the prepared data or the rendered rows in the workspace are not those that their stage reported.",
    "Find out which program wrote to the workspace.",
)  # fmt: skip
MODEL_UNSUPPORTED = _reason(
    "ModelUnsupported", Cause.USER, "A model of this kind cannot be fine-tuned: it does not generate text with a decoder, it is quantized, or it is an adapter.",
    "Use the unquantized weights of a decoder-only model for text generation, merged with its adapter if it has one.",
)  # fmt: skip
REMOTE_CODE = _reason(
    "RemoteCode", Cause.USER, "The model contains Python code, and model.trustRemoteCode is false.",
    "Set model.trustRemoteCode to true if you trust its author, or use another model.",
)  # fmt: skip
CHAT_TEMPLATE_MISSING = _reason(
    "ChatTemplateMissing", Cause.USER, "The tokenizer of the model has no chat template.",
    "Use the instruct or chat variant of the model, or add a chat template to its tokenizer.",
)  # fmt: skip
CHAT_TEMPLATE_UNCLEAR = _reason(
    "ChatTemplateUnclear", Cause.USER, "The chat template of the model does not show which part of a row the assistant wrote.",
    "Mark that part with {% generation %} in the chat template, or use a model whose template has the mark.",
)  # fmt: skip
CHAT_TEMPLATE_INVALID = _reason(
    "ChatTemplateInvalid", Cause.USER, "The chat template of the model cannot be compiled, or cannot render a conversation.",
    "Correct the chat template that the message names, or use another model.",
)  # fmt: skip

# Training.
ENGINE_MISSING = _reason(
    "EngineMissing", Cause.USER, "The image lacks a package that the engine needs, or it was built for CPUs and the pod requests GPUs.",
    "Use an image that has the package: set training.image, or another training.runtimeRef.",
)  # fmt: skip
BAD_TRAINING_VALUE = _reason(
    "BadTrainingValue", Cause.USER, "The engine rejected a training value.",
    "Correct the field that the message names.",
)  # fmt: skip
NO_MATCHING_WEIGHTS = _reason(
    "NoMatchingWeights", Cause.USER, "No weight of the model matches the target patterns.",
    "Correct training.osft.targetPatterns or training.lora.targetModules; the message lists weights of this model.",
)  # fmt: skip
NO_TRAINABLE_ROWS = _reason(
    "NoTrainableRows", Cause.USER, "No row is left to train on: each is too long, or has no token to learn.",
    "Raise training.maxSeqLen, or shorten the rows.",
)  # fmt: skip
NOT_A_NUMBER = _reason(
    "LossNotANumber", Cause.USER, "The training loss became infinite or undefined.",
    "Lower training.learningRate, or raise training.warmupSteps.",
)  # fmt: skip
TRAINING_INCOMPLETE = _reason(
    "TrainingIncomplete", Cause.CRASH, "Training ended before it had processed every sample.",
    "Read the training log; an interrupted or resumed engine counts its steps wrongly.",
)  # fmt: skip
GPU_OUT_OF_MEMORY = _reason(
    "OutOfMemoryGPU", Cause.OUT_OF_MEMORY, "The GPU ran out of memory.",
    "Lower training.maxTokensPerGPU or training.microBatchSize (in evaluation: evaluation.batchSize), or use more or larger GPUs.",
)  # fmt: skip
HOST_OUT_OF_MEMORY = _reason(
    "OutOfMemoryHost", Cause.OUT_OF_MEMORY, "The machine ran out of memory, or the pod reached its memory limit.",
    "Raise training.resources.memory, or use a smaller model.",
)  # fmt: skip
PROCESS_GROUP_TIMEOUT = _reason(
    "ProcessGroupTimeout", Cause.TRANSIENT, "The training processes lost their connection to each other (NCCL or gloo timed out).",
    "Check the network between the nodes; for a slow network, raise INSTRUCTLAB_NCCL_TIMEOUT_MS in training.env.",
)  # fmt: skip
NO_GPU = _reason(
    "NoGPU", Cause.USER, "The stage needs a GPU, and its process has none.",
    "Request a GPU (training.gpusPerWorker, evaluation.gpus), or choose values that need none.",
)  # fmt: skip
GPU_UNUSABLE = _reason(
    # The node is at fault, and the pod of a retry may run on another one.
    "GPUUnusable", Cause.TRANSIENT, "The pod has fewer usable GPUs than it requests: a GPU or the driver of the node does not work, or is too old.",
    "Check the GPUs and the driver of the node that the message names, or use an image whose PyTorch is built for an older CUDA version.",
)  # fmt: skip

# Evaluation.
TASK_NOT_FOUND = _reason(
    "TaskNotFound", Cause.USER, "lm-eval has no task with that name.",
    "Correct evaluation.tasks, or provide the YAML of the task with evaluation.taskFiles.",
)  # fmt: skip
TASK_INVALID = _reason(
    "TaskInvalid", Cause.USER, "The definition of a task, or its data, is invalid.",
    "Correct the file that the message names.",
)  # fmt: skip
TASK_DATA_UNREACHABLE = _reason(
    "TaskDataUnreachable", Cause.TRANSIENT, "The data of a benchmark task could not be downloaded.",
    "Check the network and HF_TOKEN, or put the data and a task file that reads it into the ConfigMap of evaluation.taskFiles.",
)  # fmt: skip
BAD_EVALUATION_VALUE = _reason(
    "BadEvaluationValue", Cause.USER, "The backend rejected an evaluation value.",
    "Correct the field that the message names.",
)  # fmt: skip
NOTHING_TO_EVALUATE = _reason(
    "NothingToEvaluate", Cause.USER, "There is no task, and no held-out row that can be scored.",
    "Name a task in evaluation.tasks, hold out rows with messages or text (dataset.trainSplit below 1), or set evaluation.enabled to false.",
)  # fmt: skip
SCORE_NOT_A_NUMBER = _reason(
    "ScoreNotANumber", Cause.USER, "A score is infinite or undefined.",
    "The output of the model is broken: lower training.learningRate, or leave the metric out.",
)  # fmt: skip

# Registration.
REGISTRY_UNREACHABLE = _reason(
    "RegistryUnreachable", Cause.TRANSIENT, "The registry did not answer.",
    "Check registry.address, registry.port and the network policies.",
)  # fmt: skip
REGISTRY_FORBIDDEN = _reason(
    "RegistryForbidden", Cause.USER, "The registry rejected the token.",
    "Check REGISTRY_TOKEN in registry.secretRef and the permissions of its owner in the registry.",
)  # fmt: skip
TOKEN_NOT_SENT = _reason(
    "TokenNotSent", Cause.USER, "The address of the registry must not receive the token of the run.",
    "Use https:// or a Service of the cluster, and the host that REGISTRY_HOST in the Secret names; or ask the platform to allow the host.",
)  # fmt: skip
HOST_NOT_ALLOWED = _reason(
    "HostNotAllowed", Cause.USER, "The operator's configuration does not allow the stages to contact a host.",
    "Use an allowed host, or ask the platform to add it to allowedHosts in the operator's configuration.",
)  # fmt: skip
ADDRESS_NOT_ALLOWED = _reason(
    "AddressNotAllowed", Cause.USER, "A host has an address that the stages do not contact in a cluster: of the node, of the cloud, or a private one.",
    "Use the address of a server; for a private address, ask the platform to add the host to allowedHosts in the operator's configuration.",
)  # fmt: skip
DOWNLOAD_TOO_LARGE = _reason(
    "DownloadTooLarge", Cause.USER, "The data or the base model is larger than the operator's configuration allows.",
    "Use less data or a smaller model, or ask the platform to raise downloadLimits in the operator's configuration.",
)  # fmt: skip
REGISTRY_UNTRUSTED = _reason(
    "RegistryUntrusted", Cause.USER, "The certificate of the registry is not trusted, or the CA bundle cannot be read.",
    "Put the certificate of the registry's CA, in PEM form, into the ConfigMap in registry.caRef.",
)  # fmt: skip
REGISTRY_REJECTED = _reason(
    "RegistryRejected", Cause.USER, "The registry rejected the entry.",
    "Correct the value that the message names.",
)  # fmt: skip
VERSION_EXISTS = _reason(
    "VersionExists", Cause.USER, "The registry already has this version of the model.",
    "Choose another registry.version, or set registry.onExisting to NewVersion or Update.",
)  # fmt: skip
READ_BACK_FAILED = _reason(
    "ReadBackFailed", Cause.TRANSIENT, "The entry that the registry returned is not the one that was written.",
    "Read the log of the registry.",
)  # fmt: skip

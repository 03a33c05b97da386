"""The reasons for which a stage can fail: a closed list, each with its cause, its meaning and what to do.

The cause decides what the control loop does next; ``api/reasons.py`` adds the control plane's own reasons.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from . import exitcodes


class Cause(StrEnum):
    """Why an attempt ended without success, as far as trying again is concerned."""

    USER = "User"
    """The user must change something."""
    TRANSIENT = "Transient"
    """A passing fault outside: network, a busy service."""
    CRASH = "Crash"
    """The program ended without saying why."""
    OUT_OF_MEMORY = "OutOfMemory"
    """The device's or the machine's memory was not enough."""
    LOST = "Lost"
    """The child, its pod or its result disappeared: evicted, deleted, a node gone."""
    INTERRUPTED = "Interrupted"
    """It was asked to stop. Counts against nobody."""


_EXIT_CODES = {
    Cause.USER: exitcodes.USER_ERROR,
    Cause.OUT_OF_MEMORY: exitcodes.USER_ERROR,
    Cause.TRANSIENT: exitcodes.TRY_AGAIN,
    Cause.INTERRUPTED: exitcodes.INTERRUPTED,
}


@dataclass(frozen=True)
class Reason:
    """One reason: a CamelCase name that conditions and results carry, and what the documentation says of it."""

    name: str
    cause: Cause
    meaning: str
    remedy: str

    def __str__(self) -> str:
        return self.name

    @property
    def exit_code(self) -> int:
        """The exit code with which a stage program reports it."""
        return _EXIT_CODES.get(self.cause, 1)


STAGE_REASONS: dict[str, Reason] = {}
"""Every reason that a stage program may report, by name."""


def _reason(name: str, cause: Cause, meaning: str, remedy: str) -> Reason:
    reason = Reason(name, cause, meaning, remedy)
    STAGE_REASONS[name] = reason
    return reason


# The workspace and the program itself.
WORKSPACE_NOT_WRITABLE = _reason(
    "WorkspaceNotWritable", Cause.USER, "The stage may not write into the workspace volume.",
    "Give the volume a group that the pod's user belongs to, or mount one that any user can write.",
)  # fmt: skip
WORKSPACE_FULL = _reason(
    "WorkspaceFull", Cause.USER, "The workspace volume has no room left.",
    "Raise storage.size, or delete old runs and caches from the volume.",
)  # fmt: skip
BAD_DOCUMENT = _reason(
    "BadDocument", Cause.USER, "The stage program could not read its input document.",
    "The stage's image and the operator are of different releases: use the images of this release.",
)  # fmt: skip
SUPERSEDED = _reason(
    "Superseded", Cause.INTERRUPTED, "A newer attempt of the stage took over while this one was still running.",
    "Nothing to do: the newer attempt goes on.",
)  # fmt: skip
INTERRUPTED = _reason(
    "Interrupted", Cause.INTERRUPTED, "The stage was asked to stop before it was done.",
    "Nothing to do: it goes on with the next attempt.",
)  # fmt: skip
CRASHED = _reason(
    "Crashed", Cause.CRASH, "The stage program ended without a result.",
    "Read the last lines of its log; a fault of the program is worth a bug report.",
)  # fmt: skip

# Data.
DATASET_NOT_FOUND = _reason(
    "DatasetNotFound", Cause.USER, "There is no data at dataset.uri.", "Correct dataset.uri (and dataset.revision).",
)  # fmt: skip
DATASET_FORBIDDEN = _reason(
    "DatasetForbidden", Cause.USER, "The data set is private or gated and the token does not open it, or its file is not readable.",
    "Accept the data set's terms and put a token with access into the secret hf-token (or dataset.secretRef).",
)  # fmt: skip
S3_DENIED = _reason(
    "S3Denied", Cause.USER, "The object store refused the credentials.",
    "Check the keys in the secret s3-secret (or dataset.secretRef) and the bucket's policy.",
)  # fmt: skip
DATASET_UNREACHABLE = _reason(
    "DatasetUnreachable", Cause.TRANSIENT, "The server of the data did not answer.",
    "Check the address in dataset.uri, the network and the proxy.",
)  # fmt: skip
DATASET_UNREADABLE = _reason(
    "DatasetUnreadable", Cause.USER, "The data is not JSON or JSON Lines.", "Correct the row or the file that the message names.",
)  # fmt: skip
DATASET_EMPTY = _reason(
    "DatasetEmpty", Cause.USER, "The data set has no rows.", "Point dataset.uri (and dataset.split) at data with rows.",
)  # fmt: skip
DATASET_CHANGED = _reason(
    "DatasetChanged", Cause.USER, "The data does not have the digest that dataset.sha256 states, or changed while it was read.",
    "Correct dataset.sha256, or find out who changed the data.",
)  # fmt: skip
SPLIT_NOT_FOUND = _reason(
    "SplitNotFound", Cause.USER, "The data set has no split or configuration of that name.",
    "Name one of those that the message lists in dataset.split, or in dataset.uri behind the colon.",
)  # fmt: skip
TOO_FEW_ROWS = _reason(
    "TooFewRows", Cause.USER, "Splitting leaves training or evaluation without a row.",
    "Use more rows, or set dataset.trainSplit to 1.",
)  # fmt: skip
BAD_ROW = _reason(
    "BadRow", Cause.USER, "A row is no chat conversation.",
    "Correct the row that the message names, or set dataset.badRows.policy to Drop.",
)  # fmt: skip
TOO_MANY_ROWS_LEFT_OUT = _reason(
    "TooManyRowsLeftOut", Cause.USER, "More rows are left out than dataset.badRows.share allows.",
    "Raise training.maxSeqLen, shorten or correct the rows, or raise dataset.badRows.share.",
)  # fmt: skip

# The base model.
MODEL_NOT_FOUND = _reason(
    "ModelNotFound", Cause.USER, "There is no model at model.uri.", "Correct model.uri (and model.revision).",
)  # fmt: skip
MODEL_FORBIDDEN = _reason(
    "ModelForbidden", Cause.USER, "The model is private or gated and the token does not open it, or its files are not readable.",
    "Accept the model's terms and put a token with access into the secret hf-token (or model.secretRef).",
)  # fmt: skip
MODEL_UNREACHABLE = _reason(
    "ModelUnreachable", Cause.TRANSIENT, "The server of the model did not answer.",
    "Check model.uri, the network and the proxy.",
)  # fmt: skip
MODEL_INCOMPLETE = _reason(
    "ModelIncomplete", Cause.USER, "The model lacks a file or a tensor that training needs.",
    "Use a whole model directory: config.json, all weights and a tokenizer.",
)  # fmt: skip
MODEL_CORRUPT = _reason(
    "ModelCorrupt", Cause.USER, "A file of the model cannot be read, or does not fit the other files.",
    "Correct what the message names, or fetch or save the model again.",
)  # fmt: skip
MODEL_UNSUPPORTED = _reason(
    "ModelUnsupported", Cause.USER, "The model is of a kind that cannot be fine-tuned: no decoder for text, quantized, or an adapter.",
    "Use the unquantized weights of a decoder-only model for text generation, merged with its adapter if it has one.",
)  # fmt: skip
REMOTE_CODE = _reason(
    "RemoteCode", Cause.USER, "The model brings Python code of its own, and model.trustRemoteCode is false.",
    "Set model.trustRemoteCode to true if you trust its author, or use another model.",
)  # fmt: skip
CHAT_TEMPLATE_MISSING = _reason(
    "ChatTemplateMissing", Cause.USER, "The model's tokenizer has no chat template.",
    "Use the instruct or chat variant of the model, or add a chat template to its tokenizer.",
)  # fmt: skip
CHAT_TEMPLATE_UNCLEAR = _reason(
    "ChatTemplateUnclear", Cause.USER, "The model's chat template does not let the assistant's part of a row be told from the rest.",
    "Mark that part with {% generation %} in the chat template, or use a model whose template has it.",
)  # fmt: skip
CHAT_TEMPLATE_INVALID = _reason(
    "ChatTemplateInvalid", Cause.USER, "The model's chat template cannot be compiled, or cannot render a conversation.",
    "Correct the chat template that the message names, or use another model.",
)  # fmt: skip
OCI_UNAUTHORIZED = _reason(
    "OciUnauthorized", Cause.USER, "The image registry refused the pull secret.",
    "Check the pull secret and its owner's permissions in the image registry.",
)  # fmt: skip

# Training.
ENGINE_MISSING = _reason(
    "EngineMissing", Cause.USER, "The training image lacks a package that the engine needs.",
    "Use an image that has it: training.image, or that of the runtime in training.runtimeRef.",
)  # fmt: skip
BAD_TRAINING_VALUE = _reason(
    "BadTrainingValue", Cause.USER, "The engine refused a training value.", "Correct the field that the message names.",
)  # fmt: skip
NO_MATCHING_WEIGHTS = _reason(
    "NoMatchingWeights", Cause.USER, "No weight of the model matches the target patterns.",
    "Correct training.osft.targetPatterns or training.lora.targetModules; the message lists weights of this model.",
)  # fmt: skip
NO_TRAINABLE_ROWS = _reason(
    "NoTrainableRows", Cause.USER, "No row is left to train on: all are too long, or hold no token to learn.",
    "Raise training.maxSeqLen, or shorten the rows.",
)  # fmt: skip
NOT_A_NUMBER = _reason(
    "LossNotANumber", Cause.USER, "The training loss became infinite or undefined.",
    "Lower training.learningRate, or raise training.warmupSteps.",
)  # fmt: skip
TRAINING_INCOMPLETE = _reason(
    "TrainingIncomplete", Cause.CRASH, "Training ended before it had seen every sample.",
    "Read the training log; an interrupted or resumed engine counts its steps wrongly.",
)  # fmt: skip
GPU_OUT_OF_MEMORY = _reason(
    "OutOfMemoryGPU", Cause.OUT_OF_MEMORY, "The GPU's memory was not enough.",
    "Lower training.maxTokensPerGPU or training.microBatchSize (in evaluation: evaluation.batchSize), or use more or larger GPUs.",
)  # fmt: skip
HOST_OUT_OF_MEMORY = _reason(
    "OutOfMemoryHost", Cause.OUT_OF_MEMORY, "The machine's memory, or the pod's limit of it, was not enough.",
    "Raise training.resources.memory, or use a smaller model.",
)  # fmt: skip
PROCESS_GROUP_TIMEOUT = _reason(
    "ProcessGroupTimeout", Cause.TRANSIENT, "The training processes lost each other (NCCL or gloo timed out).",
    "Check the network between the nodes; raise INSTRUCTLAB_NCCL_TIMEOUT_MS in training.env for slow ones.",
)  # fmt: skip
NO_GPU = _reason(
    "NoGPU", Cause.USER, "The work needs a GPU and the process sees none.",
    "Ask for one (training.gpusPerWorker, evaluation.gpus), or choose values that run without.",
)  # fmt: skip

# Evaluation.
TASK_NOT_FOUND = _reason(
    "TaskNotFound", Cause.USER, "lm-eval knows no task of that name.",
    "Correct evaluation.tasks, or bring the task's YAML with evaluation.taskFiles.",
)  # fmt: skip
TASK_INVALID = _reason(
    "TaskInvalid", Cause.USER, "A task's definition or its data cannot be used.", "Correct the file that the message names.",
)  # fmt: skip
TASK_DATA_UNREACHABLE = _reason(
    "TaskDataUnreachable", Cause.TRANSIENT, "The data of a benchmark task could not be fetched.",
    "Check the network and HF_TOKEN, or bring the data in the workspace with a task file of your own.",
)  # fmt: skip
BAD_EVALUATION_VALUE = _reason(
    "BadEvaluationValue", Cause.USER, "The backend refused an evaluation value.", "Correct the field that the message names.",
)  # fmt: skip
NOTHING_TO_EVALUATE = _reason(
    "NothingToEvaluate", Cause.USER, "There is no task and no held-out row.",
    "Name a task in evaluation.tasks, hold rows out (dataset.trainSplit below 1), or set evaluation.enabled to false.",
)  # fmt: skip
SCORE_NOT_A_NUMBER = _reason(
    "ScoreNotANumber", Cause.USER, "A score is infinite or undefined.",
    "The model's output is broken: lower training.learningRate, or leave the metric out.",
)  # fmt: skip

# Registration.
REGISTRY_UNREACHABLE = _reason(
    "RegistryUnreachable", Cause.TRANSIENT, "The registry did not answer.",
    "Check registry.address, registry.port and the network policies.",
)  # fmt: skip
REGISTRY_FORBIDDEN = _reason(
    "RegistryForbidden", Cause.USER, "The registry refused the token.",
    "Check REGISTRY_TOKEN in registry.secretRef and the rights of its owner in the registry.",
)  # fmt: skip
REGISTRY_UNTRUSTED = _reason(
    "RegistryUntrusted", Cause.USER, "The registry's certificate is not trusted, or the CA bundle cannot be read.",
    "Put the certificate of the registry's CA, in PEM form, into registry.caRef.",
)  # fmt: skip
REGISTRY_REFUSED = _reason(
    "RegistryRefused", Cause.USER, "The registry refused the entry.", "Correct the value that its message names.",
)  # fmt: skip
VERSION_EXISTS = _reason(
    "VersionExists", Cause.USER, "The registry already has this version of the model.",
    "Choose another registry.version, or set registry.onExisting to NewVersion or Update.",
)  # fmt: skip
READ_BACK_FAILED = _reason(
    "ReadBackFailed", Cause.TRANSIENT, "What the registry gave back is not what was written.",
    "Read the registry's own log.",
)  # fmt: skip

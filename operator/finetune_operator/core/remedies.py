"""Remedies that depend on the failed stage and on values of the run: none recommends what is set already or has no effect there.

Every other reason has one remedy (:mod:`finetune_operator.api.reasons`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from finetune_contract import reasons as stage_reasons
from finetune_contract.reasons import Reason
from finetune_contract.uris import is_local_path
from finetune_operator.api import reasons

from . import stages
from .manifests.pod import AWS_SECRET, PULL_SECRET
from .resolved_spec import Dataset, Model, ResolvedSpec

_NEW_MODEL = {
    reason.name
    for reason in (
        stage_reasons.MODEL_INCOMPLETE, stage_reasons.MODEL_CORRUPT, stage_reasons.MODEL_UNSUPPORTED, stage_reasons.REMOTE_CODE,
        stage_reasons.CHAT_TEMPLATE_MISSING, stage_reasons.CHAT_TEMPLATE_UNCLEAR, stage_reasons.CHAT_TEMPLATE_INVALID,
    )
}  # fmt: skip
"""Reasons whose remedy is another model, or other values in ``spec.model``: those freeze for later reruns."""
_NEW_DATA = {
    reason.name
    for reason in (
        stage_reasons.DATASET_NOT_FOUND, stage_reasons.DATASET_UNREADABLE, stage_reasons.BAD_ROW, stage_reasons.TOO_MANY_ROWS_LEFT_OUT,
        stage_reasons.NO_TRAINABLE_ROWS, stage_reasons.NOTHING_TO_EVALUATE, stage_reasons.HOST_OUT_OF_MEMORY, reasons.KILLED,
    )
}  # fmt: skip
"""Reasons of stage *tokenization* whose remedy is other data, or other values in ``spec.dataset``."""

_NAMED = re.compile(r"\brerun from stage ([a-z-]+)")
"""The stage that a stage program names in a message."""


@dataclass(frozen=True)
class Failed:
    """The stage that failed, the effective values of its run, and the message of the failure."""

    stage: str
    spec: ResolvedSpec
    mode: Literal["local", "cluster"] = "cluster"
    message: str = ""

    @property
    def section(self) -> str:
        """The section of ``spec`` with the stage's resources."""
        program = stages.GRAPH.programs.get(self.stage)
        return program.program if program else self.stage


def hint(reason: Reason, failed: Failed) -> str:
    """Return what to do after a stage has failed, and where to continue: a run that has started takes an edit with a rerun only."""
    text = remedy(reason, failed)
    return text if "rerun" in text else f"{text} Then rerun from {first_to_rerun(reason, failed.stage, failed.message)}."


def first_to_rerun(reason: Reason, stage: str, message: str) -> str:
    """Return the stage to rerun from: the one that the message names, the failed one, or an earlier one whose data or model must change."""
    named = _NAMED.search(message)
    if named and named[1] in stages.GRAPH.definition(stage).reruns:
        return named[1]
    if reason.name in _NEW_MODEL:
        return "model"
    if stage == "tokenization" and reason.name in _NEW_DATA:
        return "dataset"
    return stages.GRAPH.definition(stage).rerun_target


def remedy(reason: Reason, failed: Failed) -> str:
    """Return what to do about a reason in this state."""
    build = _REMEDIES.get(reason.name)
    return build(failed) if build else reason.remedy


def _dataset_not_found(failed: Failed) -> str:
    if failed.stage != "dataset":
        return "Find out what removed the run's files from the workspace."
    return "Correct what the message names." if _is_file(failed.spec.dataset.uri) else stage_reasons.DATASET_NOT_FOUND.remedy


def _model_not_found(failed: Failed) -> str:
    uri = failed.spec.model.uri
    return "Correct model.uri." if _is_file(uri) or uri.startswith("oci://") else stage_reasons.MODEL_NOT_FOUND.remedy


def _dataset_forbidden(failed: Failed) -> str:
    spec = failed.spec.dataset
    if spec.uri.startswith("s3://"):
        return _keys_of(spec, failed)
    if spec.uri.startswith(("http://", "https://")):
        login = "HTTP_AUTHORIZATION, the value of the Authorization header"
        if failed.mode == "local":
            if spec.secret_ref:
                return f"Give --secret {spec.secret_ref.name}=FILE with {login}."
            return f"Set dataset.secretRef.name to NAME and give --secret NAME=FILE with {login}."
        if spec.secret_ref:
            return f"Correct {login}, in the Secret {spec.secret_ref.name}."
        return f"Set dataset.secretRef to a Secret with {login}, or use an address that needs no login."
    return _forbidden(failed.spec.dataset, "dataset", "data set")


def _model_forbidden(failed: Failed) -> str:
    spec = failed.spec.model
    if spec.uri.startswith("oci://"):
        secret = spec.pull_secret_ref.name if spec.pull_secret_ref else PULL_SECRET[0]
        return f"Correct the credentials for the registry in the Secret {secret}, or the permissions of their owner."
    if spec.uri.startswith("s3://"):
        return _keys_of(spec, failed)
    return _forbidden(failed.spec.model, "model", "model")


def _keys_of(source: Dataset | Model, failed: Failed) -> str:
    secret = source.secret_ref.name if source.secret_ref else AWS_SECRET[0]
    if failed.mode == "local":
        variables = "" if source.secret_ref else "in the environment variables or "
        return f"Correct the keys {variables}in the file of --secret {secret}=FILE, or the permissions of their owner."
    return f"Correct the keys in the Secret {secret}, or the permissions of their owner."


def _s3_credentials_missing(failed: Failed) -> str:
    """Name the Secret that the stage reads; on this machine keys are also read from environment variables."""
    source: Dataset | Model = failed.spec.model if failed.stage == "model" else failed.spec.dataset
    keys = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    secret = source.secret_ref.name if source.secret_ref else AWS_SECRET[0]
    if failed.mode == "local":
        return f"Set the environment variables {keys}, or give --secret {secret}=FILE with lines of both."
    return f"Put {keys} into the Secret {secret}."


def _forbidden(source: Dataset | Model, section: str, what: str) -> str:
    if is_local_path(source.uri) or source.uri.startswith("pvc://"):
        return f"Make the files that {section}.uri names readable for the user of the stage."
    named = source.secret_ref
    secret = f"the Secret {named.name}" if named else f"the Secret hf-token (or {section}.secretRef)"
    return f"Accept the terms of the {what} and put a token that has access into {secret}."


def _workspace_full(failed: Failed) -> str:
    if failed.mode == "local":
        return "Delete old runs with their files (finetune delete --purge), or use a folder with more space (--home)."
    claim = failed.spec.storage.claim_name
    if claim:
        return f"Enlarge the claim {claim}, or delete old runs and caches from its volume."
    return stage_reasons.WORKSPACE_FULL.remedy


def _bad_row(failed: Failed) -> str:
    may_drop = failed.stage in ("dataset", "tokenization") and failed.spec.dataset.bad_rows.policy != "Drop"
    return stage_reasons.BAD_ROW.remedy if may_drop else "Correct the row that the message names."


def _too_many_rows_left_out(failed: Failed) -> str:
    ways = [_raise_max_seq_len(failed), "shorten or correct the rows"]
    if failed.spec.dataset.bad_rows.share < 1:
        ways.append("raise dataset.badRows.share")
    return _choice(ways)


def _no_trainable_rows(failed: Failed) -> str:
    return _choice([_raise_max_seq_len(failed), "shorten the rows"])


def _raise_max_seq_len(failed: Failed) -> str:
    """Return how to raise it: a row must fit into the tokens of a GPU."""
    tokens, longest = failed.spec.training.max_tokens_per_gpu, failed.spec.training.max_seq_len
    if tokens <= longest:
        return f"raise training.maxSeqLen and training.maxTokensPerGPU, which is {tokens:,}"
    return f"raise training.maxSeqLen (above {tokens:,} together with training.maxTokensPerGPU)"


def _too_few_rows(failed: Failed) -> str:
    spec = failed.spec
    gated = any(one.metric.startswith("holdout.") for one in spec.gate.requirements)
    measurable = spec.evaluation.tasks or not spec.evaluation.enabled
    return stage_reasons.TOO_FEW_ROWS.remedy if _holds_out(spec) and measurable and not gated else "Use more rows."


def _dataset_changed(failed: Failed) -> str:
    if failed.spec.dataset.sha256:
        return stage_reasons.DATASET_CHANGED.remedy
    return "Make sure that nothing writes to the data while it is read."


def _remote_code(failed: Failed) -> str:
    return "Use another model." if failed.spec.model.trust_remote_code else stage_reasons.REMOTE_CODE.remedy


def _engine_missing(failed: Failed) -> str:
    if failed.mode == "local":
        return "Install the package that the message names into this Python environment."
    return stage_reasons.ENGINE_MISSING.remedy


def _no_matching_weights(failed: Failed) -> str:
    field = "lora.targetModules" if failed.spec.training.algorithm == "lora" else "osft.targetPatterns"
    return f"Correct training.{field}; the message lists weights of this model."


def _out_of_gpu_memory(failed: Failed) -> str:
    ways = []
    if failed.section == "evaluation":
        size = failed.spec.evaluation.batch_size
        ways += [] if size == 1 else ["lower evaluation.batchSize" if size else "set evaluation.batchSize to 1"]
        return _choice([*ways, "use a larger GPU"])
    training = failed.spec.training
    ways.append("lower training.maxTokensPerGPU")
    if (training.micro_batch_size or 1) > 1:
        ways.append("lower training.microBatchSize")
    if not training.gradient_checkpointing:
        ways.append("set training.gradientCheckpointing to true")
    return _choice([*ways, "use more or larger GPUs"])


def _out_of_host_memory(failed: Failed) -> str:
    smaller = "use a smaller data set" if failed.stage in ("dataset", "tokenization") else "use a smaller model"
    limits = {"training": failed.spec.training.resources, "evaluation": failed.spec.evaluation.resources}
    limit = limits.get(failed.section)
    if limit is not None and (failed.mode == "cluster" or limit.memory):
        return _choice([f"raise {failed.section}.resources.memory", smaller])
    return _choice([smaller, "use a machine with more memory"] if failed.mode == "local" else [smaller])


def _killed(failed: Failed) -> str:
    advice = _out_of_host_memory(failed)
    return f"If the machine was short of memory, {advice[0].lower()}{advice[1:]}"


def _no_gpu(failed: Failed) -> str:
    evaluates = failed.section == "evaluation"
    field = "evaluation.gpus" if evaluates else "training.gpusPerWorker"
    if failed.spec.evaluation.gpus if evaluates else failed.spec.training.gpus_per_worker:
        return "Check the GPU driver and the device plugin of the node, or choose values that need no GPU."
    return f"Request a GPU with {field}, or choose values that need none."


def _nothing_to_evaluate(failed: Failed) -> str:
    ways = ["name a task in evaluation.tasks"]
    holds_out = _holds_out(failed.spec) or failed.spec.dataset.eval_uri
    ways.append(
        "hold out at least one row with messages or text (rows of tokens are not scored)"
        if holds_out
        else "hold rows out (dataset.trainSplit below 1)"
    )
    if not failed.spec.gate.requirements:
        ways.append("set evaluation.enabled to false")
    return _choice(ways)


def _score_not_a_number(failed: Failed) -> str:
    if failed.stage == "baseline":
        return "The output of the base model is broken: use another model, or leave the metric out."
    return stage_reasons.SCORE_NOT_A_NUMBER.remedy


def _version_exists(failed: Failed) -> str:
    others = [policy for policy in ("NewVersion", "Update") if policy != failed.spec.registry.on_existing]
    return f"Choose another registry.version, or set registry.onExisting to {' or '.join(others)}."


_REMEDIES: dict[str, Callable[[Failed], str]] = {
    reason.name: build
    for reason, build in (
        (stage_reasons.DATASET_NOT_FOUND, _dataset_not_found),
        (stage_reasons.DATASET_FORBIDDEN, _dataset_forbidden),
        (stage_reasons.DATASET_CHANGED, _dataset_changed),
        (stage_reasons.S3_CREDENTIALS_MISSING, _s3_credentials_missing),
        (stage_reasons.MODEL_NOT_FOUND, _model_not_found),
        (stage_reasons.MODEL_FORBIDDEN, _model_forbidden),
        (stage_reasons.WORKSPACE_FULL, _workspace_full),
        (stage_reasons.BAD_ROW, _bad_row),
        (stage_reasons.TOO_MANY_ROWS_LEFT_OUT, _too_many_rows_left_out),
        (stage_reasons.NO_TRAINABLE_ROWS, _no_trainable_rows),
        (stage_reasons.TOO_FEW_ROWS, _too_few_rows),
        (stage_reasons.REMOTE_CODE, _remote_code),
        (stage_reasons.ENGINE_MISSING, _engine_missing),
        (stage_reasons.NO_MATCHING_WEIGHTS, _no_matching_weights),
        (stage_reasons.GPU_OUT_OF_MEMORY, _out_of_gpu_memory),
        (stage_reasons.HOST_OUT_OF_MEMORY, _out_of_host_memory),
        (stage_reasons.NO_GPU, _no_gpu),
        (stage_reasons.NOTHING_TO_EVALUATE, _nothing_to_evaluate),
        (stage_reasons.SCORE_NOT_A_NUMBER, _score_not_a_number),
        (stage_reasons.VERSION_EXISTS, _version_exists),
        (reasons.KILLED, _killed),
    )
}


def _holds_out(spec: ResolvedSpec) -> bool:
    return spec.dataset.train_split < 1


def _is_file(uri: str) -> bool:
    """Return whether a URI has no revisions: a path, an object or an address on the web."""
    return is_local_path(uri) or uri.startswith(("http://", "https://", "s3://", "pvc://"))


def _choice(ways: list[str]) -> str:
    """Return a sentence of alternatives: ``["raise x", "lower y"]`` -> ``Raise x, or lower y.``"""
    *first, last = ways
    text = f"{', '.join(first)}, or {last}" if first else last
    return f"{text[0].upper()}{text[1:]}."

"""Contradictions between effective values of a run, each of which is valid.

The CRD's rules reject contradictions within a run, and within the defaults of a namespace or of the operator. The checks here are for
values of different origins. ``tests/unit/core/test_layers.py`` has the list of the rules that they cover.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import get_args

from finetune_contract.codec import camel
from finetune_contract.row_formats import OPTIONAL, REQUIRED, RowFormat
from finetune_contract.uris import HubId, ImageReference, S3Location, WebAddress, parse_uri
from finetune_operator.api.evaluation import SINGLE_TASKS
from finetune_operator.api.training import Algorithm

from .gate import compares
from .origins import is_above
from .quantities import counted
from .resolved_spec import Dataset, ResolvedSpec

HOLDOUT = "holdout."
"""Prefix of the metrics of the held-out rows."""
Origins = Mapping[str, str]
"""The origin of each field that has a value."""


@dataclass(frozen=True)
class Contradiction:
    """A field, and what is wrong with it and what to do."""

    field: str
    words: str


def contradiction(spec: ResolvedSpec, origins: Origins) -> Contradiction | None:
    """Return the first contradiction of a spec with every default, ``None`` where there is none."""
    return next((found for check in _CHECKS for found in check(spec, origins)), None)


def _batch(spec: ResolvedSpec, _origins: Origins) -> Iterator[Contradiction]:
    training = spec.training
    batch, workers, each = training.effective_batch_size, training.workers, training.processes
    if training.enabled and batch % (workers * each):
        processes = f"{counted(workers, 'worker')} with {counted(each, 'process', 'processes')}{' each' if workers > 1 else ''}"
        yield Contradiction(
            "training.effectiveBatchSize",
            f"{counted(batch, 'row')} cannot be shared evenly by {processes}; use a multiple of {workers * each}, or change"
            " training.workers",
        )


def _micro_batch(spec: ResolvedSpec, _origins: Origins) -> Iterator[Contradiction]:
    training, micro = spec.training, spec.training.micro_batch_size
    rows = training.effective_batch_size // (training.workers * training.processes)
    packs = training.lora is not None and training.lora.packing  # a micro-batch is then counted in sequences
    if training.enabled and micro is not None and rows % micro and not packs:
        words = f"{micro} does not divide the {counted(rows, 'row')} of each process per step; use a divisor of {rows}, or change"
        yield Contradiction("training.microBatchSize", f"{words} training.effectiveBatchSize")


def _longest_rows(spec: ResolvedSpec, _origins: Origins) -> Iterator[Contradiction]:
    tokens, longest = spec.training.max_tokens_per_gpu, spec.training.max_seq_len
    if spec.training.enabled and tokens < longest:
        words = f"{tokens} is less than training.maxSeqLen {longest}, so that the longest rows do not fit; raise it, or lower"
        yield Contradiction("training.maxTokensPerGPU", f"{words} training.maxSeqLen")


def _held_out_twice(spec: ResolvedSpec, _origins: Origins) -> Iterator[Contradiction]:
    split = spec.dataset.train_split
    if spec.dataset.eval_uri and split != 1:
        words = f"is {split:g}, and with dataset.evalUri every row of dataset.uri is trained on; set it to 1, or remove dataset.evalUri"
        yield Contradiction("dataset.trainSplit", words)


def _one_pod(spec: ResolvedSpec, _origins: Origins) -> Iterator[Contradiction]:
    workers = spec.training.workers
    if "ReadWriteOncePod" in spec.storage.access_modes and workers > 1:
        words = f"a volume of mode ReadWriteOncePod has room for one pod, and training.workers is {workers}; use another access mode, or"
        yield Contradiction("storage.accessModes", f"{words} set training.workers to 1")


def _gpu_of_each_process(spec: ResolvedSpec, _origins: Origins) -> Iterator[Contradiction]:
    training = spec.training
    if training.enabled and 0 < training.gpus_per_worker < training.processes:
        yield Contradiction(
            "training.processesPerWorker",
            f"{training.processes} processes cannot share {counted(training.gpus_per_worker, 'GPU')}; use at most one process for each"
            " GPU, or raise training.gpusPerWorker",
        )


def _measured(spec: ResolvedSpec, _origins: Origins) -> Iterator[Contradiction]:
    evaluation, why = spec.evaluation, _without_held_out_rows(spec)
    if evaluation.enabled and not evaluation.tasks and why:
        yield Contradiction("evaluation.tasks", f"is empty, and {why}, so that nothing is measured; name a task")


def _gate_needs_evaluation(spec: ResolvedSpec, _origins: Origins) -> Iterator[Contradiction]:
    if spec.gate.requirements and not spec.evaluation.enabled:
        words = "evaluation.enabled is false, so that no metric is measured; remove gate, or set evaluation.enabled to true"
        yield Contradiction("gate", words)


def _gate_tolerates_no_failure(spec: ResolvedSpec, _origins: Origins) -> Iterator[Contradiction]:
    if spec.gate.requirements and spec.evaluation.on_failure == "Continue":
        words = "Continue would pass the gate unmeasured; set it to Fail, or remove gate"
        yield Contradiction("evaluation.onFailure", words)


def _baseline_needs_evaluation(spec: ResolvedSpec, origins: Origins) -> Iterator[Contradiction]:
    """A baseline in the defaults has no effect for a run without evaluation."""
    evaluation = spec.evaluation
    if evaluation.baseline and not evaluation.enabled and not is_above(origins, "evaluation.enabled", "evaluation.baseline"):
        words = (
            "is true, and evaluation.enabled is false, so that nothing is evaluated; set evaluation.enabled to true, or remove"
        )
        yield Contradiction("evaluation.baseline", f"{words} evaluation.baseline")


def _gate_compares(spec: ResolvedSpec, origins: Origins) -> Iterator[Contradiction]:
    """A gate that compares with the baseline adds it, unless the run itself disables it."""
    if compares(spec.gate.requirements) and not spec.evaluation.baseline and _of_run(origins, "evaluation.baseline"):
        words = "is false, and a requirement of the gate has maxRegression, which compares with the base model; remove the field"
        yield Contradiction("evaluation.baseline", words)


def _gate_can_pass(spec: ResolvedSpec, _origins: Origins) -> Iterator[Contradiction]:
    """Several requirements may set bounds of one metric."""
    least: dict[str, float] = {}
    most: dict[str, float] = {}
    for index, requirement in enumerate(spec.gate.requirements):
        metric = requirement.metric
        least[metric] = max(least.get(metric, -math.inf), -math.inf if requirement.min is None else requirement.min)
        most[metric] = min(most.get(metric, math.inf), math.inf if requirement.max is None else requirement.max)
        if least[metric] > most[metric]:
            words = f"at least {least[metric]:g} and at most {most[metric]:g} is required of {metric}, which no model meets; correct a bound"
            yield Contradiction(f"gate.requirements[{index}]", words)


def _metrics(spec: ResolvedSpec, _origins: Origins) -> Iterator[Contradiction]:
    tasks = spec.evaluation.tasks
    for index, requirement in enumerate(spec.gate.requirements):
        metric, field = requirement.metric, f"gate.requirements[{index}].metric"
        if metric.startswith(HOLDOUT):
            why = _without_held_out_rows(spec)
            if why:
                words = f"{metric} is measured on held-out rows, and {why}; hold rows out, or remove the requirement"
                yield Contradiction(field, words)
        elif not any(_may_measure(task, metric) for task in tasks):
            listed = ", ".join(tasks) or "none"
            words = f"{metric} belongs to no task in evaluation.tasks ({listed}); name <task>.<metric>, or add its task"
            yield Contradiction(field, words)


def _may_measure(task: str, metric: str) -> bool:
    """Return whether a task may have a metric. The tasks of a group or tag can have any name, which only the evaluation knows."""
    return metric.startswith(f"{task}.") or task not in SINGLE_TASKS


def _without_held_out_rows(spec: ResolvedSpec) -> str | None:
    """Return why held-out rows are not measured; ``None`` where they are."""
    if not spec.evaluation.holdout:
        return "evaluation.holdout is false"
    if spec.dataset.train_split == 1 and not spec.dataset.eval_uri:
        return "dataset.trainSplit is 1, which holds no rows out"
    return None


def _split(spec: ResolvedSpec, origins: Origins) -> Iterator[Contradiction]:
    """Defaults may have a way to split; the run may not set one that has no effect."""
    dataset = spec.dataset
    if dataset.split_by == "random":
        if dataset.split_field and _of_run(origins, "dataset.splitField"):
            words = "dataset.splitBy is random; remove dataset.splitField, or set dataset.splitBy to stratified or grouped"
            yield Contradiction("dataset.splitField", words)
    elif dataset.split_field is None:
        yield Contradiction("dataset.splitField", f"dataset.splitBy is {dataset.split_by}; set the column to split by")
    elif dataset.eval_uri and _of_run(origins, "dataset.splitBy"):
        words = "dataset.evalUri has the held-out rows, so that the rows of dataset.uri are not split; remove dataset.splitBy"
        yield Contradiction("dataset.splitBy", words)
    if dataset.near_duplicates == "KeepTogether" and _of_run(origins, "dataset.nearDuplicates"):
        yield from _near_duplicates(dataset)


def _near_duplicates(dataset: Dataset) -> Iterator[Contradiction]:
    if dataset.split_by == "stratified":
        words = "dataset.splitBy is stratified, which draws single rows; set it to random or grouped, or remove dataset.nearDuplicates"
        yield Contradiction("dataset.nearDuplicates", words)
    if dataset.eval_uri:
        words = (
            "dataset.evalUri has the held-out rows, so that the rows of dataset.uri are not split; remove dataset.nearDuplicates"
        )
        yield Contradiction("dataset.nearDuplicates", words)


def _row_format(spec: ResolvedSpec, _origins: Origins) -> Iterator[Contradiction]:
    """A layer can set the format, and another one the columns of other formats."""
    dataset = spec.dataset
    named = [name for name, column in vars(dataset.fields).items() if column is not None] if dataset.fields else []
    formats = get_args(RowFormat) if dataset.format == "auto" else (dataset.format,)
    unread = [[name for name in named if name not in (*REQUIRED[one], *OPTIONAL[one])] for one in formats]
    if not all(unread):
        return
    if len(formats) == 1:
        field = camel(unread[0][0])
        words = f"format {dataset.format} does not read it; remove it, or change dataset.format"
    else:
        field = camel(named[-1])
        words = f"no format reads all of {', '.join(map(camel, named))}; keep those of one format"
    yield Contradiction(f"dataset.fields.{field}", words)


_ONE_KEY = "names one key, and s3:// needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; remove it"


def _keys_of_s3(spec: ResolvedSpec, _origins: Origins) -> Iterator[Contradiction]:
    dataset = spec.dataset
    uris = [uri for uri in (dataset.uri, dataset.eval_uri) if uri]
    if dataset.secret_ref and dataset.secret_ref.key and any(isinstance(parse_uri(uri, "dataset"), S3Location) for uri in uris):
        yield Contradiction("dataset.secretRef.key", _ONE_KEY)
    model = spec.model
    if model.secret_ref and model.secret_ref.key and isinstance(parse_uri(model.uri, "model"), S3Location):
        yield Contradiction("model.secretRef.key", _ONE_KEY)


def _unread_secrets(spec: ResolvedSpec, origins: Origins) -> Iterator[Contradiction]:
    """Defaults may name a Secret for the runs whose locations need one."""
    dataset = (parse_uri(uri, "dataset") for uri in (spec.dataset.uri, spec.dataset.eval_uri) if uri)
    if _of_run(origins, "dataset.secretRef") and not any(isinstance(each, HubId | S3Location | WebAddress) for each in dataset):
        yield Contradiction("dataset.secretRef", "only the Hub, s3:// and http(s):// have credentials; remove it")
    if _of_run(origins, "model.secretRef") and not isinstance(parse_uri(spec.model.uri, "model"), HubId | S3Location):
        is_image = isinstance(parse_uri(spec.model.uri, "model"), ImageReference)
        remedy = "name the Secret of the registry in model.pullSecretRef" if is_image else "remove it"
        yield Contradiction("model.secretRef", f"only the Hub and s3:// have these credentials; {remedy}")


def _algorithm(spec: ResolvedSpec, origins: Origins) -> Iterator[Contradiction]:
    """Defaults may have values for every algorithm; the run may not."""
    algorithm = spec.training.algorithm
    for other in get_args(Algorithm):
        field = f"training.{other}"
        if other != algorithm and _of_run(origins, field):
            yield Contradiction(field, f"training.algorithm is {algorithm}; remove {field}, or set training.algorithm to {other}")


def _mounts(spec: ResolvedSpec, _origins: Origins) -> Iterator[Contradiction]:
    volumes = {volume["name"] for volume in spec.training.volumes}
    for index, mount in enumerate(spec.training.volume_mounts):
        if mount["name"] not in volumes:
            words = "is not a volume in training.volumes; add the volume, or remove the mount"
            yield Contradiction(f"training.volumeMounts[{index}].name", f"{mount['name']} {words}")


def _registry(spec: ResolvedSpec, origins: Origins) -> Iterator[Contradiction]:
    """Defaults may describe a registry that the run does not use."""
    if spec.registry.address:
        return
    if spec.registry.kind == "ModelRegistry":
        words = "ModelRegistry needs an address; set registry.address, or remove registry.kind"
        yield Contradiction("registry.kind", words)
    for field in ("registry.port", "registry.secretRef", "registry.caRef"):
        if _of_run(origins, field):
            yield Contradiction(field, f"there is no registry.address; set it, or remove {field}")


def _of_run(origins: Origins, field: str) -> bool:
    return any(origin == "run" for path, origin in origins.items() if f"{path}.".startswith(f"{field}."))


_CHECKS: tuple[Callable[[ResolvedSpec, Origins], Iterator[Contradiction]], ...] = (
    _algorithm, _batch, _micro_batch, _longest_rows, _gpu_of_each_process, _held_out_twice, _measured, _baseline_needs_evaluation,
    _gate_needs_evaluation, _gate_tolerates_no_failure, _gate_compares, _gate_can_pass, _metrics, _mounts, _one_pod, _registry, _split, _row_format, _keys_of_s3,
    _unread_secrets,
)  # fmt: skip

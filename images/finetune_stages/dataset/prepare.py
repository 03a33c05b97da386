"""Work of stage *dataset*, from the URI to two published files. Importing this module imports numpy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune_contract import reasons
from finetune_contract.codec import digest
from finetune_contract.documents import DatasetInputs, Scalar
from finetune_contract.result import DatasetOutputs
from finetune_contract.workspace import CACHE_DATASETS
from finetune_stages.sdk import Context, Finished, Seal, StageError, read_seal, seal_directory
from finetune_stages.sdk.workspace import copy_or_link_file
from finetune_stages.sources.cache import store_entry, verified_entry
from finetune_stages.sources.hub import hub_cache, keep_caches_in
from finetune_stages.sources.json_lines import JsonLines, OpenedRows, write_locations, write_rows
from finetune_stages.sources.progress import ProgressCounter
from finetune_stages.sources.row_faults import row_label
from finetune_stages.sources.work_folder import work_folder

from .check import Checked, check_rows
from .convert import SourceFormat, convert_rows, source_format
from .fetch import DOWNLOADS, Source, find_source
from .formats.conversion import needs_conversion
from .formats.published import published_form, row_check
from .repeated import leaked_note
from .revalidate import DATASETS, NAMES, PREPARATION, PREPARATION_KEY
from .source_request import source_requests
from .split import Parts, subset, train_and_eval

Groups = NDArray[np.int64]
TRAIN, EVAL = "train.jsonl", "eval.jsonl"
BAD_ROWS = "bad_rows.jsonl"
_FIRST_BAD = 10
"""Number of bad rows that the result names."""
TRAIN_LOCATIONS, EVAL_LOCATIONS = "train.locations.npy", "eval.locations.npy"
_WARNINGS = ("warnings", "evalWarnings")
"""Keys of the seal's note: warnings about each source. Runs with equal files share the seal, so the warnings do not name the files."""
_DROPPED = ("dropped", "evalDropped")
"""Keys of the seal's note: descriptions of the first rows of each source that were left out."""
_MAPPINGS = ("mapping", "evalMapping")
"""Keys of the seal's note: what was converted in the rows of each source."""


def prepare(context: Context) -> Finished:
    """Prepare the data, or use the cache entry of another run with the same inputs.

    Raises:
        StageError: with any reason of the data (``DatasetNotFound`` to ``BadRow``), ``BadDocument``, ``Superseded``.
    """
    inputs = context.inputs(DatasetInputs)
    _require_sane(inputs)
    keep_caches_in(hub_cache(context))
    with work_folder(context, resume=DOWNLOADS) as scratch:
        sources = [find_source(each, context, scratch) for each in source_requests(inputs)]
        entry = context.path(f"{CACHE_DATASETS}/{_key(inputs, sources)}")
        seal = verified_entry(context, entry)
        prepared = entry
        if seal is None:
            prepared = scratch / "prepared"
            seal = _prepare(prepared, inputs, sources, context)
        seal = _publish(prepared, scratch / "datasets", replace(seal, note=seal.note | _names(sources)), context)
        if prepared != entry:
            store_entry(prepared, entry)
    finished = _finished(seal, sources, reused=prepared == entry)
    # An entry that was prepared from equal files with other names has those names; a later run must not use it for this run's data.
    cached = {DATASETS: str(entry.relative_to(context.workspace))} if read_seal(entry) == seal else {}
    return replace(finished, fingerprint=_fingerprints(sources), cached=cached)


def _names(sources: list[Source]) -> dict[str, Scalar]:
    """Return the names in messages of the sources of training rows and held-out rows."""
    return {"source": sources[0].name, "evalSource": sources[-1].name}


def _require_sane(inputs: DatasetInputs) -> None:
    """Check values that the CRD's rules already reject."""
    if not 0 < inputs.train_split <= 1:
        raise StageError(reasons.BAD_DOCUMENT, f"inputs.trainSplit: {inputs.train_split:g} is not above 0 and at most 1")
    if inputs.seed < 0:
        raise StageError(reasons.BAD_DOCUMENT, f"inputs.seed: {inputs.seed} is below 0")


def _key(inputs: DatasetInputs, sources: list[Source]) -> str:
    """Digest of all that the prepared data depends on."""
    settings = [
        inputs.subset, inputs.subset_mode, inputs.train_split, inputs.split_by, inputs.split_field, inputs.near_duplicates, inputs.bad_rows,
        inputs.bad_rows_share, inputs.seed, inputs.format, inputs.fields,
    ]  # fmt: skip
    return digest([PREPARATION, settings, [source.digest for source in sources]])


def _fingerprints(sources: list[Source]) -> dict[str, Scalar] | None:
    """Return the values for :func:`.revalidate.revalidate`; ``None`` if the change of a source cannot be detected."""
    if not all(source.fingerprint for source in sources):
        return None
    fingerprint: dict[str, Scalar] = {PREPARATION_KEY: PREPARATION}
    for source, name in zip(sources, NAMES, strict=False):
        fingerprint |= {f"{name}.{key}": value for key, value in source.fingerprint.items()}
    return fingerprint


@dataclass(frozen=True)
class _Parts:
    """Training rows and held-out rows.

    Attributes:
        dropped: number of bad rows that were left out; ``dropped_train``: those of the source of the training rows.
        source_rows: number of rows of the source of the held-out rows, before any is left out; ``None`` if there is one source.
        sources: the good rows of each source, and what was found in it.
        groups: number of the group of near-duplicates of each row of the only source; ``None`` if they were not looked for.
    """

    train: JsonLines
    held_out: JsonLines
    dropped: int
    dropped_train: int
    source_rows: int | None
    sources: tuple[Checked, ...]
    groups: Groups | None = None

    @property
    def near_duplicates(self) -> dict[str, Scalar]:
        """Notes of the seal: number of groups of near-duplicates, and of rows in them."""
        if self.groups is None:
            return {}
        sizes = np.bincount(self.groups)
        return {"nearGroups": int((sizes > 1).sum()), "nearRows": int(sizes[sizes > 1].sum())}


def _prepare(target: Path, inputs: DatasetInputs, sources: list[Source], context: Context) -> Seal:
    """Check, split and write all rows into ``target``, sealed."""
    opened = sources[0].open(lambda total: subset(total, inputs))
    converted = target.with_name("converted.jsonl")
    checked = _check(opened, sources[0], inputs, converted, context)
    parts = (
        _held_out_from(checked, sources[0], inputs, target.with_name("signatures.npy"), context)
        if len(sources) == 1
        else _held_out_beside(checked, sources[1], inputs, converted.with_name("converted-eval.jsonl"), context)
    )
    target.mkdir()
    counter = ProgressCounter(context, "writing rows", len(parts.train) + len(parts.held_out), 90, 99, rows=True)
    written = {name: write_rows(target / name, rows, counter) for name, rows in ((TRAIN, parts.train), (EVAL, parts.held_out))}
    write_locations(target / TRAIN_LOCATIONS, parts.train)
    write_locations(target / EVAL_LOCATIONS, parts.held_out)
    _write_bad_rows(target / BAD_ROWS, parts.sources)
    for source in sources:
        source.require_unchanged()
    return seal_directory(
        target,
        {
            "trainRows": len(parts.train), "evalRows": len(parts.held_out), "sourceRows": opened.total,
            "droppedRows": parts.dropped, "droppedTrainRows": parts.dropped_train, "bad": _first_bad(parts.sources),
            "split": len(sources) == 1, **_names(sources),
            **{key: "\n".join(each.notes) for key, each in zip(_WARNINGS, parts.sources, strict=False)},
            **{key: each.examples for key, each in zip(_DROPPED, parts.sources, strict=False)},
            **({} if parts.source_rows is None else {"evalSourceRows": parts.source_rows}),
            **{key: each.mapping for key, each in zip(_MAPPINGS, parts.sources, strict=False)},
            **parts.near_duplicates, "form": parts.sources[0].form, "evalForm": parts.sources[-1].form,
        },
        known=written,
    )  # fmt: skip


def _check(opened: OpenedRows, source: Source, inputs: DatasetInputs, target: Path, context: Context) -> Checked:
    """Return the good rows of a source in their published form; ``target`` is the file for converted rows."""
    found = source_format(opened.rows, inputs)
    missing = partial(found.missing_columns, opened.rows, source.name)
    counter = ProgressCounter(context, f"checking rows of {source.name}", len(opened.rows), 60, 90, rows=True)
    if needs_conversion(found.format, found.columns):
        converting = ProgressCounter(context, f"converting rows of {source.name}", len(opened.rows), 60, 75, rows=True)
        rows, mapping = convert_rows(opened.rows, source.name, found, target, converting)
        checked = check_rows(rows, source.name, inputs, counter, row_check(found.format), every_row_bad=missing)
        checked = replace(checked, mapping=str(mapping))
    else:
        checked = _checked(opened.rows, source.name, inputs, found, counter)
    return replace(checked, notes=(*opened.notes, *checked.notes), form=published_form(found.format))


def _checked(rows: JsonLines, name: str, inputs: DatasetInputs, found: SourceFormat, counter: ProgressCounter) -> Checked:
    """Check rows in format messages, which are published as they are. A bad row can be in another format."""
    try:
        checked = check_rows(rows, name, inputs, counter, every_row_bad=partial(found.missing_columns, rows, name))
    except StageError as error:
        if error.reason in (reasons.BAD_ROW, reasons.DATASET_EMPTY):
            found.require_single(rows, name)
        raise
    if checked.dropped:
        found.require_single(rows, name)
    return checked


def _held_out_from(checked: Checked, source: Source, inputs: DatasetInputs, signatures: Path, context: Context) -> _Parts:
    groups = _near_duplicates(checked, source.name, inputs, signatures, context)
    (train, held_out), notes = _split(checked.rows, source.name, inputs, groups)
    parts = checked.rows.select(train), checked.rows.select(held_out)
    leaked = leaked_note(parts[1], checked.keys[held_out], checked.keys[train], "remove repeated rows")
    return _Parts(
        *parts, checked.dropped, checked.dropped, None,
        (replace(checked, notes=(*checked.notes, *notes, *leaked)),), groups,
    )  # fmt: skip


def _near_duplicates(checked: Checked, name: str, inputs: DatasetInputs, target: Path, context: Context) -> Groups | None:
    """Return the groups of near-duplicates; ``None`` if they are not to be kept together. ``target``: a new file for signatures."""
    if inputs.near_duplicates == "Ignore" or inputs.train_split >= 1 or inputs.split_by == "stratified":  # it draws single rows
        return None
    from .near_duplicates import near_duplicate_groups

    counter = ProgressCounter(context, f"comparing rows of {name}", len(checked.rows), 85, 90, rows=True)
    return near_duplicate_groups(checked.rows, checked.form, target, counter)


def _split(rows: JsonLines, name: str, inputs: DatasetInputs, groups: Groups | None) -> tuple[Parts, tuple[str, ...]]:
    """Return the positions of the training rows and of the held-out rows, and warnings."""
    if inputs.split_by == "random" and groups is None:
        return train_and_eval(len(rows), inputs.train_split, inputs.seed), ()
    if inputs.split_by == "random" and groups is not None:
        from .near_duplicates import split_groups

        return split_groups(groups, inputs)
    from .split_field import split_by_field

    if inputs.split_field is None:
        raise StageError(reasons.BAD_DOCUMENT, f"inputs.splitField: is missing, and splitBy is {inputs.split_by}")
    return split_by_field(rows, name, inputs.split_field, inputs, groups)


def _held_out_beside(checked: Checked, source: Source, inputs: DatasetInputs, target: Path, context: Context) -> _Parts:
    """Return all rows of the first source as training rows, and all rows of ``source`` as held-out rows."""
    opened = source.open(range)
    held_out = _check(opened, source, inputs, target, context)
    leaked = leaked_note(held_out.rows, held_out.keys, checked.keys, "remove them from one of the files")
    dropped = checked.dropped + held_out.dropped
    held_out = replace(held_out, notes=(*held_out.notes, *leaked))
    return _Parts(checked.rows, held_out.rows, dropped, checked.dropped, opened.total, (checked, held_out))


def _write_bad_rows(target: Path, sources: Sequence[Checked]) -> None:
    """Write the rows that were left out as JSON Lines; no file if there are none."""
    rows = [{"source": name, **asdict(each)} for name, source in zip(NAMES, sources, strict=False) for each in source.bad]
    if rows:
        target.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _first_bad(sources: Sequence[Checked]) -> str:
    """Return the names of the first rows that were left out, one per line."""
    rows = [
        f"{name} {row_label(each.row, each.line)}" for name, source in zip(NAMES, sources, strict=False) for each in source.bad
    ]
    return "\n".join(rows[:_FIRST_BAD])


def _publish(prepared: Path, target: Path, seal: Seal, context: Context) -> Seal:
    """Publish the prepared files in the run's folder, as hard links if possible, so that runs share one copy."""
    linked = {name: file for name, file in seal.files.items() if copy_or_link_file(prepared / name, target / name)}
    published = seal_directory(target, seal.note, known=linked)
    context.publish(target, context.layout.datasets)
    return published


def _finished(seal: Seal, sources: list[Source], reused: bool) -> Finished:
    note, source = seal.note, sources[0]
    train, held_out, dropped = int(note["trainRows"]), int(note["evalRows"]), int(note["droppedRows"])
    outputs = DatasetOutputs(
        digest=seal.digest, train_rows=train, eval_rows=held_out, source_digest=source.digest, source_rows=int(note["sourceRows"]),
        dropped_rows=dropped, first_dropped=tuple(str(note["bad"]).split("\n")) if note["bad"] else None, revision=source.revision,
        near_duplicate_groups=_number(note, "nearGroups"), near_duplicate_rows=_number(note, "nearRows"),
    )  # fmt: skip
    size = sum(seal.files[name].size for name in (TRAIN, EVAL))
    rows = f"{outputs.source_rows:,} in {source.name}"
    held_out_of = f" and {held_out:,} held-out rows"
    if "evalSourceRows" in note:
        held_out_of = f" of {rows}{held_out_of}"
        rows = f"{int(note['evalSourceRows']):,} in {sources[-1].name}"
    message = f"{train:,} training rows{held_out_of} of {rows}"
    if dropped:
        message += f"; {dropped:,} left out as bad: {_first_dropped(note, sources)}"
    if outputs.near_duplicate_rows:
        message += f"; {outputs.near_duplicate_rows:,} near-duplicate rows in {outputs.near_duplicate_groups:,} groups, each on one side of the split"
    mappings = dict.fromkeys(str(note[key]) for key in _MAPPINGS if note.get(key))
    message += "".join(f"; {mapping}" for mapping in mappings)
    metrics = {"train_rows": train, "eval_rows": held_out, "dropped_rows": dropped, "bytes": size}
    warnings = tuple(
        f"{each.name}: {text}"
        for each, key in zip(sources, _WARNINGS, strict=False)
        for text in filter(None, str(note[key]).split("\n"))
    )
    metrics_of_run = {name: float(value) for name, value in metrics.items()}
    return Finished(outputs, metrics_of_run, message=message, warnings=warnings, reused=reused)


def _first_dropped(note: Mapping[str, Scalar], sources: list[Source]) -> str:
    """Return the first rows that were left out, each with its fault; of two sources, with their names."""
    found = [(source.name, note[key]) for source, key in zip(sources, _DROPPED, strict=False) if note[key]]
    return "; ".join(f"{name}: {examples}" if len(sources) > 1 else str(examples) for name, examples in found)


def _number(note: Mapping[str, Scalar], key: str) -> int | None:
    return int(note[key]) if key in note else None

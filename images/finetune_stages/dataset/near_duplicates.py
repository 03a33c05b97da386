"""Groups of near-duplicate rows, by MinHash and locality-sensitive hashing (Broder 1997; Leskovec et al., Mining of Massive Datasets, 3).

A row is the set of all sequences of five bytes of its text, in lower case and with single spaces. Rows whose estimated Jaccard
similarity is at least 0.7 are near-duplicates, and groups are their transitive closure. All hashes are fixed, so that equal rows give
equal groups. The signatures are in a file; memory is about 100 bytes per row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_contract.documents import DatasetInputs
from finetune_stages.chat.structure import read_conversation
from finetune_stages.sources.json_lines import JsonLines
from finetune_stages.sources.json_text import parse
from finetune_stages.sources.line_scan import Advance

from .split import TOLERATED, Parts, grouped

SIMILARITY = 0.7
"""Smallest estimated Jaccard similarity of near-duplicates. One changed word in a sentence of twenty leaves about 0.8."""
_ONE_GROUP = (
    "dataset.nearDuplicates: all rows are near-duplicates of each other, so that none can be held out; use more varied rows, or set it to"
    " Ignore."
)
_LENGTH = 5
_HASHES, _BANDS = 64, 16
"""Rows with the same four hashes in one of 16 bands are compared: 99 percent of those with similarity 0.7."""
_BLOCK = 4096
_REPORT = 1000
_FACTOR, _ADDEND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)
_BIN_BITS = np.uint64(64 - 6)
_EDGES = np.arange(_HASHES, dtype=np.uint64) << _BIN_BITS
_PROBES = np.random.default_rng(0).permuted(np.tile(np.arange(_HASHES)[:, None], _HASHES), axis=0)
"""Column i: the order in which bin i, if it is empty, looks for another one."""
Signature = NDArray[np.uint32]


def near_duplicate_groups(rows: JsonLines, form: str, scratch: Path, advance: Advance) -> NDArray[np.int64]:
    """Return the number of each row's group, from 0 in the order of the rows: int64, shape (rows,).

    Args:
        rows: rows in their published form.
        form: messages, text or tokenised.
        scratch: new file for the signatures, 256 bytes per row.
        advance: is called with the number of rows read.
    """
    signatures = np.lib.format.open_memmap(scratch, mode="w+", dtype=np.uint32, shape=(len(rows), _HASHES))
    for position, text in enumerate(rows.texts()):
        signatures[position] = signature(units(parse(text), form))
        if not (position + 1) % _REPORT:
            advance(_REPORT)
    advance(len(rows) % _REPORT)
    found = _numbered(_united(len(rows), _similar(signatures)))
    del signatures
    scratch.unlink()
    return found


def split_groups(groups: NDArray[np.int64], inputs: DatasetInputs) -> tuple[Parts, tuple[str, ...]]:
    """Return the split in which all rows of a group are on one side, and a warning about a number of held-out rows that groups do not allow.

    Raises:
        StageError: ``TooFewRows``: all rows are in one group, or no training row is left.
    """
    parts = grouped(groups, inputs.train_split, inputs.seed, _ONE_GROUP)
    expected, held_out = (1 - inputs.train_split) * len(groups), len(parts[1])
    if abs(held_out - expected) <= max(1, TOLERATED * expected):
        return parts, ()
    return parts, (
        (
            f"dataset.nearDuplicates: {held_out:,} rows are held out and not {expected:,.0f}, because near-duplicates stay together; the largest"
            f" group has {np.bincount(groups).max():,} rows."
        ),
    )


def merged(labels: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return groups in which rows are together that are together in one of two groupings; see :func:`near_duplicate_groups`."""
    _, first = np.unique(others, return_index=True)
    _, first_of_labels = np.unique(labels, return_index=True)
    rows = np.arange(len(labels))
    pairs = ((one, rows) for one in (first[others], first_of_labels[labels]))
    return _numbered(_united(len(labels), pairs))


def units(row: Any, form: str) -> NDArray[np.uint64]:
    """Return the units of a row that are compared: bytes of its text, or tokens. System messages, which many rows share, are left out."""
    if form == "tokenised":
        return np.array(row["input_ids"], dtype=np.uint64)
    text = row["text"] if form == "text" else "\n".join(_contents(row))
    return np.frombuffer(" ".join(text.lower().split()).encode(errors="surrogatepass"), dtype=np.uint8).astype(np.uint64)


def signature(values: NDArray[np.uint64]) -> Signature:
    """Return the MinHash signature of the sequences of units of a row, by one permutation and optimal densification.

    The hashes of the sequences are divided into bins by their first bits. A bin has its least hash; an empty one has that of another
    bin, which is the same one for all rows with the same empty bins (Shrivastava, Optimal Densification, 2017).
    """
    length = min(_LENGTH, len(values))
    sequences = np.zeros(max(1, len(values) - length + 1), dtype=np.uint64)
    for offset in range(length):
        sequences = _mixed(sequences ^ values[offset : offset + len(sequences)])
    hashes = np.sort(_mixed(sequences))
    least = hashes[np.minimum(np.searchsorted(hashes, _EDGES), len(hashes) - 1)]
    filled = least >> _BIN_BITS == np.arange(_HASHES, dtype=np.uint64)
    source = _PROBES[filled[_PROBES].argmax(axis=0), np.arange(_HASHES)]
    return (least >> np.uint64(20)).astype(np.uint32)[np.where(filled, np.arange(_HASHES), source)]


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = (values + _ADDEND) * _FACTOR
    found: NDArray[np.uint64] = values ^ (values >> np.uint64(29))
    return found


def _contents(row: Any) -> Iterator[str]:
    for message in read_conversation(row).messages:
        if message["role"] != "system":
            yield message.get("content") or ""
            yield from (str(call.get("function", call)) for call in message.get("tool_calls") or ())


def _similar(signatures: NDArray[np.uint32]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield pairs of positions of similar rows: each row with the first one and the previous one that have the hashes of a band."""
    width = _HASHES // _BANDS
    for band in range(_BANDS):
        keys = np.zeros(len(signatures), dtype=np.uint64)
        for column in range(band * width, (band + 1) * width):
            keys = _mixed(keys ^ signatures[:, column])
        order = np.argsort(keys, kind="stable")
        equal = keys[order[1:]] == keys[order[:-1]]
        later = np.flatnonzero(equal) + 1
        begins = np.concatenate([[0], np.flatnonzero(~equal) + 1])
        first = begins[np.searchsorted(begins, later, side="right") - 1]
        for earlier in (later - 1, first):
            for start in range(0, len(later), _BLOCK):
                one, other = order[earlier[start : start + _BLOCK]], order[later[start : start + _BLOCK]]
                alike = (signatures[one] == signatures[other]).mean(axis=1) >= SIMILARITY
                yield one[alike], other[alike]


def _united(count: int, pairs: Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> NDArray[np.int64]:
    """Return for each row the first row of its group."""
    parents = list(range(count))

    def root(row: int) -> int:
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row

    for ones, others in pairs:
        for one, other in zip(ones.tolist(), others.tolist(), strict=True):
            low, high = sorted((root(one), root(other)))
            parents[high] = low
    return np.array([root(row) for row in range(count)], dtype=np.int64)


def _numbered(roots: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return numbers of groups from 0, in the order of their first rows, which ``roots`` has for each row."""
    return np.unique(roots, return_inverse=True)[1].astype(np.int64)

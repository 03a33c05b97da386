"""``finetune init``: a commented finetunerun.yaml, made from the descriptions of the CRD and the presets."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from finetune_operator.api.crd import schema
from finetune_operator.api.finetunerun import API_VERSION, KIND
from finetune_operator.api.presets import preset
from finetune_operator.core.paths import lookup
from finetune_operator.core.resolve import CONTROL_FIELDS
from finetune_operator.core.unsupported import UNSUPPORTED_VALUES

from . import exit_status
from .echo import echo

_USUAL = (
    "dataset.uri", "dataset.subset", "dataset.trainSplit", "model.uri", "training.algorithm", "training.epochs",
    "training.effectiveBatchSize", "training.learningRate", "training.maxSeqLen", "training.workers", "training.gpusPerWorker",
    "training.osft.unfreezeRankRatio", "training.osft.trainable", "training.sft.sharding", "training.lora.rank",
    "training.lora.alpha", "training.lora.quantization", "evaluation.tasks", "evaluation.baseline", "evaluation.limit",
    "registry.name", "registry.version", "storage.claimName", "storage.size",
)  # fmt: skip
"""The fields that most runs change."""
_WRITTEN = {"dataset.uri": "./train.jsonl", "evaluation.tasks": [], "evaluation.baseline": True}
"""Fields that the file sets, with values that need no network."""
_OTHER_ALGORITHMS = {"sft": ("osft", "lora"), "osft": ("sft", "lora"), "lora": ("sft", "osft")}
_WIDTH = 116
_EXAMPLES: dict[str, tuple[Any, ...]] = {"boolean": (True, False), "integer": (1, 2, 0), "number": (1.0, 2.0, 0.0)}
"""Values of each type, to find fields of which only one value is supported."""


def write_template(file: Path, algorithm: str, *, full: bool, force: bool) -> int:
    """Write the template to ``file`` (``-``: standard output)."""
    text = template(algorithm, full=full)
    if str(file) == "-":
        echo(text, end="")
        return exit_status.OK
    try:
        with file.open("w" if force else "x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        echo(f"{file}: the file exists; choose another name, or overwrite it with --force.", err=True)
        return exit_status.INVALID
    except OSError as error:
        echo(f"{file}: cannot be written: {error.strerror}; choose another file.", err=True)
        return exit_status.INVALID
    echo(f"{file}: written; set dataset.uri to your data, then: finetune run {file}")
    return exit_status.OK


def template(algorithm: str, *, full: bool = False) -> str:
    """Return the text: some fields are set, all others are comments with their defaults."""
    lines = [f"apiVersion: {API_VERSION}", f"kind: {KIND}", "metadata:", f"  name: my-{algorithm}", "spec:"]
    spec = schema()["properties"]["spec"]["properties"]
    values = preset(algorithm)  # type: ignore[arg-type]
    written = {**_WRITTEN, "training.algorithm": algorithm}
    for section, node in spec.items():
        if section in CONTROL_FIELDS:
            continue
        paths = [path for path in _paths(section, node, algorithm) if (full or path in _USUAL) and _has_choice(path, node)]
        if paths:
            lines += _section(section, node, paths, written, values)
    return "\n".join(lines) + "\n"


def _paths(prefix: str, node: Mapping[str, Any], algorithm: str) -> Iterator[str]:
    """Yield the paths of the leaf fields below a node."""
    properties = node.get("properties")
    if not properties:
        yield prefix
        return
    for name, child in properties.items():
        path = f"{prefix}.{name}"
        if prefix == "training" and name in _OTHER_ALGORITHMS[algorithm]:
            continue
        yield from _paths(path, child, algorithm)


def _has_choice(path: str, section: Mapping[str, Any]) -> bool:
    """Return whether this release supports more than one value of a field: the template offers no other fields."""
    node = _node(path, section)
    candidates: tuple[Any, ...] = tuple(node.get("enum") or _EXAMPLES.get(node.get("type", ""), ("example", "other")))
    return sum(not _is_unsupported(path, value) for value in candidates) > 1


def _is_unsupported(path: str, value: Any) -> bool:
    """Return whether this release rejects a value of a field, or any value of a section that contains the field."""
    return any(entry.uses(value) if entry.path == path else path.startswith(f"{entry.path}.") for entry in UNSUPPORTED_VALUES)


def _unsupported_values(path: str) -> list[str]:
    return [f"Not supported in this release: {entry.values}." for entry in UNSUPPORTED_VALUES if entry.path == path]


def _node(path: str, section: Mapping[str, Any]) -> Mapping[str, Any]:
    node = section
    for key in path.split(".")[1:]:
        node = node["properties"][key]
    return node


def _section(
    section: str, node: Mapping[str, Any], paths: list[str], written: Mapping[str, Any], values: Mapping[str, Any]
) -> list[str]:
    live = any(path in written for path in paths)
    mark = "" if live else "# "
    lines = ["", f"  {mark}{section}:"] if "properties" in node else [""]
    connect: list[str] = []
    for path in paths:
        parents = path.split(".")[1:-1]
        for depth, parent in enumerate(parents):
            if connect[: depth + 1] != parents[: depth + 1]:
                indent = _indent(depth + 2)
                text = str(_node(".".join((section, *parents[: depth + 1])), node).get("description", ""))
                lines += [f"{indent}# {line}" for line in textwrap.wrap(text, _WIDTH - len(indent))]
                lines.append(f"{indent}# {parent}:")
        connect = parents
        lines += _field(path, node, written, values)
    return lines


def _field(path: str, section: Mapping[str, Any], written: Mapping[str, Any], values: Mapping[str, Any]) -> list[str]:
    keys = path.split(".")
    node = _node(path, section)
    indent = _indent(len(keys))
    description = str(node.get("description", ""))
    if "Not supported in this release" not in description:
        description = " ".join([description, *_unsupported_values(path)])
    about = textwrap.wrap(description, _WIDTH - len(indent))
    value = written.get(path, lookup(values, path))
    shown = "" if value is None else " " + _inline(value)
    return [*(f"{indent}# {line}" for line in about), f"{indent}{'' if path in written else '# '}{keys[-1]}:{shown}"]


def _inline(value: Any) -> str:
    if isinstance(value, (list, dict)):
        return yaml.safe_dump(value, default_flow_style=True, width=1000).strip()
    return yaml.safe_dump([value], default_flow_style=True, width=1000).strip()[1:-1]


def _indent(depth: int) -> str:
    return "  " * depth

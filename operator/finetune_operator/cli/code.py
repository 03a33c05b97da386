"""Code that a run brings to this machine: what would run, for the user to allow it.

On a cluster the platform decides. On this machine, a file from the internet must not run code because somebody tried it.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from finetune_operator.api.pods import HARMLESS_VARIABLES
from finetune_operator.core.paths import lookup

ALLOW = "read it, and add --allow-code"
_BLOCK = re.compile(r"\{\{[^{}]{0,2000}\}\}|\{%[^{}]{0,2000}%\}")
_ESCAPE = re.compile(r"\\[xuU\r\n]")
"""Escapes of YAML with which a template can hide what it has."""
_WORD = re.compile(
    r"__|\\|\b(?:attr|attribute|map|selectattr|rejectattr|groupby|sort|sum|min|max|unique|join|format|xmlattr|import|include|extends|macro|call|set)\b"
)
_SUBSCRIPT = re.compile(r"\[(?!\s{0,8}(?:\d{1,6}|'[^'\[\]]{0,80}'|\"[^\"\[\]]{0,80}\")\s{0,8}\])")
_METRIC = re.compile(r"hf_evaluate|\?\s?[\"']?metric\b|\bmetric[\"']?\s?:\s{0,80}(?:[*&!>|]|[\"']?[\w.-]{0,100}/)")
"""A metric of another library than lm-eval, or one whose name is not beside its key."""
_SHOWN = 3
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The parser that lm-eval uses."""
_STANDARD_TAG = re.compile(r"!|tag:yaml\.org,2002:[a-z]{1,20}")
_PLAIN_METRIC = re.compile(r"[\w-]{1,100}")
_METRIC_CODE = "has a metric that may be a program of a hub, which runs on this machine (metric, hf_evaluate)"
_DATASET_CODE = "loads a data set with its Python code on this machine (trust_remote_code)"
_TEMPLATE_CODE = "has a template that can call Python functions on this machine"


def code_of(spec: Mapping[str, Any], configmap: Mapping[str, Any] | None) -> list[str]:
    """Return a sentence for each kind of code that a run would run on this machine.

    Args:
        spec: the ``spec`` of the run.
        configmap: the ConfigMap with its task files, ``None`` if it has none.
    """
    found = []
    if lookup(spec, "model.trustRemoteCode"):
        found.append(f"spec.model.trustRemoteCode: runs Python code of the model {lookup(spec, 'model.uri')} on this machine")
    names = [str(entry.get("name", "")) for entry in lookup(spec, "training.env") or () if isinstance(entry, dict)]
    changing = [name for name in names if not re.match(HARMLESS_VARIABLES, name)]
    if changing:
        found.append(f"spec.training.env: {', '.join(changing)} can make training run other code on this machine")
    volumes = [str(lookup(one, "configMap.name")) for one in lookup(spec, "training.volumes") or () if "configMap" in one]
    if volumes:
        found.append(
            f"spec.training.volumes: files of ConfigMap {', '.join(volumes)} may be code that training runs on this machine"
        )
    for key, content in sorted(_contents(configmap or {})):
        code = _of_file(key, content)
        if code:
            found.append(f"spec.evaluation.taskFiles: {key} of ConfigMap {lookup(configmap or {}, 'metadata.name')} {code}")
    return [f"{sentence}; {ALLOW}" for sentence in found]


def _contents(configmap: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    for key, text in (configmap.get("data") or {}).items():
        yield key, str(text).encode(errors="replace")
    for key, data in (configmap.get("binaryData") or {}).items():
        try:
            yield key, base64.b64decode(data)
        except (binascii.Error, TypeError):
            yield key, b""


def _of_file(key: str, content: bytes) -> str | None:
    """Return what a task file would run, ``None`` if it runs nothing."""
    if key.endswith((".py", ".so", ".pyc")):
        return "runs as Python code on this machine"
    text = content.decode("utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8", "replace")
    code = _of_nodes(content)
    if code:
        return code
    if "!function" in text:  # in a file that is not YAML, or after an error
        return "calls Python functions on this machine (!function)"
    if _METRIC.search(text):
        return _METRIC_CODE
    if "trust_remote_code" in text:
        return _DATASET_CODE
    return _TEMPLATE_CODE if _calls(text) else None


def _of_nodes(content: bytes) -> str | None:
    """Return what the values of a YAML file would run, as lm-eval's parser reads them: tags and escapes have several spellings."""
    functions: list[str] = []
    others: list[str] = []
    previous = ""
    try:
        for event in yaml.parse(content, Loader=_LOADER):
            tag, value = getattr(event, "tag", None), getattr(event, "value", "")
            if tag and not _STANDARD_TAG.fullmatch(tag):
                functions.append(value or tag)
            if not isinstance(event, yaml.CollectionEndEvent):
                others += _of_value(value, previous, anchored=bool(getattr(event, "anchor", None)))
            previous = value
    except yaml.YAMLError:  # lm-eval rejects the file; what precedes the error counts
        pass
    if functions:
        names = list(dict.fromkeys(functions))
        more = ", ..." if len(names) > _SHOWN else ""
        return f"calls Python functions on this machine ({', '.join(names[:_SHOWN])}{more})"
    return others[0] if others else None


def _of_value(value: str, previous: str, *, anchored: bool) -> Iterator[str]:
    """Yield what a value after ``previous``, for example its key, would run. An anchored key could be that of another value."""
    if (
        value == "hf_evaluate"
        or (value == "metric" and anchored)
        or (previous == "metric" and not _PLAIN_METRIC.fullmatch(value))
    ):
        yield _METRIC_CODE
    if value == "trust_remote_code":
        yield _DATASET_CODE
    if ("{{" in value or "{%" in value) and _calls(value):
        yield _TEMPLATE_CODE


def _calls(text: str) -> bool:
    """Return whether a template may reach Python's internals. Templates of tasks are not evaluated in a sandbox."""
    if "{{" not in text and "{%" not in text:
        return bool(_ESCAPE.search(text))
    blocks = _BLOCK.findall(text)
    whole = len(blocks) == text.count("{{") + text.count("{%")
    return not whole or bool(_ESCAPE.search(text)) or any(map(_reaches, blocks))


def _reaches(block: str) -> bool:
    unbalanced = block.count("'") % 2 or block.count('"') % 2
    return bool(unbalanced or _WORD.search(block) or _SUBSCRIPT.search(block))

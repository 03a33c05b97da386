"""Code that a run brings to this machine: what would run, for the user to allow it.

On a cluster the platform decides. On this machine, a file from the internet must not run code because somebody tried it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any

from finetune_operator.core.paths import lookup

ALLOW = "read it, and add --allow-code"
_FUNCTION = re.compile(r"!function[ \t]+([^\s,\]}]{1,200})")
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
_INTERPRETER = re.compile(r"PYTHON|LD_|PATH$|BASH_ENV$|ENV$")
"""Environment variables that change which code a program runs."""


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
    changing = [name for name in names if _INTERPRETER.match(name)]
    if changing:
        found.append(f"spec.training.env: {', '.join(changing)} can make training run other code on this machine")
    for key, text in sorted(_texts(configmap or {})):
        code = _of_file(key, text)
        if code:
            found.append(f"spec.evaluation.taskFiles: {key} of ConfigMap {lookup(configmap or {}, 'metadata.name')} {code}")
    return [f"{sentence}; {ALLOW}" for sentence in found]


def _texts(configmap: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, text in (configmap.get("data") or {}).items():
        yield key, str(text)
    for key, data in (configmap.get("binaryData") or {}).items():
        try:
            yield key, base64.b64decode(data).decode(errors="replace")
        except (binascii.Error, TypeError):
            yield key, ""


def _of_file(key: str, text: str) -> str | None:
    """Return what a task file would run, ``None`` if it runs nothing."""
    if key.endswith((".py", ".so", ".pyc")):
        return "runs as Python code on this machine"
    functions = list(dict.fromkeys(_FUNCTION.findall(text)))
    if functions or "!function" in text:
        more = ", ..." if len(functions) > _SHOWN else ""
        return f"calls Python functions on this machine ({', '.join(functions[:_SHOWN]) or '!function'}{more})"
    if _METRIC.search(text):
        return "has a metric that may be a program of a hub, which runs on this machine (metric, hf_evaluate)"
    if "trust_remote_code" in text:
        return "loads a data set with its Python code on this machine (trust_remote_code)"
    return "has a template that can call Python functions on this machine" if _calls(text) else None


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

"""Validation of a ConfigMap's keys, values and size.

Source: ``ValidateConfigMap`` in ``k8s.io/kubernetes/pkg/apis/core/validation/validation.go``, and ``IsConfigMapKey`` in apimachinery.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any

from .problem import CauseType, Problem

SIZE_LIMIT = 1 << 20
"""Bytes of all values."""
_KEY = r"[-._a-zA-Z0-9]+"
_KEY_LIMIT = 253


def check_config_map(configmap: Mapping[str, Any]) -> list[Problem]:
    """Return the problems of the content of a ConfigMap."""
    return list(_problems(configmap))


def key_faults(key: str) -> list[str]:
    """Return why a text is not a valid key; nothing if it is. A key is the name of a file where the ConfigMap is mounted."""
    return list(_faults(key))


def _faults(key: str) -> Iterator[str]:
    if len(key) > _KEY_LIMIT:
        yield f"must be no more than {_KEY_LIMIT} bytes"
    if not re.fullmatch(_KEY, key):
        yield (
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name',"
            f" regex used for validation is '{_KEY}')"
        )
    if key == ".":
        yield "must not be '.'"
    elif key == "..":
        yield "must not be '..'"
    elif key.startswith(".."):
        yield "must not start with '..'"


def _problems(configmap: Mapping[str, Any]) -> Iterator[Problem]:
    size, seen = 0, set[str]()
    for section, size_of in (("data", _size_of_text), ("binaryData", _size_of_base64)):
        values = configmap.get(section) or {}
        if not isinstance(values, Mapping):
            yield Problem(section, CauseType.TYPE_INVALID, f"{section} in body must be of type object", values)
            continue
        for key, value in values.items():
            path = f"{section}[{key}]"
            yield from (Problem(path, CauseType.INVALID, fault, key) for fault in _faults(key))
            if key in seen:
                yield Problem(path, CauseType.INVALID, "duplicate of key present in data", key)
            seen.add(key)
            length = size_of(value)
            if length is None:
                yield Problem(path, CauseType.TYPE_INVALID, f"must be {'text' if section == 'data' else 'bytes in base64'}")
            size += length or 0
    if size > SIZE_LIMIT:
        yield Problem("", CauseType.TOO_LONG, f"may not be more than {SIZE_LIMIT} bytes")


def _size_of_text(value: Any) -> int | None:
    return len(value.encode()) if isinstance(value, str) else None


def _size_of_base64(value: Any) -> int | None:
    try:
        return len(base64.b64decode(value, validate=True))
    except (binascii.Error, TypeError, ValueError):
        return None

"""Kubernetes quantities as numbers."""

from __future__ import annotations

import re

_FORM = re.compile(r"^([0-9]+(?:\.[0-9]+)?)(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$")
_FACTORS = {
    None: 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50,
}  # fmt: skip


def amount(quantity: float | str) -> float:
    """``"1500m"`` -> 1.5, ``"32Gi"`` -> 34359738368.0, ``4`` -> 4.0.

    Raises:
        ValueError: the text is no quantity.
    """
    found = _FORM.match(str(quantity))
    if not found:
        raise ValueError(f"{quantity!r} is no quantity such as 4, 500m or 32Gi")
    return float(found[1]) * _FACTORS[found[2]]


def readable(number_of_bytes: float) -> str:
    """Bytes for people: ``31.9 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number_of_bytes < 1024:
            return f"{number_of_bytes:.0f} {unit}" if unit == "B" else f"{number_of_bytes:.1f} {unit}"
        number_of_bytes /= 1024
    return f"{number_of_bytes:.1f} TiB"

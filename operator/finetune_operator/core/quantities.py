"""Kubernetes quantities as numbers, and numbers in sentences."""

from __future__ import annotations

from finetune_operator.api.quantity import parse_quantity


def amount(quantity: float | str) -> float:
    """Return a quantity as a number: ``"1500m"`` -> 1.5, ``"32Gi"`` -> 34359738368.0, ``4`` -> 4.0.

    Raises:
        ValueError: the text is not a quantity, or one below 0.
    """
    value = parse_quantity(str(quantity))
    if value < 0:
        raise ValueError(f"{quantity!r} is not a quantity of 0 or more")
    return float(value)


def readable(number_of_bytes: float) -> str:
    """Return a number of bytes in binary units: ``31.9 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number_of_bytes < 1024:
            return f"{number_of_bytes:.0f} {unit}" if unit == "B" else f"{number_of_bytes:.1f} {unit}"
        number_of_bytes /= 1024
    return f"{number_of_bytes:.1f} TiB"


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """Return a number with its noun: ``1 row``, ``1,000 rows``."""
    return f"{number:,} {singular if number == 1 else plural or f'{singular}s'}"

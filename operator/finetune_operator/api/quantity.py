"""Kubernetes quantities (``500m``, ``32Gi``, ``1e3``) as exact numbers.

Source: ``k8s.io/apimachinery/pkg/api/resource/quantity.go``.
"""

from __future__ import annotations

import re
from fractions import Fraction

QUANTITY_FORMS = "such as 0.5, 500m, 2, 1e3, 64Gi or 1Ei"
_FORM = re.compile(r"([+-]?)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:([KMGTPE]i|[numkMGTPE])|[eE]([+-]?[0-9]{1,3}))?")
_SUFFIXES = {
    **{f"{letter}i": Fraction(1024**power) for power, letter in enumerate("KMGTPE", 1)},
    **{letter: Fraction(1000**power) for power, letter in enumerate("kMGTPE", 1)},
    **{letter: Fraction(1, 1000**power) for power, letter in enumerate("mun", 1)},
}  # fmt: skip


def parse_quantity(text: str) -> Fraction:
    """Return the value of a quantity.

    Raises:
        ValueError: ``text`` is not a quantity; the message lists the accepted forms.
    """
    form = _FORM.fullmatch(text)
    if form is None:
        raise ValueError(f"{text!r} is not a quantity; write a number with an optional suffix, {QUANTITY_FORMS}")
    sign, number, suffix, exponent = form.groups()
    value = Fraction(number) * _SUFFIXES.get(suffix, Fraction(1)) * Fraction(10) ** int(exponent or 0)
    return -value if sign == "-" else value

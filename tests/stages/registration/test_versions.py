"""Which version is taken where the wanted one is taken."""

from __future__ import annotations

import pytest

from finetune_stages.registration.versions import next_version


@pytest.mark.parametrize(
    ("wanted", "taken", "expected"),
    [
        ("1.0.0", [], "1.0.0"),
        ("1.0.0", ["0.9.0", "1.0.1"], "1.0.0"),
        ("1.0.0", ["1.0.0"], "1.0.1"),
        ("1.0.0", ["1.0.0", "1.0.1", "1.0.3"], "1.0.2"),
        ("1.0.9", ["1.0.9"], "1.0.10"),
        ("v2.3.4", ["v2.3.4"], "v2.3.5"),
        ("v1", ["v1"], "v1.1"),
        ("v1", ["v1", "v1.1", "v1.2"], "v1.3"),
        ("1.2", ["1.2"], "1.2.1"),
        ("1.2.3-rc1", ["1.2.3-rc1"], "1.2.3-rc1.1"),
        ("1.2.3+cpu", ["1.2.3+cpu"], "1.2.3+cpu.1"),
        ("2026-11", ["2026-11"], "2026-11.1"),
    ],
)
def test_the_next_free_version(wanted: str, taken: list[str], expected: str) -> None:
    assert next_version(wanted, taken) == expected

"""Names of ConfigMaps that only the operator uses."""

from __future__ import annotations

import pytest

from finetune_operator.core.naming import bundle_name, engine_record_name, inputs_name, is_reserved
from finetune_operator.validation import DEFAULTS


@pytest.mark.parametrize(
    "name", [bundle_name("a" * 64), engine_record_name("b" * 64), inputs_name("demo", 12), inputs_name("d" * 63, 1), DEFAULTS]
)
def test_names_of_the_operator_are_reserved(name: str) -> None:
    assert is_reserved(name)


@pytest.mark.parametrize("name", ["tasks", "my-finetune-tasks", "demo-inputs", "inputs-1x", "demo-inputs-1-b"])
def test_other_names_are_not(name: str) -> None:
    assert not is_reserved(name)

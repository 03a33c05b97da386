"""The API server's own verdicts, by ``hack/crdlint``."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from control_planes import built
from controlplane.crdlint import CRDLINT

ROOT = Path(__file__).parent.parent
Test = TypeVar("Test", bound=Callable[..., object])
DEFINITION = ROOT / "crds" / "finetuneruns.finetunerun.io.yaml"

_skipped_without_go = pytest.mark.skipif(
    shutil.which("go") is None, reason="go is not installed: crdlint, which has the API server's own code, cannot be built"
)


def needs_go(test: Test) -> Test:
    """Mark a test that runs crdlint: ``make unit`` leaves it out, and it is skipped where Go is not installed."""
    return pytest.mark.go(_skipped_without_go(test))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Verdict:
    """Return the API server's answer to a case: pairs of field and cause, and whether it could read the object at all."""

    faults: frozenset[tuple[str, str]]
    undecodable: bool


def verdicts(cases: Iterable[dict[str, Any]]) -> dict[str, Verdict]:
    """Return the verdicts on cases ``{"name", "object", "old", "subresource"}``, by name.

    Raises:
        subprocess.CalledProcessError: the definition is none.
    """
    lines = "".join(json.dumps(case) + "\n" for case in cases)
    done = subprocess.run([built(CRDLINT.find), DEFINITION], input=lines, capture_output=True, text=True, check=True)
    return {answer["name"]: _verdict(answer["errors"]) for answer in map(json.loads, done.stdout.splitlines())}


def _verdict(errors: list[dict[str, str]]) -> Verdict:
    faults = frozenset((error["field"].replace("<nil>", ""), error["type"]) for error in errors)
    return Verdict(faults, any(kind == "BadRequest" for _, kind in faults))

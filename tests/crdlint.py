"""The API server's own verdicts, by ``hack/crdlint``."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from control_planes import built
from controlplane.crdlint import CRDLINT

ROOT = Path(__file__).parent.parent
DEFINITION = ROOT / "crds" / "finetuneruns.finetunerun.io.yaml"

needs_go = pytest.mark.skipif(shutil.which("go") is None, reason="go is not installed: the API server's own code cannot be asked")


@dataclass(frozen=True)
class Verdict:
    """What the API server says of a case: pairs of field and cause, and whether it could read the object at all."""

    faults: frozenset[tuple[str, str]]
    undecodable: bool


def verdicts(cases: Iterable[dict[str, Any]]) -> dict[str, Verdict]:
    """The verdicts on cases ``{"name", "object", "old", "subresource"}``, by name.

    Raises:
        subprocess.CalledProcessError: the definition is none.
    """
    lines = "".join(json.dumps(case) + "\n" for case in cases)
    done = subprocess.run([built(CRDLINT.find), DEFINITION], input=lines, capture_output=True, text=True, check=True)
    return {answer["name"]: _verdict(answer["errors"]) for answer in map(json.loads, done.stdout.splitlines())}


def _verdict(errors: list[dict[str, str]]) -> Verdict:
    faults = frozenset((error["field"].replace("<nil>", ""), error["type"]) for error in errors)
    return Verdict(faults, any(kind == "BadRequest" for _, kind in faults))

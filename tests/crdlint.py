"""The API server's own verdicts, by ``hack/crdlint``: built once for each state of its sources, kept outside the tree."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "hack" / "crdlint"
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
        subprocess.CalledProcessError: the definition is none, or the program cannot be built.
    """
    lines = "".join(json.dumps(case) + "\n" for case in cases)
    done = subprocess.run([_binary(), DEFINITION], input=lines, capture_output=True, text=True, check=True)
    return {answer["name"]: _verdict(answer["errors"]) for answer in map(json.loads, done.stdout.splitlines())}


def _verdict(errors: list[dict[str, str]]) -> Verdict:
    faults = frozenset((error["field"].replace("<nil>", ""), error["type"]) for error in errors)
    return Verdict(faults, any(kind == "BadRequest" for _, kind in faults))


def _binary() -> Path:
    go = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, check=True).stdout
    sources = [(SOURCES / name).read_bytes() for name in ("main.go", "go.mod", "go.sum")]
    digest = hashlib.sha256(b"\0".join([go, *sources])).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "finetune-operator"
    binary = cache / f"crdlint-{digest}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "crdlint.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            unfinished = binary.with_suffix(".part")
            subprocess.run(["go", "build", "-o", unfinished, "."], cwd=SOURCES, check=True)
            unfinished.rename(binary)
    return binary

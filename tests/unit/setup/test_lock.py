"""What renewing one package keeps, and what it rejects."""

from __future__ import annotations

import re
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

import lock

ROOT = Path(__file__).parents[3]
LOCK = """\
Jinja2==3.1.6 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via trl
numpy==2.2.1 ; python_full_version < '3.12' and sys_platform == 'linux' \\
    --hash=sha256:cc
numpy==2.4.0 ; python_full_version >= '3.12' \\
    --hash=sha256:dd
boolean-py==5.0 \\
    --hash=sha256:ee
"""
PINS = [
    ("jinja2", "Jinja2==3.1.6"),
    ("numpy", "numpy==2.2.1 ; python_full_version < '3.12' and sys_platform == 'linux'"),
    ("numpy", "numpy==2.4.0 ; python_full_version >= '3.12'"),
    ("boolean-py", "boolean-py==5.0"),
]


def test_pins_have_their_markers_and_no_hash() -> None:
    assert list(lock.pins(LOCK)) == PINS


def test_only_what_is_renewed_is_free() -> None:
    assert lock.constraints(LOCK, ["numpy"]) == ["Jinja2==3.1.6", "boolean-py==5.0"]
    assert lock.constraints(LOCK, ["jinja2", "boolean-py"]) == [PINS[1][1], PINS[2][1]]


def test_constraints_are_read_by_uv_as_they_are_meant() -> None:
    before = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    kept = [requirement for _, requirement in PINS]
    after = tomllib.loads(lock.constrained(before, kept))
    assert after.pop("tool")["uv"] == {"constraint-dependencies": kept}
    assert after["project"] == tomllib.loads(before)["project"]
    assert lock.constrained(before, []) == before


@pytest.mark.parametrize(("name", "expected"), [("boolean.py", "boolean-py"), ("PyYAML", "pyyaml"), ("a_-.b", "a-b")])
def test_a_package_has_one_name(name: str, expected: str) -> None:
    assert lock.normalized(name) == expected


def test_declared_packages_are_those_of_every_extra_and_group() -> None:
    found = lock.declared((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert {"aiohttp", "kopf", "lm-eval", "trl", "ruff", "uv", "types-pyyaml", "bitsandbytes"} <= found
    assert not {"python", "linux", "include-group"} & found


def test_a_package_of_no_lock_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    files = {path: path.read_bytes() for path in ROOT.glob("requirements/*.lock")}
    assert lock.main(["--package", "certifi", "--package", "no-such-package"]) == 1
    assert (
        capsys.readouterr().err
        == "lock: PACKAGE: no-such-package is in no lock; check the name, or add it to pyproject.toml first\n"
    )
    assert {path: path.read_bytes() for path in files} == files


@pytest.mark.parametrize("path", sorted((ROOT / "requirements").glob("*.lock")), ids=lambda path: path.name)
def test_the_lock_of_everything_keeps_the_packages_of_every_other(path: Path) -> None:
    """Renewing one package takes the other versions from all.lock alone."""
    everything = {requirement.partition(" ;")[0] for _, requirement in lock.pins((ROOT / "requirements/all.lock").read_text())}
    assert {requirement.partition(" ;")[0] for _, requirement in lock.pins(path.read_text())} - everything == set()


LINE = re.compile(
    r"[a-z0-9][a-z0-9._-]*==[^\s;\\]+( ; [\w .'<>=!()-]+)? \\"  # a version, and where it is needed
    r"|    --hash=sha256:[0-9a-f]{64}( \\)?"
    r"|    # {1,3}(via|via [\w.-]+|[\w.-]+( \([\w./ -]+\))?)"  # what needs it
    r"|"
)
"""A line of a lock: no option, no address and no path can be one."""
LOCKS = sorted(
    path for folder in ("requirements", "hack", "images") for path in (ROOT / folder).rglob("*.lock") if path.name != "bases.lock"
)


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_lock_has_hashed_versions_and_nothing_else(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    after = [following for line, following in pairwise(lines) if "==" in line]
    assert after
    assert all(line.startswith("    --hash=sha256:") for line in after)


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://mirror.example.com/simple",
        "a @ https://example.com/a.whl",
        "-e ./a",
        "a==1",
        "a>=1 \\",
        "a==1 ; x @ https://example.com \\",
    ],
)
def test_a_line_with_an_address_or_without_a_hash_is_found(line: str) -> None:
    assert not LINE.fullmatch(line)

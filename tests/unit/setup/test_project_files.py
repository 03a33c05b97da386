"""CONTRIBUTING.md and SECURITY.md name targets, files and fields that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md")]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
VARIABLES = set(re.findall(r"\$\(?(?:if \$\()?([A-Z]+)\)", MAKEFILE)) | set(re.findall(r"^([A-Z]+) \?=", MAKEFILE, re.MULTILINE))


def codes(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_exist(page: Path) -> None:
    tops = {path.name for path in ROOT.iterdir()}
    paths = [code for code in codes(page) if "/" in code and code.split("/")[0] in tops - {".venv", "dist"} and " " not in code]
    assert [path for path in paths if not (ROOT / path).exists()] == []
    reports = [code for code in codes(page) if re.fullmatch(r"test_\w+\.py", code)]
    assert [name for name in reports if not (ROOT / "tests/reports" / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_targets_and_their_variables_exist(page: Path) -> None:
    for code in codes(page):
        if code.startswith("make "):
            assert code.split()[1] in TARGETS, code
            assert set(re.findall(r"\b([A-Z]+)=", code)) <= VARIABLES, code


def test_every_target_is_phony_and_has_a_description() -> None:
    (phony,) = re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    assert set(phony.split()) == TARGETS
    assert [line for line in MAKEFILE.splitlines() if re.match(r"[a-z-]+:", line) and "  ## " not in line] == []

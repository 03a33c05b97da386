"""Cycles of imports: which are found, and that they fail the check."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import import_cycles
from import_cycles import Cycle, cycles, graph


def write(folder: Path, sources: Mapping[str, str]) -> Path:
    for name, text in sources.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ({"cyc_a.py": "import cyc_b\n", "cyc_b.py": "import json\n"}, []),
        ({"cyc_a.py": "import cyc_b\n", "cyc_b.py": "def f():\n    import cyc_a\n"}, ["cyc_a -> cyc_b -> cyc_a"]),
        (
            {
                "cyc_a.py": "import cyc_b\n",
                "cyc_b.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import cyc_a\n",
            },
            [],
        ),
        (
            {
                "cyc_p/__init__.py": "",
                "cyc_p/one.py": "from . import two\n",
                "cyc_p/two.py": "from cyc_p.three import x\n",
                "cyc_p/three.py": "from .one import x\n",
                "cyc_p/four.py": "from .one import x\n",
                "cyc_d.py": "import cyc_p.four\n",
            },
            ["cyc_p.one -> cyc_p.two -> cyc_p.three -> cyc_p.one"],
        ),
    ],
    ids=["none", "in-a-function", "for-types-only", "in-a-package"],
)
def test_a_cycle_is_found_wherever_its_imports_are(sources: Mapping[str, str], expected: list[str], tmp_path: Path) -> None:
    found = cycles(graph([write(tmp_path, sources)]))
    assert [str(cycle) for cycle in found] == expected


def test_a_cycle_over_two_folders_and_one_that_is_separate(tmp_path: Path) -> None:
    sources = {
        "a/cyc_x.py": "import cyc_y\n",
        "b/cyc_y.py": "import cyc_x\n",
        "b/cyc_v.py": "import cyc_w\n",
        "b/cyc_w.py": "import cyc_v\n",
    }
    write(tmp_path, sources)
    found = cycles(graph([tmp_path / "a", tmp_path / "b"]))
    assert [sorted(cycle.modules) for cycle in found] == [["cyc_v", "cyc_w"], ["cyc_x", "cyc_y"]]


def test_a_cycle_fails_the_check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = [Cycle(frozenset({"a", "b"}), ("a", "b", "a"))]
    monkeypatch.setattr(import_cycles, "graph", list)
    monkeypatch.setattr(import_cycles, "cycles", lambda _graph: found)
    assert import_cycles.main() == 1
    words = "import_cycles: a -> b -> a: a cycle of imports; move what both need into a separate module\n"
    assert capsys.readouterr().err == words


def test_the_whole_tree_is_read() -> None:
    """In a process of its own: pytest has imported some of these modules."""
    program = (
        "import runpy\n"
        f"check = runpy.run_path({import_cycles.__file__!r}, run_name='check')\n"
        "imports = check['graph'](check['ROOT'] / folder for folder in check['FOLDERS'])\n"
        "print(imports.direct_import_exists(importer='bootstrap.install', imported='cuda_placeholders'),"
        " imports.direct_import_exists(importer='bare_client', imported='finetune_operator.kube.client'),"
        " 'finetune_stages.training.work' in imports.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("True True True\n", "")

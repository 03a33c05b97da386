"""python hack/import_cycles.py: fail on cycles of imports in operator/, images/ and hack/.

Imports inside functions count. Imports under ``TYPE_CHECKING`` do not, and neither does the import of a package by its own modules.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("operator", "images", "images/build", "hack", "hack/bench", "hack/example")
"""Every folder that holds packages or programs at its top."""


@dataclass(frozen=True)
class Cycle:
    """Modules that import one another.

    Attributes:
        modules: all modules that are part of it.
        example: a shortest way around; the first module comes again at the end.
    """

    modules: frozenset[str]
    example: tuple[str, ...]

    def __str__(self) -> str:
        """Return the way around, for a message."""
        return " -> ".join(self.example)


def graph(folders: Iterable[Path]) -> grimp.ImportGraph:
    """Return the graph of imports between all modules at the top of ``folders``, and in the packages there."""
    with tempfile.TemporaryDirectory() as scratch:
        search = [scratch]
        names = []
        for folder in folders:
            search.append(str(folder))
            for path in sorted(folder.iterdir()):
                if (path / "__init__.py").exists():
                    names.append(path.name)
                elif path.suffix == ".py":  # grimp reads packages only: a program becomes one
                    Path(scratch, path.stem).mkdir()
                    Path(scratch, path.stem, "__init__.py").symlink_to(path)
                    names.append(path.stem)
        before = sys.path[:]
        sys.path[:0] = search
        try:
            return grimp.build_graph(*names, exclude_type_checking_imports=True, cache_dir=None)
        finally:
            sys.path[:] = before


def cycles(imports: grimp.ImportGraph) -> list[Cycle]:
    """Return the cycles of a graph, each module in at most one of them, in the order of their names."""
    found: list[Cycle] = []
    for module in sorted(imports.modules):
        if any(module in cycle.modules for cycle in found):
            continue
        around = [
            (module, *chain)
            for imported in imports.find_modules_directly_imported_by(module)
            if (chain := imports.find_shortest_chain(importer=imported, imported=module)) is not None
        ]
        if around:
            reached = imports.find_upstream_modules(module) & imports.find_downstream_modules(module)
            found.append(Cycle(frozenset({module, *reached}), min(around, key=lambda chain: (len(chain), chain))))
    return found


def main() -> int:
    """Run the command and return its exit code."""
    found = cycles(graph(ROOT / folder for folder in FOLDERS))
    for cycle in found:
        print(f"import_cycles: {cycle}: a cycle of imports; move what both need into a separate module", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())

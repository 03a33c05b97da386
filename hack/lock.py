"""Renew the locks: the hashed requirement files that everything is installed from.

python hack/lock.py                                renew everything
python hack/lock.py --package NAME [--package ...] renew these packages, and add what their new versions require

The files hold hashes and no address (``docs/decisions/14-locks.md``). Nothing is written if the resolution fails.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UV = Path(sys.executable).with_name("uv")
METADATA = ("pyproject.toml", "README.md", "LICENSE", "operator/finetune_operator/__init__.py")
"""What the resolution reads of this project."""
EXTRAS = {
    "operator": ("operator",), "dataset": ("dataset", "tokenization"), "model": ("model",), "training": ("training", "quantization", "kernels"),
    "evaluation": ("evaluation",), "registration": ("registration",),
    "stages": ("dataset", "tokenization", "model", "training", "quantization", "kernels", "evaluation", "registration"),
}  # fmt: skip
"""The extras of ``pyproject.toml`` in each file of ``requirements/``: one file for each image."""
PRUNED = {"dataset": ("accelerate", "torch")}
"""What the packages of a file require and its programs never import: TRL's templates need neither, and PyTorch has 1 GB."""
TRAINERS = ("2.1", "2.3")
COMPAT = ("openshift-ai-3.3", "openshift-ai-3.5", "newest")
"""Sets of libraries of training images, in hack/compat; the last one has the versions of the project."""
_PIN = re.compile(r"^(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>[^ ;\\]+)(?: *; *(?P<marker>[^\\]*[^\\ ]))?", re.MULTILINE)


class LockError(RuntimeError):
    """The locks cannot be renewed. The message has the reason and what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python hack/lock.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--package", action="append", default=[], help="renew only this package; may be given several times")
    packages = [normalized(name) for name in parser.parse_args(arguments).package]
    try:
        renew(packages)
    except LockError as error:
        print(f"lock: {error}", file=sys.stderr)
        return 1
    return 0


def renew(packages: Sequence[str]) -> None:
    """Renew ``packages``, or everything if there are none.

    Raises:
        LockError: a package is in no lock, or the versions do not fit together.
    """
    separate = {
        "images/build/tools.lock": (ROOT / "images/build/tools.in").read_text(encoding="utf-8"),
        **{f"hack/trainer_models/{release}.lock": f"kubeflow-trainer-api=={release}.0\n" for release in TRAINERS},
        **{f"hack/compat/{name}.lock": (ROOT / f"hack/compat/{name}.in").read_text(encoding="utf-8") for name in COMPAT},
    }
    ours = (ROOT / "requirements/all.lock").read_text(encoding="utf-8")
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in separate}
    resolved_here = {name for name, _ in pins(ours)} | declared((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    known = resolved_here | {name for text in texts.values() for name, _ in pins(text)}
    if unknown := sorted(set(packages) - known):
        raise LockError(f"PACKAGE: {', '.join(unknown)} is in no lock; check the name, or add it to pyproject.toml first")
    with (
        tempfile.TemporaryDirectory() as project,
        tempfile.TemporaryDirectory() as apart,
    ):  # uv reads pyproject.toml in any parent
        if not packages or resolved_here & set(packages):
            _resolve_project(Path(project), constraints(ours, packages) if packages else [])
        for name, wanted in separate.items():
            if not packages or set(packages) & {pinned for pinned, _ in pins(texts[name])}:
                fixed = _project_lock(Path(project)) if name == f"hack/compat/{COMPAT[-1]}.lock" else ""
                _compile(Path(apart, name), wanted, texts[name], packages, constraints(fixed, ()))
        for folder, pattern in ((Path(project), "requirements/*.lock"), (Path(apart), "**/*.lock")):
            for path in folder.glob(pattern):
                shutil.copyfile(path, ROOT / path.relative_to(folder))


def normalized(name: str) -> str:
    """Return the name of a package as locks have it (https://peps.python.org/pep-0503/)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(pyproject: str) -> set[str]:
    """Return the names of the packages that ``pyproject.toml`` requires, in any extra or group."""
    content = tomllib.loads(pyproject)
    project = content["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values(), *content["dependency-groups"].values()]
    return {normalized(re.split(r"[^\w.-]", one, maxsplit=1)[0]) for each in lists for one in each if isinstance(one, str)}


def pins(lock: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the requirement of each entry of a lock, with its marker and without hashes."""
    for found in _PIN.finditer(lock):
        marker = f" ; {found['marker']}" if found["marker"] else ""
        yield normalized(found["name"]), f"{found['name']}=={found['version']}{marker}"


def constraints(lock: str, renewed: Sequence[str]) -> list[str]:
    """Return what keeps every package of a lock at its version, except those that are renewed."""
    return [requirement for name, requirement in pins(lock) if name not in renewed]


def constrained(pyproject: str, kept: Sequence[str]) -> str:
    """Return ``pyproject.toml`` with constraints for uv; it has no table ``tool.uv`` of its own."""
    lines = "".join(f"  '''{requirement}''',\n" for requirement in kept)
    return f"{pyproject}\n[tool.uv]\nconstraint-dependencies = [\n{lines}]\n" if kept else pyproject


def _resolve_project(folder: Path, kept: Sequence[str]) -> None:
    """Write the files of ``requirements/`` below ``folder``."""
    for name in METADATA:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    project = folder / "pyproject.toml"
    project.write_text(constrained(project.read_text(encoding="utf-8"), kept), encoding="utf-8")
    (folder / "requirements").mkdir()
    _uv(folder, "lock")
    for name, extras in EXTRAS.items():
        chosen = [word for extra in extras for word in ("--extra", extra)]
        pruned = [word for package in PRUNED.get(name, ()) for word in ("--prune", package)]
        _export(folder, name, "--no-default-groups", *chosen, *pruned, "--no-emit-project")
    _export(folder, "bootstrap", "--only-group", "bootstrap")
    _export(folder, "all", "--all-extras", "--group", "dev", "--no-emit-project")


def _export(folder: Path, name: str, *which: str) -> None:
    _uv(folder, "export", "--frozen", *which, "--format", "requirements-txt", "--no-header", "-o", f"requirements/{name}.lock")


def _project_lock(folder: Path) -> str:
    """Return the lock of the whole project: the new one, or the present one if the project was not resolved."""
    new = folder / "requirements" / "all.lock"
    return (new if new.exists() else ROOT / "requirements" / "all.lock").read_text(encoding="utf-8")


def _compile(target: Path, wanted: str, before: str, packages: Sequence[str], fixed: Sequence[str] = ()) -> None:
    """Write a requirement file that is resolved apart from the project. Versions in ``before`` are kept unless they are renewed.

    ``fixed`` are requirements that hold for packages which ``wanted`` needs.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(before, encoding="utf-8")
    (target.parent / "constraints.txt").write_text("".join(f"{requirement}\n" for requirement in fixed), encoding="utf-8")
    renewed = [word for package in packages for word in ("--upgrade-package", package)] or ["--upgrade"]
    options = ("--python-version", "3.11", "--universal", "--generate-hashes", "--no-header", "--no-annotate")
    addresses = ("--no-emit-index-url", "--no-emit-find-links", "--constraint", "constraints.txt")
    _uv(target.parent, "pip", "compile", *renewed, *options, *addresses, "-", "-o", target.name, given=wanted)


def _uv(folder: Path, *words: str, given: str | None = None) -> None:
    """Run uv in ``folder``.

    Raises:
        LockError: it failed.
    """
    command = [str(UV), "-q", *words]
    done = subprocess.run(
        command, cwd=folder, input=given, text=True, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    if done.returncode != 0:
        raise LockError(
            f"uv {' '.join(words[:2])} failed; if a version that is kept is in the way, renew that package too\n{done.stderr.strip()}"
        )


if __name__ == "__main__":
    raise SystemExit(main())

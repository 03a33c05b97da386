"""python hack/images COMMAND: the images of the operator and of the stage programs, with or without a registry.

build      build images that are not in the cache, and print their archives
try        run built images under a cluster's restrictions: any user, read-only root, no capabilities, no network
sizes      print their sizes on a node and compressed
sbom       print the paths of their bills of materials
load       import built images into the containerd of a node
pin        write the digests of the base images from the registry into bases.lock
packages   install missing Debian packages for building without Docker (as root)
clean      remove all images and their storage from the cache
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import get_args

from build_error import CannotBuildError

from . import archives, bases, builds, containerd, engines, packages, recipes, trials

_USUAL = ("operator", "stages")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _COMMANDS[options.command](options)
    except (CannotBuildError, OSError, subprocess.SubprocessError) as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python hack/images", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=list(_COMMANDS), metavar="{" + ",".join(_COMMANDS) + "}")
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help=f"{', '.join(recipes.RECIPES)} ({' and '.join(_USUAL)})",
    )
    parser.add_argument(
        "--base", choices=get_args(builds.Base), default="registry",
        help="base: Python's image, pinned in bases.lock (the default), or Debian packages, for tests",
    )  # fmt: skip
    parser.add_argument("--tag", default="test", help="their tag (test)")
    parser.add_argument(
        "--engine", choices=("auto", *engines.ENGINES), default="auto", help="program that builds and runs them (auto)"
    )
    parser.add_argument("--address", default=containerd.ADDRESS, help=f"containerd's socket, for load ({containerd.ADDRESS})")
    parser.add_argument("--namespace", default=containerd.NAMESPACE, help=f"its namespace ({containerd.NAMESPACE})")
    return parser


def _chosen(options: argparse.Namespace) -> list[recipes.Recipe]:
    for name in options.images:
        if name not in recipes.RECIPES:
            raise CannotBuildError(f"{name}: not an image; choose from {', '.join(recipes.RECIPES)}")
    return [recipes.RECIPES[name] for name in options.images or _USUAL]


def _built(options: argparse.Namespace) -> list[builds.Image]:
    found = [builds.locate(recipe, options.base, options.tag) for recipe in _chosen(options)]
    for image in found:
        if not image.exists():
            again = builds.build_command(image, options.base)
            raise CannotBuildError(f"{image.tag}: not built from the present sources; run {again}")
    return found


def _build(options: argparse.Namespace) -> int:
    images = [builds.locate(recipe, options.base, options.tag) for recipe in _chosen(options)]
    if not all(image.exists() for image in images):
        engine = engines.find(options.engine)
        images = [
            builds.build(image.recipe, options.base, options.tag, engine, source=builds.published_source()) for image in images
        ]
    for argument, base in builds.bases_of(options.base).items():
        print(f"images: {argument}: {base}", file=sys.stderr)
    for image in images:
        print(image.archive)
    return 0


def _try(options: argparse.Namespace) -> int:
    engine = engines.find(options.engine)
    failed = False
    for image in _built(options):
        for finding in trials.attempt(image, engine):
            failed = failed or not finding.passed
            print(f"{'ok    ' if finding.passed else 'FAILED'} {image.tag}: {finding.what}")
            if not finding.passed:
                print(finding.said, file=sys.stderr)
    return 1 if failed else 0


def _sizes(options: argparse.Namespace) -> int:
    print(f"{'image':28} {'on a node':>12} {'compressed':>12}")
    for image in _built(options):
        found = archives.contents(image.archive)
        print(f"{image.tag:28} {_mb(found.plain)} {_mb(found.compressed)}")
        for number, layer in enumerate(found.layers):
            print(f"  {'base' if number == 0 else _step(layer.made_by):26} {_mb(layer.plain)} {_mb(layer.compressed)}")
    return 0


def _mb(size: int) -> str:
    return f"{size / 1e6:>9,.1f} MB"


def _step(made_by: str) -> str:
    return made_by.rpartition(" in ")[2].strip() if " in " in made_by else made_by[-26:]


def _sbom(options: argparse.Namespace) -> int:
    for image in _built(options):
        print(image.sbom)
    return 0


def _load(options: argparse.Namespace) -> int:
    for image in _built(options):
        containerd.load(image.archive, options.address, options.namespace)
        print(f"loaded {image.tag}")
    return 0


def _pin(_options: argparse.Namespace) -> int:
    print(bases.pin(), end="")
    return 0


def _packages(_options: argparse.Namespace) -> int:
    installed = packages.install()
    print(f"installed {', '.join(installed)}" if installed else "everything is installed")
    return 0


def _clean(_options: argparse.Namespace) -> int:
    engines.clean()
    shutil.rmtree(recipes.cache(), ignore_errors=True)
    return 0


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "build": _build, "try": _try, "sizes": _sizes, "sbom": _sbom, "load": _load, "pin": _pin, "packages": _packages, "clean": _clean,
}  # fmt: skip

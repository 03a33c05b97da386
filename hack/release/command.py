"""python hack/release {build,check} VERSION: build a release into dist/VERSION, or check it there without a network.

Nothing is pushed. A release has the wheel, the source distribution, an OCI archive and a bill of materials (CycloneDX) for each image, the
manifests with the digests of these images, release notes, and SHA256SUMS.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from build_error import CannotBuildError
from images.builds import Base
from images.recipes import RECIPES, ROOT

from . import check
from .build import Request, build

_VERSION = re.compile(r"\d+\.\d+\.\d+")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        folder = _folder(options)
        return _check(folder) if options.command == "check" else _build(options, folder)
    except (CannotBuildError, OSError, ValueError, subprocess.SubprocessError) as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python hack/release", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("build", "check"))
    parser.add_argument("version", nargs="?", default="", help="version of the release, which is that of the tree")
    parser.add_argument("--folder", type=Path, help="folder of the release (dist/VERSION)")
    parser.add_argument(
        "--images", nargs="+", choices=list(RECIPES), metavar="IMAGE", help=f"images to build ({', '.join(RECIPES)})"
    )
    parser.add_argument("--base", choices=get_args(Base), default="registry", help="base of the images (registry)")
    parser.add_argument("--registry", default="", help="registry and repository that the manifests name before each image")
    parser.add_argument(
        "--draft",
        action="store_true",
        help="accept changes that are not committed, --base and --images, and the section Unreleased",
    )
    return parser


def _folder(options: argparse.Namespace) -> Path:
    if not _VERSION.fullmatch(options.version):
        raise CannotBuildError(f"VERSION: {options.version or 'not set'}; state it as VERSION=1.2.3")
    folder: Path = options.folder or ROOT / "dist" / options.version
    return folder


def _build(options: argparse.Namespace, folder: Path) -> int:
    request = Request(options.version, options.images or list(RECIPES), options.base, options.registry, options.draft)
    build(request, folder)
    return _check(folder)


def _check(folder: Path) -> int:
    found = check.faults(folder)
    for fault in found:
        print(f"release: {fault}", file=sys.stderr)
    if not found:
        print(f"{folder}: digests, bills of materials and manifests are those of the release")
    return 1 if found else 0

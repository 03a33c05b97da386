"""The programs of a node that are built from Go modules; the others are the system's (``packages.txt``)."""

from __future__ import annotations

from pathlib import Path

from controlplane.binaries import Binaries, compile_missing, locate, not_built
from controlplane.programs import Program

MODULES = Path(__file__).with_name("modules")


def _kubernetes(name: str) -> Program:
    return Program(name, "kubernetes", "k8s.io/kubernetes", f"k8s.io/kubernetes/cmd/{name}", MODULES)


KUBELET = _kubernetes("kubelet")
KUBE_PROXY = _kubernetes("kube-proxy")
COREDNS = Program("coredns", "coredns", "github.com/coredns/coredns", ".", MODULES)
PROGRAMS = (KUBELET, KUBE_PROXY, COREDNS)


def find() -> Binaries:
    """Return the programs of this checkout, all of them built. Nothing is built here.

    Raises:
        CannotBuildError: Go is not installed.
        NotBuiltError: one is not there.
    """
    binaries = locate(MODULES, "node")
    if missing := [program.name for program in PROGRAMS if not binaries.path(program).exists()]:
        raise not_built(missing, "make containers")
    return binaries


def build(nice: int = 0) -> Binaries:
    """Build missing programs.

    Raises:
        CannotBuildError: Go is not installed, or a program does not compile.
    """
    binaries = locate(MODULES, "node")
    if not all(binaries.path(program).exists() for program in PROGRAMS):
        compile_missing(binaries, PROGRAMS, nice)
    return binaries

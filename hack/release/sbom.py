"""Bills of materials: an image has the Python packages of its lock, and no others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import cuda_placeholders
import lock

from .system_packages import is_system_package

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
"""Pythons that a base image may have. A package that only some of them need may be there or not."""
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


def faults(document: Mapping[str, Any], locked: str, accelerator: str, architecture: str) -> list[str]:
    """Return a message for every Python package that differs between a CycloneDX document and the lock that was installed.

    Args:
        document: the CycloneDX document.
        locked: content of the lock.
        accelerator: ``cpu`` if the packages that only GPUs need are left out.
        architecture: of the image, as OCI has it: ``amd64``, ``arm64``.
    """
    required, allowed = _versions(locked, accelerator, _MACHINES.get(architecture, architecture))
    listed = {canonicalize_name(one["name"]): one["version"] for one in document["components"] if not is_system_package(one)}
    found = [
        f"{name} {version} is listed, and the lock has {' or '.join(sorted(allowed.get(name, ()))) or 'no such package'}"
        for name, version in sorted(listed.items())
        if version not in allowed.get(name, ())
    ]
    return found + [f"{name} is in the lock, and not listed" for name in sorted(required - listed.keys())]


def _versions(locked: str, accelerator: str, machine: str) -> tuple[set[str], dict[str, set[str]]]:
    """Return the packages that every Python needs, and the versions that some Python needs."""
    required: dict[str, set[str]] = {python: set() for python in PYTHONS}
    allowed: dict[str, set[str]] = {}
    for name, text in lock.pins(locked):
        if accelerator == "cpu" and cuda_placeholders.is_only_for_gpus(name):
            continue
        requirement = Requirement(text)
        for python, environment in _environments(machine):
            if requirement.marker is None or requirement.marker.evaluate(environment):
                required[python].add(name)
                allowed.setdefault(name, set()).add(str(requirement.specifier).removeprefix("=="))
    return set.intersection(*required.values()), allowed


def _environments(machine: str) -> Iterator[tuple[str, dict[str, str]]]:
    for python in PYTHONS:
        environment = {
            "python_version": python, "python_full_version": f"{python}.1", "sys_platform": "linux", "platform_system": "Linux",
            "platform_machine": machine, "os_name": "posix", "implementation_name": "cpython",
            "platform_python_implementation": "CPython", "extra": "",
        }  # fmt: skip
        yield python, environment

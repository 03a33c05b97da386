"""The packages of the base image in a bill of materials: what dpkg has installed, as CycloneDX components."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

STATUS, OS_RELEASE = "/var/lib/dpkg/status", "/usr/lib/os-release"
"""Files of an image: what dpkg has installed, and the distribution."""
_PURL = "pkg:deb/"


def complete(bill: bytes, status: bytes, os_release: bytes) -> bytes:
    """Return a bill of materials with the Python packages of ``bill`` and the packages of the base image.

    Args:
        bill: CycloneDX as JSON.
        status: content of the file ``STATUS`` of the image.
        os_release: content of its file ``OS_RELEASE``.

    Raises:
        ValueError: ``bill`` is not a CycloneDX document.
    """
    document = json.loads(bill)
    if "components" not in document:
        raise ValueError("not a CycloneDX document with components")
    components = [*document["components"], *_components(status.decode(), os_release.decode())]
    return (json.dumps({**document, "components": components}, indent=2) + "\n").encode()


def is_system_package(component: Mapping[str, Any]) -> bool:
    """Return whether a component is a package of the base image."""
    return str(component.get("purl", "")).startswith(_PURL)


def _components(status: str, os_release: str) -> Iterator[dict[str, Any]]:
    about = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    distribution, version = (about.get(key, "").strip('"') for key in ("ID", "VERSION_ID"))
    packages = [_fields(paragraph) for paragraph in status.split("\n\n")]
    for package in sorted(packages, key=lambda one: (one.get("Package", ""), one.get("Architecture", ""))):
        if package.get("Status", "").endswith(" installed"):
            name, release = package["Package"], package["Version"]
            purl = f"{_PURL}{distribution}/{quote(name)}@{quote(release)}?arch={package['Architecture']}&distro={distribution}-{version}"
            yield {"type": "library", "bom-ref": purl, "name": name, "version": release, "purl": purl}


def _fields(paragraph: str) -> dict[str, str]:
    lines = (line for line in paragraph.splitlines() if ": " in line and not line.startswith(" "))
    return dict(line.split(": ", 1) for line in lines)

"""What an image was built from, as an in-toto statement with SLSA provenance (https://slsa.dev/spec/v1.0/provenance).

It is not signed: it states the inputs of the build and does not prove who built the image.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .contents import Release, digest_of

BUILD_TYPE = "https://finetunerun.io/build/release/v1"
"""Identifies the meaning of the parameters: ``hack/release build`` of the commit."""
BUILDER = "https://finetunerun.io/build/release"


def statement(folder: Path, release: Release, name: str) -> str:
    """Return the statement about an image of a release as JSON.

    Args:
        folder: that of the release, with the lock of the image.
        release: what was built.
        name: of the image.
    """
    image = release.images[name]
    dependencies: list[dict[str, Any]] = [
        {"name": "source", "digest": {"gitCommit": release.revision}},
        {"name": image.lock, "digest": {"sha256": digest_of(folder / image.lock)}},
        *(_base(argument, base) for argument, base in sorted(release.bases.items())),
    ]
    document = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": image.digest.removeprefix("sha256:")}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"version": release.version, "base": release.base, "image": name, "draft": release.draft},
                "resolvedDependencies": dependencies,
            },
            "runDetails": {"builder": {"id": BUILDER}},
        },
    }
    return json.dumps(document, indent=2) + "\n"


def _base(argument: str, base: str) -> dict[str, Any]:
    name, _, digest = base.partition("@sha256:")
    return {"name": argument, "uri": name, **({"digest": {"sha256": digest}} if digest else {})}

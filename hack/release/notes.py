"""Release notes: a section of the change log, and the artifacts with their digests."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from build_error import CannotBuildError

from .contents import Release, ReleasedImage

UNRELEASED = "Unreleased"
_CYCLONEDX, _IN_TOTO = "application/vnd.cyclonedx+json", "application/vnd.in-toto+json"


def section(change_log: str, version: str) -> str:
    """Return the text below ``## <version>`` in the change log. The heading may have a date behind the version.

    Raises:
        CannotBuildError: there is no such section, or it is empty.
    """
    heading = rf"^## \[?{re.escape(version)}\]?(?: [^\n]*)?\n(?P<text>.*?)(?=^## |\Z)"
    found = re.search(heading, change_log, flags=re.MULTILINE | re.DOTALL)
    if found is None:
        raise CannotBuildError(
            f"CHANGELOG.md: there is no section {version}; rename the section {UNRELEASED} to '{version} - YYYY-MM-DD'"
        )
    if not found["text"].strip():
        raise CannotBuildError(f"CHANGELOG.md: section {version} is empty; state what changed")
    return found["text"].strip()


def _attach(name: str, image: ReleasedImage) -> str:
    """Return the commands that attach the documents about an image to it, as OCI referrers."""
    documents = {_CYCLONEDX: image.sbom, _IN_TOTO: image.provenance}
    return "\n".join(
        f"oras attach --artifact-type {kind} <registry>/{name}@{image.digest} {PurePosixPath(path).name}:{kind}"
        for kind, path in documents.items()
    )


def page(release: Release, changes: str) -> str:
    """Return the page of a release as Markdown."""
    images = "\n".join(f"| `{name}` | `{image.digest}` | `{image.archive}` |" for name, image in sorted(release.images.items()))
    bases = "\n".join(f"- `{argument}`: {base}" for argument, base in sorted(release.bases.items()))
    commands = "\n".join(_attach(name, image) for name, image in sorted(release.images.items()))
    draft = "This is a draft: it is not published.\n\n" if release.draft else ""
    return f"""# finetune-operator {release.version}

{draft}Built from commit `{release.revision}`.

{changes}

## Bases

{bases}

## Artifacts

`SHA256SUMS` has the digest of every file; `sha256sum -c SHA256SUMS` verifies them. `{release.manifests}` names the images by digest.
Push an image with `skopeo copy --preserve-digests oci-archive:<archive> docker://<registry>/<image>:{release.version}`.

| Image | Digest | Archive |
| --- | --- | --- |
{images}

Then attach the bill of materials (CycloneDX) and the provenance (in-toto, not signed) of each image, in the folder `images`. `oras discover
<registry>/<image>:{release.version}` lists them.

```
{commands}
```
"""

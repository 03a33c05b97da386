"""Release notes: a section of the change log, and the artifacts with their digests."""

from __future__ import annotations

import re

from build_error import CannotBuildError

from .contents import Release

UNRELEASED = "Unreleased"


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


def page(release: Release, changes: str) -> str:
    """Return the page of a release as Markdown."""
    images = "\n".join(f"| `{name}` | `{image.digest}` | `{image.archive}` |" for name, image in sorted(release.images.items()))
    draft = "This is a draft: it is not published.\n\n" if release.draft else ""
    return f"""# finetune-operator {release.version}

{draft}Built from commit `{release.revision}`.

{changes}

## Artifacts

`SHA256SUMS` has the digest of every file; `sha256sum -c SHA256SUMS` verifies them. `{release.manifests}` names the images by digest.
Push an image with `skopeo copy --preserve-digests oci-archive:<archive> docker://<registry>/<image>:{release.version}`.

| Image | Digest | Archive |
| --- | --- | --- |
{images}
"""

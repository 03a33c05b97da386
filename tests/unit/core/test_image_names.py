"""Whether an image is in a registry, a namespace or a repository."""

from __future__ import annotations

import pytest

from finetune_operator.core.image_names import is_below

DIGEST = f"sha256:{'a' * 64}"
BELOW = [
    ("quay.io/team/x:1", "quay.io"), ("quay.io/team/x:1", "quay.io/"), ("QUAY.io:443/team/x", "quay.io/team"), ("quay.io/team/x", "quay.io/team/"),
    ("quay.io/team/x@" + DIGEST, "quay.io/team/x"), ("quay.io/team/x:1", "quay.io/team/x:1"), ("quay.io/team/x:1@" + DIGEST, "quay.io/team/x@" + DIGEST),
    ("registry:5000/x", "registry:5000/"), ("localhost:5000/x", "localhost:5000"), ("localhost/x", "localhost"),
    ("python", "docker.io/library/python"), ("python:3", "docker.io/"), ("docker.io/team/x", "team/"), ("team/x", "index.docker.io/team/x"), ("team/x", "docker.io/team/"),
]  # fmt: skip
NOT_BELOW = [
    ("quay.io/team-evil/x", "quay.io/team"), ("quay.io.evil.com/team/x", "quay.io"), ("quay.io:5000/x", "quay.io"), ("evil.com/quay.io/team/x", "quay.io/team"),
    ("quay.io/team/x:11", "quay.io/team/x:1"), ("quay.io/team/x:1@" + DIGEST, "quay.io/team/x:1"), ("quay.io/team/x", "quay.io/team/x@" + DIGEST),
    ("quay.io/team/x-2", "quay.io/team/x"), ("quay.io/team", "quay.io/team/x"), ("quay.io/x", "registry/"), ("Registry/x", "registry/"),
    ("python/evil", "python"), ("team/x", "quay.io"), ("registry:5000", "registry:5000/"), ("quay.io@" + DIGEST, "quay.io/"), ("quay.io", "quay.io"), ("quay.io/team/x@" + DIGEST, "quay.io/team/y@" + DIGEST),
]  # fmt: skip


@pytest.mark.parametrize(("image", "beginning"), BELOW)
def test_an_image_is_below(image: str, beginning: str) -> None:
    assert is_below(image, beginning)


@pytest.mark.parametrize(("image", "beginning"), NOT_BELOW)
def test_an_image_is_elsewhere(image: str, beginning: str) -> None:
    assert not is_below(image, beginning)

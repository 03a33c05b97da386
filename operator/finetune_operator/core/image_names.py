"""Names of images, compared by their parts as container engines read them, and not as texts.

A name without a registry is one of Docker Hub, and a name of Docker Hub without a namespace is in ``library``
(https://github.com/distribution/reference).
"""

from __future__ import annotations

from dataclasses import dataclass

from finetune_contract.uris import DOCKER_HUB, DOCKER_HUB_NAMES


@dataclass(frozen=True)
class _Name:
    """The registry and the segments of a repository, or the first ones of them; tag and digest are empty if there are none."""

    parts: tuple[str, ...]
    tag: str
    digest: str


def is_below(image: str, beginning: str) -> bool:
    """Return whether an image is in a registry, in a namespace, in a repository, or is a tag or a digest.

    Args:
        image: a name of an image.
        beginning: ``registry/``, ``registry/namespace/``, ``registry/namespace/repository`` or a complete name. A tag is that of an image
            without a digest, because container engines ignore the tag before a digest.
    """
    wanted, found = _registry_of(beginning) or _read(beginning), _read(image)
    if wanted.digest:
        return (found.parts, found.digest) == (wanted.parts, wanted.digest)
    if wanted.tag:
        return found == wanted
    return found.parts[: len(wanted.parts)] == wanted.parts


def _registry_of(beginning: str) -> _Name | None:
    """Return the registry that a beginning consists of, ``None`` if it is more. The name of an image is never a registry alone."""
    name = beginning.rstrip("/")
    is_registry = _is_domain(name) or (name != beginning and ":" in name)
    return _Name((_registry(name),), "", "") if is_registry and not {"/", "@"} & set(name) else None


def _read(text: str) -> _Name:
    name, _, digest = text.partition("@")
    is_folder, name = name.endswith("/"), name.rstrip("/")
    registry, slash, rest = name.partition("/")
    if not slash or not (_is_domain(registry) or ":" in registry or registry != registry.lower()):
        registry, rest = DOCKER_HUB, name
    path, _, tag = rest.partition(":")
    registry, segments = _registry(registry), path.split("/")
    if registry == DOCKER_HUB and len(segments) == 1 and not is_folder:
        segments = ["library", *segments]
    return _Name((registry, *segments), tag, digest)


def _is_domain(first: str) -> bool:
    host = first.partition(":")[0]
    return "." in host or host == "localhost"


def _registry(host: str) -> str:
    host = host.lower().removesuffix(":443")
    return DOCKER_HUB if host in DOCKER_HUB_NAMES else host

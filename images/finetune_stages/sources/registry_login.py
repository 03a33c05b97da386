"""Credentials for a registry, from a ``config.json`` of Docker: the content of an image pull secret."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any

from finetune_contract import strict_json
from finetune_contract.uris import DOCKER_HUB, DOCKER_HUB_NAMES, ImageReference
from finetune_stages.sdk import StageError

from .origin import Origin

_LARGEST = 1 << 20
"""Characters of a pull secret: Kubernetes stores no larger one."""


@dataclass(frozen=True)
class Login:
    """The credentials of one registry.

    Attributes:
        identity_token: refresh token of OAuth2, in place of user and password.
        bearer: token for the registry itself.
        others: the registries that the secret has credentials for, if it has none for this one; ``None`` without a secret.
    """

    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    bearer: str = field(default="", repr=False)
    others: tuple[str, ...] | None = None

    @property
    def exists(self) -> bool:
        """Whether there are credentials."""
        return bool(self.user or self.identity_token or self.bearer)

    @property
    def basic(self) -> str:
        """The Authorization header with user and password."""
        return f"Basic {base64.b64encode(f'{self.user}:{self.password}'.encode()).decode()}"


def login_for(image: ImageReference, content: str | None, origin: Origin) -> Login:
    """Return the credentials for the registry of an image; ``content`` is the pull secret, if there is one.

    An entry for a part of the registry (``quay.io/team``) has precedence over one for the whole registry.

    Raises:
        StageError: ``origin.forbidden``: the content is malformed.
    """
    if not content or not content.strip():
        return Login()
    entries = _entries(content, origin)
    wanted = f"{_host(image.registry)}/{image.repository}"
    matching = [name for name in entries if f"{wanted}/".startswith(f"{_host(name)}/")]
    if not matching:
        return Login(others=tuple(sorted(map(_host, entries))))
    name = max(matching, key=lambda one: len(_host(one)))
    return _login(name, entries[name], origin)


def _entries(content: str, origin: Origin) -> dict[str, Any]:
    try:
        value = strict_json.loads(content, _LARGEST)
    except ValueError as error:
        raise _malformed(origin, "is not JSON") from error
    entries = value.get("auths") if isinstance(value, dict) else None
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        helper = isinstance(value, dict) and ("credsStore" in value or "credHelpers" in value)
        raise _malformed(origin, "refers to a credential helper, which a pod does not have" if helper else "has no auths")
    return entries


def _login(name: str, entry: dict[str, Any], origin: Origin) -> Login:
    values = {key: value for key, value in entry.items() if isinstance(value, str)}
    if values.get("identitytoken") or values.get("registrytoken"):
        return Login(identity_token=values.get("identitytoken", ""), bearer=values.get("registrytoken", ""))
    user, password = values.get("username", ""), values.get("password", "")
    if values.get("auth"):
        try:
            decoded = base64.b64decode(values["auth"], validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise _malformed(origin, f"has an auth for {_host(name)} that is not Base64") from error
        user, separator, password = decoded.partition(":")
        if not separator:
            raise _malformed(origin, f"has an auth for {_host(name)} that is not <user>:<password> in Base64")
    if not user:
        raise _malformed(origin, f"has neither auth nor username and password for {_host(name)}")
    return Login(user, password.rstrip("\x00\n"))


def _host(name: str) -> str:
    """Return the registry of an entry: older files have URLs such as ``https://index.docker.io/v1/``."""
    host, _, path = name.partition("://")[2].partition("/") if "://" in name else name.partition("/")
    path = "" if path.strip("/") in ("v1", "v2") else path.strip("/")
    host = DOCKER_HUB if host in DOCKER_HUB_NAMES else host
    return f"{host}/{path}" if path else host


def _malformed(origin: Origin, words: str) -> StageError:
    return StageError(
        origin.forbidden,
        f"{origin.repo_type}.pullSecretRef: the content of the Secret {words}; create it with oc create secret docker-registry.",
    )

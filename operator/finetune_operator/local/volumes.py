"""Directories of this machine as the volumes of a pod, and the rewriting of container paths."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune_contract.documents import CONFIG_VARIABLE
from finetune_operator.api.kinds import CLAIM, CONFIGMAP, Kind
from finetune_operator.core.manifests.pod import STANDARD_KEYS
from finetune_operator.core.paths import lookup
from finetune_operator.loop.cluster import Cluster, Object
from finetune_operator.loop.errors import NotFound
from finetune_operator.validation.config_map import key_faults

SecretSource = Callable[[str, str, str | None], str | None]
"""The value of a key of a Secret for an S3 server, ``None`` where there is none. Values are never stored."""

_NEEDED_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
"""Optional keys without which no stage on this machine reads from S3. If they are withheld, the message of the stage would ask for them."""


class NotReady(Exception):
    """An object that the pod references does not exist yet: the kubelet's reason, and a message."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class Mounts:
    """Container paths and their directories on this machine, longest path first."""

    pairs: tuple[tuple[str, str], ...]

    def rewrite(self, text: str) -> str:
        """Return the path on this machine for a container path, and any other text unchanged."""
        for inside, outside in self.pairs:
            if text == inside or text.startswith(inside + "/"):
                return outside + text[len(inside) :]
        return text


class Volumes:
    """Creates the directories of pods: claims below ``claims``, all other volumes in the pod's folder."""

    def __init__(self, cluster: Cluster, claims: Path) -> None:
        self._cluster = cluster
        self._claims = claims

    def claim_folder(self, namespace: str, name: str) -> Path:
        """Return the directory of a PersistentVolumeClaim."""
        return self._claims / namespace / name

    async def mount(self, pod: Object, folder: Path) -> Mounts:
        """Prepare all volumes of a pod and return the mounts of its container.

        Raises:
            NotReady: a claim or a ConfigMap does not exist.
        """
        namespace = pod["metadata"]["namespace"]
        sources = {volume["name"]: await self._prepare(namespace, volume, folder) for volume in pod["spec"].get("volumes") or ()}
        pairs = []
        for mount in pod["spec"]["containers"][0].get("volumeMounts") or ():
            source = _inside(sources[mount["name"]], mount.get("subPath", ""))
            source.mkdir(parents=True, exist_ok=True)
            pairs.append((mount["mountPath"].rstrip("/"), str(source)))
        return Mounts(tuple(sorted(pairs, key=lambda pair: -len(pair[0]))))

    async def _prepare(self, namespace: str, volume: Object, folder: Path) -> Path:
        directory = _inside(folder / "volumes", volume["name"])
        if "persistentVolumeClaim" in volume:
            name = volume["persistentVolumeClaim"]["claimName"]
            claim = await self._find(CLAIM, namespace, name)
            if claim is None:
                raise NotReady("Unschedulable", f'persistentvolumeclaim "{name}" not found')
            directory = self.claim_folder(namespace, name)
            if (claim.get("status") or {}).get("phase") != "Bound":  # its first pod binds it
                with contextlib.suppress(NotFound):
                    await self._cluster.patch_status(CLAIM, namespace, name, {"status": {"phase": "Bound"}})
        elif "configMap" in volume:
            name = volume["configMap"]["name"]
            found = await self._find(CONFIGMAP, namespace, name)
            if found is None:
                raise NotReady("CreateContainerConfigError", f'configmap "{name}" not found')
            _write_files(directory, found, volume["configMap"].get("items"))
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    async def _find(self, kind: Kind, namespace: str, name: str) -> Object | None:
        try:
            return await self._cluster.get(kind, namespace, name)
        except NotFound:
            return None


def _inside(folder: Path, name: str) -> Path:
    """Return a path in a folder.

    Raises:
        NotReady: the path leaves the folder, by itself or through a symbolic link.
    """
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise NotReady("CreateContainerConfigError", f"the path {name} leaves its volume")
    return path


def _write_files(directory: Path, configmap: Object, items: Sequence[Mapping[str, str]] | None) -> None:
    """Write the keys of a ConfigMap in ``items`` under their paths; all keys under their names without ``items``."""
    directory.mkdir(parents=True, exist_ok=True)
    contents = {name: text.encode() for name, text in (configmap.get("data") or {}).items()}
    contents |= {name: base64.b64decode(data) for name, data in (configmap.get("binaryData") or {}).items()}
    paths = {name: name for name in contents} if items is None else {item["key"]: item["path"] for item in items}
    for name, path in paths.items():
        if key_faults(name):  # the store rejects such a key, but it may have been stored before
            raise NotReady("CreateContainerConfigError", f'configmap "{configmap["metadata"]["name"]}" has an invalid key')
        if name not in contents:
            message = f'configmap "{configmap["metadata"]["name"]}" has no key {name}'
            raise NotReady("CreateContainerConfigError", message)
        _inside(directory, path).write_bytes(contents[name])


def environment(pod: Object, mounts: Mounts, secrets: SecretSource) -> dict[str, str]:
    """Return the environment of a pod's container with rewritten paths.

    Raises:
        NotReady: a required key of a Secret does not exist.
    """
    found: dict[str, str] = {}
    entries = pod["spec"]["containers"][0].get("env") or ()
    endpoint = _endpoint(entries, mounts)
    for entry in entries:
        value = entry.get("value", "")
        source = entry.get("valueFrom") or {}
        if "secretKeyRef" in source:
            secret = _secret_value(source["secretKeyRef"], secrets, endpoint)
            if secret is None:
                continue
            found[entry["name"]] = secret
            continue
        if "fieldRef" in source:
            value = _field(pod, source["fieldRef"]["fieldPath"])
        found[entry["name"]] = mounts.rewrite(value)
    return found


def _endpoint(entries: Sequence[Mapping[str, str]], mounts: Mounts) -> str | None:
    """Return the S3 server in the document with the inputs of a stage, ``None`` if it has none."""
    path = next((entry.get("value", "") for entry in entries if entry["name"] == CONFIG_VARIABLE), "")
    try:
        document = json.loads(Path(mounts.rewrite(path)).read_bytes())
    except (OSError, ValueError):  # the stage reports it
        return None
    endpoint = lookup(document, "inputs.endpoint")
    return None if endpoint is None else str(endpoint)


def _secret_value(reference: Mapping[str, object], secrets: SecretSource, endpoint: str | None) -> str | None:
    name, key = str(reference["name"]), str(reference["key"])
    value = secrets(name, key, endpoint)
    if value:
        return value
    withheld = bool(secrets(name, key, None))
    if reference.get("optional") and not (withheld and key in _NEEDED_KEYS):
        return None
    remedy = f"give --secret {name}=FILE"
    if withheld:
        remedy = (
            f"the environment variable {key} is not sent to {endpoint}: only if you trust this server, set AWS_S3_ENDPOINT to its"
            f" address or {remedy}; for a public object, use its https:// address"
        )
    elif key in STANDARD_KEYS:
        remedy = f"set the environment variable {key} or {remedy}"
    raise NotReady("CreateContainerConfigError", f'secret "{name}" has no key {key}; {remedy}')


def _field(pod: Object, path: str) -> str:
    """Return a field of the downward API: name, namespace, UID, label or annotation."""
    metadata = pod["metadata"]
    if path.startswith(("metadata.annotations['", "metadata.labels['")):
        group, key = path.split("['")
        return str((metadata.get(group.removeprefix("metadata.")) or {}).get(key.rstrip("']"), ""))
    return str(metadata.get(path.removeprefix("metadata."), ""))


def free_folder(folder: Path) -> None:
    """Remove the temporary volumes of a pod."""
    shutil.rmtree(folder / "volumes", ignore_errors=True)


def inherited_environment() -> dict[str, str]:
    """Return the environment variables of this machine that processes need: paths, locale, proxies, certificates."""
    kept = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "SSL_CERT_FILE", "SSL_CERT_DIR",
            "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "HF_ENDPOINT", "REQUESTS_CA_BUNDLE")  # fmt: skip
    return {name: os.environ[name] for name in kept if name in os.environ}

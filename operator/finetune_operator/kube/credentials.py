"""Credentials for an API server: the ServiceAccount of a pod, or a kubeconfig.

The official client only loads kubeconfigs, with its plug-ins for tokens. In a pod it is not imported, which would take half a second
and a third of the operator's memory.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .client import TokenSource

_CONTENT = re.compile(r"/?\{.*\}", re.DOTALL)
"""The content of an entry, with tokens, which the official client includes in its messages."""
SERVICE_ACCOUNT_FOLDER = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a kubelet mounts the ServiceAccount of a pod."""
_SCHEMES = ("bearer ", "Bearer ")


class NoCredentials(Exception):
    """There is neither a usable ServiceAccount nor a usable kubeconfig. The message contains the remedy.

    Attributes:
        why: the message without the remedy.
    """

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(f"{why}; {remedy}.")
        self.why = why


class ClientNotInstalled(Exception):
    """The official client, which reads kubeconfigs, is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "kubernetes: this package, which reads kubeconfigs, is not installed; pip install 'finetune-operator[cluster]'"
        )


@dataclass(frozen=True)
class Credentials:
    """An API server and an identity for it.

    Attributes:
        address: ``https://host:port``.
        namespace: the namespace of the pod or of the context.
        authority: path of the CA bundle; by default that of the system.
        certificate, key: paths of the client certificate, if any.
        verified: whether the certificate of the server is verified.
        token: reads the bearer token. In a pod it is rotated, so it is read again each time.
    """

    address: str
    namespace: str = "default"
    authority: str | None = None
    certificate: str | None = None
    key: str | None = None
    verified: bool = True
    token: TokenSource | None = None

    def tls(self) -> ssl.SSLContext:
        """Return the TLS context of connections to the server."""
        context = ssl.create_default_context(cafile=self.authority)
        if self.certificate:
            context.load_cert_chain(self.certificate, self.key)
        if not self.verified:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context


def load_credentials(kubeconfig: Path | None = None, context: str | None = None) -> Credentials:
    """Return the credentials of ``kubeconfig`` or ``context`` if given, else those of the pod, else those of ``$KUBECONFIG``.

    Raises:
        NoCredentials: there are none.
        ClientNotInstalled: this process is not in a pod, and the official client is missing.
    """
    if kubeconfig is None and context is None and SERVICE_ACCOUNT_FOLDER.exists():
        return _of_pod(os.environ)
    try:
        from kubernetes import client, config  # noqa: PLC0415 - see above
    except ModuleNotFoundError:
        raise ClientNotInstalled from None

    configuration = client.Configuration()
    try:
        loader = _loader(str(kubeconfig) if kubeconfig else None, context)
        loader.load_and_set(configuration)
        namespace = _namespace(loader.current_context)
    except (config.ConfigException, OSError) as error:
        message = _CONTENT.sub("", str(error)).removeprefix("Invalid kube-config file. ").strip().rstrip(".")
        raise NoCredentials(message, "set KUBECONFIG, or run in a pod with a ServiceAccount") from error
    except (AttributeError, KeyError, TypeError, ValueError):  # the client's message may contain a part of a malformed entry
        where = kubeconfig or "the kubeconfig"
        raise NoCredentials("its cluster or user is malformed", f"log in again, or correct {where}") from None
    return Credentials(
        configuration.host, namespace, configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file,
        bool(configuration.verify_ssl), _token_source(configuration),
    )  # fmt: skip


def _of_pod(variables: Mapping[str, str]) -> Credentials:
    """Return the credentials of the pod's ServiceAccount (https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/)."""
    try:
        host, port = variables["KUBERNETES_SERVICE_HOST"], variables["KUBERNETES_SERVICE_PORT"]
        namespace = (SERVICE_ACCOUNT_FOLDER / "namespace").read_text(encoding="utf-8").strip()
    except (KeyError, OSError) as error:
        raise NoCredentials(
            f"the ServiceAccount of the pod is incomplete: {error}", f"check the files in {SERVICE_ACCOUNT_FOLDER} of the pod"
        ) from None
    token = SERVICE_ACCOUNT_FOLDER / "token"  # a kubelet renews it
    return Credentials(
        f"https://{f'[{host}]' if ':' in host else host}:{port}", namespace, str(SERVICE_ACCOUNT_FOLDER / "ca.crt"),
        token=lambda: token.read_text(encoding="utf-8").strip(),
    )  # fmt: skip


def _loader(file: str | None, context: str | None) -> Any:
    """Return the official client's loader of kubeconfigs. Empty fields are removed, since kubectl treats them as absent."""
    from kubernetes.config import ConfigException, kube_config  # noqa: PLC0415 - see above

    merged = kube_config.KubeConfigMerger(file or kube_config.KUBE_CONFIG_DEFAULT_LOCATION)  # type: ignore[no-untyped-call]
    if merged.config is None:
        raise ConfigException("no configuration found")
    for entry in (*merged.config.value["clusters"], *merged.config.value["users"], *merged.config.value["contexts"]):
        for part in ("cluster", "user", "context"):
            if part in entry.value:
                entry.value[part] = _without_empty(entry.value[part])
    return kube_config.KubeConfigLoader(  # type: ignore[no-untyped-call]
        config_dict=merged.config, active_context=context, config_base_path=None, config_persister=merged.save_changes
    )


def _without_empty(fields: dict[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (fields or {}).items() if value not in ("", None, {}, [])}


def _namespace(active: dict[str, Any]) -> str:
    return str((active.get("context") or {}).get("namespace") or "default")


def _token_source(configuration: Any) -> TokenSource | None:
    if not configuration.get_api_key_with_prefix("BearerToken"):
        return None

    def read() -> str:
        text = str(configuration.get_api_key_with_prefix("BearerToken"))
        for scheme in _SCHEMES:
            text = text.removeprefix(scheme)
        return text.strip()

    return read

"""Who the operator or the command line is to an API server: a ServiceAccount in a pod, else a kubeconfig.

The official client reads a kubeconfig, with its plug-ins for tokens; nothing else of it is used. The three files of a pod are read
without it: importing it takes half a second and a third of the operator's memory.
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
"""The client shows the whole entry that it cannot use, tokens too."""
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a kubelet puts what a pod is."""
_SCHEMES = ("bearer ", "Bearer ")


class NoCredentials(Exception):
    """There is neither a ServiceAccount nor a kubeconfig that can be used: the message says what to do.

    Attributes:
        why: the message without that.
    """

    def __init__(self, why: str, what_to_do: str) -> None:
        super().__init__(f"{why}; {what_to_do}.")
        self.why = why


class ClientNotInstalled(Exception):
    """The official client, which reads kubeconfigs, is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "kubernetes: this package, which reads kubeconfigs, is not installed; pip install 'finetune-operator[cluster]'"
        )


@dataclass(frozen=True)
class Credentials:
    """An API server and an identity there.

    Attributes:
        address: ``https://host:port``.
        namespace: the context's namespace.
        authority: path of the CA bundle; without it, the machine's own.
        certificate, key: paths of a client certificate, where that is the identity.
        token: reads the bearer token anew each time: in a pod it is rotated.
    """

    address: str
    namespace: str = "default"
    authority: str | None = None
    certificate: str | None = None
    key: str | None = None
    verified: bool = True
    token: TokenSource | None = None

    def tls(self) -> ssl.SSLContext:
        """The context of connections to the server."""
        context = ssl.create_default_context(cafile=self.authority)
        if self.certificate:
            context.load_cert_chain(self.certificate, self.key)
        if not self.verified:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context


def load_credentials(kubeconfig: Path | None = None, context: str | None = None) -> Credentials:
    """The identity of this process: of ``kubeconfig`` or ``context`` where they are given, else of the pod, else of ``$KUBECONFIG``.

    Raises:
        NoCredentials: there is none.
        ClientNotInstalled: this is no pod, and the official client is missing.
    """
    if kubeconfig is None and context is None and SERVICE_ACCOUNT.exists():
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
        said = _CONTENT.sub("", str(error)).removeprefix("Invalid kube-config file. ").strip().rstrip(".")
        raise NoCredentials(said, "set KUBECONFIG, or run in a pod with a ServiceAccount") from error
    except (AttributeError, KeyError, TypeError, ValueError):  # what the client says of a broken entry may hold a part of it
        where = kubeconfig or "the kubeconfig"
        raise NoCredentials("its cluster or user is malformed", f"log in anew, or mend {where}") from None
    return Credentials(
        configuration.host, namespace, configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file,
        bool(configuration.verify_ssl), _token_source(configuration),
    )  # fmt: skip


def _of_pod(variables: Mapping[str, str]) -> Credentials:
    """The pod's ServiceAccount (https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/)."""
    try:
        host, port = variables["KUBERNETES_SERVICE_HOST"], variables["KUBERNETES_SERVICE_PORT"]
        namespace = (SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip()
    except (KeyError, OSError) as error:
        raise NoCredentials(f"the pod's ServiceAccount is incomplete: {error}", f"look at {SERVICE_ACCOUNT} in the pod") from None
    token = SERVICE_ACCOUNT / "token"  # a kubelet renews it
    return Credentials(
        f"https://{f'[{host}]' if ':' in host else host}:{port}", namespace, str(SERVICE_ACCOUNT / "ca.crt"),
        token=lambda: token.read_text(encoding="utf-8").strip(),
    )  # fmt: skip


def _loader(file: str | None, context: str | None) -> Any:
    """The official client's reader of kubeconfigs, on entries without empty fields: to kubectl an empty field is an absent one."""
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

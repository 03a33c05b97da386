"""Hosts of a run that the operator's configuration does not allow, and registry tokens that a run would send unprotected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from finetune_contract.hosts import HUB, HostUse, host_of, is_allowed, may_receive_token
from finetune_contract.uris import HubId, ImageReference, S3Location, UriKind, WebAddress, parse_uri

from .contradictions import Contradiction
from .resolved_spec import Registry, ResolvedSpec
from .settings import Settings

KEY = "allowedHosts"
"""Key of the operator's configuration."""
_URIS: tuple[tuple[str, UriKind], ...] = (("dataset.uri", "dataset"), ("dataset.evalUri", "dataset"), ("model.uri", "model"))


def host_problem(spec: ResolvedSpec, settings: Settings) -> Contradiction | None:
    """Return the first host that the run may not contact, or to which it may not send its token; ``None`` if there is none."""
    return next((found for check in (_addresses, _token) for found in check(spec, settings)), None)


def hub_is_allowed(settings: Settings) -> bool:
    """Return whether programs may contact the hub."""
    return is_allowed(_hub(settings), "hubs", settings.allowed_hosts)


def registry_url(registry: Registry) -> str | None:
    """Return the URL of the registry with scheme and port, ``None`` for the store in the workspace."""
    if not registry.address:
        return None
    url = registry.address if "://" in registry.address else f"http://{registry.address}"
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return url if ":" in host else f"{scheme}://{host}:{registry.port}{slash}{path}"


def _hub(settings: Settings) -> str:
    return settings.environment.get("HF_ENDPOINT") or HUB


def _addresses(spec: ResolvedSpec, settings: Settings) -> Iterator[Contradiction]:
    for field, url, use in _contacted(spec, settings):
        if not is_allowed(url, use, settings.allowed_hosts):
            yield Contradiction(field, _not_allowed(host_of(url), use, settings.allowed_hosts))


def _contacted(spec: ResolvedSpec, settings: Settings) -> Iterator[tuple[str, str, HostUse]]:
    """Yield field, URL and use of each host that the spec names. The stages check those that only a Secret or a redirect names."""
    values = {"dataset.uri": spec.dataset.uri, "dataset.evalUri": spec.dataset.eval_uri, "model.uri": spec.model.uri}
    for field, kind in _URIS:
        uri = parse_uri(value, kind) if (value := values[field]) else None
        if isinstance(uri, HubId):
            yield field, _hub(settings), "hubs"
        elif isinstance(uri, WebAddress):
            yield field, uri.url, "hosts"
        elif isinstance(uri, ImageReference):
            yield field, f"https://{uri.registry}", "images"
        elif isinstance(uri, S3Location) and (endpoint := (spec.model if kind == "model" else spec.dataset).endpoint):
            yield f"{kind}.endpoint", endpoint, "objectStores"
    registry = registry_url(spec.registry)
    if registry:
        yield "registry.address", registry, "registries"


def _not_allowed(host: str, use: HostUse, allowed: Mapping[str, tuple[str, ...]]) -> str:
    listed = f"one of {', '.join(allowed[use])}" if allowed[use] else "none: remove the field"
    return f"host {host} is not allowed here; use {listed}, or have it added to {KEY}.{use} in the operator's configuration"


def _token(spec: ResolvedSpec, settings: Settings) -> Iterator[Contradiction]:
    registry, url = spec.registry, registry_url(spec.registry)
    if url and registry.secret_ref and not may_receive_token(url, settings.allowed_hosts):
        yield Contradiction(
            "registry.address",
            f"{url} would receive the token of registry.secretRef unencrypted; use https:// or a Service of the cluster (<name>.<namespace>.svc),"
            f" remove registry.secretRef, or have the host added to {KEY}.registries in the operator's configuration",
        )

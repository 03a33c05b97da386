"""What the pods of a stage need to read a location: the volumes of claims, and the CA bundle of a server."""

from __future__ import annotations

from collections.abc import Iterable

from finetune_contract.documents import CLAIMS_VARIABLE, SOURCE_CA_VARIABLE
from finetune_contract.uris import ClaimPath, ParsedUri
from finetune_operator.core.resolved_spec import CertificateRef, Resources

from .pod import CLAIMS_PATH, SOURCE_CA_PATH, Json, PodNeeds


def claims_of(locations: Iterable[ParsedUri]) -> tuple[str, ...]:
    """Return the names of the claims of ``pvc://`` locations, each once."""
    return tuple(dict.fromkeys(location.claim for location in locations if isinstance(location, ClaimPath)))


def needs_of_locations(
    locations: Iterable[ParsedUri], ca_ref: CertificateRef | None, secrets: Iterable[Json], resources: Resources
) -> PodNeeds:
    """Return what the pods of a stage that reads ``locations`` need; ``secrets`` are variables of its environment."""
    environment: list[Json] = [*secrets]
    volumes: list[Json] = []
    mounts: list[Json] = []
    if ca_ref:
        environment.append({"name": SOURCE_CA_VARIABLE, "value": f"{SOURCE_CA_PATH}/{ca_ref.key}"})
        volumes.append({"name": "source-ca", "configMap": {"name": ca_ref.name}})
        mounts.append({"name": "source-ca", "mountPath": SOURCE_CA_PATH, "readOnly": True})
    claims = claims_of(locations)
    if claims:
        environment.append({"name": CLAIMS_VARIABLE, "value": CLAIMS_PATH})
    for number, claim in enumerate(claims):
        # Read-only, so that the kubelet does not change the owner of the files either.
        volumes.append({"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}})
        mounts.append({"name": f"claim-{number}", "mountPath": f"{CLAIMS_PATH}/{claim}", "readOnly": True})
    return PodNeeds(resources, environment=tuple(environment), volumes=tuple(volumes), mounts=tuple(mounts))

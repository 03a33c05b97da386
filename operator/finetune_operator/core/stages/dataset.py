"""Stage *dataset*."""

from __future__ import annotations

from typing import Any

from finetune_contract.codec import decode
from finetune_contract.documents import CLAIMS_VARIABLE, DATASET_CA_VARIABLE, HTTP_AUTHORIZATION_VARIABLE, DatasetInputs
from finetune_contract.result import DatasetOutputs, Result
from finetune_contract.uris import ClaimPath, ParsedUri, S3Location, WebAddress, parse_uri
from finetune_operator.api import stages
from finetune_operator.core.manifests.pod import (
    AWS_SECRET,
    AWS_SERVER,
    CLAIMS_PATH,
    DATASET_CA_PATH,
    HF_SECRET,
    Json,
    PodNeeds,
    secrets,
)
from finetune_operator.core.resolved_spec import Dataset, Resources
from finetune_operator.core.run import Run

from .base import ProgramStage


class DatasetStage(ProgramStage):
    """Fetch, check and split the data."""

    definition = stages.DATASET
    OWNS = ("rows.source", "rows.bad")

    def inputs(self, run: Run) -> DatasetInputs:
        spec = run.resolved.dataset
        server = {"endpoint": spec.endpoint, "region": spec.region} if _has(spec, S3Location) else {}
        return DatasetInputs(
            uri=spec.uri, eval_uri=spec.eval_uri, split=spec.split, revision=spec.revision, format=spec.format, fields=spec.fields,
            subset=spec.subset, subset_mode=spec.subset_mode, train_split=spec.train_split, split_by=spec.split_by, split_field=spec.split_field,
            near_duplicates=spec.near_duplicates, bad_rows=spec.bad_rows.policy,
            bad_rows_share=spec.bad_rows.share, seed=spec.seed, sha256=spec.sha256, **server,
        )  # fmt: skip

    def pod(self, run: Run) -> PodNeeds:
        spec = run.resolved.dataset
        environment: list[Json] = [*_secrets(spec)]
        volumes: list[Json] = []
        mounts: list[Json] = []
        if spec.ca_ref:
            environment.append({"name": DATASET_CA_VARIABLE, "value": f"{DATASET_CA_PATH}/{spec.ca_ref.key}"})
            volumes.append({"name": "dataset-ca", "configMap": {"name": spec.ca_ref.name}})
            mounts.append({"name": "dataset-ca", "mountPath": DATASET_CA_PATH, "readOnly": True})
        claims = self.claims(run)
        if claims:
            environment.append({"name": CLAIMS_VARIABLE, "value": CLAIMS_PATH})
        for number, claim in enumerate(claims):
            # Read-only, so that the kubelet does not change the owner of the files either.
            volumes.append({"name": f"data-{number}", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}})
            mounts.append({"name": f"data-{number}", "mountPath": f"{CLAIMS_PATH}/{claim}", "readOnly": True})
        return PodNeeds(
            resources=Resources("1", "4Gi"), environment=tuple(environment), volumes=tuple(volumes), mounts=tuple(mounts)
        )

    def claims(self, run: Run) -> tuple[str, ...]:
        found = (parsed.claim for parsed in _locations(run.resolved.dataset) if isinstance(parsed, ClaimPath))
        return tuple(dict.fromkeys(found))

    def verify(self, run: Run, result: Result) -> str | None:
        found = decode(DatasetOutputs, result.outputs, "outputs")
        return None if found.train_rows > 0 else "the prepared data has no row to train on"

    def status_fields(self, run: Run, result: Result) -> dict[str, Any]:
        found = decode(DatasetOutputs, result.outputs, "outputs")
        return {"rows": {"source": found.source_rows, "bad": found.dropped_rows}}


def _locations(spec: Dataset) -> tuple[ParsedUri, ...]:
    return tuple(parse_uri(uri, "dataset") for uri in (spec.uri, spec.eval_uri) if uri)


def _has(spec: Dataset, kind: type[ParsedUri]) -> bool:
    return any(isinstance(parsed, kind) for parsed in _locations(spec))


def _secrets(spec: Dataset) -> tuple[Json, ...]:
    """Return the environment variables from Secrets. A login for a web server comes only from a Secret that the run names."""
    hub_and_s3 = (HF_SECRET, AWS_SECRET, *((AWS_SERVER,) if _has(spec, S3Location) else ()))
    if spec.secret_ref is None:
        return secrets(None, *hub_and_s3)
    login = ((spec.secret_ref.name, (HTTP_AUTHORIZATION_VARIABLE,)),) if _has(spec, WebAddress) else ()
    first = isinstance(_locations(spec)[0], WebAddress)
    return secrets(spec.secret_ref, *((*login, *hub_and_s3) if first else (*hub_and_s3, *login)))

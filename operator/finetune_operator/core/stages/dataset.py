"""Stage *dataset*."""

from __future__ import annotations

from typing import Any

from finetune_contract.codec import decode
from finetune_contract.documents import HTTP_AUTHORIZATION_VARIABLE, DatasetInputs
from finetune_contract.result import DatasetOutputs, Result
from finetune_contract.uris import ParsedUri, S3Location, WebAddress, parse_uri
from finetune_operator.api import stages
from finetune_operator.core.manifests.locations import claims_of, needs_of_locations
from finetune_operator.core.manifests.pod import AWS_SECRET, AWS_SERVER, HF_SECRET, Json, PodNeeds, secrets
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
        return needs_of_locations(_locations(spec), spec.ca_ref, _secrets(spec), Resources("1", "4Gi"))

    def claims(self, run: Run) -> tuple[str, ...]:
        return claims_of(_locations(run.resolved.dataset))

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

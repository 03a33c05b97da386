"""Stage *dataset*."""

from __future__ import annotations

from typing import Any

from finetune_contract.codec import decode
from finetune_contract.documents import HTTP_AUTHORIZATION_VARIABLE, DatasetInputs
from finetune_contract.result import DatasetOutputs, Result
from finetune_contract.uris import HubId, ParsedUri, S3Location, WebAddress, parse_uri
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
        server = (
            {"endpoint": spec.endpoint, "region": spec.region}
            if any(isinstance(location, S3Location) for location in _locations(spec))
            else {}
        )
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


_STANDARDS = {HubId: (HF_SECRET,), S3Location: (AWS_SECRET, AWS_SERVER)}
"""Standard Secrets by kind of location."""


def _secrets(spec: Dataset) -> tuple[Json, ...]:
    """Return the environment variables from Secrets: each kind of location gets its own credentials only, the first location's first.

    A login for a web server comes only from a Secret that the run names, because a URI can contain any host.
    """
    found: list[tuple[str, tuple[str, ...]]] = []
    for kind in dict.fromkeys(type(location) for location in _locations(spec)):
        found += _STANDARDS.get(kind, ())
        if kind is WebAddress and spec.secret_ref:
            found.append((spec.secret_ref.name, (HTTP_AUTHORIZATION_VARIABLE,)))
    return secrets(spec.secret_ref, *found) if found else ()

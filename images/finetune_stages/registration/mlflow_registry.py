"""MLflow as a registry, through MLflow's client, for the store in the workspace and for a server.

MLflow numbers the versions of a model (1, 2, 3 ...); the user's version (``1.0.0``) is the tag ``version``. The URI of a numbered version
cannot be changed. An update therefore creates a new number with the tag, moves every alias of the old number to it, and removes the tag
from the old number, which gets a tag with its successor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune_contract.documents import Scalar

from .record import GATE, LABEL, LOSS, Record
from .registry import AlreadyExists, settled
from .versions import Entry

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

VERSION = "version"
"""Tag with the user's version."""
SUPERSEDES, SUPERSEDED_BY = f"{LABEL}/supersedes", f"{LABEL}/superseded-by"
"""Tags with the numbers of the previous and the next entry of an update."""

_BATCH = 100
"""Parameters or metrics per call; MLflow allows 100 and 1,000."""


class MLflow:
    """A :class:`~.registry.Registry` on MLflow's client."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client

    def versions(self, record: Record) -> list[Entry]:
        """See the protocol. Versions of other tools lack the tag and cannot conflict."""
        found: list[Any] = []
        token = None
        while token != "":
            page = self._client.search_model_versions(f"name = '{record.name}'", max_results=1000, page_token=token)
            found, token = [*found, *page], page.token or ""
        found.sort(key=lambda version: int(version.version))
        return [
            Entry(version.tags[VERSION], str(version.version), dict(version.tags), run_id=version.run_id)
            for version in found
            if VERSION in version.tags
        ]

    def create(self, record: Record, version: str) -> None:
        """See the protocol. The server allows duplicate tags: the entry with the higher MLflow number is removed."""
        made = self._make(record, version, {})
        same = [entry for entry in self.versions(record) if entry.version == version]
        if same and int(same[0].key) < int(made.version):
            self._client.delete_model_version(record.name, str(made.version))
            raise AlreadyExists(f"{record.name} {version}")

    def update(self, record: Record, entry: Entry) -> None:
        """See the protocol; :meth:`complete` does the rest."""
        self._make(record, entry.version, {SUPERSEDES: entry.key})

    def complete(self, record: Record, entry: Entry) -> None:
        """See the protocol: write parameters and metrics, end the run, and finish an update."""
        run_id = entry.run_id or self._run(record)
        self._log(record, run_id)
        if SUPERSEDES in entry.tags:
            self._supersede(record, entry, entry.tags[SUPERSEDES])
        for key, value in _tags(record, entry.version).items():
            if entry.tags.get(key) != value:
                self._client.set_model_version_tag(record.name, entry.key, key, value)
        self._client.set_terminated(run_id, "FINISHED", end_time=record.ended)

    def set_alias(self, record: Record, entry: Entry, alias: str) -> None:
        """See the protocol."""
        self._client.set_registered_model_alias(record.name, alias, entry.key)

    def differences(self, record: Record, entry: Entry) -> list[str]:
        """See the protocol."""
        version = self._client.get_model_version(record.name, entry.key)
        run = self._client.get_run(entry.run_id or version.run_id)
        curve = {(point.step, point.value) for point in self._client.get_metric_history(run.info.run_id, LOSS)}
        alias = record.effective_alias
        comparisons = {
            "source": version.source == record.model_uri,
            "description": version.description == record.description,
            "run": version.run_id == entry.run_id and run.info.status == "FINISHED",
            "tags": _tags(record, entry.version).items() <= version.tags.items(),
            "parameters": run.data.params == _parameters(record),
            "metrics": record.metrics.keys() <= run.data.metrics.keys(),
            "loss curve": {(point.step, point.value) for point in record.points if point.key == LOSS} <= curve,
            # A newer entry of another run.
            "alias": not alias or int(self._client.get_model_version_by_alias(record.name, alias).version) >= int(entry.key),
        }
        return [what for what, same in comparisons.items() if not same]

    def _make(self, record: Record, version: str, extra: dict[str, str]) -> ModelVersion:
        """Create a new number for the record, and its run and registered model if they do not exist."""
        from mlflow.exceptions import MlflowException

        run_id = self._run(record)
        try:
            self._client.create_registered_model(record.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        tags = {**_tags(record, version), **extra}
        return self._client.create_model_version(record.name, record.model_uri, run_id, tags, description=record.description)

    def _run(self, record: Record) -> str:
        """Return the MLflow run of the record. It is created with its tags in one transaction, so that it can be found again."""
        experiment_id = self._experiment(record)
        return settled(lambda: self._found_or_made(record, experiment_id))

    def _found_or_made(self, record: Record, experiment_id: str) -> str:
        same = " and ".join(f"tags.`{key}` = '{value}'" for key, value in record.identity.items())
        found = self._client.search_runs([experiment_id], same, max_results=1)
        if found:
            return str(found[0].info.run_id)
        tags = {**record.identity, **record.lineage, "mlflow.note.content": record.description}
        if record.author:
            tags["mlflow.user"] = record.author
        return str(self._client.create_run(experiment_id, record.started, tags, record.run.name).info.run_id)

    def _experiment(self, record: Record) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(record.experiment)
        if found is None:
            try:
                return str(self._client.create_experiment(record.experiment))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            found = self._client.get_experiment_by_name(record.experiment)
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _log(self, record: Record, run_id: str) -> None:
        """Write parameters and metrics. The operation is idempotent, because points have fixed times."""
        from mlflow.entities import Metric, Param

        metrics = [Metric(point.key, point.value, point.time, point.step) for point in record.points]
        params = [Param(key, value) for key, value in _parameters(record).items()]
        for start in range(0, max(len(metrics), len(params)), _BATCH):
            self._client.log_batch(run_id, metrics[start : start + _BATCH], params[start : start + _BATCH])

    def _supersede(self, record: Record, entry: Entry, old: str) -> None:
        """Move the aliases of the number ``old`` to the entry, and record the successor in the old one."""
        from mlflow.exceptions import MlflowException

        try:
            before = self._client.get_model_version(record.name, old)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return  # deleted meanwhile
        for alias in before.aliases:
            self._client.set_registered_model_alias(record.name, alias, entry.key)
        self._client.set_model_version_tag(record.name, old, SUPERSEDED_BY, entry.key)
        if VERSION in before.tags:
            self._client.delete_model_version_tag(record.name, old, VERSION)


def _tags(record: Record, version: str) -> dict[str, str]:
    """Return the tags of a version, for values without a field in MLflow."""
    known = {"author": record.author, "format": record.format, "format_version": record.format_version, GATE: record.gate}
    return {**record.identity, **record.lineage, **{key: value for key, value in known.items() if value}, VERSION: version}


def _parameters(record: Record) -> dict[str, str]:
    return {key: _text(value) for key, value in record.parameters.items()}


def _text(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

"""``finetune run`` on data of several files in S3, and the locations that it rejects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.workdir import Workdir, status_of
from s3_server import S3Server

Spec = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.go


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[S3Server]:
    """A server with a bucket."""
    with S3Server(tmp_path / "s3") as server:
        server.bucket("data")
        yield server


def test_a_run_on_data_in_s3(tmp_path: Path, small: Spec, s3: S3Server) -> None:
    workdir = Workdir(tmp_path)
    spec = small()
    source = Path(spec["dataset"]["uri"]) if Path(spec["dataset"]["uri"]).is_absolute() else tmp_path / spec["dataset"]["uri"]
    lines = source.read_bytes().splitlines(keepends=True)
    for number in range(2):
        s3.client.put_object(Bucket="data", Key=f"rows/{number}.jsonl", Body=b"".join(lines[number::2]))
    workdir.write({**spec, "dataset": {**spec["dataset"], "uri": "s3://data/rows/*.jsonl", "endpoint": s3.url}})
    result = workdir.finetune("run", "run.yaml", environment={**s3.KEYS, "AWS_S3_ENDPOINT": s3.url})
    assert result.code == 0, result.out + result.err
    assert status_of(workdir)["rows"]["source"] == len(lines)
    stored = b"".join(path.read_bytes() for path in (tmp_path / ".finetune").rglob("*") if path.is_file())
    assert not [value for value in s3.KEYS.values() if value.encode() in stored + result.out.encode() + result.err.encode()]


def test_a_run_without_keys_fails_at_once_and_names_them(tmp_path: Path, small: Spec) -> None:
    workdir = Workdir(tmp_path)
    workdir.write({**small(), "dataset": {"uri": "s3://data/rows.jsonl"}})
    assert workdir.finetune("run", "run.yaml").code == 65
    failure = status_of(workdir)["failure"]
    assert (failure["stage"], failure["reason"]) == ("dataset", "S3CredentialsMissing")
    assert failure["message"] == (
        "dataset.uri: s3://data/rows.jsonl: needs an access key, and there is none; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the"
        " Secret that dataset.secretRef names (default: s3-secret)."
    )
    assert failure["hint"] == (
        "Set the environment variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give --secret s3-secret=FILE with lines of both."
        " Then rerun from dataset."
    )


def test_a_claim_is_rejected_before_the_run_starts(tmp_path: Path, small: Spec) -> None:
    workdir = Workdir(tmp_path)
    workdir.write({**small(), "dataset": {"uri": "pvc://claim/rows.jsonl"}})
    result = workdir.finetune("run", "run.yaml")
    assert result.code == 65
    sentence = "pvc://claim/rows.jsonl is on a claim of a cluster, which local mode does not mount; use a local path"
    assert f"spec.dataset.uri: {sentence}" in result.out + result.err

"""The start of the training program: it runs exactly the files that have the digest in the pod's command."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from finetune_contract.reasons import STAGE_REASONS
from finetune_contract.result import Result, parse_message
from finetune_operator import training_bundle as bundles
from finetune_operator.core.manifests import bootstrap
from finetune_operator.training_bundle import bundle_digest, training_bundle

PROGRAM = {"__main__.py": b"import sys, pathlib; print(sys.argv, pathlib.Path(__file__).parent)\nraise SystemExit(7)\n"}


def archive(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in files.items():
            target.writestr(name, content)
    return buffer.getvalue()


def digest_of(content: bytes) -> str:
    found = bundle_digest(base64.b64encode(content).decode())
    assert found is not None
    return found


@dataclass
class Pod:
    """A container with a training bundle, a scratch space and a termination message."""

    folder: Path

    def run(self, content: bytes, digest: str) -> subprocess.CompletedProcess[str]:
        bundle = self.folder / "training.pyz"
        bundle.write_bytes(content)
        (self.folder / "tmp").mkdir()
        (self.folder / "hashlib.py").write_text("raise SystemExit('from the current directory')")
        python, *words = bootstrap.command(digest)
        assert python == "python"
        arguments = [word.replace("/opt/finetune/training.pyz", str(bundle)) for word in words]
        environment = {"TMPDIR": str(self.folder / "tmp"), "FINETUNE_RESULT": str(self.message), "FINETUNE_ATTEMPT": "1.2"}
        return subprocess.run(
            [sys.executable, *arguments], env=environment, cwd=self.folder, capture_output=True, text=True, check=False
        )

    @property
    def message(self) -> Path:
        return self.folder / "message"

    def result(self) -> Result:
        found = parse_message(self.message.read_text(encoding="utf-8"))
        assert found is not None
        return found


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)


def test_the_program_runs_from_a_copy_with_its_own_exit_code(pod: Pod) -> None:
    content = archive(PROGRAM)
    ended = pod.run(content, digest_of(content))
    assert (ended.returncode, ended.stderr) == (7, "")
    (copy,) = (pod.folder / "tmp").glob("*/training.pyz")
    assert ended.stdout == f"['{copy}'] {copy}\n"
    assert not pod.message.exists()


def test_the_bundle_of_this_release_has_the_digest_of_its_command(pod: Pod) -> None:
    """Without a document, it ends with the message of its own program."""
    entry = training_bundle()
    pod.run(base64.b64decode(entry.archive), entry.digest)
    assert pod.result().reason == "BadDocument"


ZEROS = {"__main__.py": bytes(bootstrap.SIZE_LIMIT + 1)}
REPLACED = {
    "other files": archive({"__main__.py": b"print('stolen')"}),
    "one file more": archive({**PROGRAM, "sitecustomize.py": b""}),
    "no archive": b"no archive",
    "nothing": b"",
    "a bomb": archive(ZEROS),
    "a damaged archive": archive(PROGRAM)[:40] + b"\0\0\0" + archive(PROGRAM)[43:],
}


@pytest.mark.parametrize("content", REPLACED.values(), ids=REPLACED)
def test_nothing_else_runs(pod: Pod, content: bytes) -> None:
    expected = digest_of(archive(PROGRAM))
    ended = pod.run(content, expected)
    assert (ended.returncode, ended.stdout) == (STAGE_REASONS["InputsReplaced"].exit_code, "")
    result = pod.result()
    assert (result.outcome, result.reason, result.attempt) == ("Failed", "InputsReplaced", "1.2")
    assert result.message.startswith("training bundle: ")
    assert result.message.endswith(
        f", and the pod was created for {expected}; delete its ConfigMap, and the operator creates it again."
    )
    assert ended.stderr == f"InputsReplaced: {result.message}\n"


def test_both_readers_of_a_bundle_have_one_limit() -> None:
    assert bundles.SIZE_LIMIT == bootstrap.SIZE_LIMIT

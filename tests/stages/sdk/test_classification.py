"""Faults of a machine are recognized whatever library reports them: a full file system, with the real libraries on a real one; a GPU."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_stages.sdk.fault import classify
from restricted import in_a_small_volume

LIBRARIES = {
    "safetensors": "import torch, safetensors.torch as s; s.save_file({'a': torch.zeros(1 << 20)}, place / 'model.safetensors')",
    "torch": "import torch; torch.save({'a': torch.zeros(1 << 20)}, place / 'model.pt')",
    "datasets": "import datasets; datasets.Dataset.from_dict({'a': ['x' * 1000] * 4000}).save_to_disk(place / 'rows')",
    "tokenizers": (
        "from tokenizers import Tokenizer, models;"
        "Tokenizer(models.WordLevel({str(n) * 9: n for n in range(90_000)}, unk_token='0')).save(str(place / 'tokenizer.json'))"
    ),
    "sqlite": (
        "import sqlite3; c = sqlite3.connect(place / 'a.db'); c.execute('create table t (v)');"
        " [c.execute('insert into t values (?)', ('x' * 100_000,)) for _ in range(100)]; c.commit()"
    ),
    "python": "(place / 'a').write_bytes(b'x' * (4 << 20))",
}
PROGRAM = """
import sys
from pathlib import Path
from finetune_stages.sdk.fault import classify
place = Path(sys.argv[1])
try:
    {body}
except Exception as error:
    found = classify(error)
    print(found.reason, found.message, sep="|")
"""


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_full_volume_is_reported_whatever_library_writes(tmp_path, library):
    place = tmp_path / "volume"
    place.mkdir()
    command = [sys.executable, "-c", PROGRAM.replace("{body}", LIBRARIES[library]), str(place)]
    done = subprocess.run(
        in_a_small_volume(command, place, 1500, tmp_path / "left.txt"), capture_output=True, text=True, check=False
    )
    reason, message = done.stdout.strip().split("|", 1)
    assert reason == "WorkspaceFull", (message, done.stderr)
    assert message.startswith("workspace: no space is left for ")
    assert message.endswith("; free space or enlarge the volume.")


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        # A quota needs a file system with quotas, which a container does not have.
        (OSError(errno.EDQUOT, "Disk quota exceeded", "model.safetensors"), "WorkspaceFull"),
        (raised(ValueError("cannot save"), OSError(errno.EDQUOT, "Disk quota exceeded")), "WorkspaceFull"),
        (RuntimeError("Error while serializing: I/O error: Disk quota exceeded (os error 122)"), "WorkspaceFull"),
        (RuntimeError("unable to write to file </torch_12_34_0>: No space left on device (28)"), "OutOfMemoryHost"),
        (
            RuntimeError(
                "NCCL error: Error while creating shared memory segment /dev/shm/nccl-Ab (size 9): No space left on device"
            ),
            "OutOfMemoryHost",
        ),
        (RuntimeError("[Errno 280] of a device"), "Crashed"),
        (RuntimeError("there is space on the device"), "Crashed"),
    ],
)
def test_messages_of_full_file_systems(error, reason):
    found = classify(error)
    assert found.reason.name == reason
    assert ("training.sharedMemory" in found.message) == (reason == "OutOfMemoryHost")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("CUDA error: uncorrectable ECC error encountered\nCUDA kernel errors might be asynchronously reported", "GPUUnusable"),
        ("CUDA error: CUDA-capable device(s) is/are busy or unavailable", "GPUUnusable"),
        ("CUDA error: an illegal memory access was encountered", "Crashed"),  # a bug of the program, on any GPU
    ],
)
def test_a_gpu_that_fails_is_a_fault_of_the_node(text, reason):
    error = type("AcceleratorError", (RuntimeError,), {})(text)  # torch's class, which only a GPU raises
    found = classify(error)
    assert found.reason.name == reason
    assert text.splitlines()[0] in found.message


def test_the_file_is_named_if_it_is_known():
    assert classify(OSError(errno.EDQUOT, "Disk quota exceeded", str(Path("a") / "b"))).message == (
        "workspace: no space is left for a/b; free space or enlarge the volume."
    )

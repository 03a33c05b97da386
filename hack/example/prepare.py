"""Make what the example needs and no network has to bring: chat data, and a tiny base model that is trained once and kept.

``python hack/example/prepare.py`` fills ``~/.cache/finetune-operator/example``; what is there already is left as it is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

import pydocs

FOLDER = Path("~/.cache/finetune-operator/example").expanduser()
HERE = Path(__file__).parent
BASE_ROWS = 4000
"""Rows of the old skill that the base model learns."""
HELD_OUT_ROWS = 100
"""Rows of the old skill that it never sees."""
NEW_ROWS = 800
"""Rows of the new skill, to fine-tune on and to measure with."""


def main() -> None:
    """Prepare everything."""
    stamp = FOLDER / "stamp"
    wanted = _stamp()
    if stamp.exists() and stamp.read_text() == wanted:
        print(f"example: data and base model are ready in {FOLDER}")
        return
    shutil.rmtree(FOLDER, ignore_errors=True)
    purpose, signature = pydocs.rows("purpose"), pydocs.rows("signature")
    pydocs.write_jsonl(FOLDER / "signatures.jsonl", signature[:NEW_ROWS])
    pydocs.write_jsonl(FOLDER / "tasks/purposes.jsonl", purpose[:HELD_OUT_ROWS])
    print(f"example: {len(purpose)} and {len(signature)} questions from the documentation of Python {sys.version.split()[0]}")
    print("example: training a tiny base model, once (about 100 s on two cores)", flush=True)
    # Threads that spin while they wait take the processor from the one they wait for: 6 times slower on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    from base_model import train_base_model

    torch.set_num_threads(min(4, os.cpu_count() or 1))
    answers = [row["messages"][1]["content"] for row in signature]
    taught = purpose[HELD_OUT_ROWS : HELD_OUT_ROWS + BASE_ROWS]
    train_base_model(FOLDER / "base-model.partial", taught, answers, report=lambda line: print(line, flush=True))
    (FOLDER / "base-model.partial").rename(FOLDER / "base-model")
    stamp.write_text(wanted)


def _stamp() -> str:
    """What the prepared files depend on: these programs, and the Python whose documentation it is."""
    sources = b"".join((HERE / name).read_bytes() for name in ("prepare.py", "pydocs.py", "base_model.py"))
    return f"{sys.version_info[:3]} {hashlib.sha256(sources).hexdigest()}\n"


if __name__ == "__main__":
    main()

"""Start of the training program: it hashes the program in the ConfigMap, and runs a copy of exactly the files that it hashed.

A ConfigMap can be deleted and created again with other content while a pod starts. So the digest is in the pod's command, and the copy
is in the scratch space of the pod, which no other pod can write to. The copy is written from the files that were hashed: a reader of zip
archives that understands the original differently runs nothing else.
"""

from __future__ import annotations

from finetune_contract import CONTRACT_VERSION, reasons

from .pod import BUNDLE_FILE, BUNDLE_PATH

SIZE_LIMIT = 64 << 20
"""Total bytes of the files of a training bundle: a ConfigMap of 1 MiB can expand to a thousand times its size."""

BOOTSTRAP = f"""\
import sys
sys.path = [folder for folder in sys.path if folder]  # not the current directory
import hashlib, io, json, os, tempfile, zipfile, zlib
path, expected = sys.argv[1:]
try:
    with open(path, "rb") as file, zipfile.ZipFile(io.BytesIO(file.read())) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > {SIZE_LIMIT}:
            raise ValueError("its files are too large")
        files = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    found = hashlib.sha256()
    for name, content in files:
        found.update(f"{{name}}\\0{{len(content)}}\\0".encode() + content)
    if found.hexdigest() != expected:
        raise ValueError(f"it has digest {{found.hexdigest()}}")
except (OSError, ValueError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
    words = f"training bundle: {{error}}, and the pod was created for {{expected}}; delete its ConfigMap, and the operator creates it again."
    result = {{"stage": "training", "attempt": os.environ.get("FINETUNE_ATTEMPT", "0.0"), "inputsDigest": "", "outcome": "Failed",
              "reason": "{reasons.INPUTS_REPLACED}", "message": words, "contractVersion": {CONTRACT_VERSION}}}
    target = os.environ.get("FINETUNE_RESULT")
    if target:
        with open(target, "w", encoding="utf-8") as file:
            json.dump({{"finetune": result}}, file)
    sys.exit(f"{reasons.INPUTS_REPLACED}: {{words}}")
copy = os.path.join(tempfile.mkdtemp(prefix="finetune-"), "{BUNDLE_FILE}")
with zipfile.ZipFile(copy, "w") as archive:
    for name, content in files:
        archive.writestr(zipfile.ZipInfo(name), content)
os.execv(sys.executable, [sys.executable, copy])
"""
"""Program for ``python -c``, with the path and the digest of the training bundle as arguments. Standard library of Python 3.11 and later."""


def command(digest: str) -> list[str]:
    """Return the command of a training container. ``digest`` is SHA-256 over the names and contents of the program's files."""
    return ["python", "-c", BOOTSTRAP, f"{BUNDLE_PATH}/{BUNDLE_FILE}", digest]

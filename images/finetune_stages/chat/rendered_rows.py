"""Identity of the rendered rows that stage *tokenization* publishes for evaluation: other pods can write to the workspace."""

from __future__ import annotations

from finetune_contract.codec import digest
from finetune_stages.sdk import Seal

_FOLDER = "passages/"


def passages_digest(seal: Seal) -> str:
    """Return the digest of the names and contents of all files of rendered rows in the sealed folder ``tokens``."""
    return digest({name: file.sha256 for name, file in seal.files.items() if name.startswith(_FOLDER)})

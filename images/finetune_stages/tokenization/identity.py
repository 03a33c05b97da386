"""What the published tokens depend on, and the digest that identifies them."""

from __future__ import annotations

from importlib import metadata

from finetune_contract.codec import digest
from finetune_contract.documents import Scalar, TokenizationInputs
from finetune_stages.chat.task_rows import chat_files, own_roots, require_own_names
from finetune_stages.sdk import Seal
from finetune_stages.sdk.workspace import file_sha256

TOKENS = "tokens"
"""Name of the published directory in the run's folder."""
RENDERING = 2
"""Version of the rendering of rows. A new version invalidates the results of an older one."""


def digest_of_arrays(seal: Seal) -> str:
    """Return the digest of the arrays that training reads, without the rendered conversations."""
    return digest({name: file.sha256 for name, file in seal.files.items() if name.endswith(".npy")})


def fingerprint_of(inputs: TokenizationInputs) -> dict[str, Scalar]:
    """Return what the result depends on in addition to its inputs and earlier stages: the user's files of chat rows.

    Raises:
        StageError: ``TaskNotFound``, ``TaskInvalid``.
    """
    require_own_names(inputs.tasks)
    files = chat_files(own_roots(inputs.task_files), inputs.tasks)
    return {
        "rendering": RENDERING, "transformers": metadata.version("transformers"), "trl": metadata.version("trl"),
        **{f"chat/{name}": file_sha256(path) for name, path in files.items()},
    }  # fmt: skip

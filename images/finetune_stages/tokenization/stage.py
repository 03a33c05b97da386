"""Program of stage *tokenization*. Large libraries are imported only if there is work to do."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import metadata

from finetune_contract.codec import digest
from finetune_contract.documents import Scalar, TokenizationInputs
from finetune_contract.result import Result
from finetune_stages.chat.task_rows import chat_files, own_roots, require_own_names
from finetune_stages.sdk import Context, Finished, Reuse, Seal, quick_imports, run_stage, verify_seal, without
from finetune_stages.sdk.workspace import file_sha256

TOKENS = "tokens"
"""Name of the published directory in the run's folder."""
RENDERING = 1
"""Version of the rendering of rows. A new version invalidates the results of an older one."""


def main() -> int:
    """Run the stage and return its exit code."""
    return run_stage(("tokenization",), work, outputs_exist, reuse=Reuse(directories=(TOKENS,), revalidate=revalidate))


def outputs_exist(context: Context, result: Result) -> bool:
    """Return whether the tokens of an earlier result are still in the run's folder, unchanged."""
    seal = verify_seal(context.path(context.layout.tokens))
    return seal is not None and digest_of_arrays(seal) == result.outputs.get("digest")


def digest_of_arrays(seal: Seal) -> str:
    """Return the digest of the arrays that training reads, without the rendered conversations."""
    return digest({name: file.sha256 for name, file in seal.files.items() if name.endswith(".npy")})


def revalidate(context: Context, fingerprint: Mapping[str, Scalar]) -> bool:
    """Return whether the user's files and the renderer are unchanged since ``fingerprint``."""
    return depends_on(context, context.inputs(TokenizationInputs)) == fingerprint


def depends_on(context: Context, inputs: TokenizationInputs) -> dict[str, Scalar]:
    """Return what the result depends on in addition to its inputs and earlier stages: the user's files of chat rows.

    Raises:
        StageError: ``TaskNotFound``, ``TaskInvalid``.
    """
    require_own_names(inputs.tasks)
    files = chat_files(own_roots(context, inputs.task_files), inputs.tasks)
    return {
        "rendering": RENDERING, "transformers": metadata.version("transformers"), "trl": metadata.version("trl"),
        **{f"chat/{name}": file_sha256(path) for name, path in files.items()},
    }  # fmt: skip


def work(context: Context) -> Finished:
    """Render the rows: see :func:`.work.tokenize`."""
    # The libraries import torch if it is installed, which takes seconds; tokenizers do not need it.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # hides the warning about the missing PyTorch
    with without("torch", "tensorflow", "flax"):
        with quick_imports():
            from .work import tokenize

        return tokenize(context)

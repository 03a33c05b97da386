"""Program of stage *tokenization*. Large libraries are imported only if there is work to do."""

from __future__ import annotations

import os
from collections.abc import Mapping

from finetune_contract.documents import Scalar, TokenizationInputs
from finetune_contract.result import Result
from finetune_stages.chat.rendered_rows import passages_digest
from finetune_stages.sdk import Context, Finished, Reuse, quick_imports, run_stage, verify_seal, without

from .identity import TOKENS, digest_of_arrays, fingerprint_of


def main() -> int:
    """Run the stage and return its exit code."""
    return run_stage(("tokenization",), work, outputs_exist, reuse=Reuse(directories=(TOKENS,), revalidate=revalidate))


def outputs_exist(context: Context, result: Result) -> bool:
    """Return whether the tokens of an earlier result are still in the run's folder, unchanged."""
    seal = verify_seal(context.path(context.layout.tokens))
    if seal is None:
        return False
    reported = (result.outputs.get("digest"), result.outputs.get("passagesDigest"))
    return (digest_of_arrays(seal), passages_digest(seal)) == reported


def revalidate(context: Context, fingerprint: Mapping[str, Scalar]) -> bool:
    """Return whether the user's files and the renderer are unchanged since ``fingerprint``."""
    return fingerprint_of(context.inputs(TokenizationInputs)) == fingerprint


def work(context: Context) -> Finished:
    """Render the rows: see :func:`.work.tokenize`."""
    # The libraries import torch if it is installed, which takes seconds; tokenizers do not need it.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # hides the warning about the missing PyTorch
    with without("torch", "tensorflow", "flax"):
        with quick_imports():
            from .work import tokenize

        return tokenize(context)

"""Stage *tokenization* as a program. Nothing heavy is imported before there is work to do."""

from __future__ import annotations

import os
from collections.abc import Mapping

from finetune_contract.documents import Scalar, TokenizationInputs
from finetune_contract.result import Result
from finetune_stages.sdk import Context, Finished, Reuse, quick_imports, run_stage, verify_seal, without

from .identity import TOKENS, depends_on, digest_of_arrays


def main() -> int:
    """Run the stage and return its exit code."""
    return run_stage(("tokenization",), work, outputs_exist, reuse=Reuse(directories=(TOKENS,), revalidate=revalidate))


def outputs_exist(context: Context, result: Result) -> bool:
    """Whether the tokens that an earlier result describes are still in the run's folder, untouched."""
    seal = verify_seal(context.path(context.layout.tokens))
    return seal is not None and digest_of_arrays(seal) == result.outputs.get("digest")


def revalidate(context: Context, noted: Mapping[str, Scalar]) -> bool:
    """Whether the same rows would be rendered in the same way as when ``noted`` was."""
    return depends_on(context, context.inputs(TokenizationInputs)) == noted


def work(context: Context) -> Finished:
    """Render the rows: see :func:`.work.tokenize`."""
    # The libraries import torch wherever it is installed, which takes seconds; no tokenizer needs it.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it would say that PyTorch was not found
    with without("torch", "tensorflow", "flax"):
        with quick_imports():
            from .work import tokenize

        return tokenize(context)

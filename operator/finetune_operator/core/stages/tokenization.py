"""Stage *tokenization*: render and tokenize every row before a GPU is requested."""

from __future__ import annotations

from typing import Any

from finetune_contract.codec import decode
from finetune_contract.documents import TokenizationInputs
from finetune_contract.result import Result, TokenizationOutputs
from finetune_operator.api import stages
from finetune_operator.core.manifests.pod import PodNeeds
from finetune_operator.core.run import Run

from .base import ProgramStage, section
from .evaluation import task_files
from .gate import requirements


class TokenizationStage(ProgramStage):
    """Render and tokenize the rows to train on and to score, with the base model's chat template and tokenizer."""

    definition = stages.TOKENIZATION
    COUNTS = ("trained", "tokens", "learnedTokens", "tooLong", "nothingToLearn", "rejected", "measured", "notMeasured")

    def inputs(self, run: Run) -> TokenizationInputs:
        training, evaluation, bad_rows = (
            section(run, "training"),
            section(run, "evaluation"),
            section(run, "dataset")["badRows"],
        )
        evaluated = bool(evaluation["enabled"])
        return TokenizationInputs(
            max_seq_len=training["maxSeqLen"], unmask=training["unmask"], holdout=evaluated and evaluation["holdout"],
            tasks=tuple(evaluation["tasks"]) if evaluated else (), task_files=evaluated and "taskFiles" in evaluation,
            bad_rows=bad_rows["policy"], bad_rows_share=float(bad_rows["share"]),
            requires_holdout=evaluated and any(one["metric"].startswith("holdout.") for one in requirements(run)),
            trust_remote_code=section(run, "model")["trustRemoteCode"],
        )  # fmt: skip

    def pod(self, run: Run) -> PodNeeds:
        return PodNeeds(cpu="1", memory="4Gi", **task_files(run))

    def verify(self, run: Run, result: Result) -> str | None:
        found = decode(TokenizationOutputs, result.outputs, "outputs")
        return None if found.rows > 0 and found.learned_tokens > 0 else "no row has a token to learn"

    def status_fields(self, run: Run, result: Result) -> dict[str, Any]:
        found = decode(TokenizationOutputs, result.outputs, "outputs")
        return {
            "rows": {
                "trained": found.rows, "tokens": found.tokens, "learnedTokens": found.learned_tokens, "tooLong": found.too_long,
                "nothingToLearn": found.nothing_to_learn, "rejected": found.rejected, "measured": found.measured_rows,
                "notMeasured": found.not_measured,
            }
        }  # fmt: skip

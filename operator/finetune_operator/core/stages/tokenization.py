"""Stage *tokenization*: applies the chat template and the tokenizer of the base model to every row, before a GPU is requested."""

from __future__ import annotations

from typing import Any

from finetune_contract.codec import decode, encode
from finetune_contract.documents import TokenizationInputs
from finetune_contract.result import Result, TokenizationOutputs
from finetune_operator.api import stages
from finetune_operator.core.estimate import estimate
from finetune_operator.core.manifests.pod import PodNeeds
from finetune_operator.core.resolved_spec import Resources
from finetune_operator.core.run import Run

from .base import ProgramStage
from .evaluation import task_files


class TokenizationStage(ProgramStage):
    """Render and tokenize the rows for training and for evaluation."""

    definition = stages.TOKENIZATION
    OWNS = (
        *(
            f"rows.{count}"
            for count in (
                "trained", "tokens", "learnedTokens", "tokensPerRow", "tooLong", "nothingToLearn", "rejected", "measured",
                "notMeasured",
            )
        ),
        "estimate", "sample",
    )  # fmt: skip

    def inputs(self, run: Run) -> TokenizationInputs:
        spec = run.resolved
        training, evaluation, bad_rows = spec.training, spec.evaluation, spec.dataset.bad_rows
        evaluated = evaluation.enabled
        return TokenizationInputs(
            max_seq_len=training.max_seq_len, unmask=training.unmask, holdout=evaluated and evaluation.holdout,
            tasks=evaluation.tasks if evaluated else (), task_files=evaluated and evaluation.task_files is not None,
            bad_rows=bad_rows.policy, bad_rows_share=bad_rows.share,
            requires_holdout=evaluated
            and (not evaluation.tasks or any(one.metric.startswith("holdout.") for one in spec.gate.requirements)),
            trust_remote_code=spec.model.trust_remote_code, sample=spec.dataset.sample_in_status,
        )  # fmt: skip

    def pod(self, run: Run) -> PodNeeds:
        return PodNeeds(resources=Resources("1", "4Gi"), **task_files(run))

    def verify(self, run: Run, result: Result) -> str | None:
        found = decode(TokenizationOutputs, result.outputs, "outputs")
        return None if found.rows > 0 and found.learned_tokens > 0 else "no row has a token to learn"

    def status_fields(self, run: Run, result: Result) -> dict[str, Any]:
        found = decode(TokenizationOutputs, result.outputs, "outputs")
        return {
            "rows": {
                "trained": found.rows, "tokens": found.tokens, "learnedTokens": found.learned_tokens,
                "tokensPerRow": {"p50": found.median, "p90": found.p90, "p99": found.p99, "max": found.longest}, "tooLong": found.too_long,
                "nothingToLearn": found.nothing_to_learn, "rejected": found.rejected, "measured": found.measured_rows,
                "notMeasured": found.not_measured,
            },
            "sample": [encode(row) for row in found.sample] or None,
            "estimate": estimate(
                run.resolved.training, found.rows, found.tokens, int(found.attention), (run.status.get("model") or {}).get("parameters")
            ),
        }  # fmt: skip

"""lm-eval task for held-out rows and the user's files of chat rows: scores of the answers, given their context.

Stage *tokenization* determines the scored text (:mod:`finetune_stages.chat.passages`), with the same rendering as for training.
``systemInstruction`` applies to lm-eval's tasks only. A token with characters of both answer and template counts as part of the answer.

``bits_per_byte``
    Bits for all answers per byte of their UTF-8 text: ``sum(-log2 P) / sum(bytes)``.
``loss``
    Nats per token: ``sum(-ln P) / sum(tokens)``; comparable between models with the same tokenizer only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from lm_eval.api.instance import Instance
from lm_eval.api.metrics import bits_per_byte, weighted_mean
from lm_eval.api.task import Task
from lm_eval.config.task import TaskConfig
from lm_eval.filters import build_filter_ensemble

from .passages import Row, answers

REQUEST = "answer_loglikelihood"
"""Type of the task's requests, and name of the model's method for them."""


class AnswerScore(NamedTuple):
    """Log-probability of an answer in nats, its number of tokens, and the bytes of its text in UTF-8."""

    loglikelihood: float
    tokens: int
    size: int


class ChatRows(Task):  # type: ignore[misc]
    """The task; one document is one row."""

    VERSION = 1
    OUTPUT_TYPE = REQUEST

    def __init__(self, name: str, rows: Sequence[Row]) -> None:
        """``rows``: see :func:`.passages.read_passages`."""
        self._config = TaskConfig(task=name, output_type=REQUEST, num_fewshot=0, metadata={"version": self.VERSION})
        self._filters = [build_filter_ensemble("none", [["take_first", None]])]
        self._instances = None
        self._rows = rows
        self.scored: list[tuple[float, int, int]] = []

    def has_training_docs(self) -> bool:
        """Return false: no examples are shown."""
        return False

    def has_validation_docs(self) -> bool:
        """Return true: the rows are the test documents."""
        return False

    def has_test_docs(self) -> bool:
        """Return true: the rows are there."""
        return True

    def test_docs(self) -> Sequence[Row]:
        """Return the rows."""
        return self._rows

    def doc_to_text(self, _doc: Row) -> str:
        """Return an empty text: a conversation is not split into a question and one answer."""
        return ""

    def doc_to_target(self, doc: Row) -> list[str]:
        """Return the answers."""
        return answers(doc)

    def fewshot_context(self, _doc: Row, **_settings: Any) -> str:
        """Return an empty text: a conversation is its own context, with its own system message."""
        return ""

    def construct_requests(self, doc: Row, *, metadata: tuple[str, int, int], **_settings: Any) -> list[Instance]:
        """Return one request per passage. ``metadata``: name of the task, number of the row, number of repeats."""
        found = [(passage["text"], tuple(map(tuple, passage["answers"]))) for passage in doc["passages"]]
        return [
            Instance(request_type=REQUEST, doc=doc, arguments=passage, idx=number, metadata=metadata)
            for number, passage in enumerate(found)
        ]

    def process_results(self, _doc: Row, results: Sequence[Sequence[AnswerScore]]) -> dict[str, tuple[float, int]]:
        """Return the row's share of each metric: summands of numerator and denominator."""
        scores = [score for passage in results for score in passage]
        loglikelihood = math.fsum(score.loglikelihood for score in scores)
        self.scored.append((loglikelihood, sum(score.size for score in scores), sum(score.tokens for score in scores)))
        return {"bits_per_byte": (loglikelihood, self.scored[-1][1]), "loss": (loglikelihood, self.scored[-1][2])}

    def aggregation(self) -> dict[str, Callable[[Sequence[tuple[float, int]]], float]]:
        """Return the functions that compute metrics from the shares."""
        return {"bits_per_byte": bits_per_byte, "loss": nats_per_token}

    def higher_is_better(self) -> dict[str, bool]:
        """Return false for both metrics."""
        return {"bits_per_byte": False, "loss": False}

    def standard_errors(self) -> dict[str, float]:
        """Return the standard errors of both metrics by lm-eval's keys; empty for fewer than two rows. lm-eval has none for ratios."""
        if len(self.scored) < 2:
            return {}
        return {
            "bits_per_byte_stderr,none": ratio_error([(ll / math.log(2), size) for ll, size, _ in self.scored]),
            "loss_stderr,none": ratio_error([(ll, tokens) for ll, _, tokens in self.scored]),
        }


def nats_per_token(items: Sequence[tuple[float, int]]) -> float:
    """Return the mean loss of pairs (log-likelihood in nats, tokens)."""
    return float(-weighted_mean(items))


def ratio_error(pairs: Sequence[tuple[float, int]]) -> float:
    """Return the standard error of ``sum(x) / sum(w)`` over at least two independent pairs (x, w): rows, not answers.

    The delta method: ``sqrt(n / (n - 1) * sum((x - r * w)^2)) / sum(w)`` (Cochran, Sampling Techniques, 3rd ed., section 2.11).
    """
    count, weight = len(pairs), sum(size for _, size in pairs)
    ratio = math.fsum(value for value, _ in pairs) / weight
    return math.sqrt(count / (count - 1) * math.fsum((value - ratio * size) ** 2 for value, size in pairs)) / weight

"""lm-eval's Hugging Face backend with three additions: all answers of a text in one pass, batch sizes for processors, and progress."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from torch.nn.functional import cross_entropy

from finetune_contract import reasons
from finetune_contract.documents import EvaluationInputs, Scalar
from finetune_stages.sdk import StageError, quick_imports
from finetune_stages.sdk.bounded import LimitExceeded, bounded_text
from finetune_stages.sdk.fault import causes, classify, first_line
from finetune_stages.sdk.gpus import on_gpu, require_torch_gpus
from finetune_stages.sources.positions import hard_positions

from .chat_task import AnswerScore

TOKENS_PER_BATCH = 1024
"""Tokens of one forward pass on a processor. Larger batches are not faster there."""
LARGEST_BATCH = 64
GENERATION_BATCH = 16
"""Largest batch size of generation on a processor."""

_OURS = (
    "pretrained", "tokenizer", "peft", "delta", "device", "batch_size", "max_batch_size", "trust_remote_code", "backend", "revision",
    "subfolder", "gguf_file", "autogptq", "gptqmodel", "output_loading_info",
)  # fmt: skip
"""Arguments of lm-eval's backend for the model and the device, which users cannot set."""


@dataclass(frozen=True)
class Window:
    """A part of a text that fits into the model's context.

    Attributes:
        passage: number of the text.
        start: position of the part's first token in the text.
        first: position of the first scored token; earlier tokens are context.
        ids: token ids of the part.
    """

    passage: int
    start: int
    first: int
    ids: list[int]


class Scorer(HFLM):  # type: ignore[misc]
    """Model backend for lm-eval's requests and those of :class:`.chat_task.ChatRows`."""

    _model: Any

    def _create_model(self, *args: Any, **options: Any) -> None:
        """Load the model without changes after ``from_pretrained``.

        lm-eval ties the weights again after loading, by the configuration alone: that would replace a separate output layer, which
        ``from_pretrained`` keeps, by the embeddings.

        Raises:
            StageError: ``ModelIncomplete``: weights are missing in the files and would be random.
        """
        super()._create_model(*args, output_loading_info=True, **options)
        self._model, report = self._model
        missing = sorted({*report["missing_keys"], *map(str, report["mismatched_keys"])})
        if missing:
            raise StageError(
                reasons.MODEL_INCOMPLETE,
                f"{self._model.name_or_path}: the files have no weights for {', '.join(missing[:3])}; use a model for text generation"
                " with all its files.",
            )
        self._model.tie_weights = partial(self._model.tie_weights, recompute_mapping=False)

    def apply_chat_template(self, *arguments: Any, **options: Any) -> str:
        """Return a rendered conversation, within the limits of templates: training may have written the one of the model.

        Raises:
            StageError: ``ChatTemplateInvalid``.
        """
        render = super().apply_chat_template
        try:
            return bounded_text(lambda: render(*arguments, **options))
        except LimitExceeded as limit:
            raise StageError(
                reasons.CHAT_TEMPLATE_INVALID,
                f"{self._model.name_or_path}: its chat template {limit} for one conversation; correct the template.",
            ) from limit

    @cached_property
    def max_length(self) -> int:
        """Largest number of tokens of a sequence: lm-eval's value, or the limit of positions if that is lower."""
        limit: int | None = hard_positions(self.config.to_dict())
        length = int(super().max_length)
        return length if limit is None else min(length, limit)

    def answer_loglikelihood(self, requests: Sequence[Instance]) -> list[list[AnswerScore]]:
        """Return the log-probabilities of the answers in each passage; one forward pass scores all answers of a conversation.

        A passage longer than the model's context is split into overlapping windows, so that each token is scored once, with at
        least half a context before it if the text is that long.

        Args:
            requests: with arguments (text, character ranges of the answers).

        Returns:
            One list per request, with one score per answer.
        """
        encoded = self.tokenizer([request.args[0] for request in requests], add_special_tokens=False, return_offsets_mapping=True)
        losses = [torch.zeros(len(ids)) for ids in encoded["input_ids"]]
        windows = [window for number, ids in enumerate(encoded["input_ids"]) for window in self._windows(number, ids)]
        unread = Counter(window.passage for window in windows)
        scores: list[list[AnswerScore]] = [[] for _ in requests]
        for batch in self._batched(sorted(windows, key=lambda window: -len(window.ids))):
            for window, found in zip(batch, self._losses(batch), strict=True):
                number = window.passage
                losses[number][window.first : window.start + len(window.ids)] = found
                unread[number] -= 1
                if not unread[number]:
                    request, offsets = requests[number], encoded["offset_mapping"][number]
                    text, answers = request.args
                    scores[number] = [_answer_score(text, answer, losses[number], offsets) for answer in answers]
                    self.cache_hook.add_partial(request.request_type, request.args, scores[number])
        return scores

    def _windows(self, passage: int, ids: list[int]) -> Iterator[Window]:
        room = self.max_length + 1  # the last token of a window is predicted, not read
        start = first = 0
        while True:
            part = ids[start : start + room]
            yield Window(passage, start, max(first, 1), part)  # a text's first token has no context
            first = start + len(part)
            if first >= len(ids):
                return
            start = first - room // 2

    def _batched(self, windows: list[Window]) -> Iterator[list[Window]]:
        """Yield batches of ``windows``, which are sorted by length, the longest first."""
        as_requests = [(None, window.ids[:-1], window.ids[-1:]) for window in windows]
        self.batch_sizes: dict[int, int] = {}
        start = 0
        while start < len(windows):
            size = self._batch_scheduler(start, as_requests) if self.batch_size == "auto" else self.batch_size
            yield windows[start : start + size]
            start += size

    def _losses(self, batch: list[Window]) -> list[torch.Tensor]:
        """Return the loss of each scored token of each window, in nats: float32, on the processor."""
        longest = max(2, *(len(window.ids) for window in batch))
        ids = torch.zeros((len(batch), longest), dtype=torch.long)
        for row, window in enumerate(batch):
            ids[row, : len(window.ids)] = torch.tensor(window.ids)
        ids = ids.to(self.device)
        logits = self._model_call(ids[:, :-1])
        scored = [(row, window.first - window.start, len(window.ids)) for row, window in enumerate(batch)]
        # Only scored positions: with large vocabularies the logits need more memory than the model.
        return [
            cross_entropy(logits[row, first - 1 : end - 1].float(), ids[row, first:end], reduction="none").cpu()
            for row, first, end in scored
        ]

    # lm-eval's requests, without its progress bars.

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:  # noqa: ARG002
        """See :meth:`lm_eval.api.model.LM.loglikelihood`.

        Raises:
            StageError: ``TaskInvalid``: an answer has no tokens, or too many.
        """
        try:
            return super().loglikelihood(requests, disable_tqdm=True)  # type: ignore[no-any-return]
        except AssertionError as error:
            names = ", ".join(sorted({str(request.task_name) for request in requests}))
            raise StageError(
                reasons.TASK_INVALID,
                f"evaluation.tasks: an answer in {names} is empty, or longer than the model's {self.max_length} tokens; shorten it or remove the task.",
            ) from error

    def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = True, override_bs: int | None = None) -> Any:  # noqa: ARG002
        if self.device.type == "cpu" and self.batch_size == "auto":
            override_bs = None  # _batch_scheduler computes it
        return super()._loglikelihood_tokens(requests, disable_tqdm=True, override_bs=override_bs)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:  # noqa: ARG002
        """See :meth:`lm_eval.api.model.LM.generate_until`.

        Raises:
            StageError: ``BadEvaluationValue``: a task's answers leave no space for its questions in the context.
        """
        for request in requests:
            longest = int(request.args[1].get("max_gen_toks", self.max_gen_toks))
            if longest >= self.max_length:
                raise StageError(
                    reasons.BAD_EVALUATION_VALUE,
                    f"evaluation.generation.maxTokens: task {request.task_name} generates up to {longest} tokens, and the model's context has"
                    f" {self.max_length}, including the question; lower it.",
                )
        try:
            return super().generate_until(requests, disable_tqdm=True)  # type: ignore[no-any-return]
        except (TypeError, ValueError) as error:
            raise StageError(
                reasons.BAD_EVALUATION_VALUE,
                f"evaluation.generation: a value in it or in the tasks is rejected ({first_line(error)}); correct it.",
            ) from error

    # Batch sizes. On a GPU lm-eval finds them by trial; on a processor that takes longer than the evaluation.

    def _detect_batch_size(self, requests: Any = None, pos: int = 0) -> int:
        if self.device.type != "cpu":
            return super()._detect_batch_size(requests, pos)  # type: ignore[no-any-return]
        return GENERATION_BATCH

    def _batch_scheduler(self, pos: int, n_reordered_requests: Sequence[Any]) -> int:
        if self.device.type != "cpu":
            return super()._batch_scheduler(pos, n_reordered_requests)  # type: ignore[no-any-return]
        if not self.batch_sizes:
            lengths = [min(len(context) + len(answer), self.max_length) for _, context, answer in n_reordered_requests]
            self.batch_sizes = dict(enumerate(batch_sizes(lengths)))
        return self.batch_sizes[pos]


def batch_sizes(lengths: Sequence[int], tokens: int = TOKENS_PER_BATCH, largest: int = LARGEST_BATCH) -> list[int]:
    """Return, for each text, the longest first, the size of its batch: as many as ``tokens`` allow."""
    sizes: list[int] = []
    while len(sizes) < len(lengths):
        fitting = max(1, tokens // max(1, lengths[len(sizes)]))
        size = min(fitting, largest, len(lengths) - len(sizes))
        sizes += [size] * size
    return sizes


def load_scorer(model: Path, inputs: EvaluationInputs, on_forward: Callable[[], object]) -> Scorer:
    """Return the model, in bfloat16 on a GPU with native support, else in float32, unless ``model_args`` sets the dtype.

    Raises:
        StageError: ``BadEvaluationValue``, ``RemoteCode``, ``ModelIncomplete``, ``ModelCorrupt``.
    """
    reserved = sorted(set(inputs.model_args) & set(_OURS))
    if reserved:
        raise StageError(reasons.BAD_EVALUATION_VALUE, f"evaluation.modelArgs: {reserved[0]} cannot be set; remove it.")
    require_torch_gpus("evaluation.gpus")
    arguments: dict[str, Scalar] = {"dtype": _dtype(), **inputs.model_args}
    try:
        with quick_imports():  # transformers imports a model's class with the first model, which is never freed
            scorer = Scorer(
                str(model), device="cuda" if on_gpu() else "cpu", backend="causal", batch_size=inputs.batch_size,
                trust_remote_code=inputs.trust_remote_code, **arguments,
            )  # fmt: skip
    except Exception as error:
        raise _loading_fault(error, model, inputs) from error
    if not scorer.tokenizer.is_fast:
        raise StageError(reasons.MODEL_INCOMPLETE, f"{model}: the model has no fast tokenizer (tokenizer.json); add one.")
    scorer.model.register_forward_hook(lambda *_: on_forward())
    return scorer


def _dtype() -> str:
    """Return the dtype. float16 is never used: weights of models that were trained in bfloat16 exceed its range."""
    native = on_gpu() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if native else "float32"


def _loading_fault(error: Exception, model: Path, inputs: EvaluationInputs) -> StageError:
    known, detail = classify(error), first_line(error)
    if "trust_remote_code" in str(error) and not inputs.trust_remote_code:
        return StageError(reasons.REMOTE_CODE, f"{model}: the model contains Python code; {reasons.REMOTE_CODE.remedy}")
    if any(type(link).__name__ == "SafetensorError" for link in causes(error)):
        return StageError(reasons.MODEL_CORRUPT, f"{model}: the weights cannot be read ({detail}); save the model again.")
    if isinstance(error, (TypeError, AttributeError)) and inputs.model_args:
        names = ", ".join(inputs.model_args)
        return StageError(
            reasons.BAD_EVALUATION_VALUE, f"evaluation.modelArgs ({names}): the backend hf rejects them ({detail}); correct them."
        )
    if isinstance(error, (OSError, ValueError, KeyError)) and known.reason is reasons.CRASHED:
        return StageError(reasons.MODEL_INCOMPLETE, f"{model}: the model cannot be loaded ({detail}); save the model again.")
    return known


def _answer_score(text: str, answer: tuple[int, int], losses: torch.Tensor, offsets: Sequence[tuple[int, int]]) -> AnswerScore:
    """Return the score of the tokens with a character of ``answer``. ``offsets``: each token's character range."""
    begin, end = answer
    first = max(1, bisect_right(offsets, begin, key=lambda offset: offset[1]))
    last = max(first, bisect_left(offsets, end, key=lambda offset: offset[0]))
    return AnswerScore(-float(losses[first:last].double().sum()), last - first, len(text[begin:end].encode()))

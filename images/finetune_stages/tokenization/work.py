"""Work of stage *tokenization*, from chat rows to tokens and rendered conversations. Importing this module imports transformers."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers.utils import logging

from finetune_contract import reasons
from finetune_contract.documents import Scalar, TokenizationInputs
from finetune_contract.result import TokenizationOutputs
from finetune_contract.workspace import HOLDOUT
from finetune_stages.chat.passages import Passage, passages
from finetune_stages.chat.rendered_rows import passages_digest
from finetune_stages.chat.renderer import ChatRenderer, Rendered, RowRejected, Unclear
from finetune_stages.chat.structure import BadConversation, Conversation
from finetune_stages.chat.task_rows import chat_files, own_roots
from finetune_stages.sdk import Context, Finished, StageError, read_seal, seal_directory
from finetune_stages.sdk.identity import require_reported, require_settings
from finetune_stages.sdk.loading import load_tokenizer, loading, require_known
from finetune_stages.sdk.model_config import attention_size, embeddings, number
from finetune_stages.sources.json_text import parse
from finetune_stages.sources.positions import hard_positions
from finetune_stages.sources.progress import ProgressCounter
from finetune_stages.sources.row_faults import counted, log_row
from finetune_stages.sources.work_folder import work_folder

from .identity import TOKENS, digest_of_arrays, fingerprint_of
from .labels import EndTokens, Tokens, encode
from .limits import Limits, RowCounts, Unused, bad_in_training
from .plain_rows import document_passages, document_tokens, given_tokens
from .rows import RowFile, prepared_rows, read, task_rows
from .sample import Sample
from .store import TokenWriter

logging.disable_progress_bar()
logging.set_verbosity_error()  # rows beyond the tokenizer's limit are counted here

_CHUNK = 512
"""Batch size in rows for the tokenizer: enough for its threads, few enough for frequent progress."""


def tokenize(context: Context) -> Finished:
    """Render and tokenize all rows, and publish the tokens and passages.

    Raises:
        StageError: ``BadRow``, ``ChatTemplateInvalid``, ``ChatTemplateMissing``, ``ChatTemplateUnclear``, ``DatasetNotFound``,
            ``EngineMissing``, ``ModelChanged``, ``ModelCorrupt``, ``NothingToEvaluate``, ``NoTrainableRows``, ``ResultChanged``,
            ``TaskInvalid``, ``TooManyRowsLeftOut``.
    """
    inputs = context.inputs(TokenizationInputs)
    fingerprint = fingerprint_of(inputs)
    train, held_out, seal = prepared_rows(context)
    base = context.path(context.layout.base_model)
    _require_model(context, base)
    tokenizer, config = _tokenizer(base, inputs.trust_remote_code)
    limits = Limits(inputs, hard_positions(config), bad_in_training(seal, len(train), len(held_out)))
    with work_folder(context) as scratch:
        job = _Job(context, inputs, tokenizer, config, limits, scratch)
        outputs, message, warnings = job.run(train, held_out)
        _require_unchanged(inputs, fingerprint)
        left_out = outputs.too_long + outputs.nothing_to_learn + outputs.rejected
        published = seal_directory(scratch / TOKENS, {"rows": outputs.rows, "leftOut": left_out})
        context.publish(scratch / TOKENS, context.layout.tokens)
    metrics = {name: float(value) for name, value in vars(outputs).items() if isinstance(value, int)}
    outputs = replace(outputs, digest=digest_of_arrays(published), passages_digest=passages_digest(published))
    return Finished(outputs, metrics, message=message, warnings=warnings, fingerprint=fingerprint)


def _require_model(context: Context, base: Path) -> None:
    """Check the files that are read here: a training of an earlier round could replace them.

    Raises:
        StageError: ``ModelChanged``, ``ModelNotFound``.
    """
    if context.reads is None:
        return
    seal = read_seal(base)
    if seal is None:
        raise StageError(reasons.MODEL_NOT_FOUND, f"{base}: there is no complete model; rerun from stage model.")
    require_reported(context, base, seal, "model")
    require_settings(base, seal, "model")


def _require_unchanged(inputs: TokenizationInputs, fingerprint: dict[str, Scalar]) -> None:
    """Check that the task files did not change while they were rendered.

    Raises:
        StageError: ``TaskInvalid``, ``TaskNotFound``.
    """
    now = fingerprint_of(inputs)
    changed = sorted(key.partition("/")[2] for key in fingerprint.keys() | now.keys() if fingerprint.get(key) != now.get(key))
    if changed:
        raise StageError(
            reasons.TASK_INVALID,
            f"evaluation.tasks: the file of {', '.join(changed)} changed while it was read; rerun the stage when no process writes to it.",
        )


def _tokenizer(directory: Path, trust_remote_code: bool) -> tuple[Any, dict[str, Any]]:
    """Return the tokenizer and the model's configuration."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    tokenizer = load_tokenizer(directory, trust_remote_code)
    with loading():
        config: dict[str, Any] = json.loads((directory / "config.json").read_bytes())
    require_known(directory, config)
    return tokenizer, config


@dataclass
class _Job:
    """One run of the stage."""

    context: Context
    inputs: TokenizationInputs
    tokenizer: Any
    config: dict[str, Any]
    """The model's configuration."""
    limits: Limits
    scratch: Path
    unused: Unused = field(default_factory=Unused)
    used_training_template: bool = False
    """Whether a training row was rendered with TRL's training template."""
    sample: Sample = field(init=False)

    def __post_init__(self) -> None:
        self.sample = Sample(self.tokenizer)

    @cached_property
    def embeddings(self) -> int | None:
        """The number of embeddings of the model."""
        return embeddings(self.config)

    @cached_property
    def renderer(self) -> ChatRenderer:
        """The renderer of rows with messages. A model whose rows have none needs no chat template."""
        return ChatRenderer(self.tokenizer, self.inputs.unmask)

    def run(self, train: RowFile, held_out: RowFile) -> tuple[TokenizationOutputs, str, tuple[str, ...]]:
        """Render all rows; return the outputs, the message and the warnings."""
        measured = RowCounts(held_out.source, len(held_out))
        scored = self.inputs.holdout and held_out.form != "tokenised"
        self._require_measurable(measured, len(held_out) if scored else 0, held_out.form)
        trained, writer = self._train(train)
        if self.inputs.holdout:
            self._measure(held_out, HOLDOUT, measured, (70, 90))
        self.limits.require_good(trained, measured)
        self.limits.require_enough(trained)
        measurable = measured.total - measured.left_out if self.inputs.holdout else 0
        self._require_measurable(measured, measurable, held_out.form)
        left_out = self.limits.warning(trained)
        warnings = [
            left_out,
            measured.not_measured() if self.inputs.holdout else None,
            *self._tasks(),
            self._beyond_context(writer.longest),
        ]
        self.sample.write(self._target(self.context.layout.sample))
        median, p90, p99 = writer.percentiles(50, 90, 99)
        outputs = TokenizationOutputs(
            digest="", passages_digest="", rows=writer.rows, tokens=writer.tokens, learned_tokens=writer.learned, longest=writer.longest, median=median, p90=p90, p99=p99,
            too_long=trained.too_long, nothing_to_learn=trained.nothing, rejected=len(trained.rejected),
            attention=float(writer.squares * attention_size(self.config)), measured_rows=measurable,
            not_measured=measured.total - measurable if self.inputs.holdout else 0,
            template="training" if self.used_training_template else "model", sample=self.sample.short() if self.inputs.sample else (),
        )  # fmt: skip
        message = (
            f"{outputs.rows:,} training rows with {outputs.tokens:,} tokens, {outputs.learned_tokens:,} of them learned;"
            f" {measurable:,} held-out rows with answers to score{f'; {left_out}' if left_out else ''}"
        )
        return outputs, message, tuple(filter(None, (*warnings, *self.unused.warnings())))

    def _beyond_context(self, longest: int) -> str | None:
        trained = number(self.config, "max_position_embeddings")  # it may accept more
        if trained is None or longest <= trained:
            return None
        return (
            f"training.maxSeqLen: the longest row has {longest:,} tokens, and the model was trained with a context of {trained:,}"
            " (max_position_embeddings in config.json); lower it to leave such rows out"
        )

    def _train(self, rows: RowFile) -> tuple[RowCounts, TokenWriter]:
        """Write tokens and labels of all trainable rows, in order."""
        layout = self.context.layout
        counts, ends = RowCounts(rows.source, len(rows)), EndTokens.of(self.tokenizer)
        with TokenWriter(*map(self._target, (layout.token_ids, layout.learned_tokens, layout.token_offsets))) as writer:
            counter = ProgressCounter(self.context, "rendering rows", len(rows), 0, 70, rows=True)
            for chunk in self._encoded(rows, counts, ends, counter):
                for position, (ids, learned) in chunk:
                    if len(ids) > self.limits.longest:
                        counts.too_long += 1
                        counts.longest = max(counts.longest, len(ids))
                        log_row(
                            counts.too_long, rows.label(position), f"has {len(ids):,} tokens, more than {self.limits.longest:,}"
                        )
                    elif not learned.any():
                        counts.nothing += 1
                        log_row(counts.nothing, rows.label(position), "has no token to learn")
                    else:
                        self._require_embedded(rows, position, ids.max(initial=0))
                        writer.append(ids, learned)
                        self.sample.add(rows.location(position), (ids, learned))
        return counts, writer

    def _encoded(
        self, rows: RowFile, counts: RowCounts, ends: EndTokens, counter: ProgressCounter
    ) -> Iterator[Iterator[tuple[int, Tokens]]]:
        """Yield the positions of rows with their tokens and labels, in chunks."""
        if rows.form == "messages":
            for chunk in self._rendered(rows, counts, counter):
                self.used_training_template |= any(rendered.template.training for _, _, rendered in chunk)
                encoded = encode([rendered for _, _, rendered in chunk], self.tokenizer, ends)
                yield zip((position for position, _, _ in chunk), encoded, strict=True)
            return
        texts = enumerate(rows.texts())
        while batch := list(itertools.islice(texts, _CHUNK)):
            found = [(position, parse(text)) for position, text in batch]
            if rows.form == "text":
                encoded = document_tokens([row["text"] for _, row in found], self.tokenizer)
                yield zip((position for position, _ in found), encoded, strict=True)
            else:
                yield ((position, given_tokens(row)) for position, row in self._known(rows, found, counts))
            counter(len(batch))

    def _known(self, rows: RowFile, found: list[tuple[int, Any]], counts: RowCounts) -> Iterator[tuple[int, Any]]:
        """Yield the rows whose tokens the tokenizer has, and count the others as rejected."""
        size = len(self.tokenizer)
        for position, row in found:
            highest = max(row["input_ids"])
            if highest < size:
                yield position, row
            else:
                problem = f"has token {highest:,}, and the tokenizer of the model has {size:,}"
                counts.rejected.add(position, rows.label(position), problem)

    def _measure(self, rows: RowFile, task: str, counts: RowCounts, share: tuple[int, int]) -> None:
        """Write the passages of all rows with an answer to score, as JSON Lines."""
        with self._target(self.context.layout.passages(task)).open("w", encoding="utf-8") as file:
            counter = ProgressCounter(self.context, f"rendering {task}", len(rows), *share, rows=True)
            for chunk in self._scored(rows, counts, counter):
                for position, found in chunk:
                    if found:
                        row, line = rows.location(position)
                        texts = [{"text": passage.text, "answers": passage.answers} for passage in found]
                        file.write(json.dumps({"row": row, "line": line, "passages": texts}, ensure_ascii=False) + "\n")

    def _scored(
        self, rows: RowFile, counts: RowCounts, counter: ProgressCounter
    ) -> Iterator[Iterator[tuple[int, list[Passage]]]]:
        """Yield the positions of rows with their passages, in chunks. Rows that are tokens already have no text to score."""
        if rows.form == "messages":
            for chunk in self._rendered(rows, counts, counter):
                yield (
                    (position, self._passages(rows, position, conversation, rendered, counts))
                    for position, conversation, rendered in chunk
                )
        elif rows.form == "text":
            found = ((position, document_passages(parse(text)["text"])) for position, text in enumerate(rows.texts()))
            yield ((position, self._embedded(rows, position, passages)) for position, passages in found)
        else:
            counts.nothing += len(rows)

    def _passages(
        self, rows: RowFile, position: int, conversation: Conversation, rendered: Rendered, counts: RowCounts
    ) -> list[Passage]:
        """Return the passages of a row that have answers to score; empty if there are none or the row is rejected."""
        try:
            found = [each for each in passages(conversation, rendered) if each.answers]
        except RowRejected as error:
            counts.rejected.add(position, rows.label(position), str(error))
            return []
        counts.nothing += not found
        return self._embedded(rows, position, found)

    def _embedded(self, rows: RowFile, position: int, found: list[Passage]) -> list[Passage]:
        """Return passages whose tokens all have an embedding: see :meth:`_require_embedded`."""
        for passage in found:
            ids = self.tokenizer(passage.text, add_special_tokens=False)["input_ids"]
            self._require_embedded(rows, position, max(ids, default=0))
        return found

    def _rendered(
        self, rows: RowFile, counts: RowCounts, counter: ProgressCounter
    ) -> Iterator[list[tuple[int, Conversation, Rendered]]]:
        """Yield the rendered rows with their positions, and count rejected ones."""
        texts = enumerate(rows.texts())
        while chunk := list(itertools.islice(texts, _CHUNK)):
            found = []
            for position, text in chunk:
                try:
                    conversation = read(text)
                    rendered = self.renderer.render(conversation)
                except Unclear as error:
                    raise StageError(
                        reasons.CHAT_TEMPLATE_UNCLEAR,
                        f"{rows.source}: {rows.label(position)} {error}; mark the assistant's part with {{% generation %}} in the"
                        " model's chat template.",
                    ) from error
                except (BadConversation, RowRejected) as error:
                    counts.rejected.add(position, rows.label(position), str(error))
                else:
                    self.unused.add(rendered)
                    found.append((position, conversation, rendered))
            yield found
            counter(len(chunk))

    def _tasks(self) -> list[str]:
        """Render the tasks that are files of chat rows, and return warnings."""
        warnings = []
        for name, path in chat_files(own_roots(self.inputs.task_files), self.inputs.tasks).items():
            rows = task_rows(path, name)
            counts = RowCounts(f"evaluation.tasks: {name} ({path.name})", len(rows))
            self._measure(rows, name, counts, (90, 95))
            if counts.rejected:
                count = counted(len(counts.rejected), counts.total, "rejected")
                raise StageError(reasons.BAD_ROW, f"{counts.source}: {counts.rejected.first} ({count}); correct the file.")
            if counts.nothing == counts.total:
                raise StageError(
                    reasons.TASK_INVALID,
                    f"{counts.source}: no row has an answer that can be scored; add answers with weight 1.",
                )
            warnings.append(counts.not_measured())
        return [warning for warning in warnings if warning]

    def _require_measurable(self, counts: RowCounts, measurable: int, form: str) -> None:
        """Check that the evaluation has something to measure, if that depends on the held-out rows.

        Raises:
            StageError: ``NothingToEvaluate``.
        """
        if measurable or not self.inputs.requires_holdout:
            return
        if self.inputs.tasks:
            subject, others = "gate: it reads a metric of the held-out rows", ["gate on another metric"]
        else:
            subject, others = "evaluation.tasks: it is empty", ["set a task", "set evaluation.enabled to false"]
        problem = f"none of {counts.total:,} held-out rows of {counts.source}"
        if not counts.total or not self.inputs.holdout:
            problem, way = "no row is held out", "hold rows out with dataset.trainSplit below 1 or dataset.evalUri"
        elif form == "tokenised":
            problem += " can be scored, because rows of tokens have no text"
            way = "set dataset.evalUri to rows with messages or text"
        else:
            problem, way = f"{problem} has an answer that can be scored", "correct them"
        ways = f"{', '.join([way, *others[:-1]])}, or {others[-1]}"
        raise StageError(reasons.NOTHING_TO_EVALUATE, f"{subject}, and {problem}; {ways}.")

    def _require_embedded(self, rows: RowFile, position: int, highest: int) -> None:
        """Check that the tokens have embeddings: a missing one causes an IndexError on a GPU."""
        if self.embeddings is not None and highest >= self.embeddings:
            token = self.tokenizer.convert_ids_to_tokens(int(highest))
            raise StageError(
                reasons.MODEL_CORRUPT,
                f"model.uri: {rows.source}, {rows.label(position)} has token {highest} ({token}), and the model has {self.embeddings:,}"
                f" embeddings for a tokenizer of {len(self.tokenizer):,} tokens; call resize_token_embeddings and save the model again.",
            )

    def _target(self, relative: str) -> Path:
        """Return the path of a file before it is published."""
        path = self.scratch / TOKENS / Path(relative).relative_to(self.context.layout.tokens)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

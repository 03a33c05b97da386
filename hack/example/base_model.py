"""A tiny chat model, trained from nothing on one skill in about a minute and a half on two processor cores.

It is a real model of the Qwen2 architecture with a real tokenizer and chat template, so everything that handles a large model
handles it too. What it knows is little, but enough to be improved, and to be forgotten.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from pydocs import Row

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<|im_start|>assistant\n{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}\n"
    "{% else %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_REPORT_SECONDS = 10.0
"""Between two lines on how far the training is."""


@dataclass(frozen=True)
class Size:
    """How large the model is and how long it learns."""

    vocabulary: int = 4096
    hidden: int = 256
    layers: int = 6
    heads: int = 4
    epochs: int = 2
    batch: int = 16


TINY = Size(vocabulary=1024, hidden=64, layers=2, heads=2, epochs=1, batch=32)
"""For tests that need a model and not a clever one: seconds."""


def train_base_model(
    target: Path, rows: Sequence[Row], texts: Sequence[str] = (), size: Size = Size(), report: Callable[[str], None] = print
) -> None:
    """Train a tokenizer and a model on ``rows`` and save both to ``target`` (``texts`` only teach the tokenizer its words)."""
    torch.manual_seed(0)
    contents = [message["content"] for row in rows for message in row["messages"]]
    tokenizer = _tokenizer([*contents, *texts], size.vocabulary)
    model = _model(tokenizer, size)
    _fit(model, tokenizer, rows, size, report)
    target.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    (target / "README.md").write_text(json.dumps({"rows": len(rows), "parameters": model.num_parameters()}) + "\n")


def _tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    core.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=512
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _model(tokenizer: PreTrainedTokenizerFast, size: Size) -> Qwen2ForCausalLM:
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=size.hidden, num_hidden_layers=size.layers, num_attention_heads=size.heads,
        num_key_value_heads=size.heads, intermediate_size=size.hidden * 3, max_position_embeddings=512, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return Qwen2ForCausalLM(config)


def _fit(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row], size: Size, report: Callable[[str], None]
) -> None:
    texts = [tokenizer.apply_chat_template(row["messages"], tokenize=False) for row in rows]
    encoded = sorted((ids[:256] for ids in tokenizer(texts)["input_ids"]), key=len)
    batches = [encoded[start : start + size.batch] for start in range(0, len(encoded), size.batch)]
    total = size.epochs * len(batches)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / 40) * (0.5 * (1 + math.cos(math.pi * step / total)) * 0.95 + 0.05)
    )
    model.train()
    started, smooth = time.monotonic(), 0.0
    reported = started
    for step, index in enumerate(torch.randperm(len(batches)).tolist() * size.epochs, start=1):
        batch = batches[index]
        width = max(map(len, batch))
        ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in batch])
        labels = ids.masked_fill(ids == tokenizer.pad_token_id, -100)
        loss = model(input_ids=ids, attention_mask=(labels != -100).long(), labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        smooth = loss.item() if step == 1 else 0.95 * smooth + 0.05 * loss.item()
        now = time.monotonic()
        if now - reported >= _REPORT_SECONDS or step == total:
            reported, left = now, (now - started) / step * (total - step)
            report(f"base model: step {step}/{total}, loss {smooth:.3f}, {left:.0f} s left")

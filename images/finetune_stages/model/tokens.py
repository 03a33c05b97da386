"""Comparison of a tokenizer's tokens with the model's embeddings: a token without an embedding causes an IndexError."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from finetune_contract import reasons
from finetune_stages.sdk import StageError

from .files import read_json

_DECODER = "added_tokens_decoder"
"""If this key exists, transformers ignores the older files for added tokens."""
_EXTRA = ("extra_special_tokens", "additional_special_tokens")
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""Special tokens of text; others, such as ``image_token``, are for other kinds of input."""


def read_tokenizer(folder: Path, model: str) -> dict[str, Any]:
    """Return ``tokenizer_config.json``, merged with the older ``special_tokens_map.json`` if transformers reads it.

    Raises:
        StageError: ``ModelCorrupt``: One of the files is not JSON.
    """
    config = read_json(folder / "tokenizer_config.json", model)
    older = folder / "special_tokens_map.json"
    if _DECODER in config or not older.is_file():
        return config
    return {**config, **read_json(older, model)}


def special_tokens(tokenizer: Mapping[str, Any]) -> dict[str, str]:
    """Return the special tokens of ``tokenizer_config.json`` by name."""
    named = {name: _content(value) for name, value in tokenizer.items() if name.endswith("_token")}
    extra = tokenizer.get("extra_special_tokens")
    if isinstance(extra, dict):
        named |= {name: _content(value) for name, value in extra.items()}
    return {name: content for name, content in named.items() if content is not None}


def check_tokens(folder: Path, tokenizer: Mapping[str, Any], embeddings: int | None, model: str) -> None:
    """Check that each token of text has an embedding.

    Tokens of images and audio are ignored: a text model may share its tokenizer with a multimodal one.

    Raises:
        StageError: ``ModelCorrupt``.
    """
    tokens = vocabulary(folder, tokenizer, model)
    named = special_tokens(tokenizer)
    other = {content for name, content in named.items() if name not in ROLES}
    if embeddings is None or all(number < embeddings or content in other for content, number in tokens.items()):
        return
    size = max(tokens.values()) + 1
    first = min((number, content) for content, number in tokens.items() if number >= embeddings)[1]
    raise StageError(
        reasons.MODEL_CORRUPT,
        f"{model}: the tokenizer has {size:,} tokens, the model {embeddings:,} embeddings (the first token without one is {first!r});"
        f" call resize_token_embeddings({size}) and save the model again.",
    )


def check_token_ids(file: str, content: Mapping[str, Any], embeddings: int | None, model: str) -> None:
    """Check that the end and padding tokens that ``file`` states have an embedding. Negative ids, in old files, mean that there is none.

    Raises:
        StageError: ``ModelCorrupt``.
    """
    for name in ("pad_token_id", "eos_token_id"):
        stated = content.get(name)
        for number in stated if isinstance(stated, list) else [stated]:
            if embeddings is not None and isinstance(number, int) and number >= embeddings:
                raise StageError(
                    reasons.MODEL_CORRUPT,
                    f"{model}: {file} states {name} {number} and the model has {embeddings:,} embeddings, so the token has none; correct the"
                    " token or resize the embeddings.",
                )


def vocabulary(folder: Path, tokenizer: Mapping[str, Any], model: str) -> dict[str, int]:
    """Return token ids by token, as in transformers: the vocabulary, the added tokens, and other special tokens.

    Empty if the vocabulary is not in a JSON file.

    Raises:
        StageError: ``ModelCorrupt``: that of ``tokenizer.json`` is empty.
    """
    tokens: dict[str, int] = {}
    if (folder / "tokenizer.json").is_file():
        file = read_json(folder / "tokenizer.json", model)
        if _is_empty(file.get("model")):
            raise StageError(
                reasons.MODEL_CORRUPT, f"{model}: tokenizer.json has an empty vocabulary (model.vocab); save the tokenizer again."
            )
        tokens.update(_entries(file.get("model")))
        tokens.update(_added(file.get("added_tokens")))
    elif (folder / "vocab.json").is_file():
        tokens.update(_numbers(read_json(folder / "vocab.json", model)))
    if _DECODER not in tokenizer and (folder / "added_tokens.json").is_file():
        tokens.update(_numbers(read_json(folder / "added_tokens.json", model)))
    if tokens:
        for content in _later(tokenizer):
            tokens.setdefault(content, max(tokens.values()) + 1)
    return tokens


def _later(tokenizer: Mapping[str, Any]) -> list[str]:
    """Return the configured tokens in the order in which transformers adds missing ones to the vocabulary."""
    decoder = tokenizer.get(_DECODER)
    entries = sorted(decoder.items(), key=_number_of) if isinstance(decoder, dict) else []
    named = special_tokens(tokenizer)
    lists = [entry for name in _EXTRA if isinstance(tokenizer.get(name), list) for entry in tokenizer[name]]
    ordered = sorted(named, key=lambda name: ROLES.index(name) if name in ROLES else len(ROLES))
    found = [*(_content(entry) for _, entry in entries), *(named[name] for name in ordered), *map(_content, lists)]
    return [content for content in found if content is not None]


def _entries(vocabulary: Any) -> dict[str, int]:
    """Return the vocabulary of a ``model`` in tokenizer.json: a mapping, or for Unigram a list of tokens with scores."""
    stated = vocabulary.get("vocab") if isinstance(vocabulary, dict) else None
    if isinstance(stated, list):
        return {entry[0]: number for number, entry in enumerate(stated) if isinstance(entry, list) and entry}
    return _numbers(stated) if isinstance(stated, dict) else {}


def _is_empty(vocabulary: Any) -> bool:
    return isinstance(vocabulary, dict) and vocabulary.get("vocab") in ({}, [])


def _numbers(stated: Mapping[str, Any]) -> dict[str, int]:
    return {token: number for token, number in stated.items() if isinstance(number, int)}


def _added(stated: Any) -> Iterator[tuple[str, int]]:
    for entry in stated if isinstance(stated, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("content"), str) and isinstance(entry.get("id"), int):
            yield entry["content"], entry["id"]


def _number_of(entry: tuple[str, Any]) -> int:
    return int(entry[0]) if entry[0].isdigit() else 0


def _content(value: Any) -> str | None:
    """Return the text of a token, which is a string or an object with properties."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None

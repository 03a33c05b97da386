"""Base models that have a separate output layer although their configuration ties it to the embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from finetune_contract import reasons
from finetune_stages.sdk import StageError

from .headers import Tensor
from .tensors import embeddings, is_tied, output_layer

_PIECE = 1 << 20


def contradiction(config: Mapping[str, Any], files: Mapping[str, Path], tensors: Mapping[str, Tensor]) -> str | None:
    """Return a warning if configuration and files disagree about the output layer; ``None`` if they agree.

    ``files`` has the files of ``tensors``, by the same names.

    Raises:
        StageError: ``ModelCorrupt``: a file is shorter than its header claims.
    """
    head, shared = output_layer(tensors), embeddings(tensors)
    if not is_tied(config) or head is None or shared is None:
        return None
    if _same(files[head], tensors[head], files[shared], tensors[shared]):
        return None
    return (
        f"config.json: tie_word_embeddings is true, and the weights have a separate output layer ({head}); it is used,"
        " and the fine-tuned model has tie_word_embeddings: false."
    )


def _same(first_file: Path, first: Tensor, second_file: Path, second: Tensor) -> bool:
    """Return whether two tensors have the same bytes."""
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    pieces = zip(_pieces(first_file, first), _pieces(second_file, second), strict=True)
    return all(one == other for one, other in pieces)


def _pieces(file: Path, tensor: Tensor) -> Iterator[bytes]:
    with file.open("rb") as stream:
        stream.seek(tensor.begin)
        left = tensor.end - tensor.begin
        while left > 0:
            piece = stream.read(min(left, _PIECE))
            if not piece:
                raise StageError(
                    reasons.MODEL_CORRUPT,
                    f"model.uri: {file.name} became shorter while it was read; download or save the model again.",
                )
            left -= len(piece)
            yield piece

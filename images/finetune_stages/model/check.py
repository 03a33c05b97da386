"""Checks that a directory has a trainable model, from its configuration files and the headers of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_contract import reasons
from finetune_contract.documents import ModelInputs
from finetune_stages.sdk import StageError
from finetune_stages.sdk.model_config import embeddings as stated_embeddings
from finetune_stages.sdk.model_config import text_config
from finetune_stages.sources.positions import hard_positions

from .architecture import check_architecture, check_quantization
from .files import (
    CHAT_TEMPLATES,
    CONFIG,
    GENERATION_CONFIG,
    INDEX,
    WEIGHTS,
    read_json,
    require_no_adapter,
    require_no_pointer,
    settings,
    weight_map,
    weights,
)
from .headers import read_header
from .template import check_templates
from .tensors import check_tensors, embeddings
from .ties import contradiction
from .tokens import check_token_ids, check_tokens, read_tokenizer
from .zeros import zero_matrices

_TOKENIZERS = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"), ("vocab.txt",))


@dataclass(frozen=True)
class Settings:
    """Results of the check of the files other than weights.

    Attributes:
        positions: see :class:`finetune_contract.result.ModelOutputs`.
        warnings: warnings for the user about a trainable model.
    """

    architecture: str
    positions: int | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Weights:
    """Results of the check of the weights' headers: number of parameters and warnings for the user."""

    parameters: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Requirements:
    """What depends on the run: whether the model may contain Python code, and whether rows need its chat template."""

    trust_remote_code: bool = False
    chat_template: bool = True

    @classmethod
    def of(cls, inputs: ModelInputs) -> Requirements:
        """Return those of a document."""
        return cls(inputs.trust_remote_code, inputs.requires_chat_template)


def check_settings(folder: Path, model: str, requirements: Requirements) -> Settings:
    """Check everything but the weights: configuration, tokenizer, chat template.

    Raises:
        StageError: ``ModelIncomplete``, ``ModelCorrupt``, ``ModelUnsupported``, ``RemoteCode``, ``ChatTemplateMissing``,
            ``ChatTemplateInvalid``.
    """
    names = _names(folder)
    for name in settings(names):
        require_no_pointer(folder / name, model)
    require_no_adapter(names, model)
    _require(folder, CONFIG, model)
    config = read_json(folder / CONFIG, model)
    _require(folder, "tokenizer_config.json", model)
    tokenizer = read_tokenizer(folder, model)
    if not requirements.trust_remote_code:
        _reject_code({CONFIG: config, "tokenizer_config.json": tokenizer}, model)
    architecture = check_architecture(config, model)
    check_quantization(config, names, model)
    _check_tokenizer(folder, config, tokenizer, model)
    warnings = check_templates(folder, tokenizer, model, requirements.chat_template)
    if "modules.json" in names:
        warnings.append(
            "modules.json: the base model is an embedding model of Sentence Transformers; it might not generate text."
        )
    return Settings(architecture, hard_positions(config), tuple(warnings))


def check_weights(folder: Path, model: str) -> Weights:
    """Check that every weight file is complete, that every tensor of the index is in its shard, and that all match the configuration.

    Raises:
        StageError: ``ModelIncomplete``, ``ModelCorrupt``, ``ModelUnsupported``.
    """
    names = weights([path.name for path in folder.iterdir()], folder, model)
    headers = {name: read_header(folder / name, model) for name in names}
    if names != [WEIGHTS]:
        for tensor, shard in weight_map(folder, model).items():
            if tensor not in headers[shard]:
                raise StageError(
                    reasons.MODEL_CORRUPT,
                    f"{model}: {shard} lacks {tensor}, which {INDEX} assigns to it; download or save the model again.",
                )
    tensors = {name: tensor for header in headers.values() for name, tensor in header.items()}
    total = sum(tensor.parameters for tensor in tensors.values())
    if not total:
        raise StageError(reasons.MODEL_CORRUPT, f"{model}: the weight files have no tensors; download or save the model again.")
    config = read_json(folder / CONFIG, model)
    warnings = check_tensors(config, tensors, model)
    matrix = embeddings(tensors)
    if matrix is not None and not config.get("auto_map"):
        check_tokens(folder, read_tokenizer(folder, model), tensors[matrix].shape[0], model)
    files = {name: folder / file for file, header in headers.items() for name in header}
    contradicts = contradiction(config, files, tensors)
    warnings += [warning for warning in (contradicts, zero_matrices(files, tensors, model)) if warning]
    return Weights(total, tuple(warnings))


def _check_tokenizer(folder: Path, config: Mapping[str, Any], tokenizer: Mapping[str, Any], model: str) -> None:
    if not any(all((folder / name).is_file() for name in names) for names in _TOKENIZERS) and "auto_map" not in tokenizer:
        raise StageError(
            reasons.MODEL_INCOMPLETE, f"{model}: it has no tokenizer, neither tokenizer.json nor tokenizer.model; add one."
        )
    if (folder / "tokenizer.json").is_file():
        read_json(folder / "tokenizer.json", model)
    stated = stated_embeddings(config)
    files = {CONFIG: {**config, **text_config(config)}}
    if (folder / GENERATION_CONFIG).is_file():
        files[GENERATION_CONFIG] = read_json(folder / GENERATION_CONFIG, model)
    for name, content in files.items():
        check_token_ids(name, content, stated, model)
    check_tokens(folder, tokenizer, stated, model)


def _names(folder: Path) -> list[str]:
    """Return the files of the model, relative to its directory."""
    found = [*folder.glob("*"), *folder.glob(f"{CHAT_TEMPLATES}/*")]
    return [str(path.relative_to(folder)) for path in found if path.is_file()]


def _require(folder: Path, name: str, model: str) -> None:
    if not (folder / name).is_file():
        raise StageError(reasons.MODEL_INCOMPLETE, f"{model}: {name} is missing; use a model saved by transformers.")


def _reject_code(files: dict[str, dict[str, object]], model: str) -> None:
    for name, content in files.items():
        if content.get("auto_map"):
            raise StageError(
                reasons.REMOTE_CODE,
                f"{model}: it contains Python code (auto_map in {name}); set model.trustRemoteCode to true if you trust its author.",
            )

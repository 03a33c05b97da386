"""What is known of model types, compared with transformers."""

from __future__ import annotations

import pytest
from transformers import CONFIG_MAPPING
from transformers.models.auto import modeling_auto

from finetune_stages.model.architecture import _MULTIMODAL, check_architecture
from finetune_stages.model.tensors import TIED_BY_DEFAULT, UNTIED_BY_DEFAULT, is_tied
from finetune_stages.sdk import StageError

GENERATORS = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def names(value) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def test_multimodal_types_whose_language_model_transformers_loads():
    encoders_and_decoders = set(modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES) - {"moss_transcribe_diarize"}
    multimodal = {
        kind
        for mapping in (
            modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
            modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        )
        for kind, classes in mapping.items()
        if any(name.endswith("ForConditionalGeneration") for name in names(classes))
    }
    assert set(_MULTIMODAL) == (multimodal & set(GENERATORS)) - encoders_and_decoders


def test_every_class_for_text_generation_is_accepted():
    rejected = set()
    for kind, classes in GENERATORS.items():
        for name in names(classes):
            try:
                check_architecture({"architectures": [name], "model_type": kind}, "m")
            except StageError:
                rejected.add(name)
    assert rejected == set()


@pytest.mark.parametrize(
    "mapping",
    [
        modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_CTC_MAPPING_NAMES,
    ],
)
def test_no_class_for_something_else_is_accepted(mapping):
    for kind, classes in mapping.items():
        for name in names(classes):
            if name.endswith(("ForCausalLM", "ForConditionalGeneration")):
                continue  # some multimodal models serve several purposes
            with pytest.raises(StageError):
                check_architecture({"architectures": [name], "model_type": kind}, "m")


@pytest.mark.parametrize("kind", [*TIED_BY_DEFAULT, *UNTIED_BY_DEFAULT])
def test_what_transformers_assumes_of_the_output_layer(kind):
    assert is_tied({"model_type": kind}) is CONFIG_MAPPING[kind]().tie_word_embeddings


def test_what_the_configuration_states_of_the_output_layer():
    assert is_tied({"model_type": "llama", "tie_word_embeddings": True}) is True
    assert is_tied({"model_type": "llava", "text_config": {"tie_word_embeddings": False}}) is False
    assert is_tied({"model_type": "own"}) is None


def test_code_of_its_own_generates_text_whatever_its_name_is():
    config = {"architectures": ["ChatGLMModel"], "auto_map": {"AutoModelForCausalLM": "modeling.ChatGLM"}}
    assert check_architecture(config, "m") == "ChatGLMModel"

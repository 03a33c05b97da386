"""Small untrained models of the families that people fine-tune, with the tiny model's tokenizer and chat template.

Their weights are random numbers with a wide spread, so that an exchanged or missing tensor changes what the model computes.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

_LLAMA = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}  # fmt: skip
_GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
_GEMMA = {**_LLAMA, "head_dim": 8}
FAMILIES: dict[str, dict[str, Any]] = {
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    "gemma": _GEMMA,
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    "gpt2": _GPT,
    "gpt_bigcode": _GPT,
    "gpt_neox": _LLAMA,
    "gptj": {**_GPT, "rotary_dim": 4},
    "granite": _LLAMA,
    "llama": _LLAMA,
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "mistral": _LLAMA,
    "mixtral": {**_LLAMA, "num_local_experts": 2, "num_experts_per_tok": 1},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 128},
    "olmo2": _LLAMA,
    "opt": {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48, "word_embed_proj_dim": 32,
        "max_position_embeddings": 128,
    },
    "phi3": {**_LLAMA, "pad_token_id": 0},
    "qwen2": _LLAMA,
    "qwen3": {**_LLAMA, "head_dim": 8},
    "smollm3": {**_LLAMA, "pad_token_id": 0},
}  # fmt: skip
"""By ``model_type``, the settings of a small one."""


def write_model(folder: Path, family: str, tokenizer: Path, *, tied: bool, **changes: Any) -> Path:
    """Save a model of ``family`` into ``folder``; tokenizer and chat template are those of the directory ``tokenizer``."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    state = torch.random.get_rng_state()
    torch.manual_seed(7)
    vocabulary = json.loads((tokenizer / "config.json").read_text())["vocab_size"]
    special = {"bos_token_id": None, "eos_token_id": 2}
    config = CONFIG_MAPPING[family](
        **{**special, **FAMILIES[family], "vocab_size": vocabulary, "tie_word_embeddings": tied, **changes}
    )
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    torch.random.set_rng_state(state)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(tokenizer / name, folder / name)
    return folder


def edit_config(folder: Path, **changes: Any) -> None:
    """Change ``config.json``; ``None`` removes a field."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))

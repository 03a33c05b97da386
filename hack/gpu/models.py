"""Models with random weights, and rows: ``python models.py FOLDER [--large]`` makes them in a process of its own.

The tiny model is that of ``hack/example``, trained for seconds. The large one has the shape of Qwen2.5-1.5B, random weights in bfloat16, and
the tokenizer of the tiny one.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pydocs
from base_model import TINY, train_base_model

QUESTIONS = 6
"""Questions and answers in a row for the large model: about 500 tokens."""
LARGE_ROWS = 560
TINY_ROWS = 120


def main(folder: Path, large: bool) -> None:
    """Make the models and the rows below ``folder``."""
    questions = pydocs.rows("purpose")
    pydocs.write_jsonl(folder / "tiny.jsonl", pydocs.rows("signature")[:TINY_ROWS])
    train_base_model(folder / "tiny-model", questions[: 12 * TINY.batch], [], TINY)
    if large:
        groups = [questions[start : start + QUESTIONS] for start in range(0, LARGE_ROWS * QUESTIONS, QUESTIONS)]
        pydocs.write_jsonl(
            folder / "large.jsonl", ({"messages": [m for row in group for m in row["messages"]]} for group in groups)
        )
        _large_model(folder / "tiny-model", folder / "large-model")
    else:
        shutil.copyfile(folder / "tiny.jsonl", folder / "large.jsonl")
        shutil.copytree(folder / "tiny-model", folder / "large-model")


def _large_model(tokenizer: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config

    tokens = json.loads((tokenizer / "config.json").read_text(encoding="utf-8"))
    config = Qwen2Config(
        vocab_size=151_936, hidden_size=1536, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2, intermediate_size=8960,
        max_position_embeddings=32_768, rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0}, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=tokens["eos_token_id"], pad_token_id=tokens["pad_token_id"],
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(target)
    for path in tokenizer.glob("*token*"):
        shutil.copyfile(path, target / path.name)
    for path in tokenizer.glob("chat_template*"):
        shutil.copyfile(path, target / path.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), "--large" in sys.argv[2:])

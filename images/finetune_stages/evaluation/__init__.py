"""Stages *evaluation* and *baseline*: lm-eval tasks and the held-out rows, asked of the fine-tuned and of the base model."""

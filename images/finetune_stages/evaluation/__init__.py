"""Stages *evaluation* and *baseline*: score the fine-tuned model and the base model on lm-eval tasks and the held-out rows."""

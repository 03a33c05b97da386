"""Check of the training and evaluation programs on one GPU: ``python hack/gpu/check.py``."""

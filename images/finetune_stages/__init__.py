"""The stage programs: one package a stage, each runnable with ``python -m``, none of them aware of Kubernetes.

They share :mod:`finetune_stages.sdk` and, with the operator, :mod:`finetune_contract` and nothing else.
"""

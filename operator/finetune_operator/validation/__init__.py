"""Validation of FineTuneRuns by the rules of kube-apiserver, without an API server."""

from .metadata import generated_name
from .problem import CauseType, Problem
from .rules import CelMissing
from .schema import SchemaError
from .validator import Validator

__all__ = ["CauseType", "CelMissing", "Problem", "SchemaError", "Validator", "generated_name"]

"""Validation of FineTuneRuns by the rules of kube-apiserver, without an API server, and of defaults by the same rules."""

from .defaults import DEFAULTS, DEFAULTS_KEY, NamespaceDefaults, defaults_of, reject_defaults
from .metadata import generated_name
from .problem import CauseType, Problem
from .rules import CelMissing
from .schema import SchemaError
from .validator import Validator

__all__ = [
    "DEFAULTS", "DEFAULTS_KEY", "CauseType", "CelMissing", "NamespaceDefaults", "Problem", "SchemaError", "Validator", "defaults_of",
    "generated_name", "reject_defaults",
]  # fmt: skip

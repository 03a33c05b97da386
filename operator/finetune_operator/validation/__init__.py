"""What kube-apiserver would say to an object of our definition, found out without one."""

from .metadata import generated_name
from .problem import CauseType, Problem
from .rules import CelMissing
from .schema import SchemaError
from .validator import Validator

__all__ = ["CauseType", "CelMissing", "Problem", "SchemaError", "Validator", "generated_name"]

"""What kube-apiserver would say to an object of our definition, found out without one."""

from .judge import Judge
from .metadata import generated_name
from .problem import CauseType, Problem
from .rules import CelMissing
from .schema import SchemaError

__all__ = ["CauseType", "CelMissing", "Judge", "Problem", "SchemaError", "generated_name"]

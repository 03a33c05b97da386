"""The installed version of Training Hub and of its backends, read from their files: importing them takes ten seconds."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from finetune_contract.documents import TrainingInputs
from finetune_stages.training.libraries import lacking_package, version

HUB = "training-hub"
BACKENDS = {"sft": "instructlab-training", "osft": "rhai-innovation-mini-trainer"}
"""Package of the backend, by algorithm."""
OLDEST = {HUB: "0.4.0", BACKENDS["sft"]: "0.12.1", BACKENDS["osft"]: "0.3.0"}
"""Oldest versions that ``tests/compat`` tests; those of OpenShift AI 3.3."""
_SETTINGS = {"sft": "instructlab/training/config.py", "osft": "mini_trainer/training_types.py"}
"""File of each backend with the class of its settings."""
_CLASS = "TrainingArgs"
_FURTHER = ("torch", "transformers", "flash-attn", "liger-kernel")
"""Further packages whose versions a result records."""


@dataclass(frozen=True)
class Installed:
    """What an algorithm's backend accepts.

    Attributes:
        parameters: names of the parameters of Training Hub's function.
        settings: names of the backend's settings. Training Hub passes a further argument on if it is one of them, and drops it otherwise.
        versions: versions of the packages, by name.
    """

    parameters: frozenset[str]
    settings: frozenset[str]
    versions: dict[str, str]

    def accepts(self, argument: str) -> bool:
        """Return whether an argument has an effect, as far as signatures show it."""
        return argument in self.parameters or argument in self.settings


class NotInstalled(Exception):
    """Training Hub or a backend is missing, too old, or not laid out as known. The text is a clause about the engine."""


def installed(inputs: TrainingInputs) -> Installed:
    """Return what this image's Training Hub accepts for the algorithm.

    Raises:
        NotInstalled: a package is missing or too old, or its files are unknown.
    """
    backend = BACKENDS[inputs.algorithm]
    lacking = lacking_package({name: OLDEST[name] for name in (HUB, backend)})
    if lacking is not None:
        raise NotInstalled(lacking)
    parameters = _parameters(_source(HUB, f"training_hub/algorithms/{inputs.algorithm}.py"), inputs.algorithm)
    settings = _fields(_source(backend, _SETTINGS[inputs.algorithm]))
    if not parameters or not settings:
        raise NotInstalled(
            f"the image has {HUB} {metadata.version(HUB)} with {backend} {metadata.version(backend)}, whose signatures are unknown"
        )
    found = {name: version(name) for name in (HUB, backend, *_FURTHER)}
    return Installed(parameters, settings, {name: number for name, number in found.items() if number is not None})


def _source(package: str, file: str) -> ast.Module:
    try:
        return ast.parse(Path(str(metadata.distribution(package).locate_file(file))).read_bytes())
    except (OSError, SyntaxError):
        raise NotInstalled(f"the image has {package} {metadata.version(package)}, which has no readable file {file}") from None


def _parameters(source: ast.Module, function: str) -> frozenset[str]:
    found = [node.args for node in source.body if isinstance(node, ast.FunctionDef) and node.name == function]
    return frozenset(argument.arg for arguments in found for argument in (*arguments.args, *arguments.kwonlyargs))


def _fields(source: ast.Module) -> frozenset[str]:
    classes = [node for node in source.body if isinstance(node, ast.ClassDef) and node.name == _CLASS]
    annotated = (line for node in classes for line in node.body if isinstance(line, ast.AnnAssign))
    return frozenset(line.target.id for line in annotated if isinstance(line.target, ast.Name))

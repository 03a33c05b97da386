"""The options that several commands share, each declared once: where runs are, and how a command follows a run."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Optional, get_args, get_origin, get_type_hints

import typer


class Format(StrEnum):
    """Machine-readable output."""

    json = "json"
    yaml = "yaml"


@dataclass(frozen=True)
class Target:
    """Where the runs of a command are: a folder of this machine, or one or all namespaces of a cluster."""

    home: Annotated[
        Optional[Path],  # noqa: UP045 - typer reads it at run time
        typer.Option(
            "--home",
            help="Folder with the state of local runs (default: $FINETUNE_HOME, else .finetune in the working directory).",
        ),
    ] = None
    context: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--context", help="Context of the kubeconfig: use its cluster (default: $FINETUNE_CONTEXT)."),
    ] = None
    kubeconfig: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--kubeconfig", help="Kubeconfig file: use its cluster (default: $KUBECONFIG, else ~/.kube/config)."),
    ] = None
    namespace: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("-n", "--namespace", help="Namespace of the cluster (default: the namespace of the context)."),
    ] = None
    all_namespaces: bool = False

    @property
    def cluster_options(self) -> list[str]:
        """The given options that select a cluster."""
        given = {
            "--context": self.context, "--kubeconfig": self.kubeconfig, "--namespace": self.namespace,
            "--all-namespaces": self.all_namespaces or None,
        }  # fmt: skip
        return [option for option, value in given.items() if value is not None]


@dataclass(frozen=True)
class RunOptions:
    """How a command follows and prints a run, and which Secrets it provides."""

    secrets: Annotated[
        list[str],
        typer.Option(
            "--secret",
            metavar="NAME=FILE",
            help="Read the keys of Secret NAME from FILE (KEY=value lines, a Secret in YAML, or Docker's config.json). The values are never stored."
            " Only for runs on this machine. Repeatable.",
        ),
    ] = field(default_factory=list)
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Follow the run until it ends or is suspended, if a cluster or another process runs it."),
    ] = False
    plain: Annotated[bool, typer.Option("--plain", help="Print plain lines instead of a live display.")] = False
    output: Annotated[
        Optional[Format],  # noqa: UP045
        typer.Option("-o", "--output", help="Print the object instead of a summary."),
    ] = None
    allow_code: Annotated[
        bool,
        typer.Option(
            "--allow-code",
            help="Run the code that the run brings: of its model (trustRemoteCode), of its task files (.py, !function), and through"
            " variables and ConfigMaps in training.env and training.volumes. Only for runs on this machine.",
        ),
    ] = False

    @property
    def repeated(self) -> str:
        """The options that a further command for the same run needs again, with a space before each."""
        code = " --allow-code" if self.allow_code else ""
        return "".join(f" --secret {shlex.quote(pair)}" for pair in self.secrets) + code

    suspends: bool = False
    """Whether the command requests the suspension of the run: it succeeds once the run is suspended."""


@dataclass(frozen=True)
class Without:
    """Marks an option group in a command's signature: the command has all options of the group except these."""

    names: tuple[str, ...]


def with_options(command: Callable[..., int]) -> Callable[..., None]:
    """Return ``command`` as a typer command that exits with the returned code.

    A parameter whose type is an option group (:class:`Target`, :class:`RunOptions`) becomes the options of that group.
    """
    hints = get_type_hints(command, include_extras=True)
    own: list[inspect.Parameter] = []
    shared: list[inspect.Parameter] = []
    groups: dict[str, tuple[type[Any], list[str]]] = {}
    for parameter in inspect.signature(command).parameters.values():
        group, omitted = _group(hints[parameter.name])
        if group is None:
            own.append(_keyword(parameter.name, hints[parameter.name], parameter.default))
            continue
        types = get_type_hints(group, include_extras=True)
        options = [one for one in fields(group) if get_origin(types[one.name]) is Annotated and one.name not in omitted]
        groups[parameter.name] = group, [one.name for one in options]
        shared += [_keyword(one.name, types[one.name], _default(one)) for one in options]

    parameters = own + shared

    def run(**values: Any) -> None:
        for name, (group, options) in groups.items():
            given = {option: values.pop(option) for option in options}
            values[name] = group(**given)
        raise typer.Exit(command(**values))

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _group(hint: Any) -> tuple[type[Any] | None, tuple[str, ...]]:
    """Return the option group of a parameter's type, if it is one, and the options that the command omits."""
    kind, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if not is_dataclass(kind):
        return None, ()
    return kind, next((mark.names for mark in marks if isinstance(mark, Without)), ())  # type: ignore[return-value]


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _default(option: Field[Any]) -> Any:
    return option.default if option.default_factory is MISSING else option.default_factory()

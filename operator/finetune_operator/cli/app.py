"""The commands of ``finetune`` and their options; each command is carried out by the module of its name."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from finetune_operator import __version__
from finetune_operator.api.stages import RERUN_TARGETS

from . import exit_status
from .options import RunOptions, Target, Without, with_options

app = typer.Typer(
    name="finetune",
    help="Fine-tune a language model from one YAML file: dataset, training, evaluation, gate and registration.",
    epilog="Commands work with the runs on this machine. To work with a cluster, give --context, --kubeconfig or -n, or set"
    " $FINETUNE_CONTEXT.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class ListFormat(StrEnum):
    """Output formats of a list."""

    json = "json"
    yaml = "yaml"
    name = "name"
    wide = "wide"


class Algorithm(StrEnum):
    """Training algorithms."""

    sft = "sft"
    osft = "osft"
    lora = "lora"


if TYPE_CHECKING:
    Stage = str
else:
    Stage = Literal[RERUN_TARGETS]  # typer reads the choices at run time


SetOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", metavar="PATH=VALUE", help="Set a field of spec: training.epochs=3; null removes it. Repeatable."),
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the run.", show_default=False)]


def _print_version(requested: bool) -> None:
    if requested:
        print(f"finetune {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...


@app.command()
@with_options
def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write; - for standard output.")] = Path(
        "finetunerun.yaml"
    ),
    algorithm: Annotated[
        Algorithm, typer.Option(help="Training algorithm; the file shows the defaults of its preset.")
    ] = Algorithm.osft,
    full: Annotated[bool, typer.Option("--full", help="Show every supported field, not only the most common ones.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> int:
    """Write a commented finetunerun.yaml to start from."""
    from .init import write_template

    return write_template(file, algorithm.value, full=full, force=force)


@app.command()
@with_options
def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="YAML files; - for standard input.", show_default=False)],
) -> int:
    """Validate files without a cluster.

    The rules are those of the API server. Exits with 65 if a file is invalid.
    """
    from .validate import validate_files

    return validate_files(files)


@app.command()
@with_options
def run(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="YAML file with one FineTuneRun; - for standard input.", show_default=False)
    ],
    target: Target,
    options: Annotated[RunOptions, Without(("wait",))],
    configmap: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--configmap", metavar="NAME=PATH", help="Create ConfigMap NAME from a file or the files of a folder. Repeatable."
        ),
    ] = None,
) -> int:
    """Run a FineTuneRun until it ends.

    On this machine, Ctrl-C stops the run; the same command continues it. On a cluster, Ctrl-C stops only the display; the run
    continues.
    """
    from .run import run_file

    return run_file(file, configmap or (), target, options)


@app.command()
@with_options
def clone(
    name: NameArgument,
    target: Target,
    options: RunOptions,
    new: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--name", help="Name of the new run (default: the old name with the next free number).", show_default=False),
    ] = None,
    assignment: SetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the new run instead of creating it, as -o does.")] = False,
) -> int:
    """Start a new run with the spec of another one.

    --set changes fields. Results of unchanged stages are reused.
    """
    from .clone import clone_run

    return clone_run(name, new, assignment or (), target, options, dry_run=dry_run)


@app.command()
@with_options
def rerun(
    name: NameArgument,
    stage: Annotated[Stage, typer.Option("--from", help="First stage to run again; earlier stages keep their results.")],
    target: Target,
    options: RunOptions,
    assignment: SetOption = None,
    rerun_id: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--id", help="ID of this rerun, such as a ticket or a date (default: the current time).", show_default=False
        ),
    ] = None,
) -> int:
    """Run a finished run again from a stage on.

    With --set you can change the sections of that stage and of later stages.
    """
    from .update import rerun_run

    return rerun_run(name, target, options, stage=stage, id_=rerun_id, assignments=assignment or ())


@app.command()
@with_options
def suspend(
    name: NameArgument, target: Target, options: Annotated[RunOptions, Without(("secrets", "output", "allow_code"))]
) -> int:
    """Stop the stages of a run until you resume it.

    Completed stages keep their results.
    """
    from .update import suspend_run

    return suspend_run(name, target, options)


@app.command()
@with_options
def resume(name: NameArgument, target: Target, options: RunOptions) -> int:
    """Resume a suspended or stopped run.

    On this machine the command runs it until it ends.
    """
    from .update import resume_run

    return resume_run(name, target, options)


@app.command()
@with_options
def get(
    target: Target,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Name of a run (default: all runs).", show_default=False)
    ] = None,
    experiment: Annotated[Optional[str], typer.Option(help="List only the runs of this experiment.")] = None,  # noqa: UP045
    all_namespaces: Annotated[
        bool, typer.Option("-A", "--all-namespaces", help="List the runs of all namespaces of the cluster.")
    ] = False,
    output: Annotated[
        Optional[ListFormat],  # noqa: UP045
        typer.Option("-o", "--output", help="Print objects, names or a wider table."),
    ] = None,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="After listing, print every change until Ctrl-C.")] = False,
) -> int:
    """List runs with their phase, progress and scores."""
    from .get import RunFilter, get_runs

    return get_runs(replace(target, all_namespaces=all_namespaces), RunFilter(name, experiment), output, watch=watch)


@app.command()
@with_options
def describe(name: NameArgument, target: Target) -> int:
    """Show the details of a run.

    These are stages, loss curve, scores, adapted fields, warnings, failure and events.
    """
    from .describe import describe_run

    return describe_run(target, name)


@app.command()
@with_options
def logs(
    name: NameArgument,
    target: Target,
    stage: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Stage of the log (default: the failed stage, else the running one, else the last one)."),
    ] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Follow the log until the stage ends.")] = False,
    rank: Annotated[str, typer.Option(metavar="N|all", help="Rank of a process in distributed training, or all.")] = "0",
) -> int:
    """Print the log of a stage."""
    from .logs import print_log

    return print_log(target, name, stage, rank=rank, follow=follow)


@app.command()
@with_options
def delete(
    name: NameArgument,
    target: Target,
    purge: Annotated[
        bool,
        typer.Option(
            "--purge", help="Also delete the files of the run: data, checkpoints and model. Only for runs on this machine."
        ),
    ] = False,
) -> int:
    """Delete a run and stop its stages.

    Its files are kept unless you give --purge.
    """
    from .delete import delete_run

    return delete_run(target, name, purge=purge)


def main() -> None:
    """Run the command line; the entry point of ``finetune``."""
    from .echo import EchoHandler

    logging.lastResort = EchoHandler(logging.WARNING)  # no command configures logging
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(exit_status.INTERRUPTED)
    except BrokenPipeError:
        sys.exit(exit_status.OK)

"""The commands and their options; what they do stands in the modules beside this one."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Optional

import typer

from . import exitcodes

app = typer.Typer(
    name="finetune",
    help="Fine-tune a language model from one YAML: dataset, training, evaluation, registration.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Format(StrEnum):
    """Machine-readable output."""

    json = "json"
    yaml = "yaml"


class Algorithm(StrEnum):
    """Ways to train."""

    sft = "sft"
    osft = "osft"
    lora = "lora"


HomeOption = Annotated[
    Optional[Path],  # noqa: UP045 - typer reads it at run time
    typer.Option("--home", help="Folder with the local state (default: $FINETUNE_HOME, else .finetune here)."),
]
OutputOption = Annotated[Optional[Format], typer.Option("-o", "--output", help="Print the object instead of a text.")]  # noqa: UP045
NameArgument = Annotated[str, typer.Argument(help="Name of the run.", show_default=False)]


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="File to write; - for standard output.")] = Path("finetunerun.yaml"),
    algorithm: Annotated[Algorithm, typer.Option(help="Which preset to start from.")] = Algorithm.osft,
    full: Annotated[bool, typer.Option("--full", help="Every field, not only those that most runs change.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over an existing file.")] = False,
) -> None:
    """Write a commented finetunerun.yaml to start from."""
    from .init import write_template

    raise typer.Exit(write_template(file, algorithm.value, full=full, force=force))


@app.command()
def validate(files: Annotated[list[Path], typer.Argument(help="YAML files; - for standard input.", show_default=False)]) -> None:
    """Judge files as the API server would, without one. Exit code 65 if something must be changed."""
    from .validate import validate_files

    raise typer.Exit(validate_files(files))


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="YAML file with one FineTuneRun; - for standard input.", show_default=False)],
    home: HomeOption = None,
    secret: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--secret", metavar="NAME=FILE", help="Keys of the Secret NAME from FILE (KEY=value lines). Never stored."),
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines instead of a live display.")] = False,
    output: OutputOption = None,
) -> None:
    """Run it on this machine to its end. Ctrl-C stops; the same command goes on where it stopped."""
    from .run import run_file

    raise typer.Exit(run_file(file, home, secret or [], plain=plain, output=output))


@app.command()
def get(
    name: Annotated[Optional[str], typer.Argument(help="Name of one run; all of them without it.", show_default=False)] = None,  # noqa: UP045
    home: HomeOption = None,
    experiment: Annotated[Optional[str], typer.Option(help="Only runs of this experiment.")] = None,  # noqa: UP045
    output: OutputOption = None,
) -> None:
    """List runs with their phase, progress and scores."""
    from .get import get_runs

    raise typer.Exit(get_runs(home, name, experiment, output))


@app.command()
def describe(name: NameArgument, home: HomeOption = None) -> None:
    """Everything about one run: stages, scores, loss curve, what was adapted, what went wrong."""
    from .describe import describe_run

    raise typer.Exit(describe_run(home, name))


@app.command()
def logs(
    name: NameArgument,
    home: HomeOption = None,
    stage: Annotated[Optional[str], typer.Option(help="One stage; without it the one that runs, or ran last.")] = None,  # noqa: UP045
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on printing until the stage ends.")] = False,
    rank: Annotated[int, typer.Option(help="Process of a training on several.")] = 0,
) -> None:
    """Print the log of a stage."""
    from .logs import print_log

    raise typer.Exit(print_log(home, name, stage, rank=rank, follow=follow))


@app.command()
def delete(
    name: NameArgument,
    home: HomeOption = None,
    purge: Annotated[bool, typer.Option("--purge", help="Also delete the run's files: data, checkpoints and the model.")] = False,
) -> None:
    """Delete a run and stop what it runs. Its files stay, unless --purge."""
    from .delete import delete_run

    raise typer.Exit(delete_run(home, name, purge=purge))


def main() -> None:
    """The entry point of the program ``finetune``."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(exitcodes.INTERRUPTED)
    except BrokenPipeError:
        sys.exit(exitcodes.OK)

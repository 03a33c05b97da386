"""The commands and their options; what they do stands in the modules beside this one."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Optional

import typer

from finetune_operator import __version__

from . import exitcodes

app = typer.Typer(
    name="finetune",
    help="Fine-tune a language model from one YAML: dataset, training, evaluation, gate, registration.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Format(StrEnum):
    """Machine-readable output."""

    json = "json"
    yaml = "yaml"


class ListFormat(StrEnum):
    """What a list may look like."""

    json = "json"
    yaml = "yaml"
    name = "name"
    wide = "wide"


class Algorithm(StrEnum):
    """Ways to train."""

    sft = "sft"
    osft = "osft"
    lora = "lora"


class Stage(StrEnum):
    """Where a rerun may begin."""

    dataset = "dataset"
    model = "model"
    training = "training"
    evaluation = "evaluation"
    gate = "gate"
    registration = "registration"


HomeOption = Annotated[
    Optional[Path],  # noqa: UP045 - typer reads it at run time
    typer.Option("--home", help="Folder with the local state (default: $FINETUNE_HOME, else .finetune here)."),
]
KubeconfigOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--kubeconfig", help="Kubeconfig of a cluster (default: $KUBECONFIG, else ~/.kube/config)."),
]
ContextOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--context", help="Cluster and user there: a context of the kubeconfig (default: $FINETUNE_CONTEXT)."),
]
NamespaceOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("-n", "--namespace", help="Namespace of the cluster (default: the context's)."),
]
OutputOption = Annotated[Optional[Format], typer.Option("-o", "--output", help="Print the object instead of a summary.")]  # noqa: UP045
SecretOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--secret", metavar="NAME=FILE", help="Keys of the Secret NAME from FILE (KEY=value lines). Never stored."),
]
PlainOption = Annotated[bool, typer.Option("--plain", help="Plain lines instead of a live display.")]
SetOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", metavar="PATH=VALUE", help="A field of spec: training.epochs=3; null takes it away. May be repeated."),
]
WaitOption = Annotated[
    bool,
    typer.Option("--wait", help="Follow it to its end, with its exit code, where another process or a cluster does the work."),
]
NameArgument = Annotated[str, typer.Argument(help="Name of the run.", show_default=False)]


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
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    namespace: NamespaceOption = None,
    secret: SecretOption = None,
    configmap: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--configmap", metavar="NAME=PATH", help="ConfigMap NAME from a file or from the files of a folder."),
    ] = None,
    plain: PlainOption = False,
    output: OutputOption = None,
) -> None:
    """Run it to its end, on this machine or on a cluster. Here Ctrl-C stops it and the same command goes on; there it only stops looking."""
    from .backend import RunOptions, Target
    from .run import run_file

    raise typer.Exit(
        run_file(
            file, configmap or (), Target(home, kubeconfig, context, namespace), RunOptions(tuple(secret or ()), plain, output)
        )
    )


@app.command()
def clone(
    name: NameArgument,
    new: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--name", help="Name of the new run. Default: the old one's with the next free number.", show_default=False),
    ] = None,
    assignment: SetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the new run instead of making it, as -o does.")] = False,
    home: HomeOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    namespace: NamespaceOption = None,
    secret: SecretOption = None,
    wait: WaitOption = False,
    plain: PlainOption = False,
    output: OutputOption = None,
) -> None:
    """Run it again under another name, with changes. What it shares with the first is used again."""
    from .backend import RunOptions, Target
    from .clone import clone_run

    where, options = Target(home, kubeconfig, context, namespace), RunOptions(tuple(secret or ()), plain, output, wait=wait)
    raise typer.Exit(clone_run(name, new, assignment or (), where, options, dry_run=dry_run))


@app.command()
def rerun(
    name: NameArgument,
    stage: Annotated[Stage, typer.Option("--from", help="First stage to do again; those before it keep their results.")],
    assignment: SetOption = None,
    word: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--id", help="A word for this rerun: a ticket, a date. Default: the time.", show_default=False),
    ] = None,
    home: HomeOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    namespace: NamespaceOption = None,
    secret: SecretOption = None,
    wait: WaitOption = False,
    plain: PlainOption = False,
    output: OutputOption = None,
) -> None:
    """Run a finished run again from one stage on; sections of that stage and of later ones may change."""
    from .backend import RunOptions, Target
    from .update import rerun_run

    where, options = Target(home, kubeconfig, context, namespace), RunOptions(tuple(secret or ()), plain, output, wait=wait)
    raise typer.Exit(rerun_run(name, where, options, stage=stage.value, id_=word, assignments=assignment or ()))


@app.command()
def suspend(
    name: NameArgument,
    home: HomeOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    namespace: NamespaceOption = None,
    wait: WaitOption = False,
    plain: PlainOption = False,
) -> None:
    """Stop what a run does and hold it; what it has done stays."""
    from .backend import RunOptions, Target
    from .update import suspend_run

    raise typer.Exit(suspend_run(name, Target(home, kubeconfig, context, namespace), RunOptions(plain=plain, wait=wait)))


@app.command()
def resume(
    name: NameArgument,
    home: HomeOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    namespace: NamespaceOption = None,
    secret: SecretOption = None,
    wait: WaitOption = False,
    plain: PlainOption = False,
    output: OutputOption = None,
) -> None:
    """Let a suspended run go on, to its end."""
    from .backend import RunOptions, Target
    from .update import resume_run

    raise typer.Exit(
        resume_run(name, Target(home, kubeconfig, context, namespace), RunOptions(tuple(secret or ()), plain, output, wait=wait))
    )


@app.command()
def get(
    name: Annotated[Optional[str], typer.Argument(help="Name of one run; all of them without it.", show_default=False)] = None,  # noqa: UP045
    home: HomeOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    namespace: NamespaceOption = None,
    experiment: Annotated[Optional[str], typer.Option(help="Only runs of this experiment.")] = None,  # noqa: UP045
    everywhere: Annotated[bool, typer.Option("-A", "--all-namespaces", help="The runs of all namespaces of a cluster.")] = False,
    output: Annotated[
        Optional[ListFormat],  # noqa: UP045
        typer.Option("-o", "--output", help="Objects, names, or a wider table."),
    ] = None,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Go on printing what changes, until Ctrl-C.")] = False,
) -> None:
    """List runs with their phase, progress and scores."""
    from .backend import Target
    from .get import Wanted, get_runs

    where = Target(home, kubeconfig, context, namespace, everywhere)
    raise typer.Exit(get_runs(where, Wanted(name, experiment), output, watch=watch))


@app.command()
def describe(
    name: NameArgument,
    home: HomeOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    namespace: NamespaceOption = None,
) -> None:
    """Everything about one run: stages, scores, loss curve, what was adapted, what went wrong."""
    from .backend import Target
    from .describe import describe_run

    raise typer.Exit(describe_run(Target(home, kubeconfig, context, namespace), name))


@app.command()
def logs(
    name: NameArgument,
    home: HomeOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    namespace: NamespaceOption = None,
    stage: Annotated[Optional[str], typer.Option(help="One stage; without it the one that runs, or ran last.")] = None,  # noqa: UP045
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on printing until the stage ends.")] = False,
    rank: Annotated[str, typer.Option(metavar="N|all", help="Process of a training on several.")] = "0",
) -> None:
    """Print the log of a stage."""
    from .backend import Target
    from .logs import print_log

    raise typer.Exit(print_log(Target(home, kubeconfig, context, namespace), name, stage, rank=rank, follow=follow))


@app.command()
def delete(
    name: NameArgument,
    home: HomeOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    namespace: NamespaceOption = None,
    purge: Annotated[bool, typer.Option("--purge", help="Also delete the run's files: data, checkpoints and the model.")] = False,
) -> None:
    """Delete a run and stop what it runs. Its files stay, unless --purge."""
    from .backend import Target
    from .delete import delete_run

    raise typer.Exit(delete_run(Target(home, kubeconfig, context, namespace), name, purge=purge))


def main() -> None:
    """The entry point of the program ``finetune``."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(exitcodes.INTERRUPTED)
    except BrokenPipeError:
        sys.exit(exitcodes.OK)

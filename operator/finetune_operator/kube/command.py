"""The command of the operator: options, logging and exit codes."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from finetune_operator.loop.errors import ApiError
from finetune_operator.validation import CelMissing

from .configuration import BadConfiguration, Configuration
from .credentials import ClientNotInstalled, NoCredentials, load_credentials
from .json_log import TotalJsonFormatter
from .lease import LeaseLost
from .process import Wiring, operate

log = logging.getLogger(__name__)

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)


@app.command()
def run(
    config: Annotated[Optional[Path], typer.Option(help="Configuration file (YAML).")] = None,  # noqa: UP045 - typer reads it
    kubeconfig: Annotated[Optional[Path], typer.Option(help="Kubeconfig, outside a cluster.")] = None,  # noqa: UP045
    context: Annotated[Optional[str], typer.Option(help="Context in the kubeconfig.")] = None,  # noqa: UP045
    host: Annotated[str, typer.Option(help="Address to listen on; by default all addresses.")] = "",
    port: Annotated[int, typer.Option(help="Port of /healthz, /readyz and /metrics; 0 selects a free port.")] = 8080,
    lease: Annotated[bool, typer.Option(help="Use leader election: only the replica that holds the Lease is active.")] = True,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log debug messages of libraries.")] = False,
) -> None:
    """Run the operator for the FineTuneRuns of a cluster."""
    _log_as_json(verbose=verbose)
    try:
        credentials = load_credentials(kubeconfig, context)
        gc.freeze()  # imported objects stay: otherwise each full collection blocks the event loop for 0.1 s
        asyncio.run(operate(Wiring(credentials, Configuration.load(config), host=host, port=port, lease=lease)))
    except (BadConfiguration, CelMissing, ClientNotInstalled, NoCredentials, ApiError, LeaseLost) as error:
        log.error("%s", error)  # noqa: TRY400 - a message for an administrator, not a defect
        raise typer.Exit(1) from None


def _log_as_json(*, verbose: bool) -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(TotalJsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for library in ("kopf", "aiohttp", "asyncio"):
        logging.getLogger(library).setLevel(logging.DEBUG if verbose else logging.WARNING)


def main() -> None:
    """Run the command."""
    app(prog_name="finetune-operator")

"""Credentials for a cluster from the official client; its log messages become one error message."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from . import exit_status
from .errors import CommandError
from .kubeconfig import Kubeconfig

if TYPE_CHECKING:
    from finetune_operator.kube.credentials import Credentials

_CONTENT = re.compile(r"/\{.*\}", re.DOTALL)
"""The client identifies an entry by its whole content, including tokens."""
_ADDRESS = re.compile(r"https?://[^/]")
_ERRNO = re.compile(r"\[Errno \d+\] ")


def log_in(kubeconfig: Kubeconfig, given: Path | None, context: str | None) -> Credentials:
    """Return the credentials of a context; without a context, those of the present pod.

    Raises:
        CommandError: there are none, or the official client is not installed.
    """
    from finetune_operator.kube.credentials import ClientNotInstalled, NoCredentials, load_credentials

    try:
        with _captured_log() as messages:
            credentials = load_credentials(given, context)
    except ClientNotInstalled as error:
        raise CommandError([str(error)], exit_status.UNAVAILABLE) from None
    except NoCredentials as error:
        if context is None:
            sentence = f"kubeconfig {kubeconfig.looked_for}: no such file; log in (oc login) or give --kubeconfig FILE."
            raise CommandError([sentence], exit_status.NO_INPUT) from None
        sentence = (
            f"{kubeconfig.description}: context {context} cannot be used: {_ERRNO.sub('', error.why)}; log in again (oc login)."
        )
        raise CommandError([sentence]) from None
    if messages and credentials.token is None and credentials.certificate is None:
        sentence = (
            f"context {context}: the login plug-in failed ({_CONTENT.sub('', messages[-1]).strip().rstrip('.')}); log in again."
        )
        raise CommandError([sentence], exit_status.NO_PERMISSION)
    if context is not None and not _ADDRESS.match(credentials.address):
        sentence = f"{kubeconfig.description}: context {context} has a cluster whose server is not an https:// address; correct it, or log in again (oc login)."
        raise CommandError([sentence])
    return credentials


@contextmanager
def _captured_log() -> Iterator[list[str]]:
    """Collect what the client logs: it reports the failure of a login plug-in in no other way."""
    messages: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    listener, root = Listener(), logging.getLogger()
    root.addHandler(listener)
    try:
        yield messages
    finally:
        root.removeHandler(listener)

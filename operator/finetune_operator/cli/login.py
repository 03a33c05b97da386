"""Who one is to a cluster: the official client's answer, and its complaints as one sentence."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from . import exitcodes
from .errors import CommandError
from .kubeconfig import VARIABLE, Kubeconfig

if TYPE_CHECKING:
    from finetune_operator.kube.credentials import Credentials

_CONTENT = re.compile(r"/\{.*\}", re.DOTALL)
"""The client names an entry by all that is in it, tokens too."""


def log_in(kubeconfig: Kubeconfig, given: Path | None, context: str | None) -> Credentials:
    """The credentials of a context; without one, those of the pod that this is.

    Raises:
        CommandError: there are none, or the packages that read them are not installed.
    """
    try:
        from finetune_operator.kube.credentials import NoCredentials, load_credentials

        with _complaints() as said:
            credentials = load_credentials(given, context)
    except ModuleNotFoundError as error:
        sentence = f"{error.name} is not installed; for a cluster, finetune needs: pip install 'finetune-operator[operator]'"
        raise CommandError([sentence], exitcodes.UNAVAILABLE) from None
    except NoCredentials as error:
        if context is None:
            words = f"There is no kubeconfig: neither ${VARIABLE} nor ~/.kube/config names a cluster"
            raise CommandError([f"{words}; log in (oc login), or give --kubeconfig FILE."], exitcodes.NO_INPUT) from None
        raise CommandError([f"{kubeconfig.words}: context {context} cannot be used: {error.why}."]) from None
    if said and credentials.token is None and credentials.certificate is None:
        sentence = f"context {context}: the program that logs in has failed ({_CONTENT.sub('', said[-1]).strip().rstrip('.')}); log in again."
        raise CommandError([sentence], exitcodes.NO_PERMISSION)
    return credentials


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """What the client logs meanwhile: it reports the failure of a login program in no other way."""
    found: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    listener, root = Listener(), logging.getLogger()
    root.addHandler(listener)
    try:
        yield found
    finally:
        root.removeHandler(listener)

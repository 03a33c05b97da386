"""Selects the backend of a command by its options and the environment.

``--context``, ``--kubeconfig``, ``-n`` and ``-A`` select a cluster, and so does ``FINETUNE_CONTEXT``; otherwise the backend is the
folder of ``--home``. Options take precedence over variables.
"""

from __future__ import annotations

import os
from dataclasses import replace

from finetune_operator.local.home import HOME_VARIABLE

from . import exit_status
from .backend import Backend
from .errors import CommandError
from .options import Target

CONTEXT_VARIABLE = "FINETUNE_CONTEXT"


def find_backend(target: Target) -> Backend:
    """Return the backend that options and environment select.

    Raises:
        CommandError: they contradict each other, or the cluster does not exist.
    """
    given, variable = target.cluster_options, os.environ.get(CONTEXT_VARIABLE)
    if target.home is not None and given:
        raise CommandError(
            [f"--home, {given[0]}: a local folder and a cluster cannot be used together; remove one of them."],
            exit_status.USAGE,
        )
    if target.all_namespaces and target.namespace:
        raise CommandError(
            ["--namespace, --all-namespaces: they cannot be used together; remove one of them."], exit_status.USAGE
        )
    if target.home is None and not given and variable and os.environ.get(HOME_VARIABLE):
        raise CommandError(
            [f"{HOME_VARIABLE}, {CONTEXT_VARIABLE}: a local folder and a cluster cannot be used together; unset one of them."],
            exit_status.USAGE,
        )
    if given or (variable and target.home is None):
        from .cluster_backend import ClusterBackend

        if target.context or target.kubeconfig or not variable:
            return ClusterBackend.find(target)
        return ClusterBackend.find(replace(target, context=variable), f"${CONTEXT_VARIABLE}")
    from .local_backend import LocalBackend

    return LocalBackend.find(target.home)

"""python hack/kind COMMAND: a cluster of kind for the node tests. It needs Docker or podman, and a registry.

up     make the cluster, with Kubeflow Trainer and JobSet as their documentation installs them
down   remove it

Then: FINETUNE_NODE=kind python -m pytest tests/node
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence

from build_error import CannotBuildError
from controlplane.api import RefusedError
from controlplane.programs import GENERATIONS

from .cluster import KindCluster


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python hack/kind", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["up", "down"])
    parser.add_argument("--trainer", choices=list(GENERATIONS), default="2.1", help="release of Kubeflow Trainer (2.1)")
    options = parser.parse_args(arguments)
    if missing := [name for name in ("kind", "docker") if shutil.which(name) is None]:
        print(
            f"kind: {' and '.join(missing)} not installed; install them, or use python hack/node, which needs neither",
            file=sys.stderr,
        )
        return 1
    cluster = KindCluster(options.trainer)
    try:
        if options.command == "down":
            cluster.down()
        else:
            cluster.start()
            print(f"export KUBECONFIG={cluster.state / 'admin.kubeconfig'}")
    except (CannotBuildError, RefusedError, OSError, TimeoutError) as error:
        print(f"kind: {error}", file=sys.stderr)
        return 1
    return 0

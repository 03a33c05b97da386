"""Where the log of a pod is that no longer exists."""

from __future__ import annotations

from finetune_contract.workspace import Attempt
from finetune_operator.cli.cluster_backend import ClusterBackend
from finetune_operator.core.run import Run
from finetune_operator.kube.credentials import Credentials
from unit.core.passes import go, run_of
from world import World


def archived(run: Run, stage: str) -> str:
    backend = ClusterBackend(Credentials("https://localhost"), "context a", "team")
    return str(backend.archived_log(run, stage, Attempt(1, 2), 0))


def test_the_path_is_in_the_folder_of_the_stage() -> None:
    world = World.new()
    go(world)
    run = run_of(world)
    assert archived(run, "training").endswith(
        "PersistentVolumeClaim workspace: runs/demo-run-uid-/training/logs/training.1.2.0.log"
    )
    assert archived(run, "evaluation").endswith(": runs/demo-run-uid-/logs/evaluation.1.2.0.log")
    assert archived(run, "engine-check") == (
        "demo: the pod of stage engine-check, attempt 1.2, no longer exists, and its log was not stored; read status.stages."
    )

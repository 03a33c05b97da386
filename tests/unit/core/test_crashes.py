"""A crash that repeats is not retried: the same exception at the same place with the same inputs."""

from __future__ import annotations

import pytest

from finetune_contract.crash import crash_message
from finetune_operator.core.pod_report import Termination
from unit.core.passes import edit, failing, fault, go, run_of, stage, world_at
from world import MINIMAL, World

CRASH = crash_message("IndexError", "index 5 is out of range", "datasets/arrow_writer.py:12")
PATIENT = {**MINIMAL, "retry": {"crash": 5, "transient": 5, "lost": 5}}


def crashed(world: World, message: str, reason: str = "Crashed", code: int = 1) -> None:
    """The training program ends with an exception; the next attempt begins, if there is one."""
    go(world, **failing(world, "training", Termination(code, "Error", fault(reason, message))))
    for _ in range(3):
        go(world)


def test_the_same_exception_at_the_same_place_with_the_same_inputs_is_not_retried() -> None:
    world = world_at("training", PATIENT)
    crashed(world, CRASH)
    assert (stage(world, "training").state, stage(world, "training").attempt) == ("Running", 2)
    crashed(world, CRASH.replace("index 5", "index 7"))
    failure = run_of(world).status["failure"]
    assert (failure["stage"], failure["reason"]) == ("training", "Crashed")
    assert failure["message"] == (
        "IndexError: index 7 is out of range (at datasets/arrow_writer.py:12);"
        " an earlier attempt crashed at the same place with the same inputs, so the stage is not retried"
    )
    assert stage(world, "training").failures == {"Crash": 2}


@pytest.mark.parametrize(
    "second",
    [
        CRASH.replace(":12", ":13"), CRASH.replace("IndexError", "KeyError"), "IndexError: index 5 is out of range", "Killed by signal 11.",
    ],
)  # fmt: skip
def test_another_crash_is_retried(second: str) -> None:
    world = world_at("training", PATIENT)
    crashed(world, CRASH)
    crashed(world, second)
    assert (stage(world, "training").state, stage(world, "training").attempt) == ("Running", 3)


@pytest.mark.parametrize("again", ["The process ended with exit code 139.", "IndexError: no place"])
def test_a_crash_without_a_place_is_tried_as_often_as_allowed(again: str) -> None:
    world = world_at("training", PATIENT)
    for _ in range(5):
        crashed(world, again)
    assert stage(world, "training").attempt == 6


def test_what_comes_in_between_does_not_hide_that_a_crash_is_the_same() -> None:
    world = world_at("training", PATIENT)
    crashed(world, CRASH)
    crashed(world, "no answer (at requests/adapters.py:9)", "RegistryUnreachable", 75)
    assert stage(world, "training").attempt == 3
    crashed(world, CRASH)
    assert run_of(world).status["failure"]["reason"] == "Crashed"


def test_the_same_crash_with_other_inputs_is_retried() -> None:
    world = world_at("training", PATIENT)
    crashed(world, CRASH)
    status = run_of(world).status
    stages = [{**one, "inputsDigest": "f" * 64} if one["name"] == "training" else one for one in status["stages"]]
    world.write_status({**status, "stages": stages})
    crashed(world, CRASH)
    assert stage(world, "training").attempt == 3


def test_a_rerun_tries_what_crashed_before() -> None:
    world = world_at("training", PATIENT)
    crashed(world, CRASH)
    crashed(world, CRASH)
    world.settle()
    assert run_of(world).status["phase"] == "Failed"
    edit(world, rerun={"id": "2", "from": "training"})
    while stage(world, "training").state != "Running" or not stage(world, "training").child_uid:
        go(world)
        for ref in world.active():
            if world.stage_of(ref) != "training":
                world.finish(ref)
    crashed(world, CRASH)
    assert (stage(world, "training").state, stage(world, "training").attempt) == ("Running", 2)

"""What derives from the declarations of the stages: the CRD, the command line, reruns, images, and the order of a pass."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from typer.testing import CliRunner

from finetune_operator.api import stages as declared
from finetune_operator.api.crd import crd
from finetune_operator.api.finetunerun import FROZEN_SECTIONS
from finetune_operator.api.reasons import STATE_REASONS
from finetune_operator.api.stages import RERUN_TARGETS, STAGES, StageDefinition
from finetune_operator.api.status import CONDITIONS, PHASES
from finetune_operator.cli.app import app
from finetune_operator.core import stages
from finetune_operator.core.run import Run, StageStatus
from finetune_operator.core.stages import GRAPH, OperatorStage, Outcome, StageGraph
from images.recipes import PROGRAMS, programs_in
from unit.core.passes import edit, go, run_of, stage, world_at
from world import MINIMAL, SETTINGS, World

DOCS = Path(__file__).parents[3] / "docs"
SCHEMA: Mapping[str, Any] = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
REPEATED = {
    "dataset": {
        "engine-check",
        "dataset",
        "registry-check",
        "tokenization",
        "training",
        "baseline",
        "evaluation",
        "gate",
        "registration",
    },
    "model": {
        "engine-check",
        "model",
        "registry-check",
        "tokenization",
        "training",
        "baseline",
        "evaluation",
        "gate",
        "registration",
    },
    "training": {"engine-check", "registry-check", "tokenization", "training", "evaluation", "gate", "registration"},
    "evaluation": {"registry-check", "tokenization", "baseline", "evaluation", "gate", "registration"},
    "gate": {"registry-check", "gate", "registration"},
    "registration": {"registry-check", "registration"},
}


def test_every_declared_stage_has_a_behavior_unless_it_is_reserved() -> None:
    assert list(GRAPH.definitions.values()) == [stage for stage in STAGES if not stage.reserved]
    assert [stage.name for stage in GRAPH.stages if stage.name not in GRAPH.programs] == ["gate"]
    assert all(stage.purpose for stage in STAGES)


def test_the_crd_enumerates_what_the_stages_declare() -> None:
    status = SCHEMA["status"]["properties"]
    assert status["stages"]["items"]["properties"]["name"]["enum"] == [stage.name for stage in STAGES]
    assert status["phase"]["enum"] == list(PHASES)
    assert status["conditions"]["items"]["properties"]["type"]["enum"] == list(CONDITIONS)
    assert SCHEMA["spec"]["properties"]["rerun"]["properties"]["from"]["enum"] == list(RERUN_TARGETS)


def test_the_command_line_offers_the_stages_to_rerun_from() -> None:
    done = CliRunner().invoke(app, ["rerun", "demo", "--from", "baseline"])
    assert done.exit_code == 2
    assert "'baseline' is not one of " + ", ".join(f"'{name}'" for name in RERUN_TARGETS) in done.output


def test_a_rerun_repeats_what_depends_on_its_sections() -> None:
    assert {first: set(GRAPH.rerun(first)) for first in RERUN_TARGETS} == REPEATED
    assert FROZEN_SECTIONS["training"] == ("dataset", "model", "training")
    assert {reruns[-1] for reruns in FROZEN_SECTIONS.values() if reruns} == set(RERUN_TARGETS)


def test_after_every_stage_a_rerun_is_recommended_that_repeats_it() -> None:
    assert {stage.rerun_target for stage in STAGES} == set(RERUN_TARGETS)
    assert all(stage.rerun_target in stage.reruns for stage in STAGES if stage is not declared.WORKSPACE)


def test_every_stage_with_a_program_runs_in_an_image_that_exists() -> None:
    assert {stage.image for stage in STAGES if stage.program} == set(declared.IMAGES) == set(PROGRAMS)
    for image in PROGRAMS:
        assert set(programs_in(image)) == {stage.program for stage in STAGES if stage.image == image}


def test_rejections_are_documented() -> None:
    assert {stage.model_rejection for stage in STAGES if stage.model_rejection} <= set(STATE_REASONS)


def test_stages_declare_the_fields_of_status_that_they_write() -> None:
    owned = [field for stage in GRAPH.programs.values() for field in stage.OWNS]
    assert len(set(owned)) == len(owned)
    counts = {field.removeprefix("rows.") for field in owned if field.startswith("rows.")}
    assert counts == set(SCHEMA["status"]["properties"]["rows"]["properties"])
    world = World.new()
    world.settle()
    status = run_of(world).status
    assert set(status["rows"]) == counts
    assert {f"model.{field}" for field in status["model"]} <= set(owned)
    assert {f"metrics.{group}" for group in status["metrics"]} - set(owned) == {"metrics.higherIsBetter"}


@pytest.mark.parametrize(
    ("form", "required"), [("auto", False), ("text", False), ("tokenised", False), ("messages", True), ("alpaca", True)]
)
def test_a_chat_template_is_required_early_only_if_rows_are_known_to_have_messages(form: str, required: bool) -> None:
    world = World.new({**MINIMAL, "dataset": {**MINIMAL["dataset"], "format": form}})
    go(world)
    assert GRAPH.programs["model"].inputs(run_of(world)).requires_chat_template is required


def test_progress_is_that_of_the_latest_stage_and_of_those_in_the_background_last() -> None:
    assert GRAPH.by_progress.index("evaluation") < GRAPH.by_progress.index("training") < GRAPH.by_progress.index("model")
    assert GRAPH.by_progress[-2:] == ("baseline", "engine-check")
    assert set(GRAPH.by_progress) == set(GRAPH.programs)


def test_the_documentation_names_the_program_and_the_image_of_each_stage() -> None:
    rows = re.findall(r"`finetune-(\w+)`, `finetune_stages\.(\w+)` \| `([\w-]+)`", (DOCS / "custom.md").read_text())
    assert len(rows) > 4
    for image, program, name in rows:
        assert (image, program) == (GRAPH.definitions[name].image, GRAPH.definitions[name].program)


def test_the_documentation_names_the_peers_of_every_stage_with_pods() -> None:
    _, _, table = (DOCS / "configuration.md").read_text().partition("| Pods of |")
    named = [name for row in table.partition("\n\n")[0].splitlines()[2:] for name in re.findall(r"`([\w-]+)`", row.split("|")[1])]
    assert sorted(named) == sorted(GRAPH.programs)


class Waiting(OperatorStage):
    """A stage of these tests only."""

    definition: ClassVar[StageDefinition] = StageDefinition(name="waiting", depends_on=("gate",), precedes=("registration",))

    def evaluate(self, run: Run) -> Outcome:
        return Outcome("Running", "Waiting", "")


def with_stage(stage: OperatorStage) -> StageGraph:
    """Return the graph with one more stage, directly before the registration."""
    return StageGraph((*GRAPH.stages[:-1], stage, GRAPH.stages[-1]))


def test_a_stage_that_is_listed_before_a_predecessor_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"stage registration: it is listed before its predecessors waiting; list it after them"):
        StageGraph((*GRAPH.stages, Waiting()))


def test_successors_are_found_through_other_stages_too() -> None:
    graph = with_stage(Waiting())
    assert graph.predecessors["registration"] == (*declared.REGISTRATION.depends_on, "waiting")
    assert graph.successors["baseline"] == ("gate", "waiting", "registration")
    assert graph.successors["registration"] == ()


def test_a_stage_of_a_later_release_is_known_by_its_name() -> None:
    assert GRAPH.definition("later") == StageDefinition(name="later")
    assert GRAPH.model_rejection({"later": StageStatus("later", "Failed")}) is None


def test_a_run_that_an_earlier_release_started_ends_without_the_new_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_at("training", {**MINIMAL, "gate": {"requirements": [{"metric": "holdout.bits_per_byte", "max": 1.0}]}})
    monkeypatch.setattr(stages, "GRAPH", with_stage(Waiting()))
    world.settle()  # its gate rejects the model, so that the stages after it are skipped
    assert run_of(world).status["phase"] == "Rejected"
    assert "waiting" not in run_of(world).stages


def test_a_stage_without_a_program_has_an_event_of_its_start_and_waits_while_the_run_is_suspended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Announced(Waiting):
        definition = replace(Waiting.definition, announced=True)

        def evaluate(self, run: Run) -> Outcome:
            assert not run.spec.get("suspend"), "a suspended run is not evaluated"
            return Outcome("Running", "Waiting", "nobody has decided")

    monkeypatch.setattr(stages, "GRAPH", with_stage(Announced()))
    world, events = World.new(), []
    for _ in range(14):
        events += [(event.reason, event.message) for event in go(world).events if event.posted]
        for ref in world.active():
            world.finish(ref)
    assert events[-1] == ("StageStarted", "waiting: nobody has decided")
    edit(world, suspend=True)
    go(world)
    assert (stage(world, "waiting").state, stage(world, "waiting").reason) == ("Running", "Suspended")
    assert run_of(world).status["phase"] == "Suspended"
    edit(world, suspend=False)
    go(world)
    assert (stage(world, "waiting").reason, stage(world, "waiting").message) == ("Waiting", "nobody has decided")


def test_a_gate_whose_evaluation_may_fail_by_default_does_not_start() -> None:
    spec = {**MINIMAL, "gate": {"requirements": [{"metric": "holdout.bits_per_byte", "max": 9.0}]}}
    decision = World.new(spec).decide(settings=replace(SETTINGS, namespace_defaults={"evaluation": {"onFailure": "Continue"}}))
    assert (decision.status["phase"], decision.status["failure"]["reason"]) == ("Failed", "InvalidSpec")
    assert decision.status["failure"]["message"].startswith(
        "ConfigMap finetune-defaults, evaluation.onFailure: Continue would pass"
    )
    assert not decision.effects


def test_each_stage_goes_into_the_conditions_in_the_order_of_the_table() -> None:
    world = World.new()
    types = [one["type"] for one in go(world).status["conditions"]]
    assert types == [type_ for type_ in CONDITIONS if type_ in types]

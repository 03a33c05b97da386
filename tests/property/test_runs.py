"""Random lives of a run: whatever happens, plan has an answer, the answer is valid, and the run ends once it is left in peace."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from finetune_operator.api.crd import crd
from finetune_operator.api.reasons import REASONS, resumes_alone
from finetune_operator.core.observation import Observed
from finetune_operator.core.plan import plan
from finetune_operator.core.pod_report import PodReport, Termination
from finetune_operator.core.reads import needs
from finetune_operator.core.run import Run
from finetune_operator.validation import Validator
from kstatus import kstatus
from model.test_exhaustive import phases
from world import NOW, SETTINGS, World, contents_of

JUDGE = Validator(crd())
SPECS: list[dict[str, Any]] = [
    {"dataset": {"uri": "/data.jsonl"}, "evaluation": {"tasks": [], "baseline": True}},
    {"dataset": {"uri": "/data.jsonl"}, "evaluation": {"enabled": False}},
    {"dataset": {"uri": "/data.jsonl"}, "evaluation": {"tasks": [], "onFailure": "Continue"}, "storage": {"size": "1Gi"}},
    {"dataset": {"uri": "/data.jsonl"}, "training": {"workers": 2, "algorithm": "sft"}, "evaluation": {"tasks": []}},
    {
        "dataset": {"uri": "/data.jsonl"}, "evaluation": {"tasks": []}, "registry": {"onExisting": "Fail"},
        "gate": {"requirements": [{"metric": "holdout.bits_per_byte", "maxRegression": 0.5}]},
    },
    {
        "dataset": {"uri": "/data.jsonl"}, "evaluation": {"tasks": []},
        "gate": {"requirements": [{"metric": "holdout.bits_per_byte", "max": 1.0}], "onRejected": "RegisterAsRejected"},
    },
]  # fmt: skip
CODES = st.sampled_from([0, 1, 65, 75, 137, 143])
WORDS = st.sampled_from(
    ["", "ImagePullBackOff", "CreateContainerConfigError", "ContainerCreating", "Evicted", "OutOfmemory", "Shutdown"]
)
REPORTS = st.builds(
    PodReport, name=st.sampled_from(["a", "b"]), rank=st.integers(0, 2), phase=st.sampled_from(["Pending", "Running", "Succeeded", "Failed"]),
    termination=st.none() | st.builds(Termination, CODES, st.sampled_from(["", "OOMKilled", "Error"]), st.text(max_size=30)),
    waiting=WORDS, unschedulable=st.sampled_from(["", "no node", "pod has unbound immediate PersistentVolumeClaims", "Insufficient memory"]), rejected=WORDS, sidecar_runs=st.booleans(), disrupted=st.booleans(), gone=st.booleans(),
)  # fmt: skip


def validate(world: World) -> None:
    """The status could be written: the CRD takes it."""
    document = {
        "apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", **world.run,
        "metadata": {"name": "demo", "namespace": "team", "resourceVersion": "1", "uid": "u"},
    }  # fmt: skip
    before = {key: value for key, value in document.items() if key != "status"}
    assert JUDGE.update(document, before, status=True) == []


class Life(RuleBasedStateMachine):
    """A run and everything that can befall it."""

    @initialize(spec=st.sampled_from(SPECS), claim=st.booleans())
    def begin(self, spec: dict[str, Any], claim: bool) -> None:
        self.world = World.new(spec, claim=claim)
        self.now = NOW
        self.deleted = 0
        self.furthest = (0, 0)

    def carry_out(self, decision: Any, calls: int = 99) -> None:
        if calls > 0:
            self.world.write_status(decision.status)
        for effect in decision.effects[: max(0, calls - 1)]:
            self.world.apply_effect(effect)

    @rule()
    def a_pass(self) -> None:
        """Nobody is woken by its own writing, so that it must leave nothing to a second one that sees the same."""
        decision = self.world.decide(self.now)
        self.carry_out(decision)
        if not decision.effects and decision.requeue_after != 0.0:
            again = self.world.decide(self.now)
            assert (again.status, again.effects) == (decision.status, ())

    @rule(calls=st.integers(0, 3))
    def a_pass_that_is_cut_off(self, calls: int) -> None:
        self.carry_out(self.world.decide(self.now), calls)

    @rule(pods=st.lists(REPORTS, max_size=3), log=st.text(max_size=50))
    def a_pass_that_sees_odd_pods(self, pods: list[PodReport], log: str) -> None:
        run = Run.parse(self.world.run)
        found = {ref: self.world.objects[ref] for ref in needs(run, SETTINGS) if ref in self.world.objects}
        reports = {name: tuple(pods) for name, record in run.stages.items() if record.child_name and not record.ended}
        self.carry_out(plan(run, Observed(SETTINGS, found, reports, {"a": log}, contents=contents_of(found)), self.now))

    @precondition(lambda self: self.world.active())
    @rule(data=st.data(), code=CODES)
    def a_child_ends(self, data: st.DataObject, code: int) -> None:
        ref = data.draw(st.sampled_from(self.world.active()))
        self.world.finish(ref, exit_code=code, message=None if code == 0 else "")

    @precondition(lambda self: self.world.children() and self.deleted < 3)
    @rule(data=st.data())
    def somebody_deletes_a_child(self, data: st.DataObject) -> None:
        self.deleted += 1
        self.world.remove(data.draw(st.sampled_from(self.world.children())))

    @rule(held=st.booleans())
    def the_user_holds_it_or_lets_it_go(self, held: bool) -> None:
        self.world.run = {**self.world.run, "spec": {**self.world.run["spec"], "suspend": held}}

    @rule(seconds=st.integers(1, 200_000))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @precondition(lambda self: Run.parse(self.world.run).ended)
    @rule(number=st.integers(1, 3), stage=st.sampled_from(["dataset", "training", "evaluation", "gate", "registration"]))
    def the_user_runs_it_again(self, number: int, stage: str) -> None:
        self.world.run = {**self.world.run, "spec": {**self.world.run["spec"], "rerun": {"id": str(number), "from": stage}}}

    @invariant()
    def status_is_valid(self) -> None:
        if hasattr(self, "world"):
            validate(self.world)

    @invariant()
    def status_does_not_mislead(self) -> None:
        """Within a round the phase goes forward only, suspension apart; kstatus sees the end, a blocker and nothing else."""
        if not hasattr(self, "world") or not self.world.run.get("status"):
            return
        run = Run.parse(self.world.run)
        if run.status["phase"] != "Suspended":
            reached = (run.round, phases().index(run.status["phase"]))
            assert reached >= self.furthest, (self.furthest, reached)
            self.furthest = reached
        seen = {"generation": run.status["observedGeneration"]}
        found, conditions = kstatus({**self.world.run, "metadata": seen}), {one["type"]: one for one in run.status["conditions"]}
        if run.ended:
            assert found == ("Current" if run.status["phase"] == "Succeeded" else "Failed")
            return
        assert "RunFinished" not in {one["reason"] for one in conditions.values()}
        stalled = REASONS.get(conditions["Stalled"]["reason"]) if conditions["Stalled"]["status"] == "True" else None
        if stalled is not None:
            assert found == ("InProgress" if resumes_alone(stalled) else "Failed")
        else:
            assert found == ("Current" if conditions["Reconciling"]["reason"] == "Suspended" else "InProgress")

    @invariant()
    def children_are_ours_and_work_is_done_once(self) -> None:
        if hasattr(self, "world"):
            for ref in self.world.children():
                assert self.world.objects[ref]["metadata"]["ownerReferences"][0]["uid"] == "run-uid-1"

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        spec = {key: value for key, value in self.world.run["spec"].items() if key != "suspend"}
        self.world.run = {**self.world.run, "spec": spec}
        self.world.put(
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "workspace", "namespace": "team"}}
        )
        for _ in range(60):
            before = self.world.key()
            self.now += timedelta(seconds=1)
            self.carry_out(self.world.decide(self.now))
            for ref in list(self.world.objects):
                self.world.finish(ref)
            if self.world.key() == before:
                break
        assert Run.parse(self.world.run).ended
        validate(self.world)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=settings.default.max_examples * 3 // 5, stateful_step_count=40, deadline=None)


@given(pods=st.lists(REPORTS, max_size=4), number=st.integers(0, 12))
def test_with_an_observation_that_does_not_change_the_decisions_come_to_rest(pods: list[PodReport], number: int) -> None:
    world = World.new(SPECS[0])
    for _ in range(number):
        decision = world.decide()
        world.write_status(decision.status)
        for effect in decision.effects:
            world.apply_effect(effect)
        for ref in world.active():
            world.finish(ref)
    for _ in range(40):
        run = Run.parse(world.run)
        found = {ref: world.objects[ref] for ref in needs(run, SETTINGS) if ref in world.objects}
        reports = {name: tuple(pods) for name, record in run.stages.items() if record.child_name and not record.ended}
        decision = plan(run, Observed(SETTINGS, found, reports, contents=contents_of(found)), NOW)
        if decision.status == world.run.get("status"):
            return
        world.write_status(decision.status)
    raise AssertionError("the decisions do not come to rest")

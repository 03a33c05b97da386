"""A cluster small enough to be searched: objects in a dict, children that move by themselves, a workspace that remembers work.

It replaces the API server and the stage programs, as far as ``plan`` can observe: names are unique, uids are new, a program that
finds the result of its own inputs repeats it, and an object that is deleted is gone. ``plan`` and its types are the real ones.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from finetune_contract.codec import encode
from finetune_contract.result import (
    DatasetOutputs,
    EngineCheckOutputs,
    EvaluationOutputs,
    ModelOutputs,
    RegistrationOutputs,
    RegistryCheckOutputs,
    Result,
    TokenizationOutputs,
    TrainingOutputs,
    termination_message,
)
from finetune_operator.api.kinds import CONFIGMAP, kind_of
from finetune_operator.core.decision import Create, Decision, Delete, Effect
from finetune_operator.core.images import OF_JOBS
from finetune_operator.core.manifests.children import content_digest
from finetune_operator.core.manifests.pod import BUNDLE_FILE
from finetune_operator.core.naming import bundle_name
from finetune_operator.core.observation import ChildState, Observed, Ref, child_state
from finetune_operator.core.plan import plan
from finetune_operator.core.pod_report import PodReport, Termination
from finetune_operator.core.reads import active_stages, needs
from finetune_operator.core.run import Run
from finetune_operator.core.settings import Machine, Settings

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
SETTINGS = Settings(
    mode="local", operator_version="0.0.0", images=dict.fromkeys(OF_JOBS, "image"), bundle_digest="e" * 64,
    machine=Machine(gpus=0, cpus=2, memory_bytes=8 << 30), operator_defaults={"storage": {"claimName": "workspace"}},
    local_registry=True, retry_seconds=0.0, volume_uri="file:///{claim}",
)  # fmt: skip
MINIMAL: dict[str, Any] = {"dataset": {"uri": "/data.jsonl"}, "evaluation": {"tasks": [], "baseline": True}}

OUTPUTS: dict[str, Any] = {
    "dataset": DatasetOutputs("d" * 64, 9, 1, "s" * 64, 10),
    "model": ModelOutputs("m" * 64, 10, 40, "Qwen2ForCausalLM"),
    "tokenization": TokenizationOutputs("k" * 64, "p" * 64, 9, 900, 90, 120, 95, 110, 118, measured_rows=1),
    "engine-check": EngineCheckOutputs("training-hub", "the image has it", {"training-hub": "0.9.0"}),
    "training": TrainingOutputs("t" * 64, 9, 9, 9, 0, 1, 1, opened=True),
    "baseline": EvaluationOutputs("m" * 64, 1, (), {"holdout.bits_per_byte": False}),
    "evaluation": EvaluationOutputs("t" * 64, 1, (), {"holdout.bits_per_byte": False}),
    "registry-check": RegistryCheckOutputs("MLflow", "osft-model", "1.0.0", free=True),
    "registration": RegistrationOutputs("MLflow", "osft-model", "1.0.0", "1", "file:///workspace", read_back=True),
}


@dataclass
class World:
    """Everything there is. ``made`` and ``worked`` count what must not happen twice."""

    run: dict[str, Any]
    objects: dict[Ref, dict[str, Any]] = field(default_factory=dict)
    made: dict[tuple[str, str, str], int] = field(default_factory=dict)
    worked: dict[tuple[str, str], int] = field(default_factory=dict)
    results: set[tuple[str, str]] = field(default_factory=set)
    deleted: frozenset[str] = frozenset()
    """Names of children that somebody else deleted."""
    scores: dict[str, float] = field(default_factory=lambda: {"evaluation": 2.0, "baseline": 2.0})
    """Held-out bits per byte of the fine-tuned model and of the base model."""
    sidecars: bool = False
    """Every pod has a second container that never ends: a child stays active although its stage has ended."""

    @classmethod
    def new(cls, spec: dict[str, Any] | None = None, claim: bool = True, *, sidecars: bool = False) -> World:
        """A world with one run that nobody has looked at yet."""
        run = {
            "metadata": {"name": "demo", "namespace": "team", "uid": "run-uid-1", "generation": 1},
            "spec": copy.deepcopy(spec or MINIMAL),
        }
        world = cls(run, sidecars=sidecars)
        if claim:
            world.put(
                {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "workspace", "namespace": "team"}}
            )
        return world

    def key(self) -> str:
        """Return the key that distinguishes two worlds."""
        status = {key: value for key, value in self.run.get("status", {}).items() if key not in _DERIVED}
        return json.dumps(
            [self.run["spec"], self.run["metadata"]["generation"], status, sorted((str(ref.kind), ref.name, _shape(item)) for ref, item in self.objects.items()),
             sorted(map(str, self.made.items())), sorted(map(str, self.worked.items())), sorted(self.results), sorted(self.deleted)],
            sort_keys=True,
        )  # fmt: skip

    # -- the API server ------------------------------------------------------------------------------------------------

    def put(self, manifest: dict[str, Any]) -> None:
        """Make an object; one of the same name stays as it is."""
        ref = Ref(kind_of(manifest), manifest["metadata"]["name"])
        if ref in self.objects:
            return
        stored = {**manifest, "metadata": dict(manifest["metadata"])}
        # The uid follows from what was made before, so that equal histories are equal worlds.
        labels = stored["metadata"].get("labels", {})
        count = self.made.get((ref.kind.name, ref.name, labels.get("finetunerun.io/attempt", "")), 0)
        stored["metadata"]["uid"] = f"{ref.name}-uid-{count}"
        self.objects[ref] = stored
        self.made[(ref.kind.name, ref.name, labels.get("finetunerun.io/attempt", ""))] = count + 1

    def apply_effect(self, effect: Effect) -> None:
        """Do what an effect asks."""
        if isinstance(effect, Create):
            self.put(effect.manifest)
        elif isinstance(effect, Delete):
            found = self.objects.get(effect.ref)
            if found is not None and effect.uid in (None, found["metadata"]["uid"]):
                del self.objects[effect.ref]
        elif effect.ref in self.objects:
            found = self.objects[effect.ref]
            held = effect.patch["spec"]["suspend"]
            conditions = [{"type": "Suspended", "status": "True"}] if held else []
            annotations = {**found["metadata"].get("annotations", {}), **effect.patch["metadata"]["annotations"]}
            metadata = {
                **found["metadata"],
                "annotations": {key: value for key, value in annotations.items() if value is not None},
            }
            self.objects[effect.ref] = {
                **found, "metadata": metadata, "spec": {**found["spec"], "suspend": held}, "status": {"conditions": conditions},
            }  # fmt: skip

    def write_status(self, status: dict[str, Any]) -> None:
        """Replace the run's status."""
        self.run = {**self.run, "status": status}

    # -- what the loop does --------------------------------------------------------------------------------------------

    def decide(self, now: datetime = NOW, settings: Settings = SETTINGS) -> Decision:
        """Observe and plan."""
        run = Run.parse(self.run)
        found = {ref: self.objects[ref] for ref in needs(run, settings) if ref in self.objects}
        pods = {
            record.name: self.pods_of(record.child_kind, record.child_name, record.name)
            for record in run.stages.values()
            if record in active_stages(run)
        }
        seen = {name: found for name, found in pods.items() if found}
        return plan(run, Observed(settings, found, seen, contents=contents_of(found)), now)

    def turn(self) -> None:
        """Reconcile once, and let every child succeed."""
        decision = self.decide()
        self.write_status(decision.status)
        for effect in decision.effects:
            self.apply_effect(effect)
        for ref in list(self.objects):
            self.finish(ref)

    def settle(self, limit: int = 60) -> int:
        """Take turns until nothing moves; how many it took."""
        before = self.key()
        for number in range(limit):
            self.turn()
            after = self.key()
            if after == before:
                return number
            before = after
        return limit

    # -- children ------------------------------------------------------------------------------------------------------

    def children(self) -> list[Ref]:
        """The Jobs and TrainJobs that exist."""
        return [ref for ref in self.objects if ref.kind.name in _CHILDREN]

    def active(self) -> list[Ref]:
        """Those that have not ended and are not held."""
        return [ref for ref in self.children() if self._is_active(ref)]

    def ended(self) -> list[Ref]:
        """Those that have ended."""
        return [ref for ref in self.children() if child_state(self.objects[ref]) in (ChildState.SUCCEEDED, ChildState.FAILED)]

    def _is_active(self, ref: Ref) -> bool:
        found = self.objects[ref]
        return child_state(found) is ChildState.ACTIVE and "exit" not in (found.get("status") or {})

    def stage_of(self, ref: Ref) -> str:
        """The stage that a child belongs to."""
        stage: str = self.objects[ref]["metadata"]["labels"]["finetunerun.io/stage"]
        return stage

    def finish(self, ref: Ref, exit_code: int = 0, message: str | None = None) -> None:
        """A child's program ends: with success it works, or repeats the result that it finds in the workspace."""
        if ref.kind.name not in _CHILDREN or not self._is_active(ref):
            return
        stage, digest = self.stage_of(ref), self.inputs_digest(ref)
        if exit_code == 0:
            if (stage, digest) not in self.results:
                self.worked[(stage, digest)] = self.worked.get((stage, digest), 0) + 1
                self.results.add((stage, digest))
            message = message if message is not None else self.success_message(ref)
        condition = {"type": "Complete" if exit_code == 0 else "Failed", "status": "True"}
        conditions = [] if self.sidecars else [condition]
        self.objects[ref] = {**self.objects[ref], "status": {"conditions": conditions, "exit": [exit_code, message]}}

    def inputs_digest(self, ref: Ref) -> str:
        """The digest that the child's program is given."""
        digest: str = self.objects[ref]["metadata"]["annotations"]["finetunerun.io/inputs-digest"]
        return digest

    def success_message(self, ref: Ref) -> str:
        """The termination message of a program that has done its work."""
        stage = self.stage_of(ref)
        metrics = {"holdout.bits_per_byte": self.scores[stage]} if stage in self.scores else {"seconds": 1.0}
        attempt = self.objects[ref]["metadata"]["labels"]["finetunerun.io/attempt"]
        return termination_message(
            Result(stage, attempt, self.inputs_digest(ref), "Succeeded", metrics=metrics, outputs=encode(OUTPUTS[stage]))
        )

    def pods_of(self, kind: str, name: str, stage: str) -> tuple[PodReport, ...]:
        """The pods of a child."""
        found = next((item for ref, item in self.objects.items() if ref.kind.name == kind and ref.name == name), None)
        if found is None:
            return ()
        end = (found.get("status") or {}).get("exit")
        if end is None:
            held = child_state(found) is ChildState.SUSPENDED
            return () if held else (PodReport(f"{name}-0", phase="Running"),)
        phase = "Running" if self.sidecars else "Succeeded" if end[0] == 0 else "Failed"
        termination = Termination(end[0], "", end[1] or "")
        return (PodReport(f"{name}-0", phase=phase, termination=termination, sidecar_runs=self.sidecars),)

    def remove(self, ref: Ref) -> None:
        """Somebody else deletes an object."""
        del self.objects[ref]
        self.deleted |= {ref.name}

    def copy(self) -> World:
        """A world of its own; what is stored is never changed in place."""
        return World(
            self.run, dict(self.objects), dict(self.made), dict(self.worked), set(self.results), self.deleted, self.scores,
            self.sidecars,
        )  # fmt: skip


def contents_of(objects: Mapping[Ref, dict[str, Any]]) -> dict[Ref, str]:
    """The digests of ConfigMaps, as the loop reads them. A training bundle of the settings has the digest of its name."""
    return {ref: _content_of(ref, item) for ref, item in objects.items() if ref.kind == CONFIGMAP}


def _content_of(ref: Ref, item: dict[str, Any]) -> str:
    if not item.get("immutable"):
        return ""
    if ref.name.startswith(bundle_name("")) and list(item.get("binaryData") or ()) == [BUNDLE_FILE] and not item.get("data"):
        return ref.name.removeprefix(bundle_name(""))[0] * 64
    return content_digest(item)


_CHILDREN = ("Job", "TrainJob")
_DERIVED = ("resolved", "summary", "model", "metrics", "registry", "history", "phase", "gate")
"""Fields of status that follow from the others."""


def _shape(item: dict[str, Any]) -> str:
    return json.dumps([item["metadata"].get("uid"), item.get("status"), item.get("spec", {}).get("suspend")], sort_keys=True)

"""The typed sections of a resolved spec: made from the models of the resource, complete, and read without a loss."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from finetune_operator.api.presets import overlay
from finetune_operator.api.spec import FineTuneRunSpec
from finetune_operator.api.training import Algorithm
from finetune_operator.core.adaptation import ADAPTATIONS
from finetune_operator.core.resolve import effective_values
from finetune_operator.core.resolved_spec import MODELS, Dataset, Evaluation, Gate, ResolvedSpec, Retry, Storage, Training, read
from finetune_operator.core.run import Run
from finetune_operator.core.unsupported import UNSUPPORTED_VALUES
from world import MINIMAL, SETTINGS

JSON = (dict, Mapping)


def stripped(hint: Any) -> Any:
    """Return a type without bounds, ``None``, and the difference between lists and tuples."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return stripped(args[0])
    if origin in (typing.Union, types.UnionType):
        options = [stripped(one) for one in args if one is not types.NoneType]
        return options[0] if len(options) == 1 else frozenset(options)
    if origin in (list, tuple):
        return (tuple, stripped(args[0]))
    if origin in JSON:
        return dict
    return hint


def fits(mine: Any, theirs: Any) -> bool:
    """Return whether a field of a section can hold every value of the model's field that this release supports."""
    if isinstance(mine, tuple) and isinstance(theirs, tuple):
        return fits(mine[1], theirs[1])
    if mine in MODELS:
        return bool(MODELS[mine] is theirs)
    if typing.get_origin(mine) is typing.Literal:
        return set(get_args(mine)) <= set(get_args(theirs))
    if mine is dict:  # JSON of Kubernetes, or of a library
        return theirs is dict or (isinstance(theirs, type) and issubclass(theirs, BaseModel))
    if mine is str and typing.get_origin(theirs) is typing.Literal:
        return all(isinstance(one, str) for one in get_args(theirs))
    return bool(mine == theirs or (theirs is float and mine == frozenset({int, float})))


@pytest.mark.parametrize("section", MODELS, ids=lambda section: section.__name__)
def test_a_section_has_the_fields_and_types_of_its_model(section: type[Any]) -> None:
    hints, model = typing.get_type_hints(section), MODELS[section].model_fields
    for field in dataclasses.fields(section):
        theirs = typing.get_type_hints(MODELS[section], include_extras=True)[field.name]
        assert fits(stripped(hints[field.name]), stripped(theirs)), f"{section.__name__}.{field.name}"
        assert field.default is not dataclasses.MISSING or types.NoneType not in typing.get_args(hints[field.name])
        assert model[field.name].alias


UNREAD = {
    # adapted to what the engine does
    "cleanup.checkpoints", "cleanup.pods", "retry.outOfMemory", "gate.baseline",  # the other values are not supported
    "training.checkpoints.final", "training.checkpoints.fullState", "training.checkpoints.resume",
    "training.checkpoints.everySamples", "training.checkpoints.everyMinutes",
    "suspend", "rerun.id", "rerun.from",  # read from spec, not from the resolved one
    "serviceAccountName",  # a scalar of the spec itself
}  # fmt: skip
"""Fields of the resource that no section has, because this release has one value for them or reads them elsewhere."""


def paths(model: type[BaseModel], section: type[Any] | None, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Yield every field of a model by its path, and whether a section has it."""
    known = {field.name for field in dataclasses.fields(section)} if section else set()
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias}"
        inner = stripped(typing.get_type_hints(model, include_extras=True)[name])
        mine = stripped(typing.get_type_hints(section)[name]) if section and name in known else None
        if isinstance(inner, type) and issubclass(inner, BaseModel) and mine is not dict:
            yield from paths(inner, mine, f"{path}.")
        else:
            yield path, name in known


def test_every_supported_field_is_in_a_section() -> None:
    """A field that nothing reads would be accepted and ignored."""
    sections = {name: stripped(typing.get_type_hints(getattr(ResolvedSpec, name).func)["return"]) for name in _lazy()}
    sections |= {"retry": Retry, "cleanup": stripped(typing.get_type_hints(vars(Run)["cleanup"].fget)["return"])}
    missing = set()
    for name, field in FineTuneRunSpec.model_fields.items():
        inner = stripped(typing.get_type_hints(FineTuneRunSpec, include_extras=True)[name])
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            missing |= {path for path, known in paths(inner, sections.get(name), f"{field.alias}.") if not known}
        else:
            missing.add(str(field.alias))
    unsupported = tuple(entry.path for entry in UNSUPPORTED_VALUES if entry.values == "any value")
    missing = {path for path in missing if not f"{path}.".startswith(tuple(f"{one}." for one in unsupported))}
    assert missing == UNREAD


def _lazy() -> Iterator[str]:
    return (name for name, value in vars(ResolvedSpec).items() if hasattr(value, "func"))


def test_every_adapted_field_exists() -> None:
    known = {path for path, _ in paths(FineTuneRunSpec, None)}
    for rule in ADAPTATIONS:
        assert any(path == rule.path or path.startswith(f"{rule.path}.") for path in known), rule.path


@pytest.mark.parametrize("algorithm", get_args(Algorithm))
def test_every_field_that_must_have_a_value_has_one(algorithm: str) -> None:
    spec = ResolvedSpec(effective_values({**MINIMAL, "training": {"algorithm": algorithm}}, SETTINGS)[0])
    for name in _lazy():
        assert dataclasses.is_dataclass(getattr(spec, name))
    assert [one for one in ("osft", "lora") if getattr(spec.training, one)] == [
        one for one in ("osft", "lora") if one == algorithm
    ]


def test_values_keep_their_form_but_for_floats() -> None:
    values = effective_values(MINIMAL, SETTINGS)[0]
    values["dataset"] |= {"trainSplit": 1, "secretRef": {"name": "s"}, "evalUri": None}
    values["evaluation"] |= {"generation": {"temperature": 0, "until": ["x"]}, "tasks": ["a", "b"], "gpus": 2}
    spec = ResolvedSpec(values)
    assert (spec.dataset.train_split, type(spec.dataset.train_split)) == (1.0, float)
    assert spec.dataset.secret_ref is not None
    assert (spec.dataset.secret_ref.name, spec.dataset.secret_ref.key, spec.dataset.eval_uri) == ("s", None, None)
    assert type(spec.evaluation.generation.temperature) is int
    assert (spec.evaluation.generation.until, spec.evaluation.tasks, spec.evaluation.gpus) == (("x",), ("a", "b"), 2)


def test_fields_of_a_later_release_are_left_out() -> None:
    assert read(Storage, {"size": "1Gi", "accessModes": ["ReadWriteOnce"], "later": 1}) == Storage(
        size="1Gi", access_modes=("ReadWriteOnce",)
    )


def test_values_of_other_algorithms_may_be_incomplete() -> None:
    values = overlay(effective_values(MINIMAL, SETTINGS)[0], {"training": {"lora": {"rank": 4}}})
    assert ResolvedSpec(values).training.lora is None


def test_a_run_that_has_not_started_has_no_values() -> None:
    run = Run("demo", "team", "uid", 1, {"dataset": {"uri": "a/b"}}, {})
    assert (run.resolved.values, run.resolved.storage, run.resolved.gate) == ({}, Storage(), Gate())
    assert run.resolved.service_account_name is None


def test_a_copy_of_a_run_shares_parsed_fields_until_it_is_resolved_again() -> None:
    values = effective_values(MINIMAL, SETTINGS)[0]
    run = Run("demo", "team", "uid", 1, MINIMAL, {"resolved": {"spec": values}})
    training = run.resolved.training
    assert run.with_status({**run.status, "phase": "Training"}, {}).resolved.training is training
    changed = {"spec": overlay(values, {"training": {"workers": 3}})}
    assert run.with_status({"resolved": changed}, {}).resolved.training.workers == 3


def test_edits_of_retry_and_cleanup_count_at_once() -> None:
    values = effective_values(MINIMAL, SETTINGS)[0]
    spec = {**MINIMAL, "retry": {"crash": 7}, "cleanup": {"ttlAfterFinished": "1h"}}
    run = Run("demo", "team", "uid", 1, spec, {"resolved": {"spec": values}})
    assert (run.retry.crash, run.retry.transient, run.retry.lost) == (7, 3, 3)
    assert (run.cleanup.ttl_after_finished, run.cleanup.volume) == ("1h", "Retain")


def test_the_processes_of_a_worker() -> None:
    training = ResolvedSpec(effective_values(MINIMAL, SETTINGS)[0]).training
    for gpus, stated, processes in ((0, None, 1), (4, None, 4), (4, 2, 2), (0, 3, 3)):
        found = dataclasses.replace(training, gpus_per_worker=gpus, processes_per_worker=stated)
        assert found.processes == processes


def test_sections_are_frozen() -> None:
    for section in (Dataset, Training, Evaluation):
        assert section.__dataclass_params__.frozen  # type: ignore[attr-defined]

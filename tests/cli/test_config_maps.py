"""ConfigMaps that ``finetune run`` rejects, because they would change another run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from cli.test_wait import Driver, driver
from finetune_contract.codec import camel
from finetune_operator.api.kinds import CONFIGMAP
from finetune_operator.api.references import CertificateRef, ConfigMapRef
from finetune_operator.api.spec import FineTuneRunSpec
from finetune_operator.cli import config_maps
from finetune_operator.cli.options import RunOptions, Target
from finetune_operator.cli.run import run_file
from finetune_operator.cli.update import resume_run
from finetune_operator.local.platform import NAMESPACE, open_store
from world import MINIMAL

USES_TASKS: dict[str, Any] = {**MINIMAL, "evaluation": {"tasks": ["mine"], "taskFiles": {"name": "tasks"}}}
TASK = {"mine.yaml": "task: mine\ndoc_to_text: question\n"}
CHANGED = {"mine.yaml": "task: mine\ndoc_to_text: answer\n"}
CODE = {"mine.yaml": "task: mine\ndoc_to_text: !function evil.f\n"}


def config_map(data: dict[str, str], name: str = "tasks") -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": NAMESPACE}, "data": data}


def run(
    folder: Path, spec: dict[str, Any], *config_maps: dict[str, Any], files: tuple[str, ...] = (), allow_code: bool = False
) -> int:
    """Run a file with a run of another name and ConfigMaps."""
    manifest = {"apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "metadata": {"name": "other"}, "spec": spec}
    (folder / "other.yaml").write_text("---\n".join(f"{json.dumps(one)}\n" for one in (manifest, *config_maps)))
    return run_file(folder / "other.yaml", files, Target(home=folder), RunOptions(plain=True, allow_code=allow_code))


@pytest.fixture
def stopped(tmp_path: Path) -> Driver:
    """A folder with a run in training that reads the ConfigMap ``tasks``, and that no process drives."""
    found = driver(tmp_path, spec=USES_TASKS, working={"training"})

    async def write() -> None:
        store = open_store(found.home)
        await store.create(config_map(TASK))
        store.close()

    asyncio.run(write())
    return found


def stored(found: Driver) -> Any:
    async def read() -> Any:
        store = open_store(found.home)
        content = await store.get(CONFIGMAP, NAMESPACE, "tasks")
        store.close()
        return content["data"]

    return asyncio.run(read())


def test_a_file_with_two_config_maps_of_the_same_name_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, USES_TASKS, config_map(TASK), config_map(CODE)) == 65
    wanted = f"{tmp_path}/other.yaml: two ConfigMaps have the name tasks; remove or rename one of them.\n"
    assert capsys.readouterr().err == wanted
    (tmp_path / "mine.yaml").write_text(CODE["mine.yaml"])
    assert run(tmp_path, USES_TASKS, config_map(TASK), files=(f"tasks={tmp_path / 'mine.yaml'}",)) == 65
    assert capsys.readouterr().err == wanted


def test_a_config_map_that_the_run_does_not_reference_is_rejected(stopped: Driver, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(stopped.home.root, MINIMAL, config_map(CODE)) == 65
    assert capsys.readouterr().err == (
        f"{stopped.home.root}/other.yaml: the run does not reference ConfigMap tasks; remove it, or reference it, for example in"
        " spec.evaluation.taskFiles.\n"
    )
    assert stored(stopped) == TASK


@pytest.mark.parametrize(
    "section",
    [
        {"evaluation": {"tasks": ["mine"], "taskFiles": {"name": "tasks"}}},
        {"dataset": {**MINIMAL["dataset"], "caRef": {"name": "tasks"}}},
        {"training": {"volumes": [{"name": "a", "configMap": {"name": "tasks"}}], "volumeMounts": [{"name": "a", "mountPath": "/a"}]}},
    ],
    ids=["task files", "CA bundle", "volume"],
)  # fmt: skip
def test_a_config_map_of_another_run_is_not_replaced(
    stopped: Driver, capsys: pytest.CaptureFixture[str], section: dict[str, Any]
) -> None:
    assert run(stopped.home.root, {**MINIMAL, **section}, config_map(CHANGED), allow_code=True) == 65
    message = "ConfigMap tasks: the run demo, which has not ended, uses it with other content; choose another name.\n"
    assert capsys.readouterr().err == message
    assert stored(stopped) == TASK


def test_resume_examines_the_code_again(stopped: Driver, capsys: pytest.CaptureFixture[str]) -> None:
    async def replace() -> None:
        store = open_store(stopped.home)
        await store.patch(CONFIGMAP, NAMESPACE, "tasks", {"data": CODE})
        store.close()

    asyncio.run(replace())
    assert resume_run("demo", Target(home=stopped.home.root), RunOptions(plain=True)) == 65
    assert "mine.yaml of ConfigMap tasks calls Python functions on this machine (evil.f); read it, and add --allow-code" in (
        capsys.readouterr().err
    )


def _parts(annotation: Any) -> Iterator[Any]:
    """An annotation and all those inside it."""
    yield annotation
    for inner in get_args(annotation):
        yield from _parts(inner)


def _references(model: type[BaseModel]) -> Iterator[str]:
    """The fields of a model, and of those inside it, that name a ConfigMap."""
    for name, field in model.model_fields.items():
        for part in _parts(field.annotation):
            if part in (ConfigMapRef, CertificateRef):
                yield camel(name)
            elif isinstance(part, type) and issubclass(part, BaseModel):
                yield from _references(part)


def test_every_field_that_references_a_config_map_is_known() -> None:
    """Otherwise ``run`` would reject a ConfigMap that the file's run needs."""
    assert set(_references(FineTuneRunSpec)) == set(config_maps._REFERENCES)

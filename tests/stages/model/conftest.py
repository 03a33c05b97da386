"""For the tests of stage *model*: a hub, models in the forms that people have them in, and the stage itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from finetune_contract.documents import ModelInputs, RunInfo, StageDocument
from finetune_contract.workspace import Attempt
from finetune_stages.sdk import Context, verify_seal
from hub import Hub
from registry_server import RegistryServer


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """An empty hub."""
    with Hub(tmp_path / "hub") as server:
        yield server


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to change."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.fixture
def sharded(model: Path) -> Path:
    """The same in two shards with an index."""
    tensors = load_file(model / "model.safetensors")
    names = sorted(tensors)
    shards = {
        "model-00001-of-00002.safetensors": names[: len(names) // 2], "model-00002-of-00002.safetensors": names[len(names) // 2 :],
    }  # fmt: skip
    for shard, held in shards.items():
        save_file({name: tensors[name] for name in held}, model / shard)
    index = {"metadata": {}, "weight_map": {name: shard for shard, held in shards.items() for name in held}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    (model / "model.safetensors").unlink()
    return model


@dataclass
class Stage:
    """The stage on a workspace, with a hub. Call it to run the program to its end."""

    programs: Any
    hub: Hub

    def __call__(
        self, uri: str | Path, token: str | None = None, attempt: str = "1.1", endpoint: str | None = None, **stage_inputs: Any
    ) -> Any:
        """Run the program; ``stage_inputs`` are additional inputs, ``endpoint`` is the address of another hub."""
        environment = {"HF_ENDPOINT": endpoint or self.hub.url, "HOME": "/nonexistent"}
        if token is not None:
            environment["HF_TOKEN"] = token
        return self.programs("model", ModelInputs(str(uri), **stage_inputs), environment=environment, attempt=attempt)

    def as_another_run(self, name: str = "other") -> None:
        """From now on it is another run on the same workspace."""
        self.programs.run = RunInfo(name, "team-a", name.encode().hex().zfill(16))

    def linked(self) -> Path:
        """The cache entry that the run's folder points to, intact."""
        place = self.programs.path(self.programs.layout.base_model)
        assert place.is_symlink()
        assert not place.readlink().is_absolute()
        assert verify_seal(place) is not None
        return place.resolve()

    def nothing_is_left(self) -> bool:
        """Return whether the run's folder has no unfinished work."""
        folder = self.programs.path(f"{self.programs.layout.root}/attempts/model")
        return [path.name for path in folder.iterdir()] == ["current"]

    def fetched_weights(self) -> list[str]:
        """Names of the weight files that the hub was asked for, in order."""
        return [path.rpartition("/")[2] for path in self.hub.paths() if path.endswith(".safetensors")]


@pytest.fixture
def stage(run_stage_program: Any, hub: Hub) -> Stage:
    """The stage on an empty workspace."""
    return Stage(run_stage_program, hub)


@pytest.fixture
def workspace_context(tmp_path: Path) -> Callable[[str], Context]:
    """Returns the context of an attempt of a stage in this process, on one workspace."""

    def make(attempt: str) -> Context:
        document = StageDocument(2, "model", RunInfo("demo", "team-a", "0123456789abcdef"), {})
        made = Context(document, tmp_path / "workspace", Attempt.parse(attempt), "0" * 64)
        made._print = print
        return made

    return make


@pytest.fixture
def context(workspace_context: Callable[[str], Context]) -> Context:
    """The context of the first attempt."""
    return workspace_context("1.1")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A registry that everybody may read."""
    with RegistryServer(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(autouse=True)
def no_pull_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pull secret and no CA bundle."""
    for name in ("FINETUNE_PULL_SECRET", "OCI_PULL_SECRET_MODEL_DOWNLOAD", "FINETUNE_SOURCE_CA"):
        monkeypatch.delenv(name, raising=False)

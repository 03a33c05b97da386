"""The runs of a folder of this machine. The command drives them itself unless another command does."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_contract.uris import local_path
from finetune_contract.workspace import Attempt
from finetune_operator.api.crd import crd
from finetune_operator.api.kinds import CONFIGMAP, FINETUNERUN, JOB, POD, TRAINJOB
from finetune_operator.core import naming
from finetune_operator.core.paths import lookup
from finetune_operator.core.resolve import CONTROL_FIELDS, SpecRejection, resolve
from finetune_operator.core.run import Run
from finetune_operator.local.home import Home, HomeInUse, HomeUnusable
from finetune_operator.local.machine import inspect_machine
from finetune_operator.local.platform import (
    NAMESPACE,
    local_platform,
    local_settings,
    open_store,
    with_defaults,
    workspace_folder,
)
from finetune_operator.local.secrets import LocalSecrets, SecretFileProblem
from finetune_operator.local.store import StoreError
from finetune_operator.loop.cluster import Cluster, Object
from finetune_operator.loop.errors import NotFound
from finetune_operator.validation import CelMissing, Validator

from . import exit_status
from .backend import MutateFn
from .code import code_of
from .documents import Document
from .drive import drive
from .echo import echo
from .errors import CommandError, NoRuns
from .follow import follow_change
from .objects import find_run
from .options import RunOptions
from .validate import validate_document

_DELETE_SECONDS = 90.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class LocalBackend:
    """A folder, see :class:`~finetune_operator.local.home.Home`."""

    home: Home
    flags: str = ""
    namespace: str = NAMESPACE

    @classmethod
    def find(cls, given: Path | None) -> LocalBackend:
        """Return the backend for ``--home``, or for the default folder."""
        return cls(Home.find(given), f" --home {given}" if given else "")

    @property
    def is_driven(self) -> bool:
        """See :class:`~.backend.Backend`: a command holds the lock of the folder."""
        return self.home.is_locked

    @property
    def description(self) -> str:
        """See :class:`~.backend.Backend`."""
        return str(self.home.root)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Cluster]:
        """See :class:`~.backend.Backend`. Raises ``NoRuns``."""
        self._require_runs()
        try:
            store = open_store(self.home)
        except StoreError as problem:
            raise CommandError([f"{problem}, or choose another folder with --home."]) from None
        try:
            yield store
        finally:
            store.close()

    def validate(self, document: Document, base: Path) -> list[str]:
        """See :class:`~.backend.Backend`."""
        try:
            return validate_document(Validator(crd()), document, base)
        except CelMissing as problem:
            raise CommandError([str(problem)], exit_status.UNAVAILABLE) from None

    def prepare(self, manifest: Object, base: Path) -> Object:
        """See :class:`~.backend.Backend`."""
        prepared = {**manifest, "metadata": {**manifest["metadata"], "namespace": self.namespace}}
        return _absolute(prepared, base) if "spec" in prepared else prepared

    async def check_prerequisites(self, cluster: Cluster, manifest: Object) -> None:
        """See :class:`~.backend.Backend`: the ConfigMaps of a run must exist, because no other client creates them."""
        name = lookup(manifest, "spec.evaluation.taskFiles.name")
        if not name:
            return
        try:
            await cluster.get(CONFIGMAP, self.namespace, name)
        except NotFound:
            sentence = (
                f"spec.evaluation.taskFiles.name: ConfigMap {name} does not exist; create it with --configmap {name}=FOLDER."
            )
            raise CommandError([sentence]) from None

    async def check_code(self, cluster: Cluster, spec: Mapping[str, Any], new: Sequence[Object] = ()) -> None:
        """See :class:`~.backend.Backend`."""
        name = lookup(spec, "evaluation.taskFiles.name")
        configmap = next((one for one in new if one["metadata"]["name"] == name), None)
        if name and configmap is None:
            with contextlib.suppress(NotFound):  # reported elsewhere
                configmap = await cluster.get(CONFIGMAP, self.namespace, name)
        found = code_of(spec, configmap)
        if found:
            raise CommandError(found)

    async def check_rerun(self, cluster: Cluster, spec: Mapping[str, Any]) -> None:
        """See :class:`~.backend.Backend`: this machine is known, so that a rejected value is not stored."""
        content = {section: values for section, values in spec.items() if section not in CONTROL_FIELDS}
        settings = await with_defaults(local_settings(self.home, inspect_machine()), cluster, self.namespace)
        found = resolve(content, settings)
        if isinstance(found, SpecRejection):
            raise CommandError([f"{found.reason.name}: {found.message}"])

    def start(self, change: MutateFn, options: RunOptions, *, follow: bool) -> int:
        """See :class:`~.backend.Backend`: this command drives the run, so it always follows it until it ends."""
        del follow
        try:
            return self._drive(change, options)
        except HomeInUse as other:
            message = f"{other.home}: process {other.holder} drives the runs of this folder; wait until it ends, or give another folder with --home."
            raise CommandError([message], exit_status.TRY_AGAIN) from None

    def update(self, change: MutateFn, summary: str, options: RunOptions) -> int:
        """See :class:`~.backend.Backend`: if another command drives the runs of the folder it continues the run, otherwise this one."""
        self._require_runs()
        try:
            return self._drive(change, options)
        except HomeInUse as other:
            if options.allow_code:  # the other process decides, by its own option
                sentence = (
                    f"--allow-code: process {other.holder} drives the runs of this folder, with its own option; repeat the command when it"
                    " has ended."
                )
                raise CommandError([sentence], exit_status.TRY_AGAIN) from None
            if options.wait:
                return asyncio.run(follow_change(self, change, options))
            run = Run.parse(asyncio.run(self._change_only(change)))
            follow = f"follow it with: finetune get -w {run.name}{self.flags}"
            echo(f"{run.name}: {summary}; process {other.holder} carries it out; {follow}", err=True)
            return exit_status.OK

    def _require_runs(self) -> None:
        if self.home.exists:
            return
        if self.home.root.exists() and not self.home.root.is_dir():
            raise CommandError([f"{self.home.root}: is not a directory; give another one with --home."], exit_status.NO_INPUT)
        message = f"{self.home.root}: contains no runs; give another folder with --home, or start a run."
        raise NoRuns([message], exit_status.NO_INPUT)

    def _drive(self, change: MutateFn, options: RunOptions) -> int:
        try:
            return drive(self.home, change, secret_source(options.secrets), options, self.flags)
        except (SecretFileProblem, HomeUnusable) as problem:
            raise CommandError([str(problem)]) from None

    async def _change_only(self, change: MutateFn) -> Object:
        async with self.connect() as cluster:
            return await change(cluster)

    async def delete(self, name: str, *, purge: bool) -> str:
        """See :class:`~.backend.Backend`: the command that drives the run, or else this one, stops its stages."""
        async with self.connect() as cluster:
            await find_run(self, cluster, name)
        try:
            async with local_platform(self.home, LocalSecrets({})) as platform:
                run = await self._delete_from(platform.store, name)
                await self._wait_until_stopped(platform.store, name)
            stopped = ""
        except HomeInUse as other:
            run, stopped = await self._delete_beside(name, other)
        folder = self._workspace(run) / run.layout.root
        if purge:
            shutil.rmtree(folder, ignore_errors=True)
            return f"{name}: deleted, with its files{stopped}"
        return f"{name}: deleted{f'; its files remain in {folder}' if folder.exists() else ''}{stopped}"

    async def _delete_beside(self, name: str, other: HomeInUse) -> tuple[Run, str]:
        """Delete a run that another process drives; return it, and who stopped its stages, for the message."""
        async with self.connect() as cluster:
            run = await self._delete_from(cluster, name)
            if not await self._is_working(cluster, name):
                return run, ""
            if await self._wait_until_stopped(cluster, name, other.holder):
                return run, f"; process {other.holder}, which drives the runs of this folder, has stopped its stages"
        async with local_platform(self.home, LocalSecrets({})) as platform:  # the other process has ended
            await self._wait_until_stopped(platform.store, name)
        return run, ""

    async def _delete_from(self, cluster: Cluster, name: str) -> Run:
        run = Run.parse(await find_run(self, cluster, name))
        await cluster.delete(FINETUNERUN, self.namespace, name, uid=run.uid)
        return run

    async def _is_working(self, cluster: Cluster, name: str) -> bool:
        labels = {naming.RUN_LABEL: name}
        left = [await cluster.list(kind, self.namespace, labels=labels, limit=1) for kind in (POD, JOB, TRAINJOB)]
        return any(page.items for page in left)

    async def _wait_until_stopped(self, cluster: Cluster, name: str, holder: int = 0) -> bool:
        """Wait until no stage of a deleted run is left. Return False if the process ``holder`` has ended before.

        Raises:
            CommandError: a stage does not stop. The files are kept, because it may use them.
        """
        deadline = asyncio.get_running_loop().time() + _DELETE_SECONDS
        while await self._is_working(cluster, name):
            if holder and not self.is_driven:
                return False
            if asyncio.get_running_loop().time() >= deadline:
                remedy = f"end process {holder}" if holder else "end its processes"
                sentence = f"{name}: deleted, but a stage has not stopped within {_DELETE_SECONDS:.0f} s, so that its files are kept; {remedy}."
                raise CommandError([sentence], exit_status.TRY_AGAIN)
            await asyncio.sleep(_POLL_SECONDS)
        return True

    def archived_log(self, run: Run, stage: str, attempt: Attempt, rank: int) -> Path | str:
        """See :class:`~.backend.Backend`: the copy in the workspace."""
        file = self._workspace(run) / run.layout.log(stage, attempt, rank)
        return (
            file
            if file.exists()
            else f"{run.name}: the log of stage {stage}, rank {rank}, does not exist; list the stages with: finetune describe {run.name}{self.flags}"
        )

    def _workspace(self, run: Run) -> Path:
        return workspace_folder(self.home, naming.workspace_claim(run))


def secret_source(pairs: Sequence[str]) -> LocalSecrets:
    """Return the source of Secrets: the files of ``--secret NAME=FILE``, else environment variables.

    Raises:
        CommandError: an option is malformed.
        SecretFileProblem: a file cannot be read.
    """
    files = {}
    for pair in pairs:
        name, separator, path = pair.partition("=")
        if not separator or not name or not path:
            raise CommandError([f"--secret {pair}: not of the form NAME=FILE; give a Secret and a file."], exit_status.USAGE)
        files[name] = Path(path).expanduser()
    return LocalSecrets(files)


def _absolute(manifest: Object, base: Path) -> Object:
    """Return the run with absolute local paths."""
    spec = dict(manifest["spec"])
    for section, field in (("dataset", "uri"), ("dataset", "evalUri"), ("model", "uri")):
        values = spec.get(section) or {}
        uri = values.get(field)
        path = local_path(uri) if isinstance(uri, str) else None
        if path is not None:
            spec[section] = {**values, field: str((base / Path(path).expanduser()).resolve())}
    return {**manifest, "spec": spec}

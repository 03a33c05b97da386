"""The runs of a folder of this machine: the command itself does their work, unless another one is at it."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from finetune_contract.uris import local_path
from finetune_contract.workspace import Attempt
from finetune_operator.api.crd import crd
from finetune_operator.api.kinds import CONFIGMAP, FINETUNERUN, JOB, POD, TRAINJOB
from finetune_operator.core import naming
from finetune_operator.core.paths import lookup
from finetune_operator.core.run import Run
from finetune_operator.local.home import Home, HomeInUse, HomeUnusable
from finetune_operator.local.platform import NAMESPACE, local_platform, open_store, workspace_folder
from finetune_operator.local.secrets import LocalSecrets, SecretFileProblem
from finetune_operator.local.store import StoreError
from finetune_operator.loop.cluster import Cluster, Object
from finetune_operator.loop.errors import NotFound
from finetune_operator.validation import CelMissing, Validator

from . import exitcodes
from .backend import MutateFn, RunOptions
from .documents import Document
from .drive import drive
from .errors import CommandError, NothingThere
from .follow import follow_change
from .objects import find_run
from .validate import validate_document

_DELETE_SECONDS = 90.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class LocalBackend:
    """A folder, see :class:`~finetune_operator.local.home.Home`, and the option that names it."""

    home: Home
    flags: str = ""
    namespace: str = NAMESPACE

    @classmethod
    def find(cls, given: Path | None) -> LocalBackend:
        """The folder of ``--home``, or the one that is meant without it."""
        return cls(Home.find(given), f" --home {given}" if given else "")

    @property
    def words(self) -> str:
        """See :class:`~.backend.Backend`."""
        return str(self.home.root)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Cluster]:
        """See :class:`~.backend.Backend`. Raises ``NothingThere``."""
        if not self.home.exists:
            raise NothingThere([f"{self.home.root}: there are no runs here; use --home."], exitcodes.NO_INPUT)
        try:
            store = open_store(self.home)
        except StoreError as problem:
            raise CommandError([f"{problem}; choose another folder with --home."]) from None
        try:
            yield store
        finally:
            store.close()

    def validate(self, document: Document, base: Path) -> list[str]:
        """See :class:`~.backend.Backend`."""
        try:
            return validate_document(Validator(crd()), document, base)
        except CelMissing as problem:
            raise CommandError([str(problem)], exitcodes.UNAVAILABLE) from None

    def placed(self, manifest: Object, base: Path) -> Object:
        """See :class:`~.backend.Backend`."""
        placed = {**manifest, "metadata": {**manifest["metadata"], "namespace": self.namespace}}
        return _absolute(placed, base) if "spec" in placed else placed

    async def require(self, cluster: Cluster, manifest: Object) -> None:
        """See :class:`~.backend.Backend`: a run's ConfigMaps must be there, for nobody else will bring them."""
        name = lookup(manifest, "spec.evaluation.taskFiles.name")
        if not name:
            return
        try:
            await cluster.get(CONFIGMAP, self.namespace, name)
        except NotFound:
            sentence = f"spec.evaluation.taskFiles: there is no ConfigMap {name} here; bring it with --configmap {name}=FOLDER."
            raise CommandError([sentence]) from None

    def start(self, change: MutateFn, options: RunOptions, *, follow: bool) -> int:
        """See :class:`~.backend.Backend`: this command does the work, so it stays to the end in any case."""
        del follow
        try:
            return self._drive(change, options)
        except HomeInUse as other:
            words = f"another finetune run (process {other.holder}) is at work there; wait for it, or use --home."
            raise CommandError([f"{other.home}: {words}"], exitcodes.TRY_AGAIN) from None

    def update(self, change: MutateFn, said: str, options: RunOptions) -> int:
        """See :class:`~.backend.Backend`: who drives the runs of the folder goes on with it, another command or else this one."""
        if not self.home.exists:
            raise NothingThere([f"{self.home.root}: there are no runs here; use --home."], exitcodes.NO_INPUT)
        try:
            return self._drive(change, options)
        except HomeInUse as other:
            if options.wait:
                return asyncio.run(follow_change(self, change, options))
            run = Run.parse(asyncio.run(self._change_only(change)))
            look = f"follow it with finetune get -w {run.name}{self.flags}"
            print(f"{run.name}: {said}; process {other.holder} sees to it; {look}", file=sys.stderr)
            return exitcodes.OK

    def _drive(self, change: MutateFn, options: RunOptions) -> int:
        try:
            return drive(self.home, change, secret_source(options.secrets), options)
        except (SecretFileProblem, HomeUnusable) as problem:
            raise CommandError([str(problem)]) from None

    async def _change_only(self, change: MutateFn) -> Object:
        async with self.opened() as cluster:
            return await change(cluster)

    async def delete(self, name: str, *, purge: bool) -> str:
        """See :class:`~.backend.Backend`: what the run does is stopped first, by the command that drives it or by this one."""
        async with self.opened() as cluster:
            await find_run(self, cluster, name)
        try:
            async with local_platform(self.home, LocalSecrets({})) as platform:
                run = await self._delete_from(platform.store, name)
        except HomeInUse:  # the command that holds the folder stops the processes
            async with self.opened() as cluster:
                run = await self._delete_from(cluster, name)
        folder = self._workspace(run) / run.layout.root
        if purge:
            shutil.rmtree(folder, ignore_errors=True)
            return f"{name}: deleted, with its files"
        return f"{name}: deleted" + (f"; its files stay in {folder}" if folder.exists() else "")

    async def _delete_from(self, cluster: Cluster, name: str) -> Run:
        run = Run.parse(await find_run(self, cluster, name))
        await cluster.delete(FINETUNERUN, self.namespace, name, uid=run.uid)
        deadline = asyncio.get_running_loop().time() + _DELETE_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            labels = {naming.RUN_LABEL: name}
            left = [await cluster.list(kind, self.namespace, labels=labels, limit=1) for kind in (POD, JOB, TRAINJOB)]
            if not any(page.items for page in left):
                break
            await asyncio.sleep(_POLL_SECONDS)
        return run

    def kept_log(self, run: Run, stage: str, attempt: Attempt, rank: int) -> Path | str:
        """See :class:`~.backend.Backend`: the copy in the workspace."""
        file = self._workspace(run) / run.layout.log(stage, attempt, rank)
        return file if file.exists() else f"{run.name}: the log of stage {stage}, rank {rank}, is not there."

    def _workspace(self, run: Run) -> Path:
        return workspace_folder(self.home, (run.resolved.get("storage") or {}).get("claimName") or naming.claim_name(run.name))


def secret_source(pairs: tuple[str, ...]) -> LocalSecrets:
    """The Secrets of ``--secret NAME=FILE``, and the environment's.

    Raises:
        CommandError: one of them is not of that form.
        SecretFileProblem: a file cannot be read.
    """
    files = {}
    for pair in pairs:
        name, separator, path = pair.partition("=")
        if not separator or not name or not path:
            raise CommandError([f"--secret {pair}: expected NAME=FILE."], exitcodes.USAGE)
        files[name] = Path(path).expanduser()
    return LocalSecrets(files)


def _absolute(wanted: Object, base: Path) -> Object:
    """The run with its local paths absolute."""
    spec = dict(wanted["spec"])
    for section, field in (("dataset", "uri"), ("dataset", "evalUri"), ("model", "uri")):
        values = spec.get(section) or {}
        uri = values.get(field)
        path = local_path(uri) if isinstance(uri, str) else None
        if path is not None:
            spec[section] = {**values, field: str((base / Path(path).expanduser()).resolve())}
    return {**wanted, "spec": spec}

"""The runs of a namespace of a cluster: a command writes what is wanted, and the operator does it."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_contract.workspace import Attempt
from finetune_operator.api.crd import crd
from finetune_operator.api.kinds import FINETUNERUN
from finetune_operator.core import naming
from finetune_operator.core.run import Run
from finetune_operator.loop.cluster import Cluster, Object
from finetune_operator.loop.errors import ApiError
from finetune_operator.validation import CelMissing, Validator

from . import exitcodes
from .backend import MutateFn, RunOptions, Target
from .documents import Document
from .errors import CommandError
from .follow import follow_change
from .kubeconfig import Kubeconfig
from .login import log_in
from .objects import find_run
from .output import print_object
from .rejection import refusal_of
from .validate import validate_document

if TYPE_CHECKING:
    from finetune_operator.kube.credentials import Credentials


@dataclass(frozen=True)
class ClusterBackend:
    """A namespace of a cluster, as somebody whom the cluster knows.

    Attributes:
        server: how a sentence calls the cluster: ``context b``.
        explicit: whether a user named the namespace, so that a file must not name another.
    """

    credentials: Credentials
    server: str
    namespace: str
    flags: str = ""
    everywhere: bool = False
    explicit: bool = False

    @classmethod
    def find(cls, where: Target) -> ClusterBackend:
        """The cluster that the options name, else that of the current context; in a pod without a kubeconfig, the pod's own.

        Raises:
            CommandError: there is no such context, or nobody to be there.
        """
        kubeconfig = Kubeconfig.read(where.kubeconfig)
        context = kubeconfig.choose(where.context)
        credentials = log_in(kubeconfig, where.kubeconfig, context)
        named = {"--kubeconfig": where.kubeconfig, "--context": where.context, "-n": where.namespace}
        return cls(
            credentials, f"context {context}" if context else "this cluster", where.namespace or credentials.namespace,
            "".join(f" {option} {value}" for option, value in named.items() if value), where.everywhere, bool(where.namespace),
        )  # fmt: skip

    @property
    def words(self) -> str:
        """See :class:`~.backend.Backend`."""
        return f"{'any namespace' if self.everywhere else f'namespace {self.namespace}'} of {self.server}"

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Cluster]:
        """See :class:`~.backend.Backend`. What the API server refuses or does not answer becomes a sentence."""
        import aiohttp

        from finetune_operator.kube.client import ApiServer

        try:
            tls = self.credentials.tls()
        except (OSError, ssl.SSLError) as error:
            raise CommandError([f"{self.server}: its certificates cannot be read: {error.strerror or error}."]) from None
        async with aiohttp.ClientSession() as session:
            try:
                yield ApiServer(session, self.credentials.address, token=self.credentials.token, tls=tls)
            except ApiError as error:
                raise refusal_of(error, self.server, self.credentials.address) from None

    def validate(self, document: Document, base: Path) -> list[str]:
        """See :class:`~.backend.Backend`: with lines, where the library for it is there; the API server judges in any case."""
        try:
            return validate_document(Validator(crd()), document, base, local=False)
        except CelMissing:
            return []

    def placed(self, manifest: Object, base: Path) -> Object:
        """See :class:`~.backend.Backend`: local paths stay as they are, for the run to say that a cluster has none."""
        del base
        metadata = manifest["metadata"]
        named = metadata.get("namespace") or self.namespace
        if self.explicit and named != self.namespace:
            sentence = f"{metadata['name']}: the file names namespace {named}, and -n {self.namespace}: give one of them."
            raise CommandError([sentence], exitcodes.USAGE)
        return {**manifest, "metadata": {**metadata, "namespace": named}}

    async def require(self, cluster: Cluster, manifest: Object) -> None:
        """See :class:`~.backend.Backend`: what is missing may come later, and until then the run says so."""

    def start(self, change: MutateFn, options: RunOptions, *, follow: bool) -> int:
        """See :class:`~.backend.Backend`. Ctrl-C ends only the following."""
        self._refuse_secrets(options)
        if follow or options.wait:
            return asyncio.run(follow_change(self, change, options))
        return self._write(change, f"created in {self.words}", options)

    def update(self, change: MutateFn, said: str, options: RunOptions) -> int:
        """See :class:`~.backend.Backend`."""
        self._refuse_secrets(options)
        if options.wait:
            return asyncio.run(follow_change(self, change, options))
        return self._write(change, said, options)

    def _refuse_secrets(self, options: RunOptions) -> None:
        if options.secrets:
            name = options.secrets[0].partition("=")[0]
            mend = f"oc create secret generic {name} --from-env-file=FILE -n {self.namespace}"
            raise CommandError([f"--secret is for runs on this machine; on a cluster make the Secret: {mend}"], exitcodes.USAGE)

    def _write(self, change: MutateFn, said: str, options: RunOptions) -> int:
        async def write() -> Object:
            async with self.opened() as cluster:
                return await change(cluster)

        document = asyncio.run(write())
        name = document["metadata"]["name"]
        print(f"{name}: {said}; follow it with finetune get -w {name}{self.flags}", file=sys.stderr)
        if options.output:
            print_object(document, options.output)
        return exitcodes.OK

    async def delete(self, name: str, *, purge: bool) -> str:
        """See :class:`~.backend.Backend`: the garbage collector stops what the run does; the volume stays unless the run says otherwise."""
        if purge:
            mend = "on a cluster the run's cleanup.volume says whether its volume goes with it"
            raise CommandError([f"--purge is for runs on this machine; {mend}."], exitcodes.USAGE)
        async with self.opened() as cluster:
            run = Run.parse(await find_run(self, cluster, name))
            await cluster.delete(FINETUNERUN, run.namespace, name, uid=run.uid)
        if not run.started:
            return f"{name}: deleted"
        if run.cleanup.volume == "Delete":
            return f"{name}: deleted, with its volume"
        return f"{name}: deleted; its files stay on the claim {_claim(run)}, in {run.layout.root}"

    def kept_log(self, run: Run, stage: str, attempt: Attempt, rank: int) -> Path | str:
        """See :class:`~.backend.Backend`."""
        file = run.layout.log(stage, attempt, rank)
        return f"{run.name}: the pod of stage {stage}, attempt {attempt}, rank {rank} is gone; its log is on the claim {_claim(run)}: {file}"


def _claim(run: Run) -> str:
    return naming.workspace_claim(run)

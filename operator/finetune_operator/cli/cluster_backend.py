"""The runs of a namespace of a cluster: commands write the object, and the operator acts on it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_contract.workspace import Attempt
from finetune_operator.api.crd import crd
from finetune_operator.api.kinds import FINETUNERUN
from finetune_operator.api.stages import ENGINE_CHECK
from finetune_operator.core import naming
from finetune_operator.core.run import Run
from finetune_operator.loop.cluster import Cluster, Object
from finetune_operator.loop.errors import ApiError
from finetune_operator.validation import CelMissing, Validator

from . import exit_status
from .backend import MutateFn
from .documents import Document
from .echo import echo
from .error_messages import command_error
from .errors import CommandError
from .follow import follow_change
from .kubeconfig import Kubeconfig
from .login import log_in
from .objects import find_run
from .options import RunOptions, Target
from .output import print_object
from .validate import validate_document

if TYPE_CHECKING:
    from finetune_operator.kube.credentials import Credentials


@dataclass(frozen=True)
class ClusterBackend:
    """A namespace of a cluster, with the credentials of a user.

    Attributes:
        server: name of the cluster in messages, ``context b``.
        explicit: whether the user gave the namespace; a file must not name another one then.
    """

    credentials: Credentials
    server: str
    namespace: str
    flags: str = ""
    all_namespaces: bool = False
    explicit: bool = False

    @classmethod
    def find(cls, target: Target, option: str = "--context") -> ClusterBackend:
        """Return the cluster of the options, else of the current context; in a pod without a kubeconfig, the pod's cluster.

        Args:
            target: the options.
            option: the option or the variable that the context is from.

        Raises:
            CommandError: the context does not exist, or it has no usable credentials.
        """
        kubeconfig = Kubeconfig.read(target.kubeconfig)
        context = kubeconfig.choose(target.context, option)
        credentials = log_in(kubeconfig, target.kubeconfig, context)
        named = {"--kubeconfig": target.kubeconfig, "--context": target.context, "-n": target.namespace}
        return cls(
            credentials, f"context {context}" if context else "this cluster", target.namespace or credentials.namespace,
            "".join(f" {option} {value}" for option, value in named.items() if value), target.all_namespaces, bool(target.namespace),
        )  # fmt: skip

    @property
    def is_driven(self) -> bool:
        """See :class:`~.backend.Backend`: the operator."""
        return True

    @property
    def description(self) -> str:
        """See :class:`~.backend.Backend`."""
        return f"{'any namespace' if self.all_namespaces else f'namespace {self.namespace}'} of {self.server}"

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Cluster]:
        """See :class:`~.backend.Backend`. API errors become messages."""
        import aiohttp

        from finetune_operator.kube.client import ApiServer

        try:
            tls = self.credentials.tls()
        except (OSError, ssl.SSLError) as error:
            raise CommandError(
                [f"{self.server}: cannot read its certificates: {error.strerror or error}; log in again."]
            ) from None
        async with aiohttp.ClientSession() as session:
            try:
                yield ApiServer(session, self.credentials.address, token=self.credentials.token, tls=tls)
            except ApiError as error:
                raise command_error(error, self.server, self.credentials.address) from None

    def validate(self, document: Document, base: Path) -> list[str]:
        """See :class:`~.backend.Backend`: with line numbers if the library for rules is installed. The API server validates in any case."""
        try:
            return validate_document(Validator(crd()), document, base, local=False)
        except CelMissing:
            return []

    def prepare(self, manifest: Object, base: Path) -> Object:
        """See :class:`~.backend.Backend`: local paths are kept; the operator rejects them with a reason."""
        del base
        metadata = manifest["metadata"]
        named = metadata.get("namespace") or self.namespace
        if self.explicit and named != self.namespace:
            sentence = f"{metadata['name']}: metadata.namespace is {named}, but -n is {self.namespace}; remove one of them."
            raise CommandError([sentence], exit_status.USAGE)
        return {**manifest, "metadata": {**metadata, "namespace": named}}

    async def check_prerequisites(self, cluster: Cluster, manifest: Object) -> None:
        """See :class:`~.backend.Backend`: objects may be created later; until then the run has a condition."""

    async def check_code(self, cluster: Cluster, spec: Mapping[str, Any], new: Sequence[Object] = ()) -> None:
        """See :class:`~.backend.Backend`: nothing runs on this machine; the platform decides what runs on the cluster."""

    async def check_rerun(self, cluster: Cluster, spec: Mapping[str, Any]) -> None:
        """See :class:`~.backend.Backend`: only the operator knows the defaults of the namespace; it reports ``RerunRejected``."""

    def start(self, change: MutateFn, options: RunOptions, *, follow: bool) -> int:
        """See :class:`~.backend.Backend`. Ctrl-C stops only the display."""
        self._reject_secrets(options)
        if follow or options.wait:
            return asyncio.run(follow_change(self, change, options))
        return self._write(change, f"created in {self.description}", options)

    def update(self, change: MutateFn, summary: str, options: RunOptions) -> int:
        """See :class:`~.backend.Backend`."""
        self._reject_secrets(options)
        if options.wait:
            return asyncio.run(follow_change(self, change, options))
        return self._write(change, summary, options)

    def _reject_secrets(self, options: RunOptions) -> None:
        if options.secrets:
            name = options.secrets[0].partition("=")[0]
            remedy = f"oc create secret generic {name} --from-env-file=FILE -n {self.namespace}"
            raise CommandError([f"--secret: only for runs on this machine; create the Secret: {remedy}"], exit_status.USAGE)

    def _write(self, change: MutateFn, summary: str, options: RunOptions) -> int:
        async def write() -> Object:
            async with self.connect() as cluster:
                return await change(cluster)

        document = asyncio.run(write())
        name = document["metadata"]["name"]
        echo(f"{name}: {summary}; follow it with: finetune get -w {name}{self.flags}", err=True)
        if options.output:
            print_object(document, options.output)
        return exit_status.OK

    async def delete(self, name: str, *, purge: bool) -> str:
        """See :class:`~.backend.Backend`: the garbage collector deletes the children; spec.cleanup.volume decides about the volume."""
        if purge:
            raise CommandError(["--purge: only for runs on this machine; remove the option."], exit_status.USAGE)
        async with self.connect() as cluster:
            run = Run.parse(await find_run(self, cluster, name))
            await cluster.delete(FINETUNERUN, run.namespace, name, uid=run.uid)
        if not run.started:
            return f"{name}: deleted"
        if run.cleanup.volume == "Delete":
            return f"{name}: deleted, with its volume"
        return f"{name}: deleted; its files remain on PersistentVolumeClaim {_claim(run)} in {run.layout.root}"

    def archived_log(self, run: Run, stage: str, attempt: Attempt, rank: int) -> Path | str:
        """See :class:`~.backend.Backend`."""
        if stage == ENGINE_CHECK.name:  # its pods do not mount the claim
            return f"{run.name}: the pod of stage {stage}, attempt {attempt}, no longer exists, and its log was not stored; read status.stages."
        file = run.layout.log(stage, attempt, rank)
        return f"{run.name}: the pod of stage {stage}, attempt {attempt}, rank {rank}, no longer exists; read its log on PersistentVolumeClaim {_claim(run)}: {file}"


def _claim(run: Run) -> str:
    return naming.workspace_claim(run)

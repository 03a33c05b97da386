"""A control plane from its first process to its last."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import yaml

from . import trainer
from .api import Api, Object, eventually
from .binaries import Binaries
from .certificates import Authority, Pair
from .ports import answers, free_ports
from .processes import Processes
from .programs import API_SERVER, CONTROLLER_MANAGER, ETCD, GENERATIONS, SCHEDULER, Generation, GenerationName
from .trainer import Limits

ROOT = Path(__file__).resolve().parents[2]
DEFINITIONS = ROOT / "crds"

_GRACE = 3.0
"""Seconds until a process that does not end is killed. No data are kept after the control plane."""
_ATTEMPTS = 3
_START_BURST = 300
_SERVICES = "10.96.0.0/16"
_IN_CLUSTER = ("10.96.0.1", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
"""Address and names of the API server for pods: the first address of the Services."""
_AUDIT = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [{"level": "Metadata"}]}
"""User, verb and object of each request; no bodies, which may have secrets."""
_ADMISSION = "NodeRestriction,OwnerReferencesPermissionEnforcement,PodSecurity"
"""Admission plugins in addition to the defaults, which OpenShift enables as well."""


class DidNotStartError(RuntimeError):
    """A program ended while the control plane was starting. The message has the end of its log."""


@dataclass(frozen=True)
class Access:
    """Access to a running control plane."""

    address: str
    kubeconfig: Path
    trainer: GenerationName
    binaries: Path


class ControlPlane:
    """A control plane with all its state in the folder ``state``; at most one runs there at a time.

    Attributes:
        program: the folder that runs as the program of this kind of control plane.
        host: the address at which the API server listens.
    """

    program = Path(__file__).parent

    def __init__(self, state: Path, host: str = "127.0.0.1") -> None:
        self.state = state
        self.host = host
        self.processes = Processes(state)
        self.authority = Authority(state / "certificates")
        self._record = state / "control-plane.json"
        self._kubeconfig = state / "admin.kubeconfig"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the folder in this context."""
        self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.state / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @property
    def access(self) -> Access | None:
        """Access to it, or ``None`` if a part of it does not run."""
        try:
            record = json.loads(self._record.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        if not all(process.alive for process in self.processes.recorded()):
            return None
        return Access(record["address"], self._kubeconfig, record["trainer"], Path(record["binaries"]))

    def runs(self, binaries: Binaries, generation: Generation | None) -> Access | None:
        """Return :attr:`access`, but only if :meth:`up` would start the same programs."""
        access = self.access
        if access is None or access.binaries != binaries.folder or access.trainer != _name(generation):
            return None
        record = json.loads(self._record.read_text(encoding="utf-8"))
        return access if record["sources"] == self.sources() else None

    def up(
        self, binaries: Binaries, generation: Generation | None, limits: Limits | None = None, audit: Path | None = None
    ) -> Access:
        """Start it, empty. Processes of an earlier one are ended first, and those of a failed start as well.

        Args:
            binaries: the programs.
            generation: the release of Trainer, if there is to be one.
            limits: calls that the controllers allow themselves.
            audit: the file that each request to the API server is written to, as a line of JSON.

        Raises:
            DidNotStartError: a program ended at once.
            TimeoutError: a program did not become ready.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            self.down()
            try:
                return self._start(binaries, generation, limits, audit)
            except DidNotStartError as error:
                self.down()
                # Another process can take a port between the kernel's choice and its use.
                if "address already in use" not in str(error) or attempt == _ATTEMPTS:
                    raise
            except BaseException:
                self.down()
                raise
        raise AssertionError

    def down(self) -> None:
        """Stop every process, clients before servers."""
        self._record.unlink(missing_ok=True)
        ended = {process.name: process for process in self.processes.recorded()}
        last = [ended.pop(name) for name in (API_SERVER.name, ETCD.name) if name in ended]
        for processes in (list(ended.values()), *([one] for one in last)):
            self.processes.stop(processes, _GRACE)

    def reset(self) -> Access:
        """Reset it to its state after :meth:`up`.

        Raises:
            ValueError: none was started here.
        """
        if not self._record.exists():
            raise ValueError(self._nothing_here)
        record = json.loads(self._record.read_text(encoding="utf-8"))
        limits = Limits(**record["limits"]) if record["limits"] else None
        return self.up(Binaries(Path(record["binaries"])), GENERATIONS.get(record["trainer"]), limits)

    def api(self) -> Api:
        """Return a client as its administrator.

        Raises:
            ValueError: it does not run.
        """
        access = self.access
        if access is None:
            raise ValueError(self._nothing_here)
        return Api(access.address, self.authority.tls(self.admin))

    def client(self, name: str, user: str, groups: Sequence[str] = ()) -> Pair:
        """Return a certificate for any user: rights are not tested as the administrator."""
        return self.authority.client(name, user, groups)

    def sources(self) -> str:
        """Return a hash of the code that starts it: other code may start something else."""
        files = sorted(path for folder in {Path(__file__).parent, self.program} for path in folder.glob("*.py"))
        return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()

    @property
    def _nothing_here(self) -> str:
        return f"no control plane runs in {self.state}: start one with up"

    @property
    def admin(self) -> Pair:
        """Return the certificate of the administrator."""
        return Pair(self.authority.folder / "admin.crt", self.authority.folder / "admin.key")

    def _start(self, binaries: Binaries, generation: Generation | None, limits: Limits | None, audit: Path | None) -> Access:
        shutil.rmtree(self.state / "etcd", ignore_errors=True)
        self.authority.create()
        admin = self.authority.client("admin", "admin", ["system:masters"])
        etcd, peers, secure = free_ports(3)
        address = f"https://{self.host}:{secure}"
        self._start_etcd(binaries, etcd, peers)
        self._await(lambda: answers(etcd), "etcd listens")
        self._start_api_server(binaries, etcd, secure, audit)
        with Api(address, self.authority.tls(admin)) as api:
            self._await(lambda: api.call("GET", "/readyz") != {}, "the API server is ready")
            controllers = trainer.controllers(generation, binaries, self.state / "controllers")
            authority = self.authority.pair.certificate.read_bytes()
            # Before the garbage collector starts: it detects a later kind only after half a minute.
            documents = [one for controller in controllers for one in controller.installed(authority)]
            trainer.install(api, [*own_definitions(), *documents])
            self._start_managers(binaries, address, limits)
            for controller in controllers:
                controller.start(self.processes, self.authority, api, limits)
            for controller in controllers:
                self._await(controller.is_ready, f"{controller.program.name} is ready")
            trainer.install(api, [one for controller in controllers for one in controller.runtimes])
            account = "the default ServiceAccount exists"
            self._await(lambda: api.get("v1", "ServiceAccount", "default", "default") != {}, account)
            self._extend(api)
        self.authority.kubeconfig(self._kubeconfig, address, admin)
        access = Access(address, self._kubeconfig, _name(generation), binaries.folder)
        record = {"address": address, "trainer": access.trainer, "binaries": str(access.binaries), "sources": self.sources()}
        self._record.write_text(json.dumps({**record, "limits": limits and asdict(limits)}), encoding="utf-8")
        return access

    def _extend(self, api: Api) -> None:
        """Start what runs beside it, before it counts as started."""

    def _start_etcd(self, binaries: Binaries, port: int, peers: int) -> None:
        pair = self.authority.server("etcd")
        here, peer = f"https://127.0.0.1:{port}", f"https://127.0.0.1:{peers}"
        tls = [f"cert-file={pair.certificate}", f"key-file={pair.key}", f"trusted-ca-file={self.authority.pair.certificate}"]
        self.processes.start(
            ETCD.name,
            [
                binaries.path(ETCD), f"--data-dir={self.state / 'etcd'}", "--unsafe-no-fsync", "--log-level=warn",
                f"--listen-client-urls={here}", f"--advertise-client-urls={here}", "--client-cert-auth",
                f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}",
                "--peer-client-cert-auth", *(f"--{one}" for one in tls), *(f"--peer-{one}" for one in tls),
            ],
        )  # fmt: skip

    def _start_api_server(self, binaries: Binaries, etcd: int, port: int, audit: Path | None) -> None:
        serving = self.authority.server("api-server", (self.host, *_IN_CLUSTER))
        storage = self.authority.client("etcd-client", "kube-apiserver")
        accounts = self.authority.signing_key("service-accounts")
        authority = self.authority.pair.certificate
        self.processes.start(
            API_SERVER.name,
            [
                binaries.path(API_SERVER), f"--etcd-servers=https://127.0.0.1:{etcd}", f"--etcd-cafile={authority}",
                f"--etcd-certfile={storage.certificate}", f"--etcd-keyfile={storage.key}",
                f"--bind-address={self.host}", f"--advertise-address={self.host}", f"--secure-port={port}", *self._nodes(),
                f"--tls-cert-file={serving.certificate}", f"--tls-private-key-file={serving.key}", f"--client-ca-file={authority}",
                f"--service-account-issuer=https://{self.host}:{port}", f"--service-account-signing-key-file={accounts.key}",
                f"--service-account-key-file={accounts.certificate}", f"--service-cluster-ip-range={_SERVICES}",
                "--authorization-mode=Node,RBAC", f"--enable-admission-plugins={_ADMISSION}", "--allow-privileged=true",
                f"--cert-dir={self.state / 'certificates'}", *self._audited(audit),
            ],
        )  # fmt: skip

    def _nodes(self) -> list[str]:
        """Return the options for access to and from nodes: there are none, so the Service ``kubernetes`` is not needed."""
        return ["--endpoint-reconciler-type=none"]

    def _audited(self, audit: Path | None) -> list[str]:
        if audit is None:
            return []
        policy = self.state / "audit-policy.yaml"
        policy.write_text(yaml.safe_dump(_AUDIT), encoding="utf-8")
        return [f"--audit-policy-file={policy}", f"--audit-log-path={audit.absolute()}", "--audit-log-maxsize=65536"]

    def _start_managers(self, binaries: Binaries, address: str, limits: Limits | None) -> None:
        """Start the controller manager and the scheduler, each with its own rights."""
        # Forty controllers get their own credentials one by one: with 20 calls a second this takes 5 s.
        limit = [f"--kube-api-burst={_START_BURST}"]
        if limits is not None:
            limit = [f"--kube-api-qps={limits.qps}", f"--kube-api-burst={limits.burst}"]
        accounts = self.authority.folder / "service-accounts.key"
        more = [
            f"--service-account-private-key-file={accounts}", f"--root-ca-file={self.authority.pair.certificate}",
            "--use-service-account-credentials=true",
        ]  # fmt: skip
        for program, extra in ((CONTROLLER_MANAGER, more), (SCHEDULER, [])):
            identity = self.authority.client(program.name, f"system:{program.name}")
            kubeconfig = self.authority.kubeconfig(self.state / f"{program.name}.kubeconfig", address, identity)
            common = [f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--secure-port=0"]
            self.processes.start(program.name, [binaries.path(program), *common, *extra, *limit])

    def _await(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until ``condition`` holds, or a program ends."""

        def holds() -> bool:
            dead = [process for process in self.processes.recorded() if not process.alive]
            if dead:
                raise DidNotStartError(f"{dead[0].name} ended:\n{self.processes.log_tail(dead[0].name)}")
            return bool(condition())

        eventually(holds, what, seconds=60)


def own_definitions() -> list[Object]:
    """Return the CustomResourceDefinitions of this project."""
    return [yaml.load(path.read_bytes(), yaml.CSafeLoader) for path in sorted(DEFINITIONS.glob("*.finetunerun.io.yaml"))]


def _name(generation: Generation | None) -> GenerationName:
    return "none" if generation is None else cast(GenerationName, generation.name)

"""Lost processes of a group: recognized by the errors of torch, gloo and torchrun, and by the lines of NCCL's watchdog."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from finetune_contract import reasons
from finetune_stages.sdk import StageError
from finetune_stages.sdk.fault import Interrupted, causes, first_line

TIMEOUT_VARIABLE = "INSTRUCTLAB_NCCL_TIMEOUT_MS"
"""Environment variable with the timeout of collective operations in milliseconds, named as in Training Hub's SFT backend."""
_LOST = (
    "connection closed by peer", "connection reset by peer", "connection refused", "timed out", "timeout", "broken pipe",
    "no route to host", "address already in use", "nccl communicator was aborted", "nccl operations have failed",
    "torch_nccl_async_error_handling", "ncclremoteerror", "ncclsystemerror", "remote process exited",
)  # fmt: skip
_WATCHDOG = re.compile(
    r"watchdog caught collective operation timeout|process group watchdog thread terminated|nccl operations have failed or timed out"
    r"|heartbeat monitor timed out|nccl error|torch_nccl_async_error_handling",
    re.IGNORECASE,
)
"""Lines that NCCL's watchdog writes before it ends a process by SIGABRT."""
_NAMED_RANK = re.compile(
    r"\brank\W{0,3}(\d+)\W{1,3}(?:failed to pass|did not join|has not joined|exited|is not responding)", re.IGNORECASE
)


def watchdog_line(log: str) -> str | None:
    """Return the first line of a process's log with which NCCL's watchdog ends it; ``None`` if the watchdog did not."""
    return next((line for line in log.splitlines() if _WATCHDOG.search(line)), None)


def names_lost_peer(text: str) -> bool:
    """Return whether the text of an exception means a lost process."""
    return any(words in text.lower() for words in _LOST)


def lost_peer(rank: int, world: int, why: str) -> StageError:
    """Return the failure of a process that lost another one, with the lost rank if it is known.

    ``why`` is a line of torch, gloo or NCCL.
    """
    named = _NAMED_RANK.search(why)
    lost = named[1] if named else str(1 - rank) if world == 2 else None
    other = f"process {lost}" if lost is not None and lost != str(rank) else "another one"
    # without the log's prefix and the location in torch's sources
    text = re.sub(r"^(\[[^]]*\]:?\s*|[EWIF]\d{4} \S+ \d+ \S+\] )+", "", why).split(". ")[0].rstrip(".")
    return StageError(
        reasons.PROCESS_GROUP_TIMEOUT,
        f"training: process {rank} of {world} lost {other} ({text[:300]}); see the log of the process that ended first, or if none did,"
        f" raise {TIMEOUT_VARIABLE} in training.env.",
    )


def is_port_in_use(text: str) -> bool:
    """Return whether the text of an exception means that this process cannot listen on its port."""
    return "EADDRINUSE" in text or "address already in use" in text.lower() or "failed to listen" in text


def port_in_use(address: str) -> StageError:
    """Return the failure of a process whose port another program has. ``address`` has host and port."""
    return StageError(
        reasons.PROCESS_GROUP_TIMEOUT,
        f"training: another program in the pod, or on its node with hostNetwork, listens at {address}, which the training processes need;"
        " end it, or set another PET_MASTER_PORT in the runtime.",
    )


@contextmanager
def agents_may_be_lost(pod: int, pods: int, address: str) -> Iterator[None]:
    """Context in which torchrun's agent of this pod meets those of the other pods.

    Raises:
        StageError: ``ProcessGroupTimeout``: they did not meet, lost each other, or the port is in use.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError

    try:
        yield
    except (ChildFailedError, SignalException):
        raise
    except Exception as error:
        lost = _lost(error) or next((link for link in causes(error) if isinstance(link, RendezvousError)), None)
        if lost is None:
            raise
        if is_port_in_use(str(lost)):
            raise port_in_use(address) from error
        raise StageError(
            reasons.PROCESS_GROUP_TIMEOUT,
            f"training: pod {pod} of {pods} cannot reach the others at {address} ({first_line(lost, 300).rstrip('.')});"
            f" check that all pods run and reach that address, or raise {TIMEOUT_VARIABLE} in training.env.",
        ) from error


@contextmanager
def peers_may_be_lost(rank: int, world: int) -> Iterator[None]:
    """Context in which a process works with the others.

    Raises:
        StageError: ``ProcessGroupTimeout``: another process was lost.
    """
    try:
        yield
    except (StageError, Interrupted, KeyboardInterrupt):
        raise
    except BaseException as error:
        lost = _lost(error)
        if lost is None:
            raise
        if is_port_in_use(str(lost)):
            raise port_in_use(f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}") from error
        raise lost_peer(rank, world, first_line(lost)) from error


def _lost(error: BaseException) -> BaseException | None:
    """Return the exception that means a lost peer: torch has classes for its store and NCCL, gloo raises generic ones."""
    from torch import distributed as dist

    for link in causes(error):
        named = isinstance(link, (dist.DistBackendError, dist.DistNetworkError, dist.DistStoreError))
        if named or (isinstance(link, RuntimeError) and names_lost_peer(str(link))):
            return link
    return None

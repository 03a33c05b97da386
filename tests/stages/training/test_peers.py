"""Lost processes, by the lines that torch, gloo and NCCL write."""

from __future__ import annotations

import pytest

from finetune_contract import reasons
from finetune_stages.training.peers import lost_peer, watchdog_line

WATCHDOG = (
    "[rank1]:[E1129 17:03:11.912345678 ProcessGroupNCCL.cpp:632] [Rank 1] Watchdog caught collective operation timeout:"
    " WorkNCCL(SeqNum=5, OpType=ALLREDUCE, NumelIn=1, NumelOut=1, Timeout(ms)=600000) ran for 600010 milliseconds before timing out."
)


def test_the_watchdogs_line_is_found_in_a_log():
    log = f"loading\n{WATCHDOG}\nterminate called after throwing an instance of 'c10::DistBackendError'\n"
    assert watchdog_line(log) == WATCHDOG
    assert watchdog_line("free(): invalid pointer\n") is None


@pytest.mark.parametrize(
    ("rank", "world", "line", "sentence"),
    [
        (
            1,
            2,
            WATCHDOG,
            "process 1 of 2 lost process 0 (Watchdog caught collective operation timeout: WorkNCCL(SeqNum=5, OpType=ALLREDUCE",
        ),
        (1, 4, WATCHDOG, "process 1 of 4 lost another one (Watchdog caught"),
        (0, 4, "Rank 3 failed to pass monitoredBarrier in 1000 ms", "process 0 of 4 lost process 3 (Rank 3 failed to pass"),
        (
            0,
            4,
            "Connection closed by peer [10.0.0.7]:4411",
            "process 0 of 4 lost another one (Connection closed by peer [10.0.0.7]:4411)",
        ),
    ],
)
def test_a_lost_process_is_named_if_it_is_known(rank, world, line, sentence):
    error = lost_peer(rank, world, line)
    assert sentence in error.message
    assert error.reason is reasons.PROCESS_GROUP_TIMEOUT

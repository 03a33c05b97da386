"""Limits of time and memory of what others write and Python runs in the process."""

from __future__ import annotations

import re
import resource
import signal
import threading
import time
from collections.abc import Callable

import pytest

from finetune_stages.sdk import bounded as module
from finetune_stages.sdk.bounded import LimitExceeded, bounded, bounded_text


def loop() -> None:
    while True:
        pass


def loop_in_spite_of_exceptions() -> None:
    while True:
        try:
            loop()
        except Exception:  # noqa: BLE001
            pass


def continue_once() -> None:
    try:
        loop()
    except BaseException:  # noqa: BLE001
        pass
    loop()


WORK: dict[str, Callable[[], object]] = {
    "a loop": loop,
    "a loop that catches exceptions": loop_in_spite_of_exceptions,
    "a loop that continues": continue_once,
    "a pattern": lambda: re.search(r"((.*)*)*((.*)*)*Q$", "a" * 40),
    "a power": lambda: len(str((7**7**99999999) % 2)),
}


@pytest.fixture(autouse=True)
def _unchanged() -> object:
    before = (resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGALRM))
    timer = signal.setitimer(signal.ITIMER_REAL, 250)
    yield
    assert before == (resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGALRM))
    remaining, again = signal.setitimer(signal.ITIMER_REAL, *timer)
    assert 200 < remaining <= 250
    assert not again


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_work_that_does_not_end_is_stopped(work: Callable[[], object]) -> None:
    start = time.monotonic()
    with pytest.raises(LimitExceeded, match=r"^takes longer than 0\.3 s$"):
        bounded(0.3, work)
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("work", [lambda: "a" * 3_000_000_000, lambda: "%0*d" % (3_000_000_000, 1)], ids=["product", "format"])  # noqa: UP031
def test_work_that_needs_too_much_memory_is_stopped(work: Callable[[], str]) -> None:
    with pytest.raises(LimitExceeded, match=r"^uses more than 1 GiB of memory$"):
        bounded(20, work)


def test_other_results_and_exceptions_pass() -> None:
    assert bounded(20, lambda: bounded(0.001, lambda: time.sleep(0.01) or 5)) == 5, "the limits of the outer one"
    with pytest.raises(KeyError):
        bounded(20, lambda: {}["a"])
    with pytest.raises(LimitExceeded):
        bounded(0.1, loop)


def test_a_text_has_a_greatest_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHARACTERS", 3)
    assert bounded_text(lambda: "abc") == "abc"
    with pytest.raises(LimitExceeded, match=r"^renders more than 3 characters$"):
        bounded_text(lambda: "abcd")


def test_other_threads_have_no_timer() -> None:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(bounded(0.001, lambda: 5)))
    thread.start()
    thread.join()
    assert found == [5]

"""``finetune describe`` shows any status that a training program, a server or a writer of Events can bring about."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cli.test_echo import HOSTILE
from cli.test_wait import Driver, driver
from finetune_operator.api.kinds import FINETUNERUN
from finetune_operator.cli.describe import describe_run
from finetune_operator.cli.options import Target
from finetune_operator.local.platform import NAMESPACE, open_store


@pytest.fixture
def ended(tmp_path: Path) -> Driver:
    """A folder with a run that has ended."""
    return driver(tmp_path)


def described(found: Driver, capsys: pytest.CaptureFixture[str]) -> str:
    assert describe_run(Target(home=found.home.root), "demo") == 0
    return capsys.readouterr().out


def test_texts_of_others_have_no_effect_on_the_terminal(ended: Driver, capsys: pytest.CaptureFixture[str]) -> None:
    status = {
        "engine": {"name": "x[/a]", "reason": HOSTILE, "versions": {"v[/b]": HOSTILE[:50]}},
        "warnings": [{"stage": "training", "reason": "Any", "message": HOSTILE}],
        "failure": {"stage": "training", "reason": "StageFailed", "message": HOSTILE, "logTail": HOSTILE},
        "metrics": {"baseline": {"a.[/x]": 0.25}, "evaluation": {"a.[/x]": 0.5}, "higherIsBetter": {"a.[/x]": True}},
    }
    asyncio.run(ended.write_status(status))
    page = described(ended, capsys)
    assert not [each for each in page if not each.isprintable() and each != "\n"]
    assert page.count("[link=http://evil]here[/link] :smile:") >= 4
    assert "a.[/x]" in page
    assert "+0.25 better" in page
    assert "x[/a]" in page


@pytest.mark.parametrize(
    ("history", "drawn"),
    [
        ([(0, 1.0), (0, 1.0)], False), ([(0, 1e308), (1, -1e308)], False), ([(3, 1.0), (3, 2.0), (4, 1e200)], False),
        ([(1, 2.0), (2, 2.0)], True), ([(0, 1e99), (2**62, -1e99)], True), ([(0, 0.0), (5, 0.0), (6, 1e308)], True),
    ],
)  # fmt: skip
def test_a_loss_curve_is_drawn_where_it_can_be(
    ended: Driver, capsys: pytest.CaptureFixture[str], history: list[tuple[int, float]], drawn: bool
) -> None:
    asyncio.run(ended.write_status({"history": [{"step": step, "loss": loss} for step, loss in history]}))
    assert ("training loss" in described(ended, capsys)) is drawn


async def _write_event(found: Driver, **fields: Any) -> None:
    store = open_store(found.home)
    uid = (await store.get(FINETUNERUN, NAMESPACE, "demo"))["metadata"]["uid"]
    involved = {"kind": "FineTuneRun", "name": "demo", "namespace": NAMESPACE, "uid": uid}
    metadata = {"name": f"event-{len(fields)}", "namespace": NAMESPACE}
    await store.create({"apiVersion": "v1", "kind": "Event", "metadata": metadata, "involvedObject": involved, **fields})
    store.close()


def test_events_may_lack_message_and_reason(ended: Driver, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(_write_event(ended))
    asyncio.run(_write_event(ended, reason="OnlyReason"))
    asyncio.run(_write_event(ended, type="Warning", message=HOSTILE))
    page = described(ended, capsys)
    assert "OnlyReason" in page
    assert "\\x9b2J\\u202egnp" in page
    assert not [each for each in page if not each.isprintable() and each != "\n"]

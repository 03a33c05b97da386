"""Health probes and metrics."""

from __future__ import annotations

import aiohttp

from finetune_operator.kube.serving import STALE_SECONDS, Health, Metrics, serving


async def ask(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
        return response.status, await response.text()


async def test_the_operator_is_alive_while_lists_succeed() -> None:
    now = 0.0
    health = Health(lambda: now)
    async with serving(health, Metrics(), "127.0.0.1", 0) as port:
        assert await ask(port, "/readyz") == (503, "not started yet\n")
        health.ready = health.leads = True
        assert await ask(port, "/readyz") == (200, "ok\n")
        assert await ask(port, "/healthz") == (200, "ok\n")
        now = STALE_SECONDS
        assert (await ask(port, "/healthz"))[0] == 503
        health.observe_list()
        assert await ask(port, "/healthz") == (200, "ok\n")
        now = 3 * STALE_SECONDS
        health.leads = False
        assert await ask(port, "/healthz") == (200, "ok\n"), "one that stands by hears nothing"


async def test_metrics_have_their_names() -> None:
    metrics = Metrics()
    metrics.leader.set(1)
    metrics.runs.labels("Training").set(3)
    async with serving(Health(), metrics, "127.0.0.1", 0) as port:
        text = (await ask(port, "/metrics"))[1]
    assert "finetune_leader 1.0" in text
    assert 'finetune_runs{phase="Training"} 3.0' in text

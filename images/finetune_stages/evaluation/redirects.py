"""Check of the hosts to which web servers with data of tasks redirect. The library ``datasets`` downloads with fsspec and aiohttp."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import aiohttp
from fsspec.config import conf
from yarl import URL

from finetune_stages.sdk.hosts import require_allowed


def check_redirects() -> None:
    """Make fsspec check the target of each redirect before it contacts it."""
    for protocol in ("http", "https"):
        conf.setdefault(protocol, {})["get_client"] = _client


async def _client(**options: Any) -> aiohttp.ClientSession:
    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_check)
    return aiohttp.ClientSession(trace_configs=[trace], **options)


async def _check(
    _session: aiohttp.ClientSession, _context: SimpleNamespace, redirect: aiohttp.TraceRequestRedirectParams
) -> None:
    headers = redirect.response.headers
    target = headers.get("Location") or headers.get("URI") or ""  # as aiohttp does
    require_allowed(str(redirect.url.join(URL(target))), "hosts", f"evaluation.tasks: {redirect.url.origin()} redirects")

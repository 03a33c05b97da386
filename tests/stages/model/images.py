"""Helpers of the tests of models from registries."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_contract.uris import ImageReference
from finetune_stages.model import image
from finetune_stages.model.check import Requirements
from finetune_stages.model.obtain import Obtained
from finetune_stages.sdk import Context, StageError
from finetune_stages.sources.origin import MODEL
from finetune_stages.sources.uri import parse_uri
from registry_server import MANIFEST
from web_server import Answer, Request, Server


def obtain(context: Context, uri: str) -> Obtained:
    reference = parse_uri(uri, MODEL)
    assert isinstance(reference, ImageReference)
    return image.obtain(context, reference, Requirements())


def rejection(context: Context, uri: str) -> tuple[str, str]:
    with pytest.raises(StageError) as caught:
        obtain(context, uri)
    return caught.value.reason.name, caught.value.message


def same(obtained: Obtained, folder: Path) -> bool:
    """Return whether a cache entry has exactly the files of a model."""
    names = {path.name for path in folder.iterdir()}
    return {path.name for path in obtained.entry.iterdir()} == {*names, ".finetune.json"} and all(
        (obtained.entry / name).read_bytes() == (folder / name).read_bytes() for name in names
    )


class OneAnswer(Server):
    """Answers every request for a manifest with one content."""

    content: bytes = b""
    status = 200
    challenge = ""

    def answer(self, request: Request, body: bytes) -> Answer:
        headers = {"WWW-Authenticate": self.challenge} if self.challenge else {}
        return Answer(self.status, {"Content-Type": MANIFEST, **headers}, self.content)

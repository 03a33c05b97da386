"""Each pod names its variables that come from Secrets, so that its program removes their values from what it prints."""

from __future__ import annotations

import pytest

from finetune_contract.documents import SECRETS_VARIABLE
from finetune_operator.core.manifests.pod import environment
from finetune_operator.core.paths import lookup
from finetune_operator.core.resolve import resolve
from finetune_operator.core.run import Run, StageStatus
from finetune_operator.core.stages import GRAPH
from finetune_stages.sdk.redaction import Redactor
from world import SETTINGS

SPEC = {
    "dataset": {"uri": "https://example.com/rows.jsonl", "secretRef": {"name": "login"}},
    "model": {"uri": "org/model", "secretRef": {"name": "hub", "key": "hub"}},
    "training": {"env": [{"name": "DB_PASS", "valueFrom": {"secretKeyRef": {"name": "db", "key": "word"}}}, {"name": "PLAIN", "value": "seen"}]},
    "registry": {"address": "https://registry.example.com"},
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPH.programs)
def test_every_variable_from_a_secret_is_named_and_no_other(name: str) -> None:
    resolved = resolve(SPEC, SETTINGS)
    run = Run(name="demo", namespace="team", uid="u", generation=1, spec=SPEC, status={"resolved": resolved, "round": 1})
    stage = GRAPH.programs[name]
    entries = environment(run, StageStatus(name, attempt=1), stage.pod(run), "image")
    secret = sorted(entry["name"] for entry in entries if lookup(entry, "valueFrom.secretKeyRef"))
    named = [entry["value"] for entry in entries if entry["name"] == SECRETS_VARIABLE]
    assert named == ([",".join(secret)] if secret else [])
    if name == "training":
        assert "DB_PASS" in secret
    values = {entry["name"]: f"value-of-{entry['name']}" if entry["name"] in secret else entry["value"] for entry in entries}
    redact = Redactor(values)
    assert [redact(values[variable]) for variable in secret] == ["***"] * len(secret)


def test_forms_of_a_secret() -> None:
    environment = {
        "CERT": "-----BEGIN KEY-----\nAAAABBBBCCCCDDDDEEEE\nshort\n",
        "LOGIN": " Basic dXNlcjpwYXNz ",
        "PASS": "p@ss/word",
        "FINETUNE_SECRETS": "CERT,LOGIN,PASS",
    }
    redact = Redactor(environment)
    assert redact("x AAAABBBBCCCCDDDDEEEE y short") == "x *** y short"
    assert redact("sent dXNlcjpwYXNz") == "sent ***"
    assert redact("http/p%40ss%2Fword and p@ss/word") == "http/*** and ***"
    assert redact(environment["CERT"]) == "***"

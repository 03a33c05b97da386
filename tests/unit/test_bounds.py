"""What others write takes bounded time: each pattern and parser on the worst texts of their greatest size."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from finetune_contract.codec import DocumentError
from finetune_contract.crash import crash_location
from finetune_contract.progress import MARK, last
from finetune_contract.redaction import redact
from finetune_contract.result import TERMINATION_MESSAGE_LIMIT, parse_message
from finetune_contract.uris import (
    CONTROL,
    EDGE_SPACE,
    FILE_NAMES,
    FORMS,
    LOGIN,
    SCHEME_ALONE,
    SIGNATURE,
    UriError,
    parse_uri,
    shown,
)
from finetune_operator.api.crd import crd
from finetune_operator.core import blockers
from finetune_operator.core.diagnosis import LOG_LIMIT, diagnose
from finetune_operator.core.messages import READ_LIMIT, status_message
from finetune_operator.core.observation import Rejection
from finetune_operator.core.pod_report import PodReport, Termination
from finetune_operator.core.times import duration
from finetune_operator.core.trainjob_reports import of_rhoai, of_trainer
from finetune_operator.validation import DEFAULTS_KEY, defaults_of
from finetune_operator.validation.pattern import compile_pattern
from finetune_stages.sdk.redaction import Redactor
from patterns import QUICK, ROOT, Found, adversarial, found_in, seconds

SIZE = 4096
URI_LENGTH = 2048
NOT_CONSTANT = {
    "operator/finetune_contract/uris.py search FILE_NAMES[kind]", "operator/finetune_contract/uris.py search SIGNATURE",
    "operator/finetune_contract/uris.py fullmatch pattern",
    "operator/finetune_operator/kube/configuration.py search reserved", "operator/finetune_operator/validation/pattern.py search translated",
    "images/finetune_stages/sources/s3.py match glob_translate(pattern)",
    "images/finetune_stages/sources/formats.py fullmatch _FIELD + b'(?:' + separator + _FIELD + b')+'",
}  # fmt: skip
"""Patterns that are made at run time. Those of URIs and of the CRD are tested below; the others read the configuration or one line of data."""
OF_STAGES = {
    "images/finetune_stages/dataset/hub.py": "an error's message of the client of the hub",
    "images/finetune_stages/model/tensors.py": "names of tensors",
    "images/finetune_stages/registration/mlflow_faults.py": "an error's message of the client of MLflow",
}
"""Stage programs with a pattern that is not linear, and what it reads: only their own run waits for them."""


def _patterns() -> list[Found]:
    return [
        *found_in("operator", ("finetune_contract", "finetune_operator")),
        *found_in("images", ("finetune_stages",)),
    ]


ALL = _patterns()


def _file(found: Found) -> str:
    return found.place.rpartition(":")[0]


def test_every_pattern_of_the_tree_is_known() -> None:
    assert len(ALL) > 120
    assert {f"{_file(found)} {found.function} {found.source}" for found in ALL if found.pattern is None} == NOT_CONSTANT


def _of_uris() -> Iterator[tuple[str, str, re.Pattern[str], int]]:
    texts = [CONTROL, EDGE_SPACE, LOGIN, SCHEME_ALONE, SIGNATURE, *FILE_NAMES.values()]
    yield from ((f"URIs: {text}", "search", re.compile(text, re.ASCII), URI_LENGTH) for text in texts)
    forms = dict.fromkeys(form for kind in FORMS.values() for form in kind)
    yield from ((f"URIs: {text}", "fullmatch", re.compile(text, re.ASCII), URI_LENGTH) for text in forms)


def _of_crd() -> Iterator[tuple[str, str, re.Pattern[str], int]]:
    """Yield the patterns of the CRD with the greatest length of their fields. A command searches them in the user's own file."""
    found: dict[str, int] = {}
    rest: list[Any] = [crd()]
    for node in rest:
        rest += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        if isinstance(node, dict) and isinstance(node.get("pattern"), str):
            found[node["pattern"]] = max(found.get(node["pattern"], 0), node.get("maxLength", SIZE))
    assert len(found) > 10
    for pattern, size in found.items():
        yield f"CRD: {pattern}", "search", compile_pattern(pattern), min(size, SIZE)


def _known() -> Iterator[Any]:
    for found in ALL:
        if found.pattern is not None and _file(found) not in OF_STAGES:
            size = URI_LENGTH if _file(found) == "operator/finetune_contract/uris.py" else SIZE
            yield pytest.param(found.function, found.pattern, size, id=f"{found.place} {found.function} {found.source[:40]}")
    for name, function, pattern, size in (*_of_uris(), *_of_crd()):
        yield pytest.param(function, pattern, size, id=name)


@pytest.mark.parametrize(("function", "pattern", "size"), list(_known()))
def test_a_pattern_takes_linear_time(function: str, pattern: re.Pattern[Any], size: int) -> None:
    for text in adversarial(pattern, size):
        assert seconds(pattern, function, text) < QUICK, repr(text[:80])


@pytest.mark.parametrize(
    ("pattern", "size"),
    [
        (r"(NCCL|ProcessGroup\w*|gloo)[^\n]*(timed? ?out|timeout)|X", 1000), (r"(\w+://)[^/\s@]+@", 4 * SIZE), (r"(a+)+b", 22), (r"\w*\d*\w*x$", 600),
        (r"(?:a|aa)+b", 28),
    ],
)  # fmt: skip
def test_the_texts_show_a_pattern_that_is_not_linear(pattern: str, size: int) -> None:
    """The first two were ours. Those that take more than quadratic time do so with short texts."""
    compiled = re.compile(pattern)
    for text in adversarial(compiled, size):
        began = time.thread_time()
        compiled.search(text)
        if time.thread_time() - began > QUICK:
            return
    pytest.fail("no text takes long")


_PARSERS = re.compile(r"\b(json\.loads?|strict_json\.loads|yaml\.\w+|\w*model_validate|b64decode|ZipFile|fromisoformat)\(")
PARSERS = {
    "finetune_contract/documents.py": "a variable of the operator", "finetune_contract/hosts.py": "a variable of the operator",
    "finetune_operator/core/manifests/bootstrap.py": "the training bundle, whose digest it has checked",
    "finetune_contract/strict_json.py": "termination messages, progress, annotations: bounded, see READERS",
    "finetune_contract/result.py": "termination messages, by strict_json",
    "finetune_contract/progress.py": "lines of a log, by strict_json",
    "finetune_operator/core/trainjob_reports.py": "annotation of a TrainJob, by strict_json",
    "finetune_operator/core/status_bounds.py": "values of a termination message, which strict_json has bounded",
    "finetune_operator/core/times.py": "times of the API server",
    "finetune_operator/core/values.py": "a spec, whose size the API server limits, and the defaults, see DEFAULTS",
    "finetune_operator/api/kubernetes_yaml.py": "files and defaults: bounded, see DEFAULTS and tests/unit/test_kubernetes_yaml.py",
    "finetune_operator/validation/structure.py": "dates in metadata, of a fixed form",
    "finetune_operator/validation/config_map.py": "ConfigMaps of a command",
    "finetune_operator/training_bundle.py": "the training bundle, of a limited size",
    "finetune_operator/loop/run_cache.py": "what this process has written", "finetune_operator/loop/child_cache.py": "what this process has written",
    "finetune_operator/kube/client.py": "answers of the API server", "finetune_operator/kube/api_errors.py": "answers of the API server",
    "finetune_operator/kube/configuration.py": "the operator's configuration",
    "finetune_operator/cli/init.py": "the presets", "finetune_operator/cli/code.py": "ConfigMaps of a command",
    "finetune_operator/local/process.py": "what this process has written", "finetune_operator/local/shim.py": "what this process has written",
    "finetune_operator/local/secrets.py": "the user's own file", "finetune_operator/local/volumes.py": "ConfigMaps that the store has validated",
    "finetune_operator/local/store/store.py": "what this process has written", "finetune_operator/local/store/transaction.py": "what this process has written",
}  # fmt: skip
"""Every file of the operator and the command line that parses something, and whose text it is."""


def test_every_parser_of_the_tree_is_known() -> None:
    files = {str(file.relative_to(ROOT / "operator")): file.read_text() for file in (ROOT / "operator").rglob("*.py")}
    assert {name for name, text in files.items() if _PARSERS.search(text)} == set(PARSERS)


def filled(pump: str, size: int) -> str:
    return (pump * (size // len(pump) + 1))[:size]


LOGS = [
    filled(pump, LOG_LIMIT)
    for pump in (
        "NCCL", "ProcessGroup", "NCCLProcessGroup", "gloo ", "NCCL timed", "cuda out of memor", "MemoryErro\n", "NCCL\ntimeout\n", "\n", "x", "\r",
        "://", "://a", "://a@", "?token=", "&sig=a", "eyJ", "-eyJ", "eyJaaaaaaaa.", "authorization: ", "Authorization:Bearer ", "Bearer ", "hf_", "hf_a", "gho_",
        "AKIA", "a", "\\u0026key=", "%", "a.", "\u0130", f"{MARK}{{", f"{MARK}[[[[\n", MARK,
    )
]  # fmt: skip


def failed(log: str) -> object:
    return diagnose((PodReport("p0", termination=Termination(1)),), {"p0": log}, "")


SECRETS = Redactor(
    {"A_TOKEN": "a" * 500 + "b", "B_TOKEN": "eyJ" * 50, "C_TOKEN": "://" * 10, "D_SECRET": "x" * 8 + "\n" + "y" * 80}
)
JSON = [
    filled(pump, TERMINATION_MESSAGE_LIMIT)
    for pump in ("[", '{"a":', '{"finetune":', '"', '"\\', "1", "-", "1e", "NaN", "[1,", '{"a":1,"a":1,', "\\ud800", "\x00", " ")
] + [
    "[" * 2000 + "]" * 2000, '{"finetune":' * 300 + "1" + "}" * 300, f'{{"finetune":{{"contractVersion":2,"message":"{"m" * 4000}"}}}}',
    f'{{"finetune":{{"contractVersion":{"9" * 4000}}}}}', f'{{"finetune":{{"contractVersion":2,"metrics":{{{",".join(f"{chr(34)}{n}{chr(34)}:1" for n in range(400))}}}}}}}',
]  # fmt: skip
WORDS = [
    filled(pump, READ_LIMIT)
    for pump in (
        "must specify ", 'serviceaccounts "', 'TrainingRuntimex "', "Insufficient ", "storageclass", 'persistentvolumeclaim "', "cannot a", "timed ", "a: b (at ",
        "a: b (at a:1", '"', "exceeded ",
    )
]  # fmt: skip
URIS = [filled(pump, SIZE) for pump in ("a", "a.", "a-.", "a/", ":", "@", "https://a", "s3://a/", "file:///%C3%A9", "%", "../", "hf://", "\ud800", "?", " ")] + [
    start + filled(pump, SIZE) for start in ("https://", "https://a:", "file:///", "s3://a/", "pvc://a/", "oci://a") for pump in ("a@", ":", "%C3", "[", "./", "..", "-.")
]  # fmt: skip


def _quietly(call: Callable[[Any], object]) -> Callable[[Any], object]:
    def checked(text: Any) -> object:
        try:
            return call(text)
        except (DocumentError, UriError, ValueError):
            return None

    return checked


READERS: dict[str, tuple[Callable[[Any], object], list[Any]]] = {
    "diagnosis": (failed, LOGS),
    "redaction by form": (redact, LOGS),
    "redaction by value": (SECRETS, LOGS),
    "progress": (last, LOGS),
    "termination message": (_quietly(parse_message), JSON),
    "annotation of OpenShift AI": (of_rhoai, [*JSON, *(filled(text, 256 * 1024) for text in JSON)]),
    "status of Trainer": (
        of_trainer,
        [{"metrics": [{"name": "n" * 50, "value": "9" * 1000}] * 10_000, "lastUpdatedTime": "2" * 5000}],
    ),
    "blockers": (
        lambda text: blockers.reason_of_rejection(Rejection(text)),
        [*WORDS, *(filled(text, 100_000) for text in WORDS)],
    ),
    "message of status": (status_message, [*WORDS, *LOGS]),
    "crash": (crash_location, WORDS),
    "duration": (_quietly(duration), [filled(pump, SIZE) for pump in ("1", "1.", "1.1", "m", "1h", "\u0661")]),
    "URI": (_quietly(lambda uri: parse_uri(uri, "dataset")), URIS),
    "URI in a message": (shown, URIS),
}


@pytest.mark.parametrize(("read", "texts"), READERS.values(), ids=READERS)
def test_a_reader_takes_ten_milliseconds_at_most(read: Callable[[Any], object], texts: list[Any]) -> None:
    """The bound is ten times that, because other processes use the caches of this processor too; the least of three tries counts."""
    read(texts[0])
    for text in texts:
        spent = []
        for _ in range(3):
            began = time.thread_time()
            read(text)
            spent.append(time.thread_time() - began)
            if spent[-1] < 0.01:
                break
        assert min(spent) < 0.1, (repr(text)[:80], spent)


K = 32 * 1024
DEFAULTS = {
    "lists": filled("- a\n", K), "keys": "".join(f"k{number}: 1\n" for number in range(900)), "brackets": filled("[", K), "dashes": filled("- ", K),
    "questions": filled("? ", K), "aliases": "a: &a [1]\n" + filled("b: *a\n", K - 11), "tags": filled("!a ", K), "quotes": filled('"', K),
    "words": "evaluation: {tasks: [" + ",".join(f"a{number}" for number in range(1900)) + "]}", "URI": "dataset:\n  uri: " + filled("a-.", K - 20),
    "number": "training: {epochs: " + "9" * (K - 30) + "}", "quantity": "storage: {size: '" + "1" * (K - 30) + "'}", "comments": filled("# a\n", K),
    "many bytes": filled("[", 1 << 20), "objects": "training: {env: [" + ",".join(["{name: A, value: b}"] * 350) + "]}", "anchors": filled("&a ", K),
}  # fmt: skip


@pytest.mark.parametrize("text", DEFAULTS.values(), ids=DEFAULTS)
def test_defaults_of_a_namespace_take_a_bounded_time(text: str) -> None:
    """They are read in a thread, once for each change of the ConfigMap."""
    defaults_of({"data": {DEFAULTS_KEY: "dataset: {seed: 1}"}}, "cluster")
    began = time.thread_time()
    defaults_of({"data": {DEFAULTS_KEY: text}}, "cluster")
    assert time.thread_time() - began < 0.5

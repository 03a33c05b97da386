"""Tests of the documentation: objects, links, files, reasons, fields, keys, versions and command lines exist."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token
from pydantic import BaseModel

from finetune_contract.codec import camel
from finetune_contract.row_formats import OPTIONAL, REQUIRED, RowFields, RowFormat
from finetune_operator.api.crd import crd
from finetune_operator.api.finetunerun import KIND
from finetune_operator.api.reasons import REASONS, STATE_REASONS
from finetune_operator.api.status import CONDITIONS
from finetune_operator.cli.app import app
from finetune_operator.cli.documents import Document, read_documents
from finetune_operator.cli.validate import validate_document
from finetune_operator.core.resolve import resolve
from finetune_operator.core.settings import Trainer
from finetune_operator.kube.command import app as operator_app
from finetune_operator.kube.configuration import IMAGE_VARIABLES, Configuration
from finetune_operator.kube.serving import Metrics
from finetune_operator.validation import DEFAULTS, DEFAULTS_KEY, Validator
from finetune_stages.dataset.formats.columns import FORMATS, Columns
from finetune_stages.dataset.formats.recognition import recognized

ROOT = Path(__file__).parents[2]
PAGES = (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")))
GUIDE, CONFIGURATION, COMPATIBILITY = (ROOT / f"docs/{name}.md" for name in ("user-guide", "configuration", "compatibility"))
FOR_USERS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
SCHEMA = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
SECTIONS = frozenset(SCHEMA["properties"]["spec"]["properties"])
FILES = (".md", ".py", ".yaml", ".json", ".log", ".lock")
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
each_page_for_users = pytest.mark.parametrize("page", FOR_USERS, ids=lambda page: page.name)


@cache
def tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


def inline(page: Path, type_: str) -> Iterator[Token]:
    """The tokens of one type within paragraphs and tables: ``code_inline``, ``link_open``."""
    for token in tokens(page):
        yield from (child for child in token.children or () if child.type == type_)


def blocks(page: Path, *languages: str) -> Iterator[str]:
    """The fenced blocks of these languages; those without one have the language ``""``."""
    return (token.content for token in tokens(page) if token.type == "fence" and token.info.strip() in languages)


def codes(page: Path) -> list[str]:
    return [token.content for token in inline(page, "code_inline")]


@dataclass(frozen=True)
class Table:
    """The table below a heading; cells without the marks of code."""

    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def column(self, name: str) -> list[str]:
        return [row[self.columns.index(name)] for row in self.rows]


def tables(page: Path) -> Iterator[Table]:
    heading, rows = "", []
    found = tokens(page)
    for before, token in pairwise(found):
        if token.type == "inline" and before.type == "heading_open":
            heading = token.content
        elif token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and before.type in ("th_open", "td_open"):
            rows[-1].append(token.content.replace("`", ""))
        elif token.type == "table_close":
            yield Table(heading, tuple(rows[0]), tuple(map(tuple, rows[1:])))
            rows = []


def table(page: Path, first_column: str) -> Table:
    (found,) = (one for one in tables(page) if one.columns[0] == first_column)
    return found


def documents(page: Path, folder: Path) -> Iterator[Document]:
    for number, block in enumerate(blocks(page, "yaml")):
        file = folder / f"{page.stem}-{number}.yaml"
        file.write_text(block, encoding="utf-8")
        yield from read_documents(file)


@pytest.fixture(scope="module")
def validator() -> Validator:
    return Validator(crd())


@each_page_for_users
def test_every_run_is_valid_and_every_block_is_yaml(page: Path, tmp_path: Path, validator: Validator) -> None:
    for document in documents(page, tmp_path):
        if document.kind == KIND and {"apiVersion", "spec"} & set(document.content):  # else it shows some of the metadata
            assert validate_document(validator, document, tmp_path) == []


def test_examples_of_data_resolve_and_cover_every_location_and_format(tmp_path: Path) -> None:
    page = ROOT / "docs/examples-data.md"
    specs = [document.content["spec"] for document in documents(page, tmp_path) if document.kind == KIND]
    for spec in specs:
        uris = [spec["dataset"]["uri"], (spec.get("model") or {}).get("uri", "")]
        settings = Configuration().settings(Trainer(), {})
        resolved = resolve(spec, replace(settings, mode="local") if any(uri.startswith("./") for uri in uris) else settings)
        assert isinstance(resolved, dict), f"{uris}: {resolved}"
    schemes = {
        uri.partition("://")[0]
        for spec in specs
        for uri in (spec["dataset"]["uri"], (spec.get("model") or {}).get("uri", ""))
        if "://" in uri
    }
    assert schemes == {"s3", "https", "pvc", "oci"}
    formats = table(page, "Format")
    assert sorted(formats.column("Format")) == sorted(get_args(RowFormat))
    for form, row, fields in formats.rows:
        assert set(yaml.safe_load(fields)) <= {camel(name) for name in (*REQUIRED[form], *OPTIONAL[form])}
        assert recognized(json.loads(row), Columns(RowFields()), FORMATS) == form


def test_runs_in_the_guide_resolve_on_a_cluster(tmp_path: Path) -> None:
    settings = Configuration().settings(Trainer(), {})
    found = [document for document in documents(GUIDE, tmp_path) if document.kind == KIND]
    assert len(found) >= 3
    for document in found:
        resolved = resolve(document.content["spec"], settings)
        assert isinstance(resolved, dict), f"{document.name}: {resolved}"


def test_defaults_of_a_namespace_are_used(tmp_path: Path) -> None:
    (found,) = (document for document in documents(GUIDE, tmp_path) if document.kind == "ConfigMap")
    assert found.name == DEFAULTS
    assert set(found.content["data"]) == {DEFAULTS_KEY}
    values = yaml.safe_load(found.content["data"][DEFAULTS_KEY])
    resolved = resolve({"dataset": {"uri": "org/chat"}}, Configuration().settings(Trainer(), values))
    assert isinstance(resolved, dict), resolved
    assert "storage.storageClassName" in resolved["origins"]["namespace"]


def test_the_configuration_in_the_docs_is_used(tmp_path: Path) -> None:
    (block,) = blocks(CONFIGURATION, "yaml")
    file = tmp_path / "configuration.yaml"
    file.write_text(block, encoding="utf-8")
    configuration = Configuration.load(file, {})
    resolved = resolve({"dataset": {"uri": "org/chat"}}, configuration.settings(Trainer(), {}))
    assert isinstance(resolved, dict), resolved


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@each_page
def test_links_have_targets(page: Path) -> None:
    for token in inline(page, "link_open"):
        address = str(token.attrs["href"])
        if "://" in address:
            continue
        name, _, anchor = address.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), address
        assert target.is_relative_to(ROOT), address
        if anchor:
            found = tokens(target)
            headings = [after.content for token, after in pairwise(found) if token.type == "heading_open"]
            assert anchor in map(slug, headings), address


ROOTS = (
    "operator", "operator/finetune_operator", "images", "images/finetune_stages", "hack", "tests", "docs", "docs/decisions", "manifests", ".",
)  # fmt: skip
"""Directories that paths in the documentation are relative to."""
TOP = frozenset({"operator", "crds", "manifests", "images", "tests", "hack", "docs", "requirements"})
SOURCE_FILE = re.compile(r"[\w./*-]+\.(py|lua|lock|toml|mod)|([\w./*-]+/)?(Containerfile|Dockerfile|Makefile)")


def missing_files(page: Path) -> list[str]:
    """Return the paths of source files and directories of this repository that a page names and that do not exist."""
    named = [re.sub(r"<[^<>]*>", "*", code).rstrip("/") for code in codes(page)]
    paths = [
        path
        for path in named
        if SOURCE_FILE.fullmatch(path) or (path.split("/")[0] in TOP and "/" in path and re.fullmatch(r"[\w./*-]+", path))
    ]
    return [
        path
        for path in paths
        if not any(next((ROOT / root).glob(path), None) for root in ROOTS) and path not in ALL_FILES | ABSENT
    ]


SECURITY = ROOT / "docs/security.md"
TEST = re.compile(r"tests/[\w/.*-]+(::\w+)?")


def missing_tests(page: Path) -> list[str]:
    """Return the tests that a page names and that do not exist: a file or a pattern of files, maybe with ``::`` and a function."""
    named = [code for code in codes(page) if TEST.fullmatch(code)]
    return [name for name in named if not _is_test(*name.split("::"))]


def _is_test(path: str, function: str = "") -> bool:
    files = list(ROOT.glob(path))
    return bool(files) and all(
        re.search(rf"^(async )?def {function}\(", file.read_text(), re.MULTILINE) for file in files if function
    )


@each_page
def test_tests_exist(page: Path) -> None:
    assert missing_tests(page) == []


def test_a_test_that_does_not_exist_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    own = "tests/unit/test_docs.py"
    page.write_text(f"`{own}`, `{own}::test_tests_exist`, `{own}::test_none`, `tests/none.py`, `tests/none-*.py::test_none`\n")
    assert missing_tests(page) == [f"{own}::test_none", "tests/none.py", "tests/none-*.py::test_none"]


def test_every_threat_with_a_protection_names_its_tests() -> None:
    found = [one for one in tables(SECURITY) if "Tests" in one.columns]
    assert {"The laptop", "Secrets", "Tokens and hosts", "Switches of the platform", "Supply chain"} <= {
        one.heading for one in found
    }
    assert [row for one in found for row, tests in zip(one.rows, one.column("Tests"), strict=True) if "tests/" not in tests] == []


ALL_FILES = frozenset(file.name for top in TOP for file in (ROOT / top).rglob("*.*"))
"""Names of all files, for pages that name a file without its directory."""
ABSENT = frozenset({"operator/__init__.py", "uv.lock"})
"""Files that a page names because they do not exist."""


@each_page
def test_files_exist(page: Path) -> None:
    assert missing_files(page) == []


def missing_names(page: Path) -> list[str]:
    """Return the dotted names of this repository's packages that a page names and that are not defined."""
    named = [code for code in codes(page) if re.fullmatch(r"finetune_(operator|contract|stages)(\.\w+)+", code)]
    return [name for name in named if not is_defined(name)]


def is_defined(name: str) -> bool:
    base = ROOT / ("images" if name.startswith("finetune_stages") else "operator")
    *modules, last = name.split(".")
    folder = base.joinpath(*modules)
    if (folder / last).is_dir() or (folder / f"{last}.py").is_file():
        return True
    module = folder.with_suffix(".py")
    return module.is_file() and re.search(rf"^(def|class) {last}\b|^{last}\b.*=", module.read_text(), re.MULTILINE) is not None


@each_page
def test_modules_and_functions_exist(page: Path) -> None:
    assert missing_names(page) == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs/decisions").glob("*.md")), ids=lambda page: page.name)
def test_a_decision_has_a_title_status_and_date(page: Path) -> None:
    title, blank, status, date, *_ = page.read_text(encoding="utf-8").splitlines()
    assert title.startswith("# ")
    assert blank == ""
    assert re.fullmatch(r"- Status: (Accepted|Superseded by \[\d\d\]\(.*\))", status)
    assert re.fullmatch(r"- Date: 20\d\d-\d\d-\d\d", date)


def test_design_lists_every_decision_by_its_title_and_a_short_glossary() -> None:
    text = (ROOT / "docs/design.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\d+\. \[(.*)\]\(decisions/(.*)\)$", text, flags=re.MULTILINE))
    pages = sorted((ROOT / "docs/decisions").glob("*.md"))
    assert list(listed.values()) == [page.name for page in pages]
    assert list(listed) == [page.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ") for page in pages]
    terms = table(ROOT / "docs/design.md", "Term").column("Term")
    assert len(set(terms)) == len(terms) <= 25
    assert "docs/design.md#glossary" in (ROOT / "AGENTS.md").read_text(encoding="utf-8")


def test_every_page_is_linked() -> None:
    linked = {
        (page.parent / str(token.attrs["href"]).partition("#")[0]).resolve()
        for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
        for token in inline(page, "link_open")
    }
    assert {page for page in PAGES if page.name != "README.md"} - linked == set()


def test_the_guide_has_every_reason_and_no_other() -> None:
    listed = [reason for one in tables(GUIDE) if "Reason" in one.columns for reason in one.column("Reason")]
    assert sorted(set(listed)) == sorted(listed), "each once"
    assert set(listed) - {"GateRejected"} == set(REASONS)
    for one in tables(GUIDE):
        if "Reason" in one.columns:
            assert all(one.column("Cause")), one.heading
            assert all(one.column("Fix")), one.heading


WORD = re.compile(r"^[A-Z][a-z]+(?:[A-Z][A-Za-z]*|$)")
OTHER_WORDS = (
    "CreateContainerConfigError", "ReadWriteMany", "ReadWriteOnceWithFSType", "RunStarted", "StageStarted", "StageSucceeded", "StageWarning",
    "RunSucceeded", "JobSetOperator", "Managed", "File", "None", "Infinity",
)  # fmt: skip
"""Words of Kubernetes, of its drivers, and of Events."""


def enumerated(node: Any) -> Iterator[str]:
    """Every value that an enumeration of the schema has."""
    if isinstance(node, dict):
        yield from (value for value in node.get("enum", ()) if isinstance(value, str))
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from enumerated(child)


@pytest.mark.parametrize("page", [GUIDE, CONFIGURATION, COMPATIBILITY, ROOT / "docs/cli.md"], ids=lambda page: page.name)
def test_reasons_and_values_exist(page: Path) -> None:
    known = {*REASONS, *STATE_REASONS, *enumerated(SCHEMA), *OTHER_WORDS}
    assert [code for code in codes(page) if WORD.match(code) and " " not in code and code not in known] == []
    for text in blocks(page, ""):
        assert set(re.findall(r"--for=condition=(\w+)", text)) <= set(CONDITIONS)


def exists(path: str, node: Mapping[str, Any] = SCHEMA) -> bool:
    for part in path.split("."):
        node = node.get("items", node) if "properties" not in node else node
        if node.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in node:
            return True
        if part not in node.get("properties", {}):
            return False
        node = node["properties"][part]
    return True


@each_page_for_users
def test_fields_exist(page: Path) -> None:
    named = [re.split(r"[:=]", code)[0] for code in codes(page)]
    paths = {path for path in named if re.fullmatch(r"[a-z][A-Za-z]*(\.[A-Za-z]+)+", path) and not path.endswith(FILES)}
    for text in (*blocks(page, ""), *codes(page)):
        paths |= {path.rstrip(".") for path in re.findall(r"\.(status\.[A-Za-z.]+)", text)}
    full = {path if path.startswith(("spec.", "status.")) else f"spec.{path}": path for path in paths}
    ours = {path: short for path, short in full.items() if path.startswith("status.") or path.split(".")[1] in SECTIONS}
    assert [short for path, short in ours.items() if not exists(path)] == []


def test_configuration_keys_are_complete() -> None:
    found = table(CONFIGURATION, "Key")
    fields = {field.alias: field for field in Configuration.model_fields.values()}
    assert found.column("Key") == list(fields)
    for key, default in zip(found.column("Key"), found.column("Default"), strict=True):
        actual = fields[key].get_default(call_default_factory=True)
        plain = actual.model_dump(mode="json", by_alias=True) if isinstance(actual, BaseModel) else actual
        assert yaml.safe_load(default) == (list(plain) if isinstance(plain, tuple) else plain), key
    programs = {row[0]: row[1].partition(":")[0] for row in table(CONFIGURATION, "Variable").rows}
    assert programs == {variable: program for program, variable in IMAGE_VARIABLES.items()}


def test_options_of_the_operator_are_complete() -> None:
    command = typer.main.get_command(operator_app)
    options = [", ".join((*option.opts, *option.secondary_opts)) for option in command.params]
    assert table(CONFIGURATION, "Option").column("Option") == [name for name in options if name != "--help"]


def test_metrics_exist() -> None:
    served = {name for line in Metrics().text().decode().splitlines() for name in re.findall(r"^# TYPE (\w+)", line)}
    listed = {code for code in codes(GUIDE) if re.fullmatch(r"finetune_\w+", code)}
    assert listed == {name for name in served if not name.endswith("_created")}


def test_tested_versions_are_those_of_modules_and_lock() -> None:
    modules = "".join(file.read_text() for file in sorted((ROOT / "hack").glob("*/modules/*/go.mod")))
    locks = (ROOT / "requirements/all.lock", *sorted((ROOT / "hack/compat").glob("*.lock")))
    lock = "".join(path.read_text() for path in locks)
    pinned = {*re.findall(r" v(\d+\.\d+\.\d+)", modules), *re.findall(r"^[\w-]+==([\d.]+)", lock, flags=re.MULTILINE)}
    rows = [row for row in table(COMPATIBILITY, "Component").rows if row[2] == "tested"]
    assert len(rows) >= 8
    for row in rows:
        assert set(re.findall(r"\d+\.\d+\.\d+", row[3])) <= pinned, row
    assert {row[2] for row in table(COMPATIBILITY, "Component").rows} <= {"tested", "expected", "not supported"}


def words(line: str) -> Iterator[list[str]]:
    """The commands of a line of shell, each as its words."""
    lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    command: list[str] = []
    for word in lexer:
        if set(word) <= set("|&;()<>"):
            yield command
            command = []
        else:
            command.append(word)
    yield command


def command_lines(page: Path) -> Iterator[list[str]]:
    for block in blocks(page, "", "sh", "shell", "bash", "console"):
        for line in block.replace("\\\n", " ").splitlines():
            if "finetune " in line:
                for command in words(line):
                    at = next((index for index, word in enumerate(command) if "=" not in word), len(command))
                    if at < len(command) and Path(command[at]).name == "finetune":
                        yield command[at + 1 :]


@each_page_for_users
def test_command_lines_are_valid(page: Path) -> None:
    main: Any = typer.main.get_command(app)
    for arguments in command_lines(page):
        name, command, rest = main.resolve_command(
            main.make_context("finetune", list(arguments), resilient_parsing=True), arguments
        )
        assert command is not None, f"no such command: {arguments}"
        command.make_context(name, rest)
    for code in codes(page):
        if re.match(r"finetune [a-z]", code):
            assert code.split()[1] in main.commands, code
            for option in re.findall(r"(?<= )--?[a-z][a-z-]*", code):
                assert any(option in parameter.opts for parameter in main.commands[code.split()[1]].params), code


def test_command_lines_are_found() -> None:
    found = [line for page in FOR_USERS for line in command_lines(page)]
    assert ["validate", "table-gpt.yaml"] in found
    assert len(found) >= 12


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (test_links_have_targets, "[x](nothing.md)"),
        (test_links_have_targets, "[x](#nothing)"),
        (test_files_exist, "`core/plans.py`"),
        (test_files_exist, "`hack/benches`"),
        (test_modules_and_functions_exist, "`finetune_stages.sdk.workspace.seal_folder`"),
        (test_modules_and_functions_exist, "`finetune_operator.corer`"),
        (test_fields_exist, "`training.epoch`"),
        (test_fields_exist, "`status.models.uri`"),
        (test_reasons_and_values_exist, "`NoSuchReason`"),
    ],
)
def test_a_mistake_is_found(check: Callable[[Path], None], text: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(AssertionError):
        check(page)


@pytest.mark.parametrize("line", ["finetune get --nothing", "finetune nothing", "finetune rerun a"])
def test_a_wrong_command_line_is_found(line: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"```\n{line}\n```\n", encoding="utf-8")
    with pytest.raises(Exception, match=r"(?i)no such|missing"):
        test_command_lines_are_valid(page)

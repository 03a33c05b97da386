"""``finetune validate``: validates files by the schema and rules of the CRD, with line numbers and remedies."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune_contract.redaction import redact
from finetune_operator.api import reasons
from finetune_operator.api.crd import crd
from finetune_operator.api.finetunerun import GROUP, KIND
from finetune_operator.api.kinds import CONFIGMAP
from finetune_operator.api.quantity import QUANTITY_FORMS
from finetune_operator.api.section import form_of
from finetune_operator.core.resolve import SpecRejection, resolve
from finetune_operator.core.settings import Settings
from finetune_operator.core.values import invalid_value
from finetune_operator.validation import DEFAULTS, DEFAULTS_KEY, CauseType, CelMissing, Problem, Validator, defaults_of
from finetune_operator.validation.config_map import check_config_map
from finetune_operator.validation.metadata import check_metadata

from . import exit_status
from .config_maps import reject_reserved
from .documents import Document, DocumentProblem, read_documents
from .echo import echo
from .errors import CommandError
from .file_names import bare_file_names

_ON_A_CLUSTER, _ON_THIS_MACHINE = Settings("cluster", "", {}, ""), Settings("local", "", {}, "")
"""Settings without defaults of a namespace and without limits of a machine: the presets alone decide."""
_PATTERN = re.compile(r" in body should match '(.*)'$")
_TYPE_AS_VALUE = re.compile(r'Invalid value: "(?:object|array|string|number|integer|boolean)?": ')
"""What the API server shows of an invalid value where a rule of the CRD rejects it."""
_PATH_PARTS = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_TYPE = re.compile(r'must be of type (integer|number|boolean|string|array|object): "(\w+)"$')
_WORDS = {
    "integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "a string", "array": "a list",
    "object": "an object",
}  # fmt: skip
"""The types of JSON for messages."""
_URIS = tuple(f"spec.{field}: " for field in ("dataset.uri", "dataset.evalUri", "model.uri"))
"""Fields with a location. A claim beside a path of this machine cannot be read anywhere."""
_FIELDS_SHOWN = 24
"""Largest number of fields of a section that a message lists."""
_OF_NAME = ("metadata", "metadata.name", "metadata.generateName")
_QUANTITY_TYPE = 'must be of type integer,string: "number"'


def validate_files(files: list[Path]) -> int:
    """Validate every FineTuneRun of the files; print a line for each problem."""
    try:
        return _validate(files)
    except CelMissing as problem:
        echo(problem, err=True)
        return exit_status.UNAVAILABLE


def _validate(files: list[Path]) -> int:
    validator = Validator(crd())
    code = exit_status.OK
    for file in files:
        try:
            documents = read_documents(file)
        except DocumentProblem as problem:
            echo(problem, err=True)
            missing = str(file) != "-" and not file.exists()
            code = max(code, exit_status.NO_INPUT if missing else exit_status.INVALID)
            continue
        for document in documents:
            code = max(code, _validate_one(validator, document, file))
    return code


def _validate_one(validator: Validator, document: Document, file: Path) -> int:
    if document.kind != KIND and str(document.content.get("apiVersion")).startswith(f"{GROUP}/"):
        echo(f"{_position(document, 'kind')}: kind: unknown value {document.kind}; write {KIND}", err=True)
        return exit_status.INVALID
    if document.kind == CONFIGMAP.name and document.name == DEFAULTS:
        return _validate_defaults(document)
    if document.kind == CONFIGMAP.name:
        return _report(document, _config_map_problems(document))
    if document.kind != KIND:
        echo(f"{document.source}: {document.kind or 'an object without kind'} {document.name} is not of kind {KIND}; skipped")
        return exit_status.OK
    return _report(document, validate_document(validator, document, base_of(file)))


def _config_map_problems(document: Document) -> list[str]:
    """Return a line for each reason why ``finetune run`` rejects a ConfigMap in the file of a run."""
    try:
        reject_reserved(document.name, document.source)
    except CommandError as rejection:
        return rejection.lines
    problems = [*check_metadata(document.content.get("metadata") or {}), *check_config_map(document.content)]
    return [f"{_position(document, problem.field)}: {_sentence(problem)}" for problem in problems]


def _report(document: Document, problems: list[str]) -> int:
    for line in problems:
        echo(line, err=True)
    if problems:
        return exit_status.INVALID
    echo(f"{document.source}: {document.name} is valid")
    return exit_status.OK


def _validate_defaults(document: Document) -> int:
    rejection = defaults_of(document.content, "local").rejection  # local paths are valid, as in runs
    if rejection:
        echo(f"{_position(document, f'data.{DEFAULTS_KEY}')}: {rejection.message.removesuffix('.')}", err=True)
        return exit_status.INVALID
    echo(f"{document.source}: {document.name} is valid")
    return exit_status.OK


def base_of(file: Path) -> Path:
    """Return the directory that relative paths in a file count from."""
    return Path.cwd() if str(file) == "-" else file.absolute().parent


def validate_document(validator: Validator, document: Document, base: Path, *, local: bool = True) -> list[str]:
    """Return a line for each problem: ``file:line: field: what is wrong; what to do``.

    The rules of the CRD come first. What they cannot see follows: files that exist, and the values of free maps.
    """
    files = bare_file_names(document, base, local=local)
    problems = [problem for problem in validator.create(document.content) if problem.field not in files]
    problems = _one_of_the_name(problems, document.content)
    found = [(problem.field, _with_value(_sentence(problem), document.content, problem.field)) for problem in problems]
    found += [(field, f"{field}: is null; use a string, or remove it") for field in _null_metadata(document.content)]
    found += [(field, f"{field}: {sentence}") for field, sentence in files.items()]
    spec = document.content.get("spec")
    invalid = invalid_value(spec) if isinstance(spec, dict) and not found else None
    if invalid:
        field = f"spec.{invalid.path}"
        found.append((field, f"{field}: {invalid.problem}"))
    if isinstance(spec, dict) and local and not found:
        found += _with_presets(validator.prune(document.content)[0]["spec"])  # an API server drops nulls
    return [f"{_position(document, field)}: {sentence}" for field, sentence in found]


def _one_of_the_name(problems: list[Problem], content: dict[str, Any]) -> list[Problem]:
    """Return the problems with at most one of the name: the rule of the CRD is stricter than that of all objects."""
    metadata = content.get("metadata")
    stated = metadata if isinstance(metadata, dict) else {}
    field = "metadata.name" if stated.get("name") else "metadata.generateName"
    of_name = [one for one in problems if one.field in _OF_NAME and one.kind is CauseType.INVALID]
    if not of_name:
        return problems
    rule = next((one for one in of_name if one.field == "metadata"), of_name[0])
    detail = rule.detail.removeprefix("metadata.name ")
    one = Problem(field, CauseType.INVALID, detail, stated.get(field.rpartition(".")[2]))
    return [one, *(problem for problem in problems if problem not in of_name)]


def _null_metadata(content: dict[str, Any]) -> Iterator[str]:
    """Yield the labels and annotations without a value. An API server takes them as empty."""
    metadata = content.get("metadata")
    for section in ("labels", "annotations"):
        entries = metadata.get(section) if isinstance(metadata, dict) else None
        if isinstance(entries, dict):
            yield from (f"metadata.{section}.{key}" for key, value in entries.items() if value is None)


def _is_everywhere(rejection: SpecRejection) -> bool:
    """Return whether a rejection holds for laptops and clusters alike, as what an engine cannot train."""
    if rejection.reason is reasons.NOT_POSSIBLE_HERE:
        return rejection.message.startswith(("spec.training.", *_URIS))
    return rejection.reason in (reasons.INVALID_SPEC, reasons.UNSUPPORTED)


def _with_presets(spec: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what contradicts the presets, or what this release does not support. A cluster uses the defaults of the namespace."""
    rejection = resolve(spec, _ON_A_CLUSTER)
    if isinstance(rejection, SpecRejection) and rejection.reason is reasons.LOCAL_PATH_IN_CLUSTER:
        rejection = resolve(spec, _ON_THIS_MACHINE)
    if not isinstance(rejection, SpecRejection) or not _is_everywhere(rejection):
        return []
    unless = " (or run it on a cluster whose defaults allow it)" if rejection.reason is reasons.INVALID_SPEC else ""
    return [(rejection.message.partition(":")[0], rejection.message.removesuffix(".") + unless)]


def unknown_fields(spec: dict[str, Any]) -> list[str]:
    """Return a message for each unknown field of ``spec``. An API server drops these from a patch."""
    return [_sentence(problem) for problem in Validator(crd()).prune({"spec": spec})[1]]


def _position(document: Document, field: str) -> str:
    line = document.line_of(field)
    return f"{document.source}:{line}" if line else document.source


def _sentence(problem: Problem) -> str:
    if problem.kind is not CauseType.UNKNOWN_FIELD:
        return _with_form(problem) if problem.field else problem.detail
    parent, _, name = problem.field.rpartition(".")
    known = _fields_of(parent)
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"{problem.field}: unknown field; did you mean {near[0]}?"
    choice = f", or use one of: {', '.join(known)}" if 0 < len(known) <= _FIELDS_SHOWN else ""
    return f"{problem.field}: unknown field; remove it{choice}"


def _with_value(sentence: str, content: dict[str, Any], field: str) -> str:
    """Return the API server's message with the value of the field in place of its type. Objects and lists are not shown."""
    found = _TYPE_AS_VALUE.search(sentence)
    if found is None:
        return sentence
    value: Any = content
    for key, index in _PATH_PARTS.findall(field):
        value = value[int(index)] if index else value.get(key) if isinstance(value, dict) else None
    shown = "" if isinstance(value, (dict, list)) or value is None else f"Invalid value: {redact(json.dumps(value))}: "
    return f"{sentence[: found.start()]}{shown}{sentence[found.end() :]}"


def _with_form(problem: Problem) -> str:
    """Return the API server's message, with a description of the format if the message shows only a pattern or type."""
    pattern = _PATTERN.search(problem.detail)
    if pattern:
        return f"{problem}; write {form_of(pattern[1])}"
    if problem.kind is CauseType.TYPE_INVALID and problem.detail.endswith(_QUANTITY_TYPE):
        return f"{problem}; write a quantity in quotes, {QUANTITY_FORMS}"
    wrong = _TYPE.search(problem.detail) if problem.kind is CauseType.TYPE_INVALID else None
    if wrong:
        return f"{problem}; {_type_fix(*wrong.groups())}"
    return str(problem)


def _type_fix(expected: str, found: str) -> str:
    if found == "string" and expected in ("integer", "number", "boolean"):
        return f"write {_WORDS[expected]} without quotes"
    if expected == "string" and found in ("integer", "number", "boolean"):
        return "write it in quotes"
    return f"write {_WORDS[expected]}"


def _fields_of(path: str) -> list[str]:
    node = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for part in path.split("."):
        name, *indices = part.split("[")
        node = node.get("properties", {}).get(name, {})
        for _ in indices:
            node = node.get("items", {})
    return list(node.get("properties", {}))

"""``finetune validate``: the CRD's own judgement on files, with lines and the mend."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path

from finetune_operator.api.crd import crd
from finetune_operator.api.finetunerun import KIND
from finetune_operator.local.judge import CauseType, CelMissing, Judge, Problem

from . import exitcodes
from .documents import Document, DocumentProblem, read_documents


def validate_files(files: list[Path]) -> int:
    """Judge every FineTuneRun of the files; print a line for each problem."""
    try:
        return _validate(files)
    except CelMissing as problem:
        print(problem, file=sys.stderr)
        return exitcodes.UNAVAILABLE


def _validate(files: list[Path]) -> int:
    judge = Judge(crd())
    code = exitcodes.OK
    for file in files:
        try:
            documents = read_documents(file)
        except DocumentProblem as problem:
            print(problem, file=sys.stderr)
            missing = str(file) != "-" and not file.exists()
            code = max(code, exitcodes.NO_INPUT if missing else exitcodes.INVALID)
            continue
        for document in documents:
            code = max(code, _judge(judge, document))
    return code


def _judge(judge: Judge, document: Document) -> int:
    if document.kind != KIND:
        print(f"{document.source}: {document.kind or 'an object without kind'} {document.name} is no {KIND}: not judged")
        return exitcodes.OK
    problems = judge_document(judge, document)
    for line in problems:
        print(line, file=sys.stderr)
    if problems:
        return exitcodes.INVALID
    print(f"{document.source}: {document.name} is valid")
    return exitcodes.OK


def judge_document(judge: Judge, document: Document) -> list[str]:
    """One line for each problem: ``file:line: field: what is wrong and how to mend it``."""
    return [f"{_place(document, problem)}: {_sentence(problem)}" for problem in judge.create(document.content)]


def _place(document: Document, problem: Problem) -> str:
    line = document.line_of(problem.field)
    return f"{document.source}:{line}" if line else document.source


def _sentence(problem: Problem) -> str:
    if problem.kind is not CauseType.UNKNOWN_FIELD:
        return str(problem) if problem.field else problem.detail
    parent, _, name = problem.field.rpartition(".")
    near = difflib.get_close_matches(name, _fields_of(parent), n=1)
    return f"{problem.field}: unknown field" + (f"; did you mean {near[0]}?" if near else "; remove it")


def _fields_of(path: str) -> list[str]:
    node = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for part in path.split("."):
        name, *indices = part.split("[")
        node = node.get("properties", {}).get(name, {})
        for _ in indices:
            node = node.get("items", {})
    return list(node.get("properties", {}))

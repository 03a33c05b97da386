"""Main routine of every stage program: read the document, reuse a finished result or do the work, report, exit.

A program can be killed at any point and started again: unfinished work is in the attempt's own folder until it is published, and a
restarted program finds the full result in the workspace by the digest of its inputs and ends at once.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from finetune_contract import exitcodes, reasons
from finetune_contract.codec import DocumentError, encode
from finetune_contract.documents import (
    AGAIN_VARIABLE,
    ATTEMPT_VARIABLE,
    CONFIG_VARIABLE,
    DOCUMENT_DIGEST_VARIABLE,
    FIRST_VARIABLE,
    INPUTS_DIGEST_VARIABLE,
    KEEP_METRICS_VARIABLE,
    READS_VARIABLE,
    RESULT_VARIABLE,
    WORKSPACE_VARIABLE,
    StageDocument,
    parse_reads,
)
from finetune_contract.progress import Progress
from finetune_contract.result import RESULT_WARNINGS_LIMIT, WARNING_LENGTH, Result, parse_result, termination_message
from finetune_contract.workspace import CACHE_RESULTS, TRAINING, Attempt

from .address_guard import install_guard
from .context import NO_DIGEST, Context, Finished
from .fault import Interrupted, StageError, classify
from .logs import tee_output
from .redaction import Redactor
from .reuse import Reuse, reuse_result, store_result
from .safe_files import RESULT_FILE_LIMIT, linked_folder, read_bounded, without_links
from .workspace import file_sha256, write_file

Work = Callable[[Context], Finished]
Check = Callable[[Context, Result], bool]


def run_stage(
    stages: tuple[str, ...],
    work: Work,
    outputs_exist: Check,
    rank: int = 0,
    *,
    supervised: bool = False,
    reuse: Reuse | None = None,
    on_report: Callable[[Progress], None] | None = None,
    warnings: Sequence[str] = (),
    after: Callable[[Context], Sequence[str]] | None = None,
) -> int:
    """Run a stage program to its end and return its exit code.

    Args:
        stages: names of the stages that this program implements.
        work: does the work; raises :class:`StageError` for every expected failure.
        outputs_exist: returns whether the outputs of an earlier result are still in the workspace.
        rank: rank of this process; only rank 0 writes the result.
        supervised: another process of this program started this one and reports for both: this one reports its failure, to
            the path in ``FINETUNE_RESULT``, and nothing else. The other process also copies its standard error to the log.
        reuse: how other runs of the volume reuse the stage's results; without it they do not.
        on_report: is called with each progress report that is printed, and with the last one, of 100 percent, after the result is written.
        warnings: sentences for the user about this pod, in addition to those about the work.
        after: tidies the workspace after the work and returns sentences for the user about that, which belong to this run only.
    """
    is_reporter = rank == 0 and not supervised
    os.umask(0o002)
    signal.signal(signal.SIGTERM, _interrupt)
    install_guard()
    redact = Redactor()
    started = time.monotonic()
    context: Context | None = None
    try:
        context = _open(stages, os.environ, rank)
        context.on_report = on_report
        log = context.path(context.layout.log(context.document.stage, context.attempt, rank))
        tee_output(log, redact, errors=not supervised)
        about_pod = _warnings(context.document.stage, warnings)
        earlier = _earlier_result(context)
        if earlier is not None and outputs_exist(context, earlier):
            print(f"{context.document.stage}: already finished for the same inputs; nothing to do")
            if is_reporter:
                _make_newest(context, earlier)
            result = replace(earlier, attempt=str(context.attempt))
        else:
            if is_reporter:
                context.become_current()
            result = _work_or_take_over(
                context, work, outputs_exist, reuse=None if supervised else reuse, started=started, is_reporter=is_reporter
            )
    except BaseException as error:  # noqa: BLE001 - every exception must become a result and an exit code
        return _fail(context, error, redact, is_reporter)
    if is_reporter:
        about_pod = (*about_pod, *_tidied(context, after))
        result = replace(result, warnings=(*result.warnings, *about_pod)[-RESULT_WARNINGS_LIMIT:])
        done = replace(context.last_progress or Progress(100), percent=100, time=int(time.time()))
        _deliver(result, done)
        if on_report:
            on_report(replace(done, eta_seconds=0))
    return exitcodes.DONE


def _work_or_take_over(
    context: Context, work: Work, outputs_exist: Check, *, reuse: Reuse | None, started: float, is_reporter: bool
) -> Result:
    reused = reuse_result(context, reuse, is_reporter) if reuse and AGAIN_VARIABLE not in os.environ else None
    finished = reused or work(context)
    result = _record(context, finished, time.monotonic() - started, is_reporter)
    if reuse and is_reporter and reused is None and outputs_exist(context, result):
        store_result(context, reuse, finished, result)
    return result


def _tidied(context: Context, after: Callable[[Context], Sequence[str]] | None) -> tuple[str, ...]:
    """Return the sentences of ``after``. The work is done: an error is only logged."""
    try:
        return _warnings(context.document.stage, after(context)) if after else ()
    except Exception as error:  # noqa: BLE001
        print(f"{context.document.stage}: the caches were not tidied: {error}")
        return ()


def _interrupt(_signal: int, _frame: Any) -> None:
    raise Interrupted


def _open(stages: tuple[str, ...], environment: Mapping[str, str], rank: int) -> Context:
    config, workspace = environment.get(CONFIG_VARIABLE), environment.get(WORKSPACE_VARIABLE)
    if not config or not workspace:
        raise StageError(
            reasons.BAD_DOCUMENT,
            f"{CONFIG_VARIABLE} or {WORKSPACE_VARIABLE}: is not set; set them to the stage's JSON document and to the workspace directory.",
        )
    try:
        content = Path(config).read_bytes()
        _require_digest(content, environment.get(DOCUMENT_DIGEST_VARIABLE))
        document = StageDocument.parse(json.loads(content))
        attempt = Attempt.parse(environment.get(ATTEMPT_VARIABLE, "1.1"))
        reads = parse_reads(environment.get(READS_VARIABLE))
    except (OSError, ValueError) as error:
        raise StageError(reasons.BAD_DOCUMENT, f"{config}: {error}") from error
    if document.stage not in stages:
        raise StageError(reasons.BAD_DOCUMENT, f"{config}: stage {document.stage!r} is not one of {', '.join(stages)}")
    context = Context(
        document, Path(workspace).absolute(), attempt, environment.get(INPUTS_DIGEST_VARIABLE, NO_DIGEST), rank,
        reads=reads, first=FIRST_VARIABLE in environment,
    )  # fmt: skip
    _require_own_folders(context)
    _require_writable(context)
    _make_folders(context)
    return context


def _require_digest(content: bytes, expected: str | None) -> None:
    """Reject a document that is not the one that the operator wrote, if the pod was given its digest."""
    found = hashlib.sha256(content).hexdigest()
    if expected and found != expected:
        raise StageError(
            reasons.INPUTS_REPLACED,
            f"{CONFIG_VARIABLE}: the document has SHA-256 {found}, and the pod was created for {expected}; delete the ConfigMap with the"
            " inputs of the run, and the operator creates it again.",
        )


def _make_folders(context: Context) -> None:
    """Make the folders that the pods of training mount: the kubelet's user may not create them, on NFS for example."""
    if context.document.stage != TRAINING:
        context.path(context.layout.folder(TRAINING)).mkdir(exist_ok=True)
        with suppress(OSError):  # without this folder, results are not reused
            context.path(f"{CACHE_RESULTS}/{TRAINING}").mkdir(parents=True, exist_ok=True)


def _require_own_folders(context: Context) -> None:
    """Reject links in place of the folders that this stage writes to and removes from: they lead to those of other runs."""
    stage, layout = context.document.stage, context.layout
    for path in (
        layout.attempt(stage, context.attempt),
        layout.results(stage),
        str(Path(layout.log(stage, context.attempt, 0)).parent),
    ):
        linked = linked_folder(context.workspace, path)
        if linked is not None:
            raise StageError(
                reasons.WORKSPACE_NOT_WRITABLE,
                f"workspace: {linked} is a symbolic link, and the run needs a directory there; remove the link, and find out which program"
                " made it.",
            )


def _require_writable(context: Context) -> None:
    root = context.path(context.layout.folder(context.document.stage))
    try:
        root.mkdir(parents=True, exist_ok=True)
        writable = os.access(root, os.W_OK | os.X_OK)
    except PermissionError:
        writable = False
    except (FileExistsError, NotADirectoryError) as error:
        raise StageError(
            reasons.WORKSPACE_NOT_WRITABLE,
            f"workspace: {error.filename} is a file, and the run needs a directory there; remove it.",
        ) from error
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        writable = False
    if not writable and os.statvfs(context.workspace).f_flag & os.ST_RDONLY:
        raise StageError(
            reasons.WORKSPACE_NOT_WRITABLE,
            "workspace: its volume is mounted read-only; use a volume that the stages can write to.",
        )
    if not writable:
        folder = next(parent for parent in (root, *root.parents) if parent.exists())
        about = folder.stat()
        raise StageError(
            reasons.WORKSPACE_NOT_WRITABLE,
            f"workspace: user {os.getuid()} (groups {sorted(os.getgroups())}) may not write to {folder}, which is owned by"
            f" {about.st_uid}:{about.st_gid} with mode {about.st_mode & 0o7777:o}; change its owner, group or mode.",
        )


def _earlier_result(context: Context) -> Result | None:
    if context.first:  # another program wrote what is there
        for path in context.path(context.layout.results(context.document.stage)).glob(
            f"{context.document.stage}.{context.attempt.round}.*.json"
        ):
            path.unlink()
        return None
    if context.inputs_digest == NO_DIGEST:  # results for different inputs cannot be distinguished
        return None
    path = context.path(context.layout.result(context.document.stage, context.attempt.round, context.inputs_digest))
    try:
        result = parse_result(json.loads(read_bounded(path, RESULT_FILE_LIMIT)))
    except (OSError, ValueError, RecursionError):
        return None
    if result.outcome != "Succeeded" or result.inputs_digest != context.inputs_digest:
        return None
    return replace(result, file=str(path.relative_to(context.workspace)), file_digest=file_sha256(path))


def _make_newest(context: Context, earlier: Result) -> None:
    """Write an earlier result as the stage's newest one: an attempt that was killed may not have got there."""
    content = read_bounded(context.path(earlier.file or ""), RESULT_FILE_LIMIT)
    write_file(context.path(context.layout.newest_result(context.document.stage)), content)


def _record(context: Context, finished: Finished, seconds: float, is_reporter: bool) -> Result:
    """Write the full result into the workspace and return it."""
    stage = context.document.stage
    outputs = encode(finished.outputs) if dataclasses.is_dataclass(finished.outputs) else finished.outputs
    result = Result(
        stage=stage, attempt=str(context.attempt), inputs_digest=context.inputs_digest, outcome="Succeeded",
        message=finished.message, metrics={**finished.metrics, "seconds": round(seconds, 3)}, outputs=outputs,
        history=finished.history, warnings=_warnings(stage, finished.warnings),
        reused=finished.reused,
    )  # fmt: skip
    if not is_reporter:
        return result
    context.require_current()  # else the file would not be the one that the current attempt reports
    relative = context.layout.result(stage, context.attempt.round, context.inputs_digest)
    path = context.path(relative)
    content = json.dumps(encode(result), indent=1, sort_keys=True, allow_nan=False).encode()
    write_file(path, content)
    write_file(context.path(context.layout.newest_result(stage)), content)
    _pipeline_log(context, f"{stage}: {finished.message or 'done'} ({seconds:.1f} s)")
    return replace(result, file=relative, file_digest=file_sha256(path))


def _warnings(stage: str, warnings: Sequence[str]) -> tuple[str, ...]:
    """Return the warnings within the limits of a result, with omissions marked; the log has all of them."""
    for warning in warnings:
        print(f"{stage}: warning: {warning}")
    if len(warnings) > RESULT_WARNINGS_LIMIT:
        kept = RESULT_WARNINGS_LIMIT - 1
        warnings = [*warnings[:kept], f"and {len(warnings) - kept:,} more warnings in the log of the stage"]
    return tuple(text if len(text) <= WARNING_LENGTH else text[: WARNING_LENGTH - 3] + "..." for text in warnings)


def _fail(context: Context | None, error: BaseException, redact: Redactor, is_reporter: bool) -> int:
    fault = classify(error)
    message = redact(fault.message)
    if fault.reason is reasons.CRASHED:
        traceback.print_exception(error)
    print(f"{fault.reason}: {message}", file=sys.stderr)
    if context is not None:
        if is_reporter:
            _pipeline_log(context, f"{context.document.stage}: {fault.reason}: {message}")
        result = Result(
            stage=context.document.stage, attempt=str(context.attempt), inputs_digest=context.inputs_digest, outcome="Failed",
            reason=fault.reason.name, message=message,
        )  # fmt: skip
        _deliver(result, context.last_progress)
    else:  # the document could not be read
        _deliver(Result("unknown", "0.0", "", "Failed", fault.reason.name, message), None)
    return fault.reason.exit_code


def _deliver(result: Result, progress: Progress | None) -> None:
    """Write the short result to the termination message. Every failing process writes one; of the finished ones, only rank 0 does."""
    target = os.environ.get(RESULT_VARIABLE)
    sys.stdout.flush()
    sys.stderr.flush()
    if target:
        keep = [name for name in os.environ.get(KEEP_METRICS_VARIABLE, "").split(",") if name]
        try:
            Path(target).write_text(termination_message(result, progress, keep=keep), encoding="utf-8")
        except (OSError, DocumentError) as error:
            print(f"the result could not be written to {target}: {error}", file=sys.stderr)


def _pipeline_log(context: Context, line: str) -> None:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    try:
        path = context.path(context.layout.pipeline_log(context.document.stage))
        with open(path, "a", encoding="utf-8", opener=without_links) as log:
            log.write(f"{stamp} {line}\n")
    except OSError:  # the log is informational
        pass

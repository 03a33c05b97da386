"""Run every training and the evaluation on one GPU, and write what works, how fast, and with how much memory.

    python hack/gpu/check.py [--tiny] [--seconds SECONDS] [--output report.json] [--only TEXT]

It needs no network and no cluster: models with random weights and rows from Python's documentation are made here, and the stage programs
run as in their pods. ``--tiny`` runs all cases with tiny shapes on the CPU. The report is rewritten after each case; a case that the time does
not reach is ``not run``. Exit code: 0 if no case failed.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "hack"))
sys.path += [str(ROOT / folder) for folder in ("operator", "images", "hack/example")]

import argparse  # noqa: E402
import signal  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from dataclasses import replace  # noqa: E402

from gpu.cases import all_cases  # noqa: E402
from gpu.programs import Programs  # noqa: E402
from gpu.report import Report  # noqa: E402

SECONDS = 450.0
"""Default limit for everything: below eight minutes."""
ON_A_CPU = 3
"""All limits are longer by this factor with ``--tiny``: the CPUs may be few and busy."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    for name, folder in (("--output", options.output.parent), ("--work", options.work)):
        if folder is not None and not folder.is_dir():
            parser.error(f"{name}: {folder} is not a directory; make it, or choose another one")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # programs are ended, and what was measured is kept
    with tempfile.TemporaryDirectory(prefix="finetune-gpu-", dir=options.work) as name:
        programs = Programs(Path(name), tiny=options.tiny)
        factor = ON_A_CPU if options.tiny else 1
        seconds = factor * SECONDS if options.seconds is None else options.seconds
        report = Report(options.output, programs.tiny, seconds)
        selected = 0
        try:
            for case in all_cases(programs, report):
                chosen = options.only in case.name
                selected += chosen
                if chosen or case.required:
                    report.run(replace(case, limit=factor * case.limit))
                else:
                    report.leave_out(case, "not selected by --only")
        except KeyboardInterrupt:
            report.stop("interrupted")
        finally:
            programs.end()
            report.finish()
    print("\n".join(report.table()))
    if not selected and not report.failed:
        print(f"--only: no case has {options.only!r} in its name")
    return 1 if report.failed or not selected else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="tiny shapes on the CPU, to try the script itself")
    parser.add_argument(
        "--seconds", type=_above_zero, help=f"limit for everything (default: {SECONDS:.0f}, with --tiny {ON_A_CPU * SECONDS:.0f})"
    )
    parser.add_argument("--output", type=Path, default=Path("gpu-check.json"), help="the report (default: %(default)s)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases with this text in their name, and what they need")
    parser.add_argument("--work", type=Path, help="where temporary files are made: 12 GB (default: as tempfile chooses)")
    return parser


def _above_zero(text: str) -> float:
    """Return a number of seconds, for argparse."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if seconds > 0:
        return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")


if __name__ == "__main__":
    raise SystemExit(main())

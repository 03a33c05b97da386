"""Start-up time of the command line, compared with bare Python.

Targets: ``finetune --help`` at most 0.4 s, ``finetune validate`` of one file at most 1 s.
"""

from __future__ import annotations

import sys
from pathlib import Path

from figures import command, machine, spread, timed

ROOT = Path(__file__).parents[2]
PROGRAM = str(Path(sys.executable).parent / "finetune")
REPEATS = 9


def main() -> None:
    """Print the figures."""
    print("command line")
    print(machine())
    sample = str(ROOT / "manifests/samples/osft.yaml")
    calls = {
        "python -c pass (baseline)": command(sys.executable, "-c", "pass"),
        "finetune --help": command(PROGRAM, "--help"),
        "finetune validate": command(PROGRAM, "validate", sample),
    }
    for name, call in calls.items():
        print(f"  {name}: {spread(timed(call, REPEATS), 's')}")


if __name__ == "__main__":
    main()

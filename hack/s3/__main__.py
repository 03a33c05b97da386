"""python hack/s3: build the S3 server and print its path."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # the folder of this file when it runs as a program

from s3.binary import VERSITYGW  # noqa: E402

if __name__ == "__main__":
    print(VERSITYGW.build(nice=19))

"""Starts programs one after another, on command.

Reads from the pipe in `argv[1]` how many; says for each round how long that
took, and what they wrote to stderr.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time


def main() -> None:
    """See the module."""
    print("pid", os.getpid(), flush=True)
    with open(sys.argv[1], encoding="ascii") as commands:
        for line in commands:
            began = time.monotonic()
            complaints = 0
            for _ in range(int(line)):
                done = subprocess.run(["/bin/true"], stderr=subprocess.PIPE, check=True)
                complaints += done.stderr.count(b"the collector did not answer")
            print(f"{time.monotonic() - began:.3f} {complaints}", flush=True)


if __name__ == "__main__":
    main()

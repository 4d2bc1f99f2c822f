"""The ``leakline`` command, from the Python package: ``python -m leakline``."""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Run the command line of this process; gives the status to exit with."""
    from leakline import _native
    from leakline._session import helper

    # As in any other command: Python would only take note of them.
    for number in (signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    return _native.main(helper(), ["leakline", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

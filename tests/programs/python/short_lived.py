"""Functions that live for one call, by two threads at once: DIRECTORY of the
module `together`, and how many. Each leaks two blocks in a function of its
own name."""

from __future__ import annotations

import os
import sys
import threading
from types import FunctionType
from typing import Any

sys.path.insert(0, sys.argv[1])
import together  # type: ignore[import-not-found]

COUNT = int(sys.argv[2])
box: list[Any] = [None]


def settle(which: int) -> None:
    """Has this thread run beside the other, not by turns with it."""
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[which % len(cpus)]})


def work() -> None:
    settle(1)
    for _ in range(COUNT):
        together.meet()
        box[0]()
        together.meet()


other = threading.Thread(target=work)
other.start()
settle(0)


def template() -> None:
    together.leak()


attributes = [
    name for name in ("co_name", "co_qualname") if hasattr(template.__code__, name)
]
for i in range(COUNT):
    names = dict.fromkeys(attributes, f"code_{i:04}")
    # At once where the last one was, before anything else is.
    box[0] = None
    box[0] = FunctionType(template.__code__.replace(**names), globals())
    together.meet()
    box[0]()
    together.meet()
other.join()

"""Objects made of freed ones: floats, lists, tuples and dicts that come from
CPython's free lists. Under tracemalloc it prints what that knows of each of
this file's lines: [[LINE, BLOCKS, BYTES], ...]."""

import json
import sys

COUNT = 60


def fill():
    """Fills the free lists."""
    things = [([i], (i, i + 1), i + 0.5, {i: i}) for i in range(COUNT)]
    del things


def lists():
    made = []
    for i in range(COUNT):
        made.append([i])
    return made


def tuples():
    made = []
    for i in range(COUNT):
        made.append((i, i))
    return made


def floats():
    made = []
    for i in range(COUNT):
        made.append(i / 3)
    return made


def dicts():
    made = []
    for i in range(COUNT):
        made.append({i: 0})
    return made


def main():
    for _ in range(3):
        fill()
    kept = [lists(), tuples(), floats(), dicts()]
    if "tracemalloc" in sys._xoptions:
        import tracemalloc

        statistics = tracemalloc.take_snapshot().statistics("lineno")
        lines = [
            [statistic.traceback[0].lineno, statistic.count, statistic.size]
            for statistic in statistics
            if statistic.traceback[0].filename == __file__
        ]
        print(json.dumps(sorted(lines)))
    return kept


KEPT = main()

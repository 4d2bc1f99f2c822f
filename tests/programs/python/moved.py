"""Code written for tracemalloc, over the module that is named: what it finds.

    moved.py MODULE FRAMES DUMP

With the standard library's documentation's examples: the differences, the top lines, a
traceback, filters.
"""

import gc
import importlib
import json
import linecache
import os
import sys

tracemalloc = importlib.import_module(sys.argv[1])


def display_top(snapshot, key_type="lineno", limit=3):
    snapshot = snapshot.filter_traces(
        (
            tracemalloc.Filter(False, "<frozen importlib._bootstrap>"),
            tracemalloc.Filter(False, "<unknown>"),
        )
    )
    top_stats = snapshot.statistics(key_type)
    lines = []
    for index, stat in enumerate(top_stats[:limit], 1):
        frame = stat.traceback[0]
        lines.append(
            "#%s: %s:%s: %.1f KiB"
            % (index, frame.filename, frame.lineno, stat.size / 1024)
        )
        line = linecache.getline(frame.filename, frame.lineno).strip()
        if line:
            lines.append("    %s" % line)
    other = top_stats[limit:]
    if other:
        lines.append("%s other" % len(other))
    total = sum(stat.size for stat in top_stats)
    return lines, total


class Entry:
    def __init__(self, number):
        self.name = "entry %d" % number
        self.payload = bytes(1000 + number)


def fill(cache, count):
    for number in range(count):
        cache[number] = Entry(number)


def recurse(depth, kept):
    if depth:
        return recurse(depth - 1, kept)
    kept.append(bytearray(200_000))


tracemalloc.start(int(sys.argv[2]))
assert tracemalloc.is_tracing()
cache, kept, gone = {}, [], []
fill(cache, 300)
gone.extend(bytes(500) for _ in range(400))
gc.collect()
before = tracemalloc.take_snapshot()
gone.clear()
fill(cache, 900)
for _ in range(10):
    recurse(3, kept)
gc.collect()
after = tracemalloc.take_snapshot()
current, peak = tracemalloc.get_traced_memory()
assert 0 < current <= peak, (current, peak)
assert tracemalloc.get_traceback_limit() == int(sys.argv[2])
after.dump(sys.argv[3])
backend = tracemalloc.backend() if hasattr(tracemalloc, "backend") else None
tracemalloc.stop()
assert not tracemalloc.is_tracing()

here = tracemalloc.Filter(True, os.path.abspath(__file__))
differences = after.filter_traces([here]).compare_to(
    before.filter_traces([here]), "lineno"
)
biggest = after.statistics("traceback")[0]
loaded = tracemalloc.Snapshot.load(sys.argv[3])
cumulative = after.filter_traces([here]).statistics("lineno", cumulative=True)
print(
    json.dumps(
        {
            "differences": [
                [d.traceback[0].lineno, d.size_diff, d.count_diff, d.size, d.count]
                for d in differences
            ],
            "shown": str(differences[0]).replace(os.path.abspath(__file__), "FILE"),
            "top": display_top(after),
            "biggest": [[f.lineno for f in biggest.traceback], biggest.size],
            "formatted": biggest.traceback.format(),
            "cumulative": [[s.traceback[0].lineno, s.size] for s in cumulative[:3]],
            "blocks": [len(after.traces), sum(trace.size for trace in after.traces)],
            "loaded": [len(loaded.traces), sum(trace.size for trace in loaded.traces)],
            "same": [
                str(stat)
                for stat in loaded.compare_to(after, "filename")
                if stat.size_diff
            ],
            "backend": backend,
        }
    )
)

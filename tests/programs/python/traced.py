"""Under tracemalloc with so many frames: takes snapshots `before` and `after`, dumps
them into a directory, and tells what `statistics` says of them.

    traced.py FRAMES DIRECTORY
"""

import ctypes
import json
import os
import pickle
import sys
import tracemalloc

NUMPY = 389047
FOREIGN = 7


def by_traceback(snapshot):
    return [
        [[[f.filename, f.lineno] for f in reversed(s.traceback)], s.size, s.count]
        for s in snapshot.statistics("traceback")
    ]


def by_line(snapshot):
    return [
        [s.traceback[0].filename, s.traceback[0].lineno, s.size, s.count]
        for s in snapshot.statistics("lineno")
    ]


def of_domain(snapshot, domain):
    only = snapshot.filter_traces([tracemalloc.DomainFilter(True, domain)])
    return [sum(trace.size for trace in only.traces), len(only.traces)]


def track(domain, address, size):
    track = ctypes.pythonapi.PyTraceMalloc_Track
    track.argtypes = (ctypes.c_uint, ctypes.c_size_t, ctypes.c_size_t)
    assert track(domain, address, size) == 0


def keep(count):
    return [str(number) * 3 for number in range(count)]


def deep(depth, count):
    return deep(depth - 1, count) if depth else keep(count)


tracemalloc.start(int(sys.argv[1]))
kept = [keep(1000), deep(40, 500)]
track(NUMPY, 1 << 30, 3 << 32)
before = tracemalloc.take_snapshot()
del kept[0]
import email.mime.text  # noqa: E402, F401

kept.append([bytearray(n) for n in range(300)])
kept.append(deep(3, 700))
track(NUMPY, 1 << 31, 4096)
track(FOREIGN, 1 << 30, 77)
after = tracemalloc.take_snapshot()
tracemalloc.stop()

directory = sys.argv[2]
before.dump(os.path.join(directory, "before.dump"))
after.dump(os.path.join(directory, "after.dump"))
for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
    with open(os.path.join(directory, f"protocol{protocol}.pickle"), "wb") as file:
        pickle.dump(before, file, protocol)
with open(os.path.join(directory, "python.pickle"), "wb") as file:
    pickle._Pickler(file, 3).dump(before)

truth = {
    name: {
        "lines": by_line(snapshot),
        "tracebacks": by_traceback(snapshot),
        "python": of_domain(snapshot, 0),
        "numpy": of_domain(snapshot, NUMPY),
        "foreign": of_domain(snapshot, FOREIGN),
    }
    for name, snapshot in [("before", before), ("after", after)]
}
print(json.dumps(truth))

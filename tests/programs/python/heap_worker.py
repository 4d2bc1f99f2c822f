"""A worker of several threads that goes on until its stdin ends, and knows what it saw.

    heap_worker.py THREADS OBJECTS [FILE]

It says `ready` on a line, and at the end what came of it: children and signals that
were none of its business, descriptors. Into FILE it counts its rounds, a word of eight
bytes for each thread.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import sys
import threading
import time

THREADS = int(sys.argv[1])
OBJECTS = int(sys.argv[2])

signals: list[int] = []
signal.signal(signal.SIGCHLD, lambda number, _: signals.append(number))


class Session:
    def __init__(self, number: int) -> None:
        self.history = [number] * 4
        self.user = {"name": f"user {number}"}


SESSIONS = {f"session {number}": Session(number) for number in range(OBJECTS)}
over = threading.Event()
if sys.argv[3:]:
    with open(sys.argv[3], "r+b") as told:
        counts = mmap.mmap(told.fileno(), 8 * THREADS)
else:
    counts = mmap.mmap(-1, 8 * THREADS)
rounds = memoryview(counts).cast("Q")


def work(me: int) -> None:
    mine: dict[int, Session] = {}
    while not over.is_set():
        for number in range(200):
            mine[number] = Session(number)
        rounds[me] += 1
        time.sleep(0.001)


def descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


threads = [threading.Thread(target=work, args=(me,)) for me in range(THREADS)]
before = descriptors()
for thread in threads:
    thread.start()
print("ready", flush=True)
while not over.is_set():
    readable, _, _ = select.select([sys.stdin], [], [], 0.05)
    if readable and not sys.stdin.buffer.readline():
        over.set()
for thread in threads:
    thread.join()
try:
    os.waitpid(-1, os.WNOHANG)
    children = "some"
except ChildProcessError:
    children = "none"
print(
    json.dumps(
        {
            "signals": signals,
            "children": children,
            "same_descriptors": descriptors() == before,
            "rounds": min(rounds),
        }
    )
)

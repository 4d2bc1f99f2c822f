"""Keeps sessions in a dict of this module, MIB of them a second for SECONDS, and
says its pid first. With a third argument a child does, and this one waits."""

import os
import sys
import time

SESSIONS = {}


class Session:
    def __init__(self, number):
        self.number = number
        self.data = [bytes(1000) for _ in range(100)]


def handle(number):
    SESSIONS[number] = Session(number)


def grow(mib, seconds):
    began = time.monotonic()
    while (lasted := time.monotonic() - began) < seconds:
        while len(SESSIONS) < lasted * mib * 10:
            handle(len(SESSIONS))
        time.sleep(0.02)


if len(sys.argv) < 4 or (child := os.fork()) == 0:
    print(os.getpid(), flush=True)
    grow(float(sys.argv[1]), float(sys.argv[2]))
else:
    # It allocates, too, and ends later.
    ended = 0
    while ended == 0:
        ended, _ = os.waitpid(child, os.WNOHANG)
        time.sleep(0.02)
    time.sleep(0.2)

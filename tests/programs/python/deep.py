"""900 Python frames, and a block at the bottom of them, again and again."""

import os
import sys

sys.setrecursionlimit(2000)
kept = []
head, tail = b"h" * 5000, b"t"


def at_the_bottom():
    kept.append(head + tail)


def descend(depth):
    if depth == 0:
        return at_the_bottom()
    return descend(depth - 1)


for _ in range(300):
    descend(900)
os.write(1, b'{"function": "at_the_bottom", "live_blocks": 300, "depth": 900}\n')
os._exit(0)

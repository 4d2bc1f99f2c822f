"""Keeps bytes objects in batches and reports each batch once it is done."""

import os
import sys

blocks = int(sys.argv[1])
batches = int(sys.argv[2]) if len(sys.argv) > 2 else -1
head, tail = b"h" * 600, b"t"
kept = []


def leaked():
    return head + tail


os.write(1, b"pid %d\n" % os.getpid())
batch = 0
while batch != batches:
    batch += 1
    for _ in range(blocks):
        kept.append(leaked())
    os.write(1, b"%d %d\n" % (batch, batch * blocks))
os.write(1, b"done\n")

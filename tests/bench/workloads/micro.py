"""Small objects at the bottom of a stack: micro.py OBJECTS DEPTH. Every turn
makes integers that no free list serves."""

import sys


def bottom(count):
    kept = 0
    for i in range(1000, 1000 + count // 2):
        kept = i + 1000
    return kept


def descend(depth, count):
    if depth <= 0:
        return bottom(count)
    return descend(depth - 1, count)


sys.setrecursionlimit(10000)
descend(int(sys.argv[2]) - 3, int(sys.argv[1]))

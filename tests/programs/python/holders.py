"""Holds objects in the ways in which programs do, and ends."""

from __future__ import annotations

import functools
import gc
import sys
from collections.abc import Callable

COUNT = 200


class Session:
    def __init__(self, name: str) -> None:
        self.name = name
        self.history = [bytearray(1000)]


class Pool:
    everyone: set[Pool] = set()

    def __init__(self) -> None:
        Pool.everyone.add(self)


class Node:
    __slots__ = ("next", "peer")

    def __init__(self, following: Node | None) -> None:
        self.next = following
        self.peer: Node | None = None


class Twin:
    peer: Twin | None = None


class Job:
    pass


class Page:
    def __init__(self) -> None:
        self.body = bytes(1000)


@functools.lru_cache(maxsize=None)
def render(number: int) -> Page:
    return Page()


def handler() -> Callable[[], int]:
    seen = [bytearray(100) for _ in range(COUNT)]
    return lambda: len(seen)


SESSIONS = {f"user {number}": Session(f"user {number}") for number in range(COUNT)}
POOLS = [Pool() for _ in range(COUNT)]
POOLS.clear()
HEAD: Node | None = None
for _ in range(COUNT):
    HEAD = Node(HEAD)
HANDLER = handler()
JOBS = [Job() for _ in range(COUNT)]
BY_NAME = dict(enumerate(JOBS))
for number in range(COUNT):
    render(number)
gc.disable()
for _ in range(COUNT):
    one, other = Twin(), Twin()
    one.peer, other.peer = other, one
del one, other
sys.stdout.flush()

"""200 steps in a few seconds: one loses 1 KiB a step, ten kinds of caches fill."""

from __future__ import annotations

import sys
import time
import weakref
from collections import OrderedDict, defaultdict, deque
from functools import lru_cache
from typing import Any

BOUND = 40

leaked: list[bytearray] = []
plain: dict[int, bytearray] = {}
recent: OrderedDict[int, bytearray] = OrderedDict()
queue: deque[bytearray] = deque(maxlen=BOUND)
expiring: dict[int, tuple[int, bytearray]] = {}
grouped: defaultdict[int, list[bytearray]] = defaultdict(list)
pool: list[bytearray] = []
table: list[bytearray | None] = [None] * BOUND
names: set[str] = set()
alive: weakref.WeakValueDictionary[int, Page] = weakref.WeakValueDictionary()
kept: deque[Page] = deque(maxlen=BOUND)


class Page:
    def __init__(self) -> None:
        self.body = bytearray(1024)


def leak() -> None:
    leaked.append(bytearray(1024))


def fill_plain(step: int) -> None:
    key = step % BOUND
    if key not in plain:
        plain[key] = bytearray(1024)


def fill_recent(step: int) -> None:
    recent[step] = bytearray(1024)
    if len(recent) > BOUND:
        recent.popitem(last=False)


def fill_queue(step: int) -> None:
    queue.append(bytearray(1024))


def fill_expiring(step: int) -> None:
    expiring[step] = (step + BOUND, bytearray(1024))
    for key in [key for key, (until, _) in expiring.items() if until <= step]:
        del expiring[key]


def fill_grouped(step: int) -> None:
    group = grouped[step % 4]
    if len(group) < BOUND // 4:
        group.append(bytearray(1024))


def fill_pool(step: int) -> None:
    taken = [pool.pop() if pool else bytearray(1024) for _ in range(min(step, BOUND))]
    pool.extend(taken)


def fill_table(step: int) -> None:
    table[step * 7 % BOUND] = bytearray(1024)


def fill_names(step: int) -> None:
    names.add(("name %d " % (step % BOUND)) * 100)


@lru_cache(maxsize=BOUND)
def fetch(step: int) -> bytearray:
    return bytearray(1024)


def fill_alive(step: int) -> None:
    page = Page()
    alive[step] = page
    kept.append(page)


def run(steps: int, pause: float, *, leaking: bool) -> None:
    for step in range(steps):
        if leaking:
            leak()
        fill_plain(step)
        fill_recent(step)
        fill_queue(step)
        fill_expiring(step)
        fill_grouped(step)
        fill_pool(step)
        fill_table(step)
        fill_names(step)
        fetch(step)
        fill_alive(step)
        time.sleep(pause)


def main(arguments: Any) -> None:
    run(200, 0.01, leaking="healthy" not in arguments)
    if "quiet" in arguments:
        time.sleep(0.4)


main(sys.argv[1:])

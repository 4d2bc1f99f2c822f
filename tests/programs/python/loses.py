"""Calls what loses references, and what does not: the first argument says which."""

from __future__ import annotations

import collections
import dataclasses
import gc
import json
import re
import sys
from typing import Any

import losing

COUNT = 600
SHARED: list[object] = []
CACHED: dict[str, Any] = {}


class Owner:
    """In a cycle through a handle."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.handle = losing.Handle(self)


class Twin:
    """In a cycle that the collector sees."""

    def __init__(self) -> None:
        self.other: Twin | None = None


@dataclasses.dataclass
class Record:
    name: str
    number: int


def lose(number: int) -> None:
    losing.make_bytes(number)
    losing.make_str(number)
    losing.make_int(number)
    losing.make_list(number)
    try:
        losing.fail_late(number)
    except ValueError:
        pass
    losing.hold_once_more(SHARED)


def hide(number: int) -> None:
    Owner(number)


def litter(number: int) -> None:
    one, other = Twin(), Twin()
    one.other, other.other = other, one


def work(number: int) -> None:
    """Nothing of this is lost."""
    losing.keep(number)
    losing.Handle([number])
    text = json.dumps({"number": number, "name": f"name {number}"})
    CACHED[f"key {number % 50}"] = json.loads(text)
    re.sub(r"\d+", lambda found: found.group() + "!", text)
    Point = collections.namedtuple("Point", ["x", f"y{number % 3}"])
    CACHED["point"] = Point(number, 2)
    CACHED[sys.intern(f"interned {number % 100}")] = Record(text, number)
    exec(f"def made():\n    return {number}, 'text {number}'", CACHED)
    for attribute in range(4):
        setattr(Record, f"added_{attribute}", number)


WAYS = {"lose": lose, "hide": hide, "litter": litter, "work": work}


def main() -> None:
    way = sys.argv[1]
    if "no-gc" in sys.argv[2:]:
        gc.disable()
    if "freeze" in sys.argv[2:]:
        for number in range(COUNT):
            WAYS[way](number)
        gc.freeze()
    for number in range(COUNT):
        WAYS[way](number)


main()

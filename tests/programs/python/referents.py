"""Says of each object that the collector of cycles knows what it refers to.

Into the file that is named: address, address of the type, how many, and their
addresses, as words of eight bytes. What it needs for that itself is left out.
"""

from __future__ import annotations

import array
import asyncio
import collections
import concurrent.futures
import ctypes
import dataclasses
import decimal
import email.message
import enum
import gc
import http.client
import itertools
import json
import logging.handlers
import sqlite3
import sys
import threading
import typing
import unittest.mock
import weakref
import xml.dom.minidom


class Slotted:
    __slots__ = ("__weakref__", "a", "b")


class Words(dict): ...


class Row(typing.NamedTuple):
    left: object
    right: object


class Colour(enum.Enum):
    RED = 1
    GREEN = 2


@dataclasses.dataclass
class Point:
    x: object
    y: object


def closure(*values: object) -> typing.Callable[[], object]:
    count, held = len(values), values
    return lambda: (count, held)


def generate(*values: object) -> typing.Iterator[object]:
    held = list(values)
    yield from held
    print(held)


kept: list[object] = []
for number in range(300):
    slotted = Slotted()
    slotted.a, slotted.b = [number], (number, str(number))
    words = Words({f"key {number}": slotted, number: [number]})
    words.more = {number: words}  # type: ignore[attr-defined]
    point = Point([number], words)
    generator = generate(point, number)
    next(generator)
    ordered = collections.OrderedDict([(str(number), [number]), ("two", slotted)])
    default = collections.defaultdict(list, {number: [point]})
    kept += [
        Row(slotted, point),
        closure(point, [number]),
        generator,
        ordered,
        default,
        collections.deque([point, [number]]),
        collections.Counter([number, str(number)]),
        {str(number), number, (number, "set")},
        frozenset([Row(number, str(number))]),
        weakref.ref(slotted),
        weakref.WeakValueDictionary({number: slotted}),
        itertools.chain([point], [[number]]),
        memoryview(bytearray(number + 1)),
        decimal.Decimal(number),
        types_of_all := [type(point), type(words)],
        ValueError(point, [number]),
        unittest.mock.Mock(name=str(number)) if number < 5 else None,
    ]
loop = asyncio.new_event_loop()
pool = concurrent.futures.ThreadPoolExecutor(2)
kept += [loop, pool, pool.submit(int, "1").result(), sqlite3.connect(":memory:")]
kept += [
    ctypes.c_int * 3,
    ctypes.CDLL(None),
    xml.dom.minidom.parseString("<a><b/></a>"),
]
kept += [threading.local(), logging.handlers.MemoryHandler(10), email.message.Message()]
kept += [json.JSONEncoder(), http.client.HTTPConnection("localhost"), Colour.RED]
pool.shutdown()

gc.collect()
gc.disable()
objects = gc.get_objects()
out = array.array("Q")
# What changes from here on: this module's variables, and the list of variables.
own = {id(globals()), id(objects), id(kept), id(sys.modules), id(gc.garbage)}
for one in objects:
    found = gc.get_referents(one)
    if id(one) not in own and one is not found:
        out.extend((id(one), id(type(one)), len(found)))
        out.extend(map(id, found))
with open(sys.argv[1], "wb") as file:
    out.tofile(file)
del one, found, file

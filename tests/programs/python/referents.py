"""Says of each object what it refers to: of those that the collector of cycles knows,
and of all that can be reached from them.

Into the file that is named: address, address of the type, whether the collector can
ask it, how many, and their addresses, as words of eight bytes. What it needs for that itself is left out. With
`app` as a second argument there is an application besides.
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

HAS_TRAVERSE, IS_MADE_AT_RUN_TIME = 1 << 14, 1 << 9


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

if "app" in sys.argv[2:]:
    import web_app  # noqa: F401

gc.collect()
gc.disable()
objects = gc.get_objects()
out = array.array("Q")
# What changes from here on: this module's variables, and the list of variables.
own = {id(globals()), id(objects), id(kept), id(sys.modules), id(gc.garbage), id(out)}
known = set(map(id, objects))
own |= {id(own), id(known)}
known |= own
at = 0
# Asked as others are, a type that is not ready yet would become so, and change others.
flags = type.__dict__["__flags__"].__get__
while at < len(objects):
    one = objects[at]
    at += 1
    if id(one) in own:
        continue
    found = gc.get_referents(one)
    # Of a type that has no traverse function, and of static types, nothing is said.
    is_said = flags(type(one)) & HAS_TRAVERSE and not (
        issubclass(type(one), type) and not flags(one) & IS_MADE_AT_RUN_TIME
    )
    out.extend((id(one), id(type(one)), bool(is_said), len(found)))
    out.extend(map(id, found))
    for other in found:
        if id(other) not in known:
            known.add(id(other))
            objects.append(other)
with open(sys.argv[1], "wb") as file:
    out.tofile(file)
del one, other, found, file

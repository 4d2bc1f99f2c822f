"""Where objects were made, beside what tracemalloc says of the same ones; and rows as Arrow's."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import execute

LIVE = """\
import gc, json, random, sys, tracemalloc
import leakline

FRAMES = 40
# In this order: what is born between the two starts only one of them knows.
session = leakline.start("out.leakline")
tracemalloc.start(FRAMES)

# An application with what it needs, and some work.
APP

gc.collect()
chance = random.Random(SEED)
everything = gc.get_objects()
known, objects = set(), []
for one in everything:
    for inner in (one, *gc.get_referents(one)):
        if id(inner) not in known:
            known.add(id(inner))
            objects.append(inner)
del one, inner
# Those whose block tracemalloc and the session both saw made.
reused = [leakline._retention._is_reused(type(one)) for one in objects]
traced = [
    (tracemalloc.get_object_traceback(one), one)
    for one, is_reused in zip(objects, reused) if not is_reused
]
chosen = chance.sample([pair for pair in traced if pair[0] is not None], COUNT)
found = leakline.allocations_at([one for _, one in chosen])
equal, wrong, unknown = 0, [], {}
for (traceback, one), told in zip(chosen, found):
    if told is None:
        name = type(one).__name__
        unknown[name] = unknown.get(name, 0) + 1
        continue
    theirs = [(frame.filename, frame.lineno) for frame in reversed(traceback)]
    ours = [(frame.file, frame.line) for frame in told.python][:FRAMES]
    if theirs == ours:
        equal += 1
    else:
        wrong.append([type(one).__name__, theirs[:3], ours[:3]])
session.stop()
print(json.dumps({"equal": equal, "wrong": wrong, "unknown": unknown, "of": len(traced)}))
"""

STANDARD = """\
import asyncio, email.message, http.client, http.server, json, logging, sqlite3, unittest, urllib.request
import argparse, concurrent.futures, csv, dataclasses, decimal, fractions, ipaddress, xml.dom.minidom
kept = []
for number in range(300):
    message = email.message.EmailMessage()
    message["Subject"] = "number %d" % number
    message.set_content("text " * number)
    kept.append(message)
    kept.append(xml.dom.minidom.parseString("<a><b c='%d'>text</b></a>" % number))
    kept.append(json.loads(json.dumps({"key %d" % number: [str(number), number + 0.5]})))
    kept.append(dataclasses.make_dataclass("Record%d" % number, ["first", "second"]))
"""

FASTAPI = """\
from fastapi import FastAPI
from pydantic import BaseModel

class Item(BaseModel):
    name: str
    tags: list[str] = []

app = FastAPI()
kept = []
def add(number):
    @app.post("/items/%d" % number)
    def create(item: Item) -> Item:
        kept.append(item)
        return item
for number in range(50):
    add(number)
app.openapi()
"""


def told(place: Path, text: str) -> Any:
    script = place / "program.py"
    script.write_text(text)
    ended = execute([sys.executable, script], cwd=place, timeout=600)
    assert ended.status == 0, ended.err.decode()
    return json.loads(ended.out)


@pytest.mark.parametrize("app", ["standard", "fastapi"])
def test_a_thousand_objects_were_made_where_tracemalloc_says(
    tmp_path: Path, app: str, long: bool
) -> None:
    if app == "fastapi":
        pytest.importorskip("fastapi")
        if not long:
            pytest.skip("a large application: with --long")
    text = LIVE.replace("APP", FASTAPI if app == "fastapi" else STANDARD)
    found = told(tmp_path, text.replace("SEED", "1").replace("COUNT", "1000"))
    assert found["of"] > 10_000, found
    assert found["wrong"] == [], found
    assert found["equal"] == 1000, found


ROWS = """\
import json, sys
import leakline

reader = __import__(sys.argv[1])
KEPT = []
def make(count):
    KEPT.append(bytearray(count))

with leakline.record("out.leakline") as session:
    for number in range(100):
        make(1000)
    before = leakline.snapshot("before")
    make(50_000)
    change = leakline.snapshot("after").diff(before)
    def frame(rows):
        if sys.argv[1] == "pyarrow":
            table = reader.table(rows)
            table.validate(full=True)
            return table.to_pylist()
        if sys.argv[1] == "polars":
            return reader.DataFrame(rows).to_dicts()
        return reader.DataFrame.from_arrow(rows).to_dict("records")
    grown = frame(change)
rows = leakline.open("out.leakline").top(limit=20)
read = frame(rows)
whole = frame(leakline.open("out.leakline"))
nothing = frame(leakline.Rows())
# One that nobody takes is freed with its capsule, and one that is taken twice is empty then.
rows.__arrow_c_stream__()
for row, one in zip(rows, read):
    for key, value in one.items():
        assert key == "stack" or value == getattr(row, key), (key, value)
    assert one["stack"].count("; ") == len(row.stack) - 1
assert len(read) == len(rows) == 20
assert rows[:3] == list(rows)[:3] and len(rows[:3]) == 3
print(json.dumps({"whole": len(whole), "first": read[0], "grown": grown[0], "nothing": nothing}))
"""


@pytest.mark.parametrize("reader", ["pyarrow", "polars", "pandas"])
def test_rows_are_tables_to_who_reads_arrow(tmp_path: Path, reader: str) -> None:
    pytest.importorskip(reader)
    (tmp_path / "program.py").write_text(ROWS)
    ended = execute([sys.executable, "program.py", reader], cwd=tmp_path, timeout=200)
    assert ended.status == 0, ended.err.decode()
    found = json.loads(ended.out)
    assert found["whole"] > 20
    assert found["grown"]["function"] == "make", found
    assert found["grown"]["delta_bytes"] >= 50_000, found
    assert "make (" in found["grown"]["stack"], found
    assert found["nothing"] == []


def test_the_stream_is_one_of_arrows(tmp_path: Path) -> None:
    """Without a library of Arrow's: the three structures, read as a consumer reads them."""
    (tmp_path / "program.py").write_text(CONSUMER)
    ended = execute([sys.executable, "program.py"], cwd=tmp_path)
    assert ended.status == 0, ended.err.decode()


CONSUMER = """\
import ctypes
from leakline import _native

class Schema(ctypes.Structure):
    pass
class Array(ctypes.Structure):
    pass
class Stream(ctypes.Structure):
    pass
P, I = ctypes.c_void_p, ctypes.c_int64
def calls(*arguments):
    return ctypes.CFUNCTYPE(ctypes.c_int, *arguments)
Schema._fields_ = [("format", ctypes.c_char_p), ("name", ctypes.c_char_p), ("metadata", P),
    ("flags", I), ("n_children", I), ("children", ctypes.POINTER(ctypes.POINTER(Schema))),
    ("dictionary", P), ("release", P), ("private_data", P)]
Array._fields_ = [("length", I), ("null_count", I), ("offset", I), ("n_buffers", I),
    ("n_children", I), ("buffers", ctypes.POINTER(P)),
    ("children", ctypes.POINTER(ctypes.POINTER(Array))), ("dictionary", P), ("release", P),
    ("private_data", P)]
Stream._fields_ = [("get_schema", calls(ctypes.POINTER(Stream), ctypes.POINTER(Schema))),
    ("get_next", calls(ctypes.POINTER(Stream), ctypes.POINTER(Array))),
    ("get_last_error", P), ("release", P), ("private_data", P)]
get = ctypes.pythonapi.PyCapsule_GetPointer
get.restype, get.argtypes = P, [ctypes.py_object, ctypes.c_char_p]

def release(structure):
    ctypes.CFUNCTYPE(None, P)(structure.release)(ctypes.addressof(structure))
    assert structure.release is None

try:
    _native.arrow_stream([("a", [1, 2], False), ("b", ["x"], True)])
except ValueError as error:
    assert "as many rows" in str(error)
else:
    raise SystemExit("columns of unlike length")

for _ in range(3):
    capsule = _native.arrow_stream([("count", [1, -2, 1 << 40], False), ("name", ["a", "", "\u00e9\u4e2d"], True)])
    stream = Stream.from_address(get(capsule, b"arrow_array_stream"))
    schema, array, end = Schema(), Array(), Array()
    assert stream.get_schema(stream, schema) == 0
    assert (schema.format, schema.n_children) == (b"+s", 2)
    columns = [schema.children[at].contents for at in range(2)]
    assert [(c.format, c.name) for c in columns] == [(b"l", b"count"), (b"U", b"name")]
    assert stream.get_next(stream, array) == 0
    assert stream.get_next(stream, end) == 0 and end.release is None
    # What was given outlives the stream.
    del capsule, stream
    assert (array.length, array.null_count, array.n_children) == (3, 0, 2)
    numbers, names = (array.children[at].contents for at in range(2))
    assert list((I * 3).from_address(numbers.buffers[1])) == [1, -2, 1 << 40]
    offsets = list((I * 4).from_address(names.buffers[1]))
    assert offsets == [0, 1, 1, 6]
    assert ctypes.string_at(names.buffers[2], 6).decode() == "a\u00e9\u4e2d"
    release(array)
    release(schema)
"""

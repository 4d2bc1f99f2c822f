"""Uses much of the standard library, and numpy and pandas where they are, and keeps it
all: nothing of what their native parts made is lost. At the end it is all used once more."""

import collections
import ctypes
import decimal
import hashlib
import io
import json
import lzma
import re
import sqlite3
import sys
import threading
import xml.etree.ElementTree as ET
import zlib

kept = []

database = sqlite3.connect(":memory:")
database.execute("create table t (a, b)")
database.executemany("insert into t values (?, ?)", [(i, str(i)) for i in range(2000)])
cursor = database.execute("select a, b from t")
cursor.fetchone()

tree = ET.fromstring("<a>" + "<b x='1'>t</b>" * 500 + "</a>")
parser = ET.XMLPullParser()
parser.feed("<a><b>")
packers = [zlib.compressobj() for _ in range(10)]
lzmas = [lzma.LZMACompressor() for _ in range(3)]
hashes = [hashlib.sha256(str(i).encode()) for i in range(50)]
patterns = [re.compile(f"a{i}(b|c)*d") for i in range(100)]
numbers = [decimal.Decimal(i) ** 50 for i in range(100)]
buffers = [ctypes.create_string_buffer(5000) for _ in range(100)]
pointers = (ctypes.POINTER(ctypes.c_char) * 10)()
queue = collections.deque(bytearray(600 + i) for i in range(500))
streams = [io.BytesIO(b"x" * 3000) for _ in range(50)]
local = threading.local()
local.value = bytearray(10000)

lock = threading.Event()
seen = []


def wait() -> None:
    mine = [bytearray(2000 + i) for i in range(50)]
    lock.wait()
    seen.append(sum(len(one) for one in mine))


thread = threading.Thread(target=wait, daemon=True)
thread.start()

try:
    import numpy
    import pandas
except ImportError:
    arrays, frame = [], None
else:
    arrays = [numpy.arange(i * 10) for i in range(300)]
    views = [array[5:] for array in arrays]
    inverse = numpy.linalg.inv(numpy.random.rand(200, 200))
    frame = pandas.DataFrame({"a": range(5000), "b": [str(i) for i in range(5000)]})
    means = frame.groupby(frame.a % 7)["a"].mean()
    again = pandas.read_csv(io.StringIO(frame.to_csv()))


def touch() -> int:
    """Uses everything."""
    total = len(cursor.fetchall()) + len(list(tree)) + len(list(parser.read_events()))
    total += sum(len(packer.compress(b"y" * 100)) for packer in packers)
    total += sum(len(packer.compress(b"y" * 100)) for packer in lzmas)
    total += sum(one.digest()[0] for one in hashes)
    total += sum(one.match("a") is None for one in patterns)
    total += int(sum(numbers)) % 7 + sum(one.raw[7] for one in buffers)
    total += sum(map(len, queue)) + sum(len(one.getvalue()) for one in streams)
    total += sum(int(one.sum()) for one in arrays) + len(local.value)
    if frame is not None:
        total += int(frame.a.sum()) + int(means.sum()) + int(again.a.sum())
        total += int(sum(view.sum() for view in views)) + inverse.shape[0]
    return total


def at_end() -> None:
    lock.set()
    thread.join()
    json.dump({"touched": touch(), "seen": seen}, sys.stdout)


import atexit  # noqa: E402

# After the look, which comes when the main thread has left.
atexit.register(at_end)

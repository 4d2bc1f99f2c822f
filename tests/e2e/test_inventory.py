"""What lives in a process by type, read from outside: what the process itself counts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from harness import TARGET_PYTHON, Json, Leakline, execute, wait_for
from test_ledger import python, report, target

# Objects of classes that nobody else has, and what each of them has by `sys.getsizeof`.
SHAPES = """
import collections, json, sys

class Plain:
    def __init__(self, number):
        self.number, self.text = number, str(number)
class Slotted:
    __slots__ = ("one", "two")
class Stack(list): pass
class Table(dict): pass
class Bag(set): pass
class Blob(bytes): pass
class Buffer(bytearray): pass
class Number(int): pass
class Failure(ValueError): pass
Point = collections.namedtuple("Point", "x y z")
class Meta(type): pass
class Made(metaclass=Meta): pass

kept = [Plain(number) for number in range(3000)]
kept += [Slotted() for _ in range(2000)]
kept += [Stack(range(20)) for _ in range(500)]
kept += [Stack(range(2000)) for _ in range(20)]
kept += [Table.fromkeys(range(30)) for _ in range(300)]
kept += [Table.fromkeys(range(3000)) for _ in range(10)]
kept += [Bag(range(20)) for _ in range(400)]
kept += [Bag() for _ in range(100)]
kept += [Blob(5000) for _ in range(100)]
kept += [Blob(300_000) for _ in range(3)]
kept += [Buffer(3000) for _ in range(600)]
kept += [Number(number) for number in range(700)]
kept += [Failure(number) for number in range(400)]
kept += [Point(number, 0, 0) for number in range(1500)]
kept += [Made() for number in range(250)]
truth = {}
for one in kept:
    found = truth.setdefault(type(one).__name__, [0, 0])
    found[0] += 1
    found[1] += sys.getsizeof(one)
if sys.version_info >= (3, 15):
    # What a bytearray has is an object of its own.
    truth["Buffer"][1] = 600 * sys.getsizeof(Buffer())
print(json.dumps(truth), flush=True)
sys.stdin.read()
"""


def by_type(found: Json) -> dict[str, Json]:
    """The inventory, by the last part of names."""
    assert found["inventory"], found
    return {one["type"].rpartition(".")[2]: one for one in found["inventory"]["types"]}


def is_free_threaded() -> bool:
    source = "import sys; print(getattr(sys, '_is_gil_enabled', lambda: True)())"
    return execute([TARGET_PYTHON, "-c", source]).out == b"False\n"


needs_gil = pytest.mark.skipif(
    is_free_threaded(), reason="free-threaded CPython has another allocator"
)


@needs_gil
def test_objects_are_counted_by_type(leakline: Leakline, tmp_path: Path) -> None:
    with target(tmp_path, TARGET_PYTHON, "-c", SHAPES) as program:
        truth = program.truth()
        found = report(leakline, program.pid)
    types = by_type(found)
    for name, (objects, bytes) in truth.items():
        one = types[name]
        assert one["objects"] == objects, name
        assert one["since_objects"] is None
        # Blocks are of multiples of 16 bytes, and what `__dict__` has comes on top.
        assert bytes * 0.99 <= one["bytes"] <= bytes * 1.1 + objects * 240, name
    assert types["Meta"]["objects"] == 1
    # What is no object is what the interpreter keeps for itself.
    inventory = found["inventory"]
    live = next(one for one in found["lines"] if one["name"] == "python_live")
    assert inventory["rest_bytes"] < 0.1 * live["bytes"]
    # Blocks that nobody has written to are not there yet.
    assert inventory["unread_bytes"] < 0.02 * live["bytes"]
    assert inventory["objects"] == sum(one["objects"] for one in inventory["types"])


@needs_gil
def test_what_grows_is_named_without_a_recording(
    leakline: Leakline, tmp_path: Path
) -> None:
    source = (
        "class Session:\n"
        "    def __init__(self): self.body = bytearray(2000)\n"
        "kept = []\n"
        "def after():\n"
        "    while True: kept.append(Session()); time.sleep(0.0002)"
    )
    with python(tmp_path, source) as program:
        wait_for("some sessions", lambda: program.rss() > 12 << 20)
        found = report(leakline, program.pid, "--interval", "2")
        text = execute(
            [leakline.binary, "ledger", str(program.pid), "--interval", "1"],
            env={"COLUMNS": "80"},
        ).out.decode()
    types = by_type(found)
    made = types["Session"]["since_objects"]
    assert made > 500
    assert types["bytearray"]["since_objects"] == pytest.approx(made, rel=0.1)
    # Most of the bytes, so it comes first.
    # Since 3.15 a bytearray has an object of bytes.
    assert found["inventory"]["types"][0]["type"] in ("bytearray", "bytes")
    assert re.search(r"in [\d,]+ more byte(array|s)$", found["words"])
    assert re.search(
        r"^bytearray +[\d,]+ +[\d.]+ +[\d.]+ +\+[\d.]+ .*more$", text, re.M
    )


@needs_gil
def test_a_heap_that_changes_all_the_time_is_counted(
    leakline: Leakline, tmp_path: Path
) -> None:
    source = """
import threading
class Here: pass
class Gone: pass
kept = [Here() for _ in range(20000)]
def churn():
    while True:
        some = [Gone() for _ in range(100)]
        del some[::2]
        text = {str(number): [number] for number in range(200)}
for _ in range(3): threading.Thread(target=churn, daemon=True).start()
"""
    with python(tmp_path, source) as program:
        for _ in range(6):
            types = by_type(report(leakline, program.pid))
            assert types["Here"]["objects"] == 20000
            gone = types.get("Gone", {"objects": 0})
            assert gone["objects"] <= 400
        assert program.process.poll() is None


def test_a_program_without_python_has_no_inventory(
    leakline: Leakline, tmp_path: Path
) -> None:
    with target(tmp_path, "sh", "-c", "echo ready; read line") as program:
        found = report(leakline, program.pid)
    assert found["inventory"] is None


@needs_gil
def test_an_idle_worker_says_what_is_there(leakline: Leakline, tmp_path: Path) -> None:
    """It comes by for no heap graph: from outside it can be told all the same."""
    recording = tmp_path / "idle.leakline"
    with python(
        tmp_path, "class Session: pass\nkept = [Session() for _ in range(9000)]"
    ) as program:
        attached = execute(
            [
                leakline.binary,
                "attach",
                str(program.pid),
                "-o",
                recording,
                "--duration",
                "2",
                "--heap",
                "never",
            ]
        )
        assert attached.status == 0, attached.err.decode()
    said = attached.err.decode()
    assert re.search(r"^RSS [\d.]+ MiB: [A-Z ]+", said, re.M), said
    assert re.search(r"^already there: [\d,]+ [\w.]+, ", said, re.M), said
    result = execute([leakline.binary, "ledger", recording, "--json"])
    found = json.loads(result.out)
    session = by_type(found)["Session"]
    assert (session["objects"], session["since_objects"]) == (9000, 0)
    assert 0 < found["inventory"]["since_seconds"] < found["inventory"]["at_seconds"]
    assert found["processes"][0]["inventory"]["types"] == found["inventory"]["types"]

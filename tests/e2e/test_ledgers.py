"""Ledgers in recordings: what processes' memory was made of, over time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from harness import TARGET_PYTHON, Json, Leakline, Part, Recording, execute, wait_for
from test_attach import attached, running
from test_ledger import LINES, MIB, python, rss

LEAKS = """
import sys, time
SESSIONS = {}

def load_session(number):
    SESSIONS[number] = [str(number) * 4 for _ in range(10)]

end = time.monotonic() + float(sys.argv[1])
number = 0
while time.monotonic() < end:
    for _ in range(40):
        load_session(number)
        number += 1
    time.sleep(0.01)
"""

FRAGMENTS = """
import sys, time
began = time.monotonic()
time.sleep(1.5)
data = [bytes(100) for _ in range(600_000)]
del data[:]
keep = []
for _ in range(6):
    blocks = [bytes(200) for _ in range(100_000)]
    keep.append(blocks[::500])
    del blocks
# Looks come at intervals of an eighth of its age.
time.sleep(float(sys.argv[1]) + (time.monotonic() - began) / 4)
"""


def check(found: Json) -> Json:
    """Lines of each ledger sum up to it."""
    assert (found["schema"], found["version"]) == ("leakline.ledger", 1)
    for ledger in (found, *found["processes"]):
        lines = ledger["lines"]
        names = [line["name"] for line in lines]
        assert sorted(set(names), key=LINES.index) == LINES
        assert sum(line["bytes"] for line in lines) == ledger["rss_bytes"]
        if ledger["since_bytes"] is not None:
            since = [line["since_bytes"] for line in lines]
            assert sum(since) == ledger["since_bytes"]
        for line in lines:
            assert line["bytes"] == line["private_bytes"] + line["shared_bytes"]
            for part in line["of_it"]:
                assert part["bytes"] <= line["bytes"]
    return found


def ledgers(recording: Recording, *options: str) -> Json:
    return check(recording.report("ledger", *options))


def script(tmp_path: Path, source: str) -> Path:
    path = tmp_path / "program.py"
    path.write_text(source)
    return path


def text(leakline: Leakline, *arguments: Part) -> str:
    result = execute([leakline.binary, "ledger", *arguments], env={"COLUMNS": "80"})
    assert result.status == 0, result.err.decode()
    return result.out.decode()


def test_a_leak_is_named_in_the_ledger(leakline: Leakline, tmp_path: Path) -> None:
    program = script(tmp_path, LEAKS)
    result, recording = leakline.run(TARGET_PYTHON, program, "12")
    assert result.status == 0, result.err.decode()
    found = ledgers(recording)
    assert found["verdict"] == "leak"
    assert found["words"].startswith("a LEAK (L1")
    assert found["since_bytes"] > 4 * MIB
    live = next(line for line in found["lines"] if line["name"] == "python_live")
    # What leaks is most of what grew, and below what it is part of.
    cause = next(part for part in live["of_it"] if part["cause"] == "L1")
    assert cause["since_bytes"] >= live["since_bytes"] * 0.5
    assert found["causes"][0]["id"] == "L1"
    # Looked at a second after the start, and later, as often as a hundredth of a
    # processor allows.
    assert found["since_seconds"] > 0.9
    assert found["at_seconds"] > found["since_seconds"] + 2
    words = text(leakline, recording.path)
    assert "of it L1" in words
    assert words.endswith(f"next: leakline why {recording.path} L1\n")
    if "held_by" in found["causes"][0] and found["causes"][0]["held_by"]:
        assert "SESSIONS" in found["causes"][0]["held_by"]


def test_free_memory_that_grew_is_fragmentation(
    leakline: Leakline, tmp_path: Path
) -> None:
    program = script(tmp_path, FRAGMENTS)
    result, recording = leakline.run(TARGET_PYTHON, program, "4")
    assert result.status == 0, result.err.decode()
    found = ledgers(recording)
    if TARGET_PYTHON is not None and found["python_arenas"]:
        assert found["verdict"] in ("fragmentation", "other_grew", "live_grew"), found
    free = next(line for line in found["lines"] if line["name"] == "python_free")
    assert free["since_bytes"] > 10 * MIB
    assert "arena" in (found["remedy"] or "")


def test_a_snapshot_has_a_ledger_of_its_own(leakline: Leakline, tmp_path: Path) -> None:
    source = """
held = bytearray(1 << 20)
def after():
    for line in sys.stdin:
        held.extend(bytes(64 << 20))
        sys.stdout.write("grown\\n"); sys.stdout.flush()
"""
    with python(tmp_path, source) as program, attached(leakline, program.pid) as one:
        wait_for("a first look", lambda: looks(one.recording) >= 1)
        snapshot: list[Part] = [leakline.binary, "snapshot", str(program.pid)]
        assert execute([*snapshot, "before"]).status == 0
        wait_for("its ledger", lambda: looks(one.recording) >= 2)
        program.tell("grow")
        assert execute([*snapshot, "after"]).status == 0
        wait_for("its ledger", lambda: looks(one.recording) >= 3)
        resident = rss(program.pid)
        left = one.leave()
        assert left.status == 0, left.err.decode()
        found = ledgers(one.recording, "--from", "before", "--to", "after")
        assert found["since_bytes"] == pytest.approx(64 * MIB, abs=4 * MIB)
        assert found["rss_bytes"] == pytest.approx(resident, rel=0.1)
        assert found["pid"] == program.pid
        malloc = next(line for line in found["lines"] if line["name"] == "malloc_live")
        assert malloc["since_bytes"] == pytest.approx(64 * MIB, abs=4 * MIB)
        # Until then it was what it was.
        found = ledgers(one.recording, "--to", "before")
        assert abs(found["since_bytes"] or 0) < 4 * MIB
        # It was looked at as it was left, too.
        assert ledgers(one.recording)["at_seconds"] >= found["at_seconds"]


def looks(recording: Recording) -> int:
    """How many ledgers a recording has at least: of instants that differ."""
    seen = set()
    for at in ("start", "before", "after", "end"):
        command: list[Part] = [recording.leakline, "ledger", recording.path]
        result = execute([*command, "--json", "--to", at])
        if result.status == 0:
            seen.add(json.loads(result.out)["at_seconds"])
    return len(seen)


def test_a_process_that_is_recorded_shows_what_changed(
    leakline: Leakline, tmp_path: Path
) -> None:
    source = """
held = bytearray(1 << 20)
def after():
    for line in sys.stdin:
        held.extend(bytes(48 << 20))
        sys.stdout.write("grown\\n"); sys.stdout.flush()
"""
    with python(tmp_path, source) as program:
        with attached(leakline, program.pid) as one:
            wait_for("a first look", lambda: looks(one.recording) >= 1)
            program.tell("grow")
            result = execute([leakline.binary, "ledger", str(program.pid), "--json"])
            assert result.status == 0, result.err.decode()
            found = json.loads(result.out)
            assert found["since_bytes"] == pytest.approx(48 * MIB, abs=4 * MIB)
            assert found["verdict"] in ("live_grew", "leak")
            assert " since " in text(leakline, str(program.pid))
            one.leave()
        # Without a recording nothing is known from before.
        result = execute([leakline.binary, "ledger", str(program.pid), "--from", "+1s"])
        assert result.status == 3
        assert b"not being recorded" in result.err


TREE = """
import os, sys, time
held = []
for megabytes in (8, 40, 24):
    if os.fork() == 0:
        time.sleep(2)
        end = time.monotonic() + 5
        while time.monotonic() < end:
            if megabytes:
                held.append(bytearray(b"x") * (1 << 20))
                megabytes -= 1
            time.sleep(0.02)
        os._exit(0)
for _ in range(3):
    os.wait()
"""


def test_of_a_tree_the_largest_growth_comes_first(
    leakline: Leakline, tmp_path: Path
) -> None:
    program = script(tmp_path, TREE)
    result, recording = leakline.run(TARGET_PYTHON, program)
    assert result.status == 0, result.err.decode()
    # The children ended together, a moment before their parent.
    found = ledgers(recording)
    each = found["processes"]
    assert len(each) == 4
    grown = [one["since_bytes"] for one in each]
    assert grown == sorted(grown, reverse=True)
    assert grown[0] == pytest.approx(40 * MIB, abs=6 * MIB)
    assert sum(one["rss_bytes"] for one in each) == found["rss_bytes"]
    assert sum(grown) == found["since_bytes"]
    pid = each[1]["pid"]
    only = ledgers(recording, "--process", str(pid))
    assert [one["pid"] for one in only["processes"]] == [pid]
    assert only["rss_bytes"] == each[1]["rss_bytes"]
    words = text(leakline, recording.path)
    assert "4 processes of" in words
    assert words.count("\nRSS ") >= 5


def test_a_recording_without_ledgers_says_so(
    leakline: Leakline, tmp_path: Path
) -> None:
    # One that is too short has none but of its end, if that could be had.
    dump = tmp_path / "dump"
    source = "import tracemalloc as t; t.start(); x = [0] * 999; t.take_snapshot().dump(sys.argv[1])"
    execute([sys.executable, "-c", "import sys;" + source, dump])
    path = tmp_path / "imported.leakline"
    made = execute([leakline.binary, "import", "tracemalloc", dump, "-o", path])
    assert made.status == 0, made.err.decode()
    result = execute([leakline.binary, "ledger", path])
    assert result.status == 3
    assert b"has no ledger" in result.err
    assert b"hint: " in result.err
    result = execute([leakline.binary, "ledger", path, "--json"])
    assert result.status == 3
    assert "has no ledger" in json.loads(result.out)["error"]


def test_a_shared_recording_names_no_files(leakline: Leakline, tmp_path: Path) -> None:
    secret = tmp_path / "secret-model.bin"
    secret.write_bytes(os.urandom(1 << 20) * 64)
    program = script(
        tmp_path,
        f"""
import mmap, os, time
file = open({str(secret)!r}, "rb")
view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
sum(view[at] for at in range(0, len(view), 4096))
time.sleep(2.5)
# Mapped to the end: no look comes after it.
os._exit(0)
""",
    )
    result, recording = leakline.run(TARGET_PYTHON, program)
    assert result.status == 0, result.err.decode()
    assert "secret-model.bin" in text(leakline, recording.path)


SCATTERED = """
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def small():
    return libc.malloc(40)

def large():
    return libc.malloc(4000)

kept, freed = [], []
for _ in range(2000):
    kept.append(small())
    freed.append(large())
for block in freed:
    libc.free(block)
print(len({block >> 12 for block in kept}))
"""


def test_small_blocks_keep_the_pages_that_they_lie_in(
    leakline: Leakline, tmp_path: Path
) -> None:
    """What is in between was freed, and cannot be given back. Some lie in holes that
    there were, together with others' blocks."""
    program = script(tmp_path, SCATTERED)
    result, recording = leakline.run(TARGET_PYTHON, program)
    assert result.status == 0, result.err.decode()
    rows = recording.rows("--filter", "small", at=None)
    row = max(rows, key=lambda row: row["live_blocks"])
    assert (row["live_blocks"], row["live_bytes"]) == (2000, 80_000)
    pages = int(result.out) * 4096
    assert pages > 20 * 80_000
    assert pages * 0.6 < row["page_bytes"] <= pages
    wide = execute(
        [leakline.binary, "top", recording.path, "--filter", "small"],
        env={"COLUMNS": "120"},
    )
    assert b" pages " in wide.out


UNTOUCHED = """
import ctypes, mmap, os, subprocess, sys
libc = ctypes.CDLL(None)
libc.calloc.restype = libc.malloc.restype = ctypes.c_void_p
libc.calloc.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def reserve():
    return libc.calloc(256, 1 << 20)

def small():
    return libc.malloc(40)

def large():
    return libc.malloc(4000)

def pool():
    return mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

# No huge pages, of which one touch makes all.
libc.prctl(41, 1, 0, 0, 0)
block = reserve()
ctypes.memset(block + (100 << 20), 1, 16 << 20)
area = pool()
area.write(bytes(range(256)) * (8 << 12))
kept, freed = [], []
for _ in range(2000):
    kept.append(small())
    freed.append(large())
for one in freed:
    libc.free(one)
asked = subprocess.Popen([sys.argv[1], "snapshot", str(os.getpid()), "here"], stdout=subprocess.DEVNULL)
while asked.poll() is None: [str(number) for number in range(100)]
assert asked.returncode == 0
# What was counted is written down while this is still there.
import time; time.sleep(1)
print(len({one >> 12 for one in kept}))
"""


def test_pages_that_nobody_touched_are_kept_by_nobody(
    leakline: Leakline, tmp_path: Path
) -> None:
    program = script(tmp_path, UNTOUCHED)
    result, recording = leakline.run(TARGET_PYTHON, program, leakline.binary)
    assert result.status == 0, result.err.decode()

    def row(by: str) -> Json:
        rows = recording.rows("--filter", by, at="here")
        found = max(rows, key=lambda row: int(row["live_bytes"]))
        assert found["page_bytes_are_resident"] is True, found
        return found

    assert row("reserve")["live_bytes"] >= 256 * MIB
    # Its first page has malloc's header.
    assert 16 * MIB <= row("reserve")["page_bytes"] <= 16 * MIB + (64 << 10)
    assert row("pool")["live_bytes"] == 64 * MIB
    assert row("pool")["page_bytes"] == 8 * MIB
    # What small blocks lie in between is there.
    pages = int(result.out) * 4096
    assert pages * 0.6 < row("small")["page_bytes"] <= pages


def test_the_child_of_a_heap_graph_is_no_fork(leakline: Leakline) -> None:
    """While it tells, it shares all pages with the process."""
    program = "import time; kept = [str(number) * 8 for number in range(1_000_000)]\n"
    program += "print('ready', flush=True)\n"
    program += "while True: [object() for _ in range(1000)]; time.sleep(0.01)"
    with running(TARGET_PYTHON, "-c", program) as target:
        tellers = Path(f"/proc/{target.pid}/task/{target.pid}/children")

        def stop_one() -> int | None:
            """It would soon have told all. At first the process waits for it."""
            for pid in map(int, tellers.read_text().split()):
                time.sleep(0.05)
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGSTOP)
                    return pid
            return None

        with attached(leakline, target.pid, ["--sample", "auto"]):
            pid = wait_for("a heap graph", stop_one)
            found = json.loads(text(leakline, str(target.pid), "--json"))
            status = Path(f"/proc/{pid}/status").read_text()
            assert "(stopped)" in status, status
            os.kill(pid, signal.SIGCONT)
    lines = {line["name"]: line for line in found["lines"]}
    assert lines["python_live"]["bytes"] > 90 * MIB, lines
    assert lines["copy_on_write"]["bytes"] < 2 * MIB, lines

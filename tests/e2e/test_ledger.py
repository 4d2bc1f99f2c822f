"""`leakline ledger` over real processes: its lines sum to what the kernel says is
resident, and say of it what the programs know themselves."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import (
    TARGET_PYTHON,
    Json,
    Leakline,
    Part,
    Programs,
    Result,
    execute,
    wait_for,
)

KIB, MIB = 1 << 10, 1 << 20
LINES = [
    "python_live",
    "python_free",
    "malloc_live",
    "malloc_free",
    "other_allocator",
    "anonymous",
    "files",
    "stacks",
    "shared_memory",
    "copy_on_write",
    "leakline",
    "unexplained",
]


class Target:
    """A program to look at, and what it said when it was ready."""

    def __init__(self, process: subprocess.Popen[bytes], errors: Path) -> None:
        self.process = process
        self.pid = process.pid
        self.errors = errors
        self.said = self.line()

    def line(self) -> bytes:
        assert self.process.stdout is not None
        line: bytes = self.process.stdout.readline()
        assert line.endswith(b"\n"), self.errors.read_text()
        return line

    def truth(self) -> Json:
        truth: Json = json.loads(self.said)
        return truth

    def tell(self, line: str) -> None:
        """Has it do something, and waits until it is done."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        self.line()

    def rss(self) -> int:
        return rss(self.pid)

    def small_blocks(self) -> int:
        """What CPython itself counts in its allocator for small blocks."""
        text = self.errors.read_text()
        found = re.search(r"# bytes in allocated blocks += +([\d,]+)", text)
        assert found, text
        return int(found[1].replace(",", ""))


def rss(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found, status
    return int(found[1]) * KIB


@contextmanager
def target(
    directory: Path, *command: Part, env: Mapping[str, str] | None = None
) -> Iterator[Target]:
    """Starts a program, and waits until it has said something. Killed at the end,
    with all that it started."""
    errors = directory / "errors"
    with errors.open("wb") as file:
        process = subprocess.Popen(
            [os.fspath(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
    try:
        yield Target(process, errors)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@contextmanager
def python(directory: Path, source: str) -> Iterator[Target]:
    end = "\nsys.stdout.write('ready\\n'); sys.stdout.flush(); after()\n"
    start = "import sys, time\nafter = lambda: time.sleep(100)\n"
    with target(directory, TARGET_PYTHON, "-c", start + source + end) as program:
        assert program.said == b"ready\n"
        yield program


def report(leakline: Leakline, pid: int, *options: str) -> Json:
    """A ledger whose lines sum up to it, and it to what the kernel says."""
    before = rss(pid)
    result = execute([leakline.binary, "ledger", str(pid), "--json", *options])
    after = rss(pid)
    assert result.status == 0, result.err.decode()
    found: Json = json.loads(result.out)
    assert (found["schema"], found["version"]) == ("leakline.ledger", 1)
    assert found["pid"] == pid
    lines = found["lines"]
    # There may be several other allocators.
    assert list(dict.fromkeys(line["name"] for line in lines)) == LINES
    assert sum(line["bytes"] for line in lines) == found["rss_bytes"]
    for line in lines:
        assert line["bytes"] == line["private_bytes"] + line["shared_bytes"]
    # The kernel's own counter lags by some pages a thread.
    slack = 512 * KIB
    assert found["rss_bytes"] >= min(before, after) * 0.99 - slack
    assert found["rss_bytes"] <= max(before, after) * 1.01 + slack
    return found


def amounts(found: Json) -> dict[str, int]:
    return {
        name: sum(line["bytes"] for line in found["lines"] if line["name"] == name)
        for name in LINES
    }


def largest(found: Json) -> str:
    lines = amounts(found)
    return max(lines, key=lambda name: lines[name])


def text(leakline: Leakline, *arguments: Part, columns: int = 80) -> str:
    env = {"COLUMNS": str(columns)}
    result = execute([leakline.binary, "ledger", *arguments], env=env)
    assert result.status == 0, result.err.decode()
    return result.out.decode()


# --- Python ------------------------------------------------------------------

LIVE = "data = [(i, str(i)) for i in range(700_000)]; sys._debugmallocstats()"
HOLES = """
data = [bytes(100) for _ in range(800_000)]
data = data[::400]
sys._debugmallocstats()
"""


def test_live_objects_are_what_python_counts(
    leakline: Leakline, tmp_path: Path
) -> None:
    with python(tmp_path, LIVE) as program:
        found = report(leakline, program.pid)
        truth = program.small_blocks()
    lines = amounts(found)
    assert truth > 80 * MIB
    assert lines["python_live"] == pytest.approx(truth, rel=0.005)
    assert largest(found) == "python_live"
    assert lines["python_free"] < 4 * MIB
    # The list itself.
    assert 700_000 * 8 <= lines["malloc_live"] < 20 * MIB
    assert lines["anonymous"] + lines["unexplained"] < MIB
    assert found["verdict"] == "live"
    assert "leak" not in (found["remedy"] or "")


def test_holes_in_arenas_are_free_but_held(leakline: Leakline, tmp_path: Path) -> None:
    """One object of four hundred keeps every arena."""
    with python(tmp_path, HOLES) as program:
        found = report(leakline, program.pid)
        truth = program.small_blocks()
        said = text(leakline, str(program.pid))
    lines = amounts(found)
    assert lines["python_live"] == pytest.approx(truth, rel=0.02, abs=64 * KIB)
    assert lines["python_free"] > 90 * MIB
    assert largest(found) == "python_free"
    assert found["sparse_python_arenas"] > found["python_arenas"] * 0.9
    assert found["verdict"] == "held"
    assert "CPython returns an arena once it is empty" in found["remedy"]
    assert "FREE BUT HELD" in said.splitlines()[0]


def test_a_forked_child_shares_its_memory(leakline: Leakline, tmp_path: Path) -> None:
    """And goes on sharing it after it was looked at: reading a shared page by
    process_vm_readv has the kernel copy it."""
    source = """
import gc, os
data = [bytes(200) for _ in range(400_000)]
gc.freeze()
child = os.fork()
if child == 0: time.sleep(100)
print(child, file=sys.stderr, flush=True)
"""
    with python(tmp_path, source) as program:
        child = int(program.errors.read_text())
        looks = [report(leakline, pid) for pid in [child, program.pid] * 2]
    for found in looks:
        line = next(line for line in found["lines"] if line["name"] == "copy_on_write")
        assert line["bytes"] > 0.85 * found["rss_bytes"]
        assert line["private_bytes"] == 0
        parts = {part["title"]: part["bytes"] for part in line["of_it"]}
        assert parts["live Python objects"] > 85 * MIB
    for first, second in zip(looks[:2], looks[2:]):
        assert amounts(first)["copy_on_write"] == pytest.approx(
            amounts(second)["copy_on_write"], abs=256 * KIB
        )


def test_files_and_shared_memory_are_apart(leakline: Leakline, tmp_path: Path) -> None:
    file = tmp_path / "large.bin"
    source = f"""
import mmap
file = open({os.fspath(file)!r}, "wb+"); file.truncate(100 << 20)
mapped = mmap.mmap(file.fileno(), 0)
for at in range(0, 100 << 20, 4096): mapped[at] = 1
shared = mmap.mmap(-1, 30 << 20); shared[:] = bytes([1]) * (30 << 20)
private = mmap.mmap(-1, 20 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, 20 << 20, 4096): private[at] = 1
"""
    with python(tmp_path, source) as program:
        found = report(leakline, program.pid)
    lines = amounts(found)
    files = next(line for line in found["lines"] if line["name"] == "files")
    (part,) = files["of_it"]
    assert (part["title"], part["bytes"]) == ("large.bin", 100 * MIB)
    assert 100 * MIB < lines["files"] < 120 * MIB
    assert 30 * MIB <= lines["shared_memory"] < 31 * MIB
    assert 20 * MIB <= lines["anonymous"] < 21 * MIB
    assert largest(found) == "files"
    assert found["verdict"] == "other"


def test_stacks_of_python_frames_are_stacks(leakline: Leakline, tmp_path: Path) -> None:
    """CPython maps 16 KiB and more a thread for them, from 3.11 on."""
    source = """
import threading
def use():
    deep(150)
    here.wait()
    time.sleep(100)
def deep(n): return n and deep(n - 1)
here = threading.Barrier(301)
for _ in range(300): threading.Thread(target=use, daemon=True).start()
here.wait()
"""
    with python(tmp_path, source) as program:
        found = report(leakline, program.pid)
    lines = amounts(found)
    assert lines["stacks"] > 2 * MIB
    assert lines["anonymous"] < MIB
    note = next(line["note"] for line in found["lines"] if line["name"] == "stacks")
    assert note == "301 stacks"


# --- real programs -----------------------------------------------------------


def needs(*packages: str) -> None:
    command = [TARGET_PYTHON, "-c", f"import {', '.join(packages)}"]
    if execute(command, timeout=60).status:
        pytest.skip(f"the interpreter has no {' or no '.join(packages)}")


def explained(found: Json) -> dict[str, int]:
    """Next to nothing is left over."""
    lines = amounts(found)
    assert lines["unexplained"] <= found["rss_bytes"] * 0.01, lines
    return lines


def test_a_uvicorn_worker_is_explained(leakline: Leakline, tmp_path: Path) -> None:
    needs("uvicorn")
    source = """
import http.client, socket, threading, uvicorn
kept = []
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    kept.extend({"path": scope["path"], "number": number} for number in range(2000))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x" * 10_000})
listening = socket.create_server(("127.0.0.1", 0))
server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
threading.Thread(target=server.run, args=([listening],), daemon=True).start()
while not server.started: time.sleep(0.01)
for _ in range(50):
    client = http.client.HTTPConnection(*listening.getsockname())
    client.request("GET", "/path")
    assert len(client.getresponse().read()) == 10_000
"""
    with python(tmp_path, source) as program:
        lines = explained(report(leakline, program.pid))
    # A dict and a number each.
    assert lines["python_live"] > 50 * 2000 * 200
    assert lines["anonymous"] < 4 * MIB, lines


def test_arrays_of_numpy_are_live_blocks(leakline: Leakline, tmp_path: Path) -> None:
    """It advises the kernel about a part of each large block, which makes mappings of
    their own of them; and maps files."""
    needs("numpy")
    file = tmp_path / "array.bin"
    source = f"""
import numpy
mapped = numpy.memmap({os.fspath(file)!r}, dtype="u1", mode="w+", shape=64 << 20)
mapped[:] = 1
arrays = [numpy.ones(3_000_000 + 1000 * number) for number in range(4)]
small = [numpy.ones(1000) for _ in range(2000)]
"""
    with python(tmp_path, source) as program:
        found = report(leakline, program.pid)
    lines = explained(found)
    arrays = 8 * (4 * 3_000_000 + 6000 + 2_000_000)
    assert arrays < lines["malloc_live"] < arrays + 24 * MIB, lines
    assert lines["anonymous"] < 4 * MIB, lines
    files = next(line for line in found["lines"] if line["name"] == "files")
    assert ("array.bin", 64 * MIB) in [
        (part["title"], part["bytes"]) for part in files["of_it"]
    ]


def test_a_process_with_polars_is_explained(leakline: Leakline, tmp_path: Path) -> None:
    needs("polars")
    source = """
import polars
frame = polars.DataFrame({"number": range(2_000_000)})
frame = frame.with_columns((polars.col("number") * 2).alias("twice"))
grouped = frame.group_by(polars.col("number") % 1000).agg(polars.col("twice").sum())
"""
    with python(tmp_path, source) as program:
        found = report(leakline, program.pid)
    lines = explained(found)
    # Its wheel has an allocator of its own, without a symbol.
    others = [one for one in found["lines"] if one["name"] == "other_allocator"]
    [inside] = [one for one in others if "inside _polars_runtime" in one["title"]]
    assert inside["title"].startswith(("jemalloc inside", "mimalloc inside"))
    assert inside["bytes"] > 2 * 8 * 2_000_000, lines
    assert inside["bytes"] == lines["other_allocator"]
    # The interpreter's and malloc's are nobody else's.
    assert lines["anonymous"] < inside["bytes"] / 4, lines
    assert lines["python_live"] > 2 * MIB
    assert lines["malloc_live"] > MIB


def test_a_process_with_pyarrow_is_explained(
    leakline: Leakline, tmp_path: Path
) -> None:
    """Its wheel has two allocators inside, and uses mimalloc."""
    needs("pyarrow")
    source = """
import pyarrow
def grow():
    return [pyarrow.array(range(100_000)) for _ in range(40)]
kept = grow()
"""
    with python(tmp_path, source) as program:
        found = report(leakline, program.pid)
    lines = explained(found)
    others = [one for one in found["lines"] if one["name"] == "other_allocator"]
    [inside] = [one for one in others if "inside libarrow" in one["title"]]
    assert "mimalloc" in inside["title"].split(" inside ")[0], inside
    assert inside["bytes"] > 8 * 100_000 * 40, lines
    assert lines["anonymous"] < inside["bytes"] / 4, lines
    # mimalloc maps a GiB, in the name of who needs it first.
    (tmp_path / "grow.py").write_text(source)
    result, recording = leakline.run(TARGET_PYTHON, tmp_path / "grow.py")
    assert result.status == 0, result.err.decode()
    rows = recording.rows("--filter", "grow", at=None)
    mapped = [row for row in rows if row["domain"] == "mmap"]
    assert sum(row["live_bytes"] for row in mapped) > 8 * 100_000 * 40, rows


# --- glibc's malloc ----------------------------------------------------------


@pytest.fixture
def heaps(programs: Programs) -> Path:
    return programs.program("heaps")


def test_arenas_are_what_malloc_says(
    leakline: Leakline, heaps: Path, tmp_path: Path
) -> None:
    with target(tmp_path, heaps, "arenas") as program:
        truth = program.truth()
        found = report(leakline, program.pid)
        said = text(leakline, str(program.pid))
        before = program.rss()
        program.tell("trim")
        returned = before - program.rss()
        after = report(leakline, program.pid)
    lines = amounts(found)
    # mallinfo counts what lies in threads' caches as used: up to seven blocks (since
    # glibc 2.42 sixteen) of each size up to a kilobyte in each of seven.
    glibc = os.confstr("CS_GNU_LIBC_VERSION") or ""
    most = 16 if int(glibc.rpartition(".")[2]) >= 42 else 7
    cached = 7 * most * sum(32 + 16 * size for size in range(64))
    assert truth["free"] > 150 * MIB
    assert lines["malloc_free"] >= truth["free"] * 0.995
    assert lines["malloc_free"] <= truth["free"] + cached
    assert lines["malloc_live"] <= truth["live"]
    assert lines["malloc_live"] >= (truth["live"] - cached) * 0.99
    # The caches are found, too.
    assert lines["malloc_free"] > truth["free"] + cached / 4
    assert found["arenas"] == truth["arenas"] == 7
    assert largest(found) == "malloc_free"
    assert found["verdict"] == "held"
    assert lines["unexplained"] == 0
    assert "7 arenas" in said
    assert "MALLOC_ARENA_MAX=2" in found["remedy"]
    # What malloc_trim gives back is what was promised.
    assert returned == pytest.approx(found["trimmable_bytes"], rel=0.1)
    assert after["trimmable_bytes"] < found["trimmable_bytes"] / 10
    assert amounts(after)["malloc_live"] == pytest.approx(
        lines["malloc_live"], rel=0.01
    )


def test_blocks_that_are_mapped_are_live(
    leakline: Leakline, heaps: Path, tmp_path: Path
) -> None:
    with target(tmp_path, heaps, "mapped") as program:
        truth = program.truth()
        found = report(leakline, program.pid)
    lines = amounts(found)
    assert truth["mapped"] > 80 * MIB
    assert lines["malloc_live"] == pytest.approx(
        truth["mapped"] + truth["live"], rel=0.005
    )
    assert lines["anonymous"] < 128 * KIB
    assert found["verdict"] == "live"


def test_stacks_of_threads(leakline: Leakline, heaps: Path, tmp_path: Path) -> None:
    with target(tmp_path, heaps, "stacks") as program:
        wait_for("the stacks", lambda: program.rss() > 300 * 68 * KIB)
        found = report(leakline, program.pid)
        maps = Path(f"/proc/{program.pid}/smaps").read_text()
    # 8 MiB each, as glibc makes them, and the main thread's. Where guard pages are no
    # mappings of their own (glibc 2.43) they are all in one.
    head = r"(?: (\[stack\])| 00:00 0 +)\nSize: +(\d+) kB\n"
    found_maps = re.findall(head + r"(?:.*\n)*?Rss: +(\d+) kB", maps)
    stacks = [one for one in found_maps if one[0] or int(one[1]) >= 8192]
    assert sum(int(size) // 8192 for _, size, _ in stacks) >= 290
    truth = sum(int(resident) for _, _, resident in stacks) * KIB
    assert truth > 290 * 64 * KIB
    assert amounts(found)["stacks"] == pytest.approx(truth, rel=0.04)
    assert largest(found) == "stacks"
    note = next(line["note"] for line in found["lines"] if line["name"] == "stacks")
    assert note == "301 stacks"


def test_a_heap_that_changes_all_the_time_adds_up(
    leakline: Leakline, heaps: Path, tmp_path: Path
) -> None:
    with target(tmp_path, heaps, "churn") as program:
        wait_for("heaps", lambda: program.rss() > 100 * MIB)
        for _ in range(8):
            found = report(leakline, program.pid)
            lines = amounts(found)
            assert found["arenas"] == 5
            assert lines["malloc_live"] > 0.85 * found["rss_bytes"]
            assert lines["unexplained"] < 0.05 * found["rss_bytes"]
        assert program.process.poll() is None


def test_a_static_program_has_its_heaps_told(
    leakline: Leakline, programs: Programs, tmp_path: Path
) -> None:
    built = tmp_path / "static"
    source = Path(__file__).parents[1] / "programs" / "heaps.c"
    if execute(["cc", "-O2", "-static", "-pthread", "-o", built, source]).status:
        pytest.skip("no static libc is installed")
    with target(tmp_path, built, "arenas") as program:
        truth = program.truth()
        found = report(leakline, program.pid)
    lines = amounts(found)
    assert lines["malloc_free"] >= truth["free"] * 0.995
    assert found["arenas"] == 7
    assert found["libc"] == "none (static)"


def test_jemalloc_is_named(leakline: Leakline, heaps: Path, tmp_path: Path) -> None:
    found = [
        path
        for place in ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib")
        for path in Path(place).glob("libjemalloc.so*")
    ]
    if not found:
        pytest.skip("no jemalloc is installed")
    env = {"LD_PRELOAD": os.fspath(found[0])}
    with target(tmp_path, heaps, "mapped", env=env) as program:
        found_lines = report(leakline, program.pid)
    lines = amounts(found_lines)
    assert 80 * MIB < lines["other_allocator"] < 100 * MIB
    assert lines["malloc_live"] == lines["malloc_free"] == 0
    line = next(
        line for line in found_lines["lines"] if line["name"] == "other_allocator"
    )
    assert (line["title"], line["note"]) == ("maps of jemalloc", "live: not known")


def test_leakline_itself_is_told(leakline: Leakline, tmp_path: Path) -> None:
    source = "data = [bytes(100) for _ in range(100_000)]\n"
    ready = "import time; print('ready', flush=True); time.sleep(100)"
    with python(tmp_path, source) as program:
        bare = amounts(report(leakline, program.pid))
    with leakline.started(TARGET_PYTHON, "-c", source + ready) as (process, _):
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        pids = [int(pid) for pid in children.split()]
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids}
        pid = next(pid for pid in pids if b"time.sleep" in commands[pid])
        recorded = amounts(report(leakline, pid))
    assert bare["leakline"] == 0
    assert 256 * KIB < recorded["leakline"] < 64 * MIB
    # Arenas that come through the interposer are arenas.
    assert recorded["python_live"] == pytest.approx(bare["python_live"], rel=0.1)


# --- two looks ---------------------------------------------------------------


def between_looks(leakline: Leakline, program: Target) -> tuple[Json, Result]:
    """Has a program do its work between the two looks of a ledger."""
    options = ["--interval", "4", "--json"]
    looking = subprocess.Popen(
        [leakline.binary, "ledger", str(program.pid), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    # The first look takes tenths of a second, the work below one.
    time.sleep(1.5)
    program.tell("go")
    out, err = looking.communicate(timeout=30)
    assert looking.returncode == 0, err.decode()
    assert program.process.poll() is None
    found: Json = json.loads(out)
    assert sum(line["since_bytes"] for line in found["lines"]) == found["since_bytes"]
    assert found["interval_seconds"] == pytest.approx(4, abs=2)
    return found, Result(looking.returncode, out, err, 0)


WORK = """
kept = []
def after():
    sys.stdin.readline()
    {}
    print("done", flush=True)
    time.sleep(100)
"""


def test_growth_of_live_memory_is_told(leakline: Leakline, tmp_path: Path) -> None:
    work = WORK.format("kept.extend([bytes(100) for _ in range(200_000)])")
    with python(tmp_path, work) as program:
        found, _ = between_looks(leakline, program)
    grown = {line["name"]: line["since_bytes"] for line in found["lines"]}
    assert found["verdict"] == "live_grew"
    # 100 bytes and a header of 33.
    assert grown["python_live"] == pytest.approx(200_000 * 144, rel=0.02)
    assert abs(grown["files"]) < MIB


def test_growth_of_free_memory_is_fragmentation(
    leakline: Leakline, tmp_path: Path
) -> None:
    work = WORK.format("kept.extend([bytes(100) for _ in range(300_000)][::300])")
    with python(tmp_path, work) as program:
        found, _ = between_looks(leakline, program)
    grown = {line["name"]: line["since_bytes"] for line in found["lines"]}
    assert found["verdict"] == "fragmentation"
    assert grown["python_free"] > 35 * MIB
    assert grown["python_live"] < MIB


def test_the_remedy_for_fragmentation_gives_the_memory_back(
    leakline: Leakline, tmp_path: Path
) -> None:
    """One of fifty blocks is kept: what is free in between is whole pages."""
    source = """
import ctypes
kept = []
def after():
    for line in sys.stdin:
        if line == "go\\n":
            kept.extend([bytes(600) for _ in range(200_000)][::50])
        else:
            ctypes.CDLL(None).malloc_trim(0)
        print("done", flush=True)
"""
    with python(tmp_path, source) as program:
        found, _ = between_looks(leakline, program)
        assert found["verdict"] == "fragmentation", found
        assert "malloc_trim" in found["remedy"], found["remedy"]
        promised = found["trimmable_bytes"]
        grown = next(one for one in found["lines"] if one["name"] == "malloc_free")
        assert promised > grown["since_bytes"] * 0.8 > 80 * MIB
        before = program.rss()
        program.tell("trim")
        assert before - program.rss() == pytest.approx(promised, rel=0.1)
        after = report(leakline, program.pid)
    assert amounts(after)["malloc_free"] < grown["bytes"] * 0.2


# --- what is printed ---------------------------------------------------------


@pytest.mark.parametrize("columns", [30, 45, 60, 80, 120, 200])
def test_a_ledger_fits_its_terminal(
    leakline: Leakline, heaps: Path, tmp_path: Path, columns: int
) -> None:
    with target(tmp_path, heaps, "mapped") as program:
        said = text(leakline, str(program.pid), columns=columns)
    assert "\x1b" not in said
    lines = said.splitlines()
    words = re.compile(r"\S{30,}")
    for line in lines[:-1]:
        assert len(line) <= columns or words.search(line), line
    assert lines[-1].startswith(f"next: leakline ledger {program.pid}")
    # Figures sum as they are printed.
    first = next(at for at, line in enumerate(lines) if line.split()[:1] == ["MiB"])
    last = next(at for at, line in enumerate(lines) if at > first and line[:3] == "RSS")
    added = [line for line in lines[first + 1 : last] if "of it" not in line]
    figure = re.compile(r" ([\d,]+\.\d)")
    figures = [figure.search(line) for line in [*added, lines[last]]]
    values = [float(found[1].replace(",", "")) for found in figures if found]
    assert len(values) == len(added) + 1 >= 3
    assert sum(values[:-1]) == pytest.approx(values[-1], abs=0.01)


def test_colour_only_where_it_is_wanted(
    leakline: Leakline, heaps: Path, tmp_path: Path
) -> None:
    with target(tmp_path, heaps, "mapped") as program:
        command: list[Part] = [leakline.binary, "ledger", str(program.pid)]
        forced = execute(command, env={"CLICOLOR_FORCE": "1"}).out
        without = execute(command, env={"NO_COLOR": "1"}).out
        pipe = f"{leakline.binary} ledger {program.pid} | head -1"
        cut = execute(["bash", "-o", "pipefail", "-c", pipe])
    assert b"\x1b[" in forced
    assert b"\x1b" not in without
    assert cut.status == 0, cut.err.decode()
    assert cut.err == b""


# --- what is no process to look at -------------------------------------------


def refused(leakline: Leakline, *arguments: Part, status: int = 3) -> str:
    result = execute([leakline.binary, "ledger", *arguments])
    assert (result.status, result.out) == (status, b"")
    words = result.err.decode()
    assert words.startswith("error: ")
    assert "\nhint: " in words
    as_json = execute([leakline.binary, "ledger", *arguments, "--json"])
    assert as_json.status == status
    assert set(json.loads(as_json.out)) == {"error", "hint"}
    return words


def test_a_process_that_is_gone(leakline: Leakline) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert refused(leakline, str(gone.pid)) == (
        f"error: cannot look into the memory of process {gone.pid}: "
        "there is no such process\n\n"
        "hint: `leakline ps` lists the processes that there are\n"
    )


def test_what_has_no_memory(leakline: Leakline) -> None:
    zombie = subprocess.Popen(["true"])
    state = Path(f"/proc/{zombie.pid}/stat")
    wait_for("the end", lambda: ") Z " in state.read_text())
    assert "has ended already" in refused(leakline, str(zombie.pid))
    zombie.wait()
    kernel = Path("/proc/2/cmdline")
    if kernel.exists() and not kernel.read_bytes():
        assert "thread of the kernel" in refused(leakline, "2")


def test_a_thread_is_not_a_process(leakline: Leakline, tmp_path: Path) -> None:
    source = "import threading; threading.Thread(target=time.sleep, args=(99,)).start()"
    with python(tmp_path, source) as program:
        threads = os.listdir(f"/proc/{program.pid}/task")
        thread = next(tid for tid in threads if int(tid) != program.pid)
        words = refused(leakline, thread)
    assert f"`leakline ledger {program.pid}`" in words


def test_wrong_usage(leakline: Leakline) -> None:
    for wrong in ("x", "99999999999", "a.leakline"):
        result = execute([leakline.binary, "ledger", wrong])
        assert (result.status, result.out) == (3, b"")
        assert wrong.encode() in result.err
    for arguments in (
        ["1", "--interval", "0"],
        ["1", "--interval", "x"],
        ["1", "--interval", "5", "--from", "start"],
        ["a.leakline", "--interval", "5"],
    ):
        assert execute([leakline.binary, "ledger", *arguments]).status == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user's place")
def test_a_process_of_another_user(
    leakline: Leakline, heaps: Path, tmp_path: Path
) -> None:
    with (
        tempfile.TemporaryDirectory() as place,
        target(tmp_path, heaps, "mapped") as it,
    ):
        copy = Path(place) / "leakline"
        copy.write_bytes(leakline.binary.read_bytes())
        copy.chmod(0o755)
        os.chmod(place, 0o755)
        result = subprocess.run(
            [copy, "ledger", str(it.pid)],
            capture_output=True,
            user=65534,
            group=65534,
            extra_groups=[],
            check=False,
        )
    words = result.stderr.decode()
    assert (result.returncode, result.stdout) == (3, b"")
    assert "the kernel does not allow it" in words
    assert f"hint: `sudo leakline ledger {it.pid}`" in words


def test_a_32_bit_program_is_told_by_the_kernels_sums(
    leakline: Leakline, tmp_path: Path
) -> None:
    """Made by hand: `pause()` for ever, in i386's own system calls."""
    code = bytes.fromhex("b81d000000cd80ebf7")
    base, headers = 0x08048000, 52 + 32
    size = headers + len(code)
    ident = b"\x7fELF" + bytes([1, 1, 1]) + bytes(9)
    header = ident + struct.pack(
        "<HHIIIIIHHHHHH", 2, 3, 1, base + headers, 52, 0, 0, 52, 32, 1, 0, 0, 0
    )
    segment = struct.pack("<8I", 1, 0, base, base, size, size, 5, 0x1000)
    binary = tmp_path / "narrow"
    binary.write_bytes(header + segment + code)
    binary.chmod(0o755)
    try:
        process = subprocess.Popen([binary])
    except OSError as error:
        pytest.skip(f"this kernel runs no 32-bit programs: {error}")
    try:
        exe = Path(f"/proc/{process.pid}/exe")
        wait_for("the exec", lambda: exe.resolve() == binary.resolve())
        found = report(leakline, process.pid)
        said = text(leakline, str(process.pid))
    finally:
        process.kill()
        process.wait()
    assert found["not_read"] == "32-bit programs are not looked into"
    assert (found["live_bytes"], found["free_bytes"]) == (0, 0)
    assert "live and free memory are not told apart" in " ".join(said.split())

"""Heap graphs that are read from outside: nothing is forked, the process need not come
by, and paths are those that the sources say."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import (
    PYTHON_PROGRAMS,
    TARGET_PYTHON,
    Json,
    Leakline,
    Part,
    Recording,
    execute,
    find_leakline,
    wait_for,
)
from test_inventory import needs_gil
from test_ledger import target

VERSION = tuple(
    int(part)
    for part in execute(
        [TARGET_PYTHON, "-c", "import sys; print(*sys.version_info[:2])"]
    ).out.split()
)
pytestmark = needs_gil
since_311 = pytest.mark.skipif(VERSION < (3, 11), reason="objects lie otherwise")

# Runs a program as `__main__`, and waits.
WAITING = """
import sys
path = sys.argv.pop(1)
exec(compile(open(path).read(), path, "exec"))
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def attached(leakline: Leakline, pid: int, *options: str) -> Iterator[Recording]:
    path = leakline.directory / f"outside.{pid}.leakline"
    session = subprocess.Popen(
        [leakline.binary, "attach", str(pid), "-o", path, *options],
        stderr=subprocess.PIPE,
    )
    try:
        wait_for(
            "the session",
            lambda: (
                execute([leakline.binary, "snapshot", str(pid), "begun"]).status == 0
            ),
        )
        yield Recording(leakline.binary, path)
    finally:
        session.terminate()
        session.communicate(timeout=60)


def take(leakline: Leakline, pid: int, name: str) -> Json:
    result = execute(
        [leakline.binary, "snapshot", str(pid), name, "--heap", "--outside", "--json"]
    )
    assert result.status == 0, result.err.decode()

    (graph,) = json.loads(result.out)["heap_graphs"]
    found: Json = graph
    return found


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    directory = tmp_path_factory.mktemp("outside")
    leakline = Leakline(find_leakline(), directory)
    program: list[Part] = [TARGET_PYTHON, "-c", WAITING, PYTHON_PROGRAMS / "shapes.py"]
    with (
        target(directory, *program) as process,
        attached(leakline, process.pid, "--heap", "never") as recording,
    ):
        graph = take(leakline, process.pid, "shapes")
        assert graph["outcome"] == "outside"
        assert graph["objects"] > 10_000
        assert graph["references"] > graph["objects"]
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        assert children.read_text() == ""
    return recording


@since_311
@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("InModule", r'__main__\.CACHE\["only"\]'),
        ("InClosure", r"__main__\.CLOSURE closure held"),
        ("InDefault", r"__main__\.with_default\.__defaults__\[\*\]"),
        ("InClass", r"__main__\.Registry\.known\[\*\]"),
        ("InSlot", r"__main__\.SLOTTED\.second"),
        # Entries of the cache are in a list of C's, too.
        ("InCache", r"__main__\.cached( \(ref\))+"),
        ("InCycle", r"__main__\.PARENT\.child\.held"),
        ("InCallback", r"__main__\.REFERENCE\.__callback__ closure held"),
        (
            "InHandler",
            r"[\w.]+\.manager\.loggerDict\[\*\]\.handlers\[\*\]\.records\[\*\]",
        ),
        ("InLocal", r'__main__\.LOCAL .*\["value"\]'),
        ("InTraceback", r"__main__\.LAST\.__traceback__( \(ref\))?\.tb_frame.*"),
        ("InTask", r"__main__\.TASK \(ref\).* held"),
        ("InGenerator", r"__main__\.GENERATOR held"),
        ("InContext", r"__main__\.CONTEXT( \(ref\))+"),
        ("InPartial", r"__main__\.PARTIAL\.args\[\*\]"),
        ("AtExit", r"(C code (function|list\[\*\]\[\*\])|atexit \(ref\)) closure held"),
        ("OnSignal", r"C code function closure held"),
        ("InMethod", r"__main__\.METHOD\.__self__"),
        ("InThread", r"frame run( \(ref\))? waiting"),
    ],
)
def test_paths_are_those_that_a_child_tells(
    shapes: Recording, what: str, words: str
) -> None:
    report = shapes.report("why", what)
    (group,) = report["groups"]
    (path,) = group["paths"]
    assert re.fullmatch(words, path["words"]), path["words"]
    assert path["count"] == 1
    # Nothing is said of it that only an instant's picture could tell.
    assert not report["whole"]
    assert report["garbage_objects"] == 0


@since_311
def test_who_holds_what_is_the_same_as_a_child_says(
    leakline: Leakline, tmp_path: Path
) -> None:
    source = (PYTHON_PROGRAMS / "holders.py").read_text()
    assert "Session" in source
    busy = WAITING.replace(
        "sys.stdin.read()", "while True: [object() for _ in range(100)]"
    )
    program: list[Part] = [TARGET_PYTHON, "-c", busy, PYTHON_PROGRAMS / "holders.py"]
    with (
        target(tmp_path, *program) as process,
        attached(leakline, process.pid, "--heap", "never") as recording,
    ):
        whole = execute(
            [leakline.binary, "snapshot", str(process.pid), "inside", "--heap"]
        )
        assert whole.status == 0, whole.err.decode()
        take(leakline, process.pid, "outside")
    for what in ("Session", "Pool", "Job", "__main__.Node", "Page"):
        inside, outside = (
            recording.report("why", what, "--graph", number) for number in ("1", "2")
        )
        assert (inside["whole"], outside["whole"]) == (True, False)
        told = [
            [(path["words"], path["count"], path["others"]) for path in group["paths"]]
            for report in (inside, outside)
            for group in report["groups"]
        ]
        assert told[0] == told[1], what
        # From outside those are blocks, and tables of attributes.
        sizes = [report["groups"][0]["retained_bytes"] for report in (inside, outside)]
        assert 0.95 * sizes[0] < sizes[1] < 1.9 * sizes[0], what


@since_311
def test_a_worker_that_sleeps_has_graphs(leakline: Leakline, tmp_path: Path) -> None:
    """It never comes by to take them itself."""
    source = (
        "import time\n"
        "from collections import deque\n"
        "class Session: pass\n"
        "class Job: pass\n"
        "QUEUE = deque(Job() for _ in range(300))\n"
        "for _ in range(20): QUEUE.popleft()\n"
        "SESSIONS = {number: Session() for number in range(9000)}\n"
        "print('ready', flush=True)\n"
        "time.sleep(1000)\n"
    )
    path = tmp_path / "asleep.leakline"
    with target(tmp_path, TARGET_PYTHON, "-c", source) as process:
        session = execute(
            [leakline.binary, "attach", str(process.pid), "-o", path, "--duration", "2"]
        )
        assert session.status == 0, session.err.decode()
        assert process.process.poll() is None
    said = session.err.decode()
    told = re.findall(
        r"^heap graph \d of process \d+: [\d,]+ objects, .*; read from outside, approximate: it did not come by in \d+ s: .*$",
        said,
        re.MULTILINE,
    )
    assert len(told) == 2, said
    text = execute([leakline.binary, "why", path, "Session"]).out.decode()
    assert "the graph is approximate: it was read from outside" in text
    assert re.search(r"\.?SESSIONS +dict, keys \[int\] +1 ", text), text
    assert re.search(r"\[\*\] +__main__.Session +9,000 ", text), text
    text = execute([leakline.binary, "why", path, "Job"]).out.decode()
    assert re.search(r"QUEUE +collections.deque +1 ", text), text
    assert re.search(r"\[\*\] +__main__.Job +280 ", text), text


@since_311
def test_a_busy_process_is_read_without_harm(
    leakline: Leakline, tmp_path: Path
) -> None:
    source = """
import random, threading, time
class Node:
    def __init__(self): self.next, self.some = None, [random.random() for _ in range(5)]
def churn():
    kept = {}
    while True:
        kept[random.randrange(2000)] = Node()
        if random.random() < 0.01: kept = dict(list(kept.items())[::2])
for _ in range(4): threading.Thread(target=churn, daemon=True).start()
print("ready", flush=True)
beats = 0
while True:
    time.sleep(0.01); beats += 1
"""
    with (
        target(tmp_path, TARGET_PYTHON, "-c", source) as process,
        attached(leakline, process.pid, "--heap", "never") as recording,
    ):
        before = os.listdir(f"/proc/{process.pid}/task")
        for number in range(6):
            graph = take(leakline, process.pid, f"read-{number}")
            assert graph["outcome"] == "outside", graph
        assert process.process.poll() is None
        assert os.listdir(f"/proc/{process.pid}/task") == before
    found = recording.report("why", "Node")
    assert found["groups"][0]["count"] > 100


@pytest.mark.skipif(VERSION >= (3, 11), reason="it is read there")
def test_older_pythons_are_not_read(leakline: Leakline, tmp_path: Path) -> None:
    source = "import time; print('ready', flush=True); time.sleep(1000)"
    with (
        target(tmp_path, TARGET_PYTHON, "-c", source) as process,
        attached(leakline, process.pid, "--heap", "never"),
    ):
        result = execute(
            [
                leakline.binary,
                "snapshot",
                str(process.pid),
                "none",
                "--heap",
                "--outside",
            ]
        )
    assert result.status == 3
    assert b"no heap graph was taken; the snapshot `none` is there" in result.err

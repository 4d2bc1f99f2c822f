"""Sessions of a process with itself, in the middle of what programs do: tasks, threads, Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from harness import execute


def told(place: Path, text: str) -> Any:
    script = place / "program.py"
    script.write_text(text)
    ended = execute([sys.executable, script], cwd=place, timeout=120)
    assert ended.status == 0, ended.err.decode()
    return json.loads(ended.out)


TASKS = """\
import asyncio, json
import leakline

KEPT = []

async def made_in_a_task(count):
    for number in range(count):
        KEPT.append(bytearray(1000))
        if number % 10 == 0:
            await asyncio.sleep(0)

async def main():
    with leakline.record("out.leakline") as session:
        await made_in_a_task(10)
        session.mark("warm")
        beats = 0
        async def beat():
            nonlocal beats
            while True:
                beats += 1
                await asyncio.sleep(0.001)
        heart = asyncio.create_task(beat())
        await asyncio.gather(*(made_in_a_task(100) for _ in range(5)))
        before = leakline.snapshot()
        # A task that waits is asked for, and goes on.
        kept = await asyncio.to_thread(leakline.why, KEPT)
        why = [one.words for one in (*kept.holders, *kept.paths)]
        while beats < 50:
            await asyncio.sleep(0.001)
        heart.cancel()
    return session.summary, beats, why

summary, beats, why = asyncio.run(main())
rows = leakline.open("out.leakline").diff("warm", "end", filter="made_in_a_task")
print(json.dumps({
    "bytes": sum(row.delta_bytes for row in rows),
    "lost": summary.lost_events, "beats": beats, "why": why,
}))
"""


def test_a_session_among_tasks(tmp_path: Path) -> None:
    found = told(tmp_path, TASKS)
    assert found["lost"] == 0
    # 500 arrays, each a head of 56 bytes and a buffer.
    assert 500 * 1000 <= found["bytes"] <= 500 * 1200, found
    assert found["beats"] >= 50
    assert "__main__.KEPT" in found["why"], found


THREADS = """\
import json, threading
import leakline

KEPT, errors, names = [], [], []
def made_in_a_thread(session, number):
    try:
        for at in range(200):
            KEPT.append(bytearray(1000))
            if at % 50 == 0:
                session.mark(f"thread {number} {at}")
        names.append(leakline.snapshot(f"of {number}").name)
        try:
            leakline.start("other.leakline")
        except leakline.LeaklineError as error:
            errors.append(str(error))
    except BaseException as error:
        errors.append(repr(error))

threads = []
session = leakline.start("out.leakline")
for number in range(8):
    threads.append(threading.Thread(target=made_in_a_thread, args=(session, number)))
for thread in threads:
    thread.start()
asked = [None]
def ask():
    asked[0] = leakline.allocated_at(KEPT[0])
asking = threading.Thread(target=ask)
asking.start()
for thread in (*threads, asking):
    thread.join()
stopped = []
# Several at once: one ends it, the others get the same, or are told that it is over.
def stop():
    try:
        stopped.append(session.stop().lost_events)
    except Exception as error:
        stopped.append(type(error).__name__)
stopping = [threading.Thread(target=stop) for _ in range(4)]
for thread in stopping:
    thread.start()
for thread in stopping:
    thread.join()
rows = leakline.open("out.leakline").top(filter="made_in_a_thread", at="end")
print(json.dumps({
    "bytes": sum(row.live_bytes for row in rows), "errors": errors, "names": sorted(names),
    "stopped": stopped, "current": leakline._session.current() is None,
    "made": asked[0].python[0].function if asked[0] else None,
}))
"""


def test_a_session_among_threads(tmp_path: Path) -> None:
    found = told(tmp_path, THREADS)
    assert 8 * 200 * 1000 <= found["bytes"] <= 8 * 200 * 1250, found
    assert len(found["errors"]) == 8, found
    assert all("recording already" in text for text in found["errors"]), found
    assert found["names"] == [f"of {number}" for number in range(8)]
    assert found["stopped"].count(0) >= 1, found
    assert set(found["stopped"]) <= {0, "LeaklineError"}, found
    assert found["current"]
    assert found["made"] == "made_in_a_thread", found


INTERRUPTED = """\
import sys, time
import leakline

def work():
    # Long in Rust and in another process: reports of a recording of many stacks, over and over.
    recording = leakline.open("big.leakline")
    while True:
        recording.top(limit=0)
        leakline.top_retained()

with leakline.record("big.leakline"):
    import asyncio, decimal, email.mime.text, http.server, json, logging, sqlite3, unittest
print("ready", flush=True)
try:
    work()
except KeyboardInterrupt:
    print("interrupted", flush=True)
# It goes on, and can be recorded again.
with leakline.record("again.leakline") as session:
    kept = [bytearray(1000) for _ in range(100)]
print(session.summary.live_bytes >= 100_000, leakline._session.current(), flush=True)
"""


def test_ctrl_c_ends_long_work_and_nothing_else(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(INTERRUPTED)
    with subprocess.Popen(
        [sys.executable, script],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        time.sleep(1.5)
        began = time.monotonic()
        program.send_signal(signal.SIGINT)
        out, err = program.communicate(timeout=60)
        took = time.monotonic() - began
    assert out.splitlines() == ["interrupted", "True None"], (out, err)
    assert program.returncode == 0, err
    assert took < 30, took
    assert not list(tmp_path.glob("*.sock"))


DECORATED = """\
import asyncio, json
import leakline

KEPT = []

@leakline.record("plain.leakline")
def plain(count, *, size):
    KEPT.extend(bytearray(size) for _ in range(count))
    return "answer"

@leakline.record("tasks.leakline")
async def awaited(count):
    for _ in range(count):
        await asyncio.sleep(0)
        KEPT.append(bytearray(1000))
    return "later"

@leakline.record("raises.leakline")
def raises():
    raise KeyError("its own")

answers = [plain(100, size=1000), asyncio.run(awaited(100))]
try:
    raises()
except KeyError as error:
    answers.append(error.args[0])
again = None
try:
    plain(1, size=1)
except leakline.LeaklineError as error:
    again = str(error)
print(json.dumps({
    "answers": answers, "names": [plain.__name__, awaited.__name__], "again": again,
    "bytes": [leakline.open(f"{name}.leakline").stats()["totals"]["live_bytes"]
              for name in ("plain", "tasks", "raises")],
    "current": leakline._session.current() is None,
}))
"""


def test_calls_of_a_decorated_function_are_recorded(tmp_path: Path) -> None:
    found = told(tmp_path, DECORATED)
    assert found["answers"] == ["answer", "later", "its own"]
    assert found["names"] == ["plain", "awaited"]
    plain, awaited, raises = found["bytes"]
    assert plain >= 100_000, found
    assert awaited >= 100_000, found
    assert raises < 100_000, found
    assert "exists" in found["again"], found
    assert found["current"]


EXAMPLES = """\
import doctest, importlib, json, pkgutil
import leakline

with leakline.record("out.leakline"):
    import app, app.cache, app.views
    app.views.login("ann")
    app.cache.PAGES.update((number, bytearray(2000)) for number in range(6000))
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    tried = {}
    for info in pkgutil.iter_modules(leakline.__path__):
        if info.name in ("__main__", "_native", "pytest_plugin", "_judging", "_notebook"):
            continue
        module = importlib.import_module("leakline." + info.name)
        names = {"leakline": leakline, "app": app}
        found = doctest.testmod(module, extraglobs=names, optionflags=flags)
        tried[info.name] = [found.failed, found.attempted]
print(json.dumps(tried))
"""


def test_examples_in_docstrings_run(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    texts = {
        "__init__": "class Session:\n    def __init__(self, user):\n        self.user = user\n",
        "cache": "SESSIONS, PAGES = {}, {}\n",
        "views": "import app\nfrom app.cache import SESSIONS\n\n"
        "def login(user):\n    SESSIONS[7] = app.Session(user)\n",
    }
    for name, text in texts.items():
        (tmp_path / "app" / f"{name}.py").write_text(text)
    (tmp_path / "program.py").write_text(EXAMPLES)
    ended = execute([sys.executable, "program.py"], cwd=tmp_path, timeout=120)
    out = ended.out.decode()
    assert ended.status == 0, out + ended.err.decode()
    tried = json.loads(out.splitlines()[-1])
    assert [failed for failed, _ in tried.values()] == [0] * len(tried), out
    assert tried["_retention"][1] >= 4, tried

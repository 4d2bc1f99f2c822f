"""Killed, stopped and starved: target and collector."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from harness import (
    PYTHON_PROGRAMS,
    TARGET_PYTHON,
    Leakline,
    Part,
    Programs,
    Recording,
    by_function,
    collector_of,
    sums,
    wait_for,
)


def first_pid(process: subprocess.Popen[bytes]) -> int:
    """The target's own pid, which it says first."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith(b"pid "), line
    return int(line.split()[1])


def rest_of(process: subprocess.Popen[bytes]) -> list[bytes]:
    """What it still says on stdout, until it has ended. Read through the same
    buffer as the lines before: `communicate` would pass it by."""
    assert process.stdout is not None
    assert process.stderr is not None
    lines = process.stdout.read().splitlines()
    err = process.stderr.read()
    process.wait(60)
    assert err == b"", err
    return lines


def live_blocks(recording: Recording) -> int:
    """All live blocks: `batches` leaks in one place and frees the rest at once.
    Needs no names, which come into the file some time after the counts."""
    blocks: int = recording.stats()["totals"]["live_blocks"]
    return blocks


def leaked(recording: Recording) -> dict[str, int]:
    rows = by_function(recording.rows(), ["leaked"])["leaked"]
    return sums(row for row in rows if row["domain"] in ("native", "obj"))


@pytest.mark.parametrize("kind", ["native", "python"])
def test_kill_of_the_target(
    leakline: Leakline, programs: Programs, long: bool, kind: str
) -> None:
    """Whatever it had reported on stdout before the kill is in the recording."""
    batch = 100
    program: list[Part] = (
        [programs.program("batches"), str(batch)]
        if kind == "native"
        else [TARGET_PYTHON, PYTHON_PROGRAMS / "batches.py", str(batch)]
    )
    chance = random.Random(20)
    for _ in range(50 if long else 4):
        with leakline.started(*program) as (process, recording):
            pid = first_pid(process)
            # The pipe is read meanwhile, or the program would wait for it.
            assert process.stdout is not None
            deadline = time.monotonic() + chance.uniform(0, 0.4)
            lines = []
            while time.monotonic() < deadline:
                lines.append(process.stdout.readline())
            os.kill(pid, signal.SIGKILL)
            lines += rest_of(process)
            assert process.returncode == -signal.SIGKILL
            complete = [line.split() for line in lines if line.count(b" ") == 1]
            reported = int(complete[-1][1]) if complete else 0
            live = leaked(recording)["live_blocks"]
            # A batch may have been under way, or done and not reported.
            assert reported <= live <= reported + 2 * batch
            assert recording.process(pid)["signal"] == signal.SIGKILL
        recording.path.unlink()


def batches(programs: Programs) -> list[Part]:
    """About three seconds of work at a pace that any collector can keep."""
    return [programs.program("batches"), "100", "1000", "2500"]


def test_kill_of_the_collector(leakline: Leakline, programs: Programs) -> None:
    """The target is unharmed; the file opens and has what came before."""
    with leakline.started(*batches(programs)) as (process, recording):
        first_pid(process)
        collector = wait_for("the collector", lambda: collector_of(process.pid))
        time.sleep(2)  # the first second of it must be in the file
        os.kill(collector, signal.SIGKILL)
        started = time.monotonic()
        lines = rest_of(process)
        assert lines[-1] == b"done"
        assert len(lines) == 2501
        # 1 s until it goes lossy, the rest of its work, and some room.
        assert time.monotonic() - started < 8
        assert process.returncode in (0, 125)
        assert live_blocks(recording) > 0
        assert recording.stats()["totals"]["complete"] is False


def test_a_stopped_collector(leakline: Leakline, programs: Programs) -> None:
    """The target waits a bounded time, then goes on; losses are counted."""
    with leakline.started(programs.program("batches"), "20000", "0", "100") as (
        process,
        recording,
    ):
        first_pid(process)
        collector = wait_for("the collector", lambda: collector_of(process.pid))
        os.kill(collector, signal.SIGSTOP)
        started = time.monotonic()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line == b"done\n":
                    break
            late = time.monotonic() - started
        finally:
            os.kill(collector, signal.SIGCONT)
        # 6 million events take less than 2 s on a slow machine, and the wait is 1 s.
        assert late < 15
        rest_of(process)
        assert process.returncode == 0
        totals = recording.stats()["totals"]
        assert totals["lost_events"] > 0
        assert totals["complete"] is False


def test_a_collector_stopped_for_a_moment(
    leakline: Leakline, programs: Programs
) -> None:
    """Shorter than the wait: nothing is lost."""
    with leakline.started(programs.program("batches"), "5000", "0", "200") as (
        process,
        recording,
    ):
        first_pid(process)
        collector = wait_for("the collector", lambda: collector_of(process.pid))
        for _ in range(3):
            os.kill(collector, signal.SIGSTOP)
            time.sleep(0.3)
            os.kill(collector, signal.SIGCONT)
            time.sleep(0.1)
        lines = rest_of(process)
        assert process.returncode == 0
        assert lines[-1] == b"done"
        assert leaked(recording)["live_blocks"] == 5000 * 200
        assert recording.stats()["totals"]["complete"] is True


def stop(pid: int) -> None:
    """Stops a process, and waits until no thread of it runs."""
    os.kill(pid, signal.SIGSTOP)

    def state(task: Path) -> str:
        return (task / "stat").read_text().rsplit(")", 1)[1].split()[0]

    tasks = Path(f"/proc/{pid}/task")
    wait_for("the stop", lambda: all(state(task) == "T" for task in tasks.iterdir()))


def test_programs_started_while_the_collector_is_stopped(
    leakline: Leakline, tmp_path: Path
) -> None:
    """The first waits for it, the others know; all run, and are counted."""
    commands = tmp_path / "commands"
    os.mkfifo(commands)
    program: list[Part] = [TARGET_PYTHON, PYTHON_PROGRAMS / "starts.py", commands]
    with leakline.started(*program) as (process, recording):
        pid = first_pid(process)
        collector = wait_for("the collector", lambda: collector_of(process.pid))
        assert process.stdout is not None
        with commands.open("w") as told:

            def start(count: int) -> tuple[float, int]:
                assert process.stdout is not None
                print(count, file=told, flush=True)
                seconds, complaints = process.stdout.readline().split()
                return float(seconds), int(complaints)

            start(2)
            stop(collector)
            try:
                seconds, complaints = start(6)
                # Two seconds each would be twelve.
                assert 1.9 < seconds < 5
                assert complaints == 1
            finally:
                os.kill(collector, signal.SIGCONT)
            # Once it is at work again, all is as before: nobody is left out,
            # and a stop that is shorter than the wait costs nothing.
            wait_for("an answer", lambda: start(1) < (0.5, 0))
            time.sleep(0.1)
            before = start(2)
            assert before < (1, 0), before
            stop(collector)
            late = threading.Timer(0.5, os.kill, (collector, signal.SIGCONT))
            late.start()
            seconds, complaints = start(1)
            late.join()
            assert 0.4 < seconds < 2
            assert complaints == 0
            # Nothing of the program is left when the collector goes on.
            stop(collector)
            assert start(3)[0] < 4
        try:
            # `leakline` has taken its status, and waits for the collector.
            wait_for("the program's end", lambda: not Path(f"/proc/{pid}").exists())
        finally:
            os.kill(collector, signal.SIGCONT)
        assert rest_of(process) == []
        assert process.returncode == 0
        texts = [note["text"] for note in recording.stats()["notes"]]
        assert (
            "9 processes were not recorded: the collector did not answer in time"
            in texts
        )
        recorded = recording.stats()["processes"]
        assert sum(Path(one["command"]).name == "true" for one in recorded) >= 6


def test_kill_of_both(leakline: Leakline, programs: Programs) -> None:
    """At most the last second is missing."""
    with leakline.started(programs.program("batches"), "100", "2000") as (
        process,
        recording,
    ):
        pid = first_pid(process)
        collector = wait_for("the collector", lambda: collector_of(process.pid))
        assert process.stdout is not None
        reported = []
        started = time.monotonic()
        while time.monotonic() - started < 3:
            line = process.stdout.readline().split()
            reported.append((time.monotonic(), int(line[1])))
        os.kill(collector, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        rest_of(process)
        assert process.returncode in (-signal.SIGKILL, 125)
        before = [blocks for at, blocks in reported if at < killed - 1.1]
        assert live_blocks(recording) >= before[-1]


def test_kill_of_the_supervisor(leakline: Leakline, programs: Programs) -> None:
    """`leakline run` itself is killed: the target goes on, and is recorded."""
    with leakline.started(programs.program("batches"), "100", "1000", "1000") as (
        process,
        recording,
    ):
        pid = first_pid(process)
        collector = wait_for("the collector", lambda: collector_of(process.pid))
        os.kill(process.pid, signal.SIGKILL)
        lines = rest_of(process)
        assert lines[-1] == b"done"
        wait_for("the target's end", lambda: not os.path.exists(f"/proc/{pid}"))
        wait_for(
            "the collector's end", lambda: not os.path.exists(f"/proc/{collector}")
        )
        assert leaked(recording)["live_blocks"] == 100 * 1000


def test_an_open_recording_can_be_read(leakline: Leakline, programs: Programs) -> None:
    with leakline.started(*batches(programs)) as (process, recording):
        first_pid(process)
        collector = wait_for("the collector", lambda: collector_of(process.pid))
        assert collector
        seen = []
        for _ in range(2):
            time.sleep(1.2)
            seen.append(live_blocks(recording))
        assert 0 < seen[0] < seen[1] or process.poll() is not None
        rest_of(process)
        assert leaked(recording)["live_blocks"] == 100 * 2500

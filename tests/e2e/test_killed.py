"""Killed, stopped and starved: target and collector."""

from __future__ import annotations

import os
import random
import shutil
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


def test_a_signal_while_libraries_are_told_of(
    leakline: Leakline, programs: Programs, tmp_path: Path
) -> None:
    """With a stopped collector and full rings a thread waits for room, but not
    with signals blocked."""
    plugin = programs.plugin("alpha", 1000)
    libraries = []
    for number in range(30):  # 27 KB of names: more than a chunk holds
        directory = tmp_path / "/".join([f"{number:0200}"] * 4)
        directory.mkdir(parents=True)
        libraries.append(shutil.copy(plugin, directory / "plugin.so"))
    with leakline.started(
        programs.program("late_signals"), *libraries, options=["--wait", "forever"]
    ) as (process, recording):
        pid = first_pid(process)
        collector = wait_for("the collector", lambda: collector_of(process.pid))
        os.kill(collector, signal.SIGSTOP)
        try:
            os.kill(pid, signal.SIGUSR1)
            assert process.stdout is not None
            said = process.stdout.readline()
        finally:
            os.kill(collector, signal.SIGCONT)
        assert said == b"handled\n"
        assert rest_of(process)[-1] == b"done"
        assert recording.stats()["totals"]["complete"] is True
        rows = recording.rows("--filter", "leak_of_alpha")
        assert sum(row["live_blocks"] for row in rows) == len(libraries)


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


def state_of(pid: int) -> tuple[str, str]:
    """Name and state of a process."""
    before, after = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)
    return before.split("(", 1)[1], after.split()[0]


def test_a_program_stopped_while_it_joins(leakline: Leakline) -> None:
    """A stop cuts a receive short that has a time limit, and the program went
    on unrecorded."""
    script = "echo pid $$; kill -STOP $$; exec sleep 0"
    shell: list[Part] = ["/bin/sh", "-c", f"/bin/sh -c '{script}'; true"]
    with leakline.started(*shell) as (process, recording):
        pid = first_pid(process)
        collector = wait_for("the collector", lambda: collector_of(process.pid))
        wait_for("its stop", lambda: state_of(pid) == ("sh", "T"))
        os.kill(collector, signal.SIGSTOP)
        wait_for("the collector's stop", lambda: state_of(collector)[1] == "T")
        os.kill(pid, signal.SIGCONT)
        wait_for("its wait", lambda: state_of(pid) == ("sleep", "S"))
        for _ in range(3):
            os.kill(pid, signal.SIGSTOP)
            wait_for("its stop", lambda: state_of(pid) == ("sleep", "T"))
            os.kill(pid, signal.SIGCONT)
            wait_for("its wait", lambda: state_of(pid) == ("sleep", "S"))
        os.kill(collector, signal.SIGCONT)
        assert rest_of(process) == []
        assert b"sleep" in os.fsencode(recording.process(pid)["command"])


def test_a_thread_that_starts_while_nothing_is_recorded(
    leakline: Leakline, programs: Programs, tmp_path: Path
) -> None:
    """That the ring of a thread which had ended was its own now was lost, and
    what it allocated from then on was the other's."""
    stopped, going = tmp_path / "stopped", tmp_path / "going"
    with leakline.started(programs.program("late_thread"), stopped, going) as (
        process,
        recording,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == b"joined\n"
        collector = wait_for("the collector", lambda: collector_of(process.pid))
        os.kill(collector, signal.SIGSTOP)
        stopped.touch()
        assert process.stdout.readline() == b"second\n"
        os.kill(collector, signal.SIGCONT)
        # Until there is room again.
        time.sleep(0.3)
        going.touch()
        assert rest_of(process) == []
        assert process.returncode == 0
    rows = recording.rows("--by", "thread", at=None)
    blocks = {row["thread"]["name"]: row["live_blocks"] for row in rows}
    assert blocks["second"] >= 1000, blocks

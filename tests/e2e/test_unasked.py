"""Heap graphs that nobody asks for at their instant: of what a program was killed for
there is one from before."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from contextlib import suppress

import pytest

from harness import (
    PYTHON_PROGRAMS,
    TARGET_PYTHON,
    Json,
    Leakline,
    Part,
    Recording,
    Result,
    collector_of,
    execute,
    wait_for,
)
from test_heap import Group

PROGRAM = PYTHON_PROGRAMS / "sessions_grow.py"
SESSION = "__main__.Session"


def graphs(recording: Recording) -> list[tuple[int, str]]:
    """Numbers and names of the heap graphs in a recording."""
    asked = execute([recording.leakline, "why", "--graph", "none", recording.path])
    assert asked.status == 3, asked.out
    found = re.findall(r"(\d+) \(`([^`]*)`\)", asked.err.decode())
    return [(int(number), name) for number, name in found]


def names(recording: Recording) -> list[str]:
    return [name for _, name in graphs(recording)]


def has(recording: Recording, name: str) -> bool:
    """Whether there is a whole graph of that name."""
    line: list[Part] = [recording.leakline, "why", "--graph", name, recording.path]
    asked = execute(line)
    return asked.status == 0 and b"not whole" not in asked.out


def why(recording: Recording, *arguments: str) -> Json:
    asked = execute([recording.leakline, "why", "--json", recording.path, *arguments])
    assert asked.status == 0, asked.err.decode()
    return Result(0, asked.out, b"", 0).json_lines()[-1]


def notes(recording: Recording) -> list[str]:
    return [note["text"] for note in recording.stats()["notes"]]


def pid_of(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def check_holder(recording: Recording, number: int) -> None:
    """`leaks` and `why` name the dict that keeps what leaks, by that graph."""
    [cause, *_] = recording.report("leaks")["suspects"]
    held = cause["held_by"]
    assert held is not None, cause["held_by_note"]
    assert held["graph"] == number
    assert held["path"].startswith("__main__.SESSIONS[*]"), held["path"]
    answer = why(recording, "L1")
    assert answer["graph"] == number
    [first, *_] = answer["groups"]
    steps = [step["edge"] for step in first["paths"][0]["steps"]]
    assert ".SESSIONS" in steps, steps


@pytest.mark.parametrize("whom", ["the worker", "the worker and the collector"])
def test_who_holds_what_a_killed_worker_leaked(leakline: Leakline, whom: str) -> None:
    """No graph could be taken at the end; there are two from before."""
    with leakline.started(TARGET_PYTHON, PROGRAM, "2", "90") as (process, recording):
        pid = pid_of(process)
        collector = wait_for("the collector", lambda: collector_of(process.pid))
        wait_for("a graph of growth", lambda: has(recording, "growth"), timeout=60)
        if whom == "the worker and the collector":
            os.kill(collector, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=60)
    (warm, growth, *more) = graphs(recording)
    assert (warm[1], growth[1]) == ("warm", "growth")
    assert len(more) <= 1, more
    last = (more or [growth])[-1][0]
    check_holder(recording, last)
    # What grew under what, since then.
    answer = why(recording, SESSION)
    assert answer["compared_with"] == warm[0]
    [group, *_] = answer["groups"]
    assert group["paths"][0]["steps"][-1]["grown_count"] > 50


def test_of_who_is_killed_for_memory_there_is_one_of_near_then(
    leakline: Leakline,
) -> None:
    """As near as may be: at two thirds of the limit a graph could kill it."""
    group = Group("memory")
    try:
        if group.is_old():
            group.write("memory.swappiness", 0)
        else:
            group.write("memory.swap.max", 0)
        group.write(group.limit(), 320 << 20)
        line: list[Part] = [*group.entering(), TARGET_PYTHON, PROGRAM, "11", "90"]
        result, recording = leakline.run(*line)
        assert result.status == -signal.SIGKILL, result.err.decode()
        assert group.kills() == 1
    finally:
        group.remove()
    found = graphs(recording)
    assert {name for _, name in found} == {"warm", "growth"}, found
    number = found[-1][0]
    check_holder(recording, number)
    peak = recording.stats()["totals"]["peak_bytes"]
    assert why(recording)["bytes"] > peak * 0.4, (why(recording)["bytes"], peak)


def test_growth_is_seen_after_an_attach(leakline: Leakline) -> None:
    worker = subprocess.Popen(
        [TARGET_PYTHON, PROGRAM, "3", "90"], stdout=subprocess.PIPE
    )
    attach = None
    try:
        pid = pid_of(worker)
        recording = Recording(leakline.binary, leakline.directory / "a.leakline")
        line: list[Part] = [leakline.binary, "attach", str(pid), "--exact"]
        attach = subprocess.Popen(
            [os.fspath(part) for part in [*line, "-o", recording.path]],
            stderr=subprocess.PIPE,
        )
        wait_for("the recording", recording.path.exists)
        wait_for("a graph of growth", lambda: has(recording, "growth"), timeout=60)
        time.sleep(1)  # It is told of when its child has ended.
        worker.kill()
        _, said = attach.communicate(timeout=60)
        told = re.findall(rb"heap graph (\d) of process", said)
        assert len(told) == len(graphs(recording)), said.decode()
        assert names(recording)[:2] == ["attach", "growth"]
        check_holder(recording, graphs(recording)[-1][0])
        assert why(recording, SESSION)["compared_with"] == 1
    finally:
        worker.kill()
        worker.communicate()
        if attach is not None:
            with suppress(ProcessLookupError):
                attach.kill()
            attach.communicate()


def test_a_short_run_has_the_graph_of_its_end_alone(leakline: Leakline) -> None:
    result, recording = leakline.run(TARGET_PYTHON, PROGRAM, "20", "6")
    assert result.status == 0, result.err.decode()
    assert names(recording) == ["main left"]


def test_programs_without_python_take_no_place_of_one_with_it(
    leakline: Leakline,
) -> None:
    """As where a script of many small programs starts it."""
    script = 'while :; do sh -c ":"; done & "$@"; status=$?; kill $!; exit $status'
    command: list[Part] = ["sh", "-c", script, "sh", TARGET_PYTHON, PROGRAM, "20", "6"]
    result, recording = leakline.run(*command)
    assert result.status == 0, result.err.decode()
    assert "main left" in names(recording)
    assert any("were not looked at for lost blocks" in one for one in notes(recording))


def test_instants_that_are_given_beforehand(leakline: Leakline) -> None:
    options = ["--heap", "never", "--heap-at", "+1s,exit", "--heap-at", "+1500ms,+1h"]
    result, recording = leakline.run(TARGET_PYTHON, PROGRAM, "5", "3", options=options)
    assert result.status == 0, result.err.decode()
    assert names(recording) == ["+1s", "+1500ms", "main left"]
    at = [why(recording, "--graph", name)["at_seconds"] for name in ("+1s", "+1500ms")]
    assert 1 <= at[0] < 1.5 <= at[1] < 2.5, at
    missed = "no heap graph `+1h` was taken: the recording ended before"
    assert notes(recording).count(missed) == 1
    # The first after warm-up, of which there is little.
    assert why(recording)["compared_with"] in (1, 2)


def test_the_newest_of_peaks_is_near_the_peak(leakline: Leakline) -> None:
    options = ["--heap", "never", "--heap-at", "peak"]
    command: list[Part] = [TARGET_PYTHON, PROGRAM, "12", "60"]
    with leakline.started(*command, options=options) as (process, recording):
        pid = pid_of(process)
        time.sleep(12)
        os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=60)
    assert set(names(recording)) == {"peak"}
    # 16, 32, 48, 64, 80, 100, 125 and 156 MiB, but for those that fall into a rest.
    assert 4 <= len(graphs(recording)) <= 9, graphs(recording)
    peak = recording.stats()["totals"]["peak_bytes"]
    assert peak > 100 << 20
    assert why(recording)["bytes"] > peak * 0.6
    check_holder(recording, graphs(recording)[-1][0])


def test_of_a_tree_the_graph_of_the_process_that_leaks(leakline: Leakline) -> None:
    """The graph of who ends last says nothing of a worker that was killed."""
    options = ["--heap-at", "peak"]
    command: list[Part] = [TARGET_PYTHON, PROGRAM, "12", "60", "fork"]
    with leakline.started(*command, options=options) as (process, recording):
        pid = pid_of(process)
        time.sleep(5)
        os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode == 0
    *_, peak, last = graphs(recording)
    assert (peak[1], last[1]) == ("peak", "main left")
    check_holder(recording, peak[0])


def test_refusals_are_recorded_once(leakline: Leakline) -> None:
    # Of some 50 MiB it is a millisecond.
    options = ["--max-pause", "0.5ms", "--heap-at", "peak,+2s"]
    result, recording = leakline.run(TARGET_PYTHON, PROGRAM, "40", "5", options=options)
    assert result.status == 0, result.err.decode()
    assert "+2s" not in names(recording)
    texts = notes(recording)
    for name in ("peak", r"\+2s"):
        why = (
            rf"no heap graph `{name}` of process \d+ was taken: it would stand still .*"
        )
        told = [text for text in texts if re.fullmatch(why, text)]
        assert len(told) == 1, texts


def test_an_attached_program_s_end_is_asked_for(leakline: Leakline) -> None:
    """`--heap never` takes none by itself, and `exit` one at the end: that of the
    program, or of the session."""
    for by_itself in (True, False):
        seconds = "4" if by_itself else "60"
        worker = subprocess.Popen(
            [TARGET_PYTHON, PROGRAM, "5", seconds], stdout=subprocess.PIPE
        )
        try:
            pid = pid_of(worker)
            path = leakline.directory / f"{by_itself}.leakline"
            line: list[Part] = [leakline.binary, "attach", str(pid), "-o", path]
            line += ["--heap", "never", "--heap-at", "exit", "--sample", "16KiB"]
            if not by_itself:
                line += ["--duration", "1s"]
            result = execute(line)
            assert result.status == 0, result.err.decode()
            recording = Recording(leakline.binary, path)
            assert names(recording) == ["main left" if by_itself else "detach"]
        finally:
            worker.kill()
            worker.communicate()


@pytest.mark.parametrize("wrong", ["soon", "90s", "+", "peak,start"])
def test_what_is_no_instant_is_said(leakline: Leakline, wrong: str) -> None:
    for command in (
        ["run", "--heap-at", wrong, "true"],
        ["attach", "1", "--heap-at", wrong],
    ):
        result = execute([leakline.binary, *command])
        assert result.status == 2
        said = result.err.decode()
        assert "not `exit`, `peak` or a time after the beginning such as `+90s`" in said


def test_shells_complete_them(leakline: Leakline) -> None:
    result = execute([leakline.binary, "completions", "bash"])
    assert result.out.count(b"--heap-at") >= 2

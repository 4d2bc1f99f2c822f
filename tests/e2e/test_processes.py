"""Trees of processes: who holds what, and every way one becomes another."""

from __future__ import annotations

import os

import pytest

from harness import (
    Leakline,
    Part,
    Programs,
    by_function,
    check_complete,
    check_sites,
    execute,
    sums,
    without_pids,
)


def test_each_process_of_a_forked_tree(leakline: Leakline, programs: Programs) -> None:
    result, recording = leakline.run(programs.program("forks"))
    assert result.status == 0, result.out
    truth = {process["pid"]: process for process in result.json_lines()}
    assert len(truth) == 9
    stats = check_complete(recording)
    recorded = {process["pid"]: process for process in stats["processes"]}
    assert set(recorded) == set(truth)

    wrong = []
    for pid, known in truth.items():
        totals = recorded[pid]["totals"]
        for counter in ("live_blocks", "live_bytes"):
            if totals[counter] != known[counter]:
                wrong.append(
                    (known["number"], counter, totals[counter], known[counter])
                )
    assert not wrong, wrong

    parent = next(process for process in truth.values() if process["number"] == -1)
    rows = by_function(recording.rows(), ["before_fork", "in_child", "after_fork"])
    # Inherited blocks count once: they are the parent's, and alive in it.
    assert sums(rows["before_fork"])["total_blocks"] == 20000
    assert sums(rows["before_fork"])["live_blocks"] == 20000
    assert sums(rows["in_child"])["total_blocks"] == sum(range(1000, 9000, 1000))
    assert sums(rows["after_fork"])["live_blocks"] == 800
    statuses = {
        truth[pid]["number"]: process["exit_status"]
        for pid, process in recorded.items()
    }
    assert statuses.pop(-1) == 0
    assert all(status in (None, 10 + number) for number, status in statuses.items())
    assert parent["live_blocks"] == 20800


def test_forks_while_threads_allocate(leakline: Leakline, programs: Programs) -> None:
    result, recording = leakline.run(programs.program("fork_storm"), timeout=120)
    assert result.status == 0, result.out
    check_complete(recording)
    rows = by_function(recording.rows(), ["in_child"])["in_child"]
    assert sums(rows)["total_blocks"] == result.truth()["child_blocks"]


def test_only_the_first_process_without_following(
    leakline: Leakline, programs: Programs
) -> None:
    result, recording = leakline.run(programs.program("forks"), options=["--no-follow"])
    assert result.status == 0
    stats = check_complete(recording)
    assert len(stats["processes"]) == 1
    rows = by_function(recording.rows(), ["before_fork", "in_child"])
    assert sums(rows["before_fork"])["live_blocks"] == 20000
    assert not rows["in_child"]


@pytest.mark.parametrize(
    "way",
    [
        "plain",
        "_exit",
        "quick_exit",
        "abort",
        "sigterm",
        "sigkill",
        "segfault",
        "exec",
        "vfork",
        "posix_spawn",
        "system",
    ],
)
def test_ways_out(leakline: Leakline, programs: Programs, way: str) -> None:
    command: list[Part] = [programs.program("ways_out"), way]
    bare = execute(command)
    result, recording = leakline.run(*command)
    assert result.status == bare.status
    assert without_pids(result.out) == without_pids(bare.out)
    assert result.err == bare.err
    check_complete(recording)
    known = [line["sites"]["before_leaving"]["births"] for line in result.json_lines()]
    rows = by_function(recording.rows(), ["before_leaving"])["before_leaving"]
    assert sums(rows)["total_blocks"] == sum(known)


def test_a_shell_between(leakline: Leakline, programs: Programs) -> None:
    program = programs.program("ways_out")
    script = f"for i in 1 2 3; do {program} plain; done | cat; exit 5"
    result, recording = leakline.run("sh", "-c", script)
    assert result.status == 5
    rows = by_function(recording.rows(), ["before_leaving"])["before_leaving"]
    assert sums(rows)["total_blocks"] == 1500


def test_a_nested_run_joins(leakline: Leakline, programs: Programs) -> None:
    inner, inner_recording = leakline.command(programs.program("ways_out"), "plain")
    result, recording = leakline.run(*inner)
    assert result.status == 7
    rows = by_function(recording.rows(), ["before_leaving"])["before_leaving"]
    assert sums(rows)["total_blocks"] == 500
    assert not inner_recording.path.exists()


def test_many_programs_at_once(leakline: Leakline, programs: Programs) -> None:
    program = programs.program("ways_out")
    script = f"for i in $(seq 40); do {program} plain & done >/dev/null; wait"
    result, recording = leakline.run("sh", "-c", script, timeout=120)
    assert result.status == 0
    check_complete(recording)
    rows = by_function(recording.rows(), ["before_leaving"])["before_leaving"]
    assert sums(rows)["total_blocks"] == 40 * 500


@pytest.mark.parametrize("way", ["return", "exit"])
def test_the_instant_before_exit_handlers(
    leakline: Leakline, programs: Programs, way: str
) -> None:
    program = programs.program("ways_out")
    result, recording = leakline.run(program, f"{way}, then release")
    assert result.status == 4
    check_complete(recording)
    check_sites(recording.rows(), result.truth()["sites"])
    rows = by_function(recording.rows(at="exiting"), ["before_leaving"])
    found = sums(rows["before_leaving"])
    assert (found["live_blocks"], found["live_bytes"]) == (500, 500 * 128)
    # Nothing of ours shows in a stack.
    for row in rows["before_leaving"]:
        assert not any("leakline" in frame["module"] for frame in row["stack"])
        assert [frame["function"] for frame in row["stack"]][:3] == [
            "before_leaving",
            "allocate",
            "main",
        ]


@pytest.mark.parametrize("way", ["_exit", "quick_exit"])
def test_the_instant_of_leaving_at_once(
    leakline: Leakline, programs: Programs, way: str
) -> None:
    _, recording = leakline.run(programs.program("ways_out"), way)
    rows = by_function(recording.rows(at="exiting"), ["before_leaving"])
    assert sums(rows["before_leaving"])["live_blocks"] == 500


def test_a_vfork_does_not_end_its_parent(
    leakline: Leakline, programs: Programs
) -> None:
    """The child of a vfork leaves by _exit, in its parent's memory."""
    result, recording = leakline.run(programs.program("ways_out"), "vfork")
    own = result.json_lines()[-1]["pid"]
    marks = [mark for mark in recording.stats()["marks"] if mark["name"] == "exiting"]
    # Ten children became other programs, ten could not.
    assert len(marks) == 11
    assert max(marks, key=lambda mark: mark["seconds"])["pid"] == own


def test_the_recording_is_the_users_alone(
    leakline: Leakline, programs: Programs
) -> None:
    _, recording = leakline.run(programs.program("ways_out"), "plain")
    assert os.stat(recording.path).st_mode & 0o777 == 0o600

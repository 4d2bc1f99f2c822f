"""What a recording takes, in the file and in the target, has bounds."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from harness import (
    TARGET_PYTHON,
    Leakline,
    Part,
    Programs,
    Recording,
    by_function,
    check_complete,
    check_sites,
    collector_of,
    execute,
    sums,
    wait_for,
)


def leaked(recording: Recording) -> int:
    """Blocks that the program leaked and has reported."""
    rows = by_function(recording.rows(), ["leaked"])["leaked"]
    return sums(row for row in rows if row["domain"] == "native")["live_blocks"]


def is_replaced(path: Path, inode: int) -> bool:
    """Another file has the name. It leads to one at every instant."""
    return path.stat().st_ino != inode


def test_a_recording_is_compacted_while_it_is_made(
    leakline: Leakline, programs: Programs
) -> None:
    """All is there afterwards, under the same name, and nothing else."""
    program: list[Part] = [programs.program("batches"), "100", "1000", "4000"]
    with leakline.started(*program) as (process, recording):
        assert process.stdout is not None
        process.stdout.readline()
        path = recording.path
        inode = path.stat().st_ino
        lines = process.stdout.read().splitlines()
        process.wait(60)
        assert process.returncode == 0
        assert lines[-1] == b"done"
        assert is_replaced(path, inode)
        assert path.stat().st_mode & 0o777 == 0o600
        assert leaked(recording) == int(lines[-2].split()[1])
        assert recording.stats()["totals"]["complete"] is True
        assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_kill_of_the_collector_after_it_compacted(
    leakline: Leakline, programs: Programs
) -> None:
    """The file that took the name opens and has what came before."""
    program: list[Part] = [programs.program("batches"), "100", "1000", "4000"]
    with leakline.started(*program) as (process, recording):
        assert process.stdout is not None
        process.stdout.readline()
        inode = recording.path.stat().st_ino
        collector = wait_for("the collector", lambda: collector_of(process.pid))
        wait_for("the copy", lambda: is_replaced(recording.path, inode))
        os.kill(collector, signal.SIGKILL)
        process.stdout.read()
        process.wait(60)
        stats = recording.stats()
        assert stats["totals"]["live_blocks"] > 0
        assert stats["totals"]["complete"] is False


def test_many_short_processes(leakline: Leakline) -> None:
    """An interpreter's start makes tens of thousands of sites, and each process has
    its own. Written with their numbers, they took 50 KB a process and more."""
    few, many = 20, 80
    script = f'i=0; while [ $i -lt {many} ]; do "$0" -c pass; i=$((i+1)); echo $i; done'
    with leakline.started("sh", "-c", script, TARGET_PYTHON) as (process, recording):
        assert process.stdout is not None
        file_bytes = {}
        for line in process.stdout:
            file_bytes[int(line)] = recording.path.stat().st_size
        process.wait(60)
        assert process.returncode == 0
    each = (file_bytes[many] - file_bytes[few]) / (many - few)
    # Some 25 KB; a machine that has other things to do makes more bins of it.
    assert each < 40_000
    # And nothing of them is missing: what sites hold adds up to what each did.
    stats = recording.stats()
    assert stats["totals"]["complete"] is True
    rows = recording.rows("--by", "process")
    allocated = {row["name"]: row["total_blocks"] for row in rows}
    name = Path(TARGET_PYTHON).name
    pythons = [one for one in stats["processes"] if one["command"] == f"{name} -c"]
    assert len(pythons) == many
    for one in pythons:
        births = one["totals"]["allocations"] - one["totals"]["resizes"]
        assert allocated[f"{one['command']} (pid {one['pid']})"] == births


def test_what_a_thread_costs_the_target(leakline: Leakline, programs: Programs) -> None:
    """Emptying the caches of a new thread touched all of them: 190 KiB."""
    threads = 400
    program: list[Part] = [
        programs.program("waiting_threads"),
        str(threads),
        programs.plugin("alpha", 1000),
    ]
    bare = execute(program)
    assert bare.status == 0, bare.err
    recorded, _ = leakline.run(*program)
    assert recorded.status == 0, recorded.err
    added = int(recorded.out) - int(bare.out)
    assert 0 < added < threads * 64, f"{added / threads} KiB a thread"


@pytest.mark.parametrize(("processes", "threads"), [(1, 200), (5, 20)])
def test_more_rings_than_the_limit_holds(
    leakline: Leakline, programs: Programs, processes: int, threads: int
) -> None:
    """Each thread keeps a chunk of its ring: idle ones used up the pool, and the
    rest waited for ever."""
    program: list[Part] = [
        programs.program("idle_threads"),
        str(processes),
        str(threads),
    ]
    result, recording = leakline.run(*program, options=["--ring-size", "1MiB"])
    assert result.status == 0, result.err
    stats = check_complete(recording)
    assert stats["totals"]["allocations"] >= 2 * processes * threads


def test_no_room_for_more_stacks(leakline: Leakline, programs: Programs) -> None:
    """What came once all numbers were used up had no stack at all, and nothing
    said so."""
    result, recording = leakline.run(programs.program("full_trie"))
    assert result.status == 0, result.err
    stats, truth = check_complete(recording), result.truth()["sites"]
    # By function: all stacks together have millions of frames.
    rows = recording.rows("--by", "function")
    functions = by_function(rows, truth)
    check_sites(functions["early"], {"early": truth["early"]})
    folded = [
        row
        for row in functions[""]
        if [frame["function"] for frame in row["stack"]] == ["[truncated]"]
    ]
    found = sums(functions["at_the_end"] + folded)
    assert found["total_blocks"] == truth["at_the_end"]["births"]
    assert found["live_bytes"] == truth["at_the_end"]["live_bytes"]
    assert sums(folded)["total_blocks"] == stats["totals"]["truncated_stacks"] > 0
    told = [note["text"] for note in stats["notes"] if "[truncated]" in note["text"]]
    assert len(told) == 1, stats["notes"]


def test_a_program_that_locks_its_memory(
    leakline: Leakline, programs: Programs
) -> None:
    """All that could ever be shared, 576 MiB, was made resident."""
    program = programs.program("locked")
    if execute([program]).status == 77:
        pytest.skip("memory cannot be locked here")
    result, recording = leakline.run(program)
    assert result.status == 0, result.err
    assert 0 < int(result.out) < 80 * 1024
    stats = check_complete(recording)
    assert stats["totals"]["allocations"] >= 600_000


def test_more_libraries_than_numbers(
    leakline: Leakline, programs: Programs, tmp_path: Path
) -> None:
    """Those beyond have no names, and nothing said so."""
    program: list[Part] = [
        programs.program("many_libraries"),
        programs.plugin("alpha", 1000),
        "4120",
    ]
    (tmp_path / "libraries").mkdir()
    result, recording = leakline.run(*program, cwd=tmp_path / "libraries")
    assert result.status == 0, result.err
    stats = check_complete(recording)
    told = [note["text"] for note in stats["notes"] if "libraries" in note["text"]]
    assert len(told) == 1, stats["notes"]

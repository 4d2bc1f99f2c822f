"""The recording's file is made shorter while it is written."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from harness import (
    TARGET_PYTHON,
    Leakline,
    Part,
    Programs,
    Recording,
    by_function,
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
    assert each < 30_000
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

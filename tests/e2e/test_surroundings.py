"""Tight limits and full disks: the target behaves as without leakline."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from harness import (
    TARGET_PYTHON,
    Leakline,
    Part,
    Programs,
    check_sites,
    collector_of,
    execute,
    wait_for,
    without_pids,
)

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")


@pytest.mark.parametrize(
    "limit",
    [
        "ulimit -v 400000",  # KiB of address space
        "ulimit -n 4",  # one descriptor beside the first three
        "ulimit -f 0",  # no file may grow
        "ulimit -l 0",  # nothing locked in memory
        "ulimit -s 256",  # KiB of stack
        "ulimit -c 0; umask 0777",
    ],
)
def test_limits_of_the_target(
    leakline: Leakline, programs: Programs, limit: str
) -> None:
    program = programs.program("resizes")
    command: list[Part] = ["sh", "-c", f"{limit}; exec {program}"]
    bare = execute(command)
    result, recording = leakline.run(*command)
    assert result.status == bare.status
    # Where it cannot record, leakline says so in one line, and stands aside.
    said = [line for line in result.err.splitlines(True) if line not in bare.err]
    assert len(said) <= 1
    assert all(line.startswith(b"leakline[") for line in said)
    # The counts differ from run to run; the program's shape does not.
    assert result.truth().keys() == bare.truth().keys()
    if recording.stats()["totals"]["complete"] and not said:
        check_sites(recording.rows(), result.truth()["sites"])


@pytest.mark.parametrize("bytes_of_space", [150_000_000, 400_000_000])
def test_python_runs_out_of_address_space(
    leakline: Leakline, bytes_of_space: int
) -> None:
    """A MemoryError where there is one without leakline, and no crash."""
    source = (
        "import resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({bytes_of_space},) * 2)\n"
        "kept = []\n"
        "try:\n"
        "    while True: kept.append(bytes(1 << 20))\n"
        "except MemoryError:\n"
        "    kept.clear(); print('MemoryError')\n"
    )
    result, _ = leakline.run(TARGET_PYTHON, "-c", source)
    assert (result.status, result.out) == (0, b"MemoryError\n")


def test_both_standard_streams_closed(leakline: Leakline, programs: Programs) -> None:
    """Descriptors 0 and 1 are free for the program to take, and stay its own."""
    source = (
        "import os; first = os.open('/dev/null', os.O_RDWR);os.write(2, b'%d' % first)"
    )
    command = f'exec <&- >&-; exec {TARGET_PYTHON} -c "{source}"'
    bare = execute(["sh", "-c", command])
    result, _ = leakline.run("sh", "-c", command)
    assert (result.status, result.err) == (bare.status, bare.err)


@ROOT_ONLY
@pytest.mark.parametrize("size", ["16k", "256k"])
def test_a_full_disk(leakline: Leakline, programs: Programs, size: str) -> None:
    """The target is unharmed; the recording is kept up to there, and says so."""
    place = leakline.directory / "small"
    place.mkdir()
    program = programs.program("truth")
    recording = place / "full.leakline"
    copy = leakline.directory / "copy.leakline"
    script = (
        f"mount -t tmpfs -o size={size} none {place};"
        f"head -c 1000000 /dev/zero >{place}/filler 2>/dev/null;"
        f"truncate -s -8192 {place}/filler;"
        f"{leakline.binary} run -o {recording} -- {program} 1;"
        f"status=$?; cp {recording} {copy}; exit $status"
    )
    result = execute(["unshare", "--mount", "sh", "-c", script])
    assert result.status == 0, result.err.decode()
    assert len(result.json_lines()) == 1
    report = execute([leakline.binary, "stats", "--json", copy])
    assert report.status == 0, report.err.decode()
    assert b'"complete":false' in report.out.replace(b" ", b"")


@ROOT_ONLY
def test_a_collector_with_a_tenth_of_a_processor(
    leakline: Leakline, programs: Programs
) -> None:
    """The target waits for the collector no longer than stated, then counts
    what it loses; its output is right."""
    place = Path("/sys/fs/cgroup/cpu")
    quota = {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "10000"}
    if not place.is_dir():
        place, quota = Path("/sys/fs/cgroup"), {"cpu.max": "10000 100000"}
    group = place / f"leakline-test-{os.getpid()}"
    try:
        group.mkdir()
        for name, value in quota.items():
            (group / name).write_text(value)
    except OSError as error:
        if group.is_dir():
            group.rmdir()
        pytest.skip(f"no control group can be made: {error}")
    try:
        with leakline.started(programs.program("batches"), "2000", "0", "500") as (
            process,
            recording,
        ):
            assert process.stdout is not None
            process.stdout.readline()
            collector = wait_for("the collector", lambda: collector_of(process.pid))
            (group / "cgroup.procs").write_text(str(collector))
            out, _ = process.communicate(timeout=120)
            assert process.returncode == 0
            assert out.splitlines()[-1] == b"done"
        totals = recording.stats()["totals"]
        assert totals["complete"] is (totals["lost_events"] == 0)
    finally:
        wait_for("the group to be empty", lambda: remove(group))


def remove(group: Path) -> bool:
    try:
        group.rmdir()
    except OSError:
        return False
    return True


def test_a_terminal_of_its_own(leakline: Leakline) -> None:
    """On a terminal the program has the terminal, as without."""
    source = (
        "import os, sys; print(sys.stdin.isatty(), sys.stdout.isatty(),"
        " os.tcgetpgrp(0) == os.getpgrp())"
    )
    line, _ = leakline.command(TARGET_PYTHON, "-c", source, options=["-q"])
    command = " ".join(f"'{part}'" for part in line)
    result = subprocess.run(
        ["script", "-qec", command, "/dev/null"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )
    assert b"True True True" in result.stdout
    assert without_pids(result.stdout).count(b"\n") == 1

"""Runs a command and measures it with all of its helpers.

CPU time is that of every process that came of the command, collectors and
compressors too: orphans fall to us (we are their subreaper) and are waited
for, so that none is left out.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import collector_of

PR_SET_CHILD_SUBREAPER = 36


@dataclass
class Measure:
    """What a run cost. Times in seconds; `peak_bytes` is the resident set of
    the largest process."""

    wall: float
    cpu: float
    peak_bytes: float
    status: int
    out: str

    def failed(self) -> bool:
        return self.status != 0


def become_subreaper() -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _wait_for_all(first: int) -> tuple[int, float, float]:
    """Reaps until no process is left: the first's status, when it ended, and
    the peak of the largest."""
    status, ended, peak = 0, 0.0, 0.0
    while True:
        try:
            pid, raw, usage = os.wait4(-1, 0)
        except ChildProcessError:
            return status, ended, peak
        peak = max(peak, usage.ru_maxrss * 1024.0)
        if pid == first:
            status, ended = os.waitstatus_to_exitcode(raw), time.monotonic()


def run(
    command: Sequence[str],
    *,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    prepare: Callable[[], None] | None = None,
    disturb: Callable[[int], None] | None = None,
) -> Measure:
    """Runs a command to the end of its last process. `prepare` runs in the
    child before exec, `disturb` in the parent once it has started."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    # Forked and reaped by hand: subprocess would reap behind our back.
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(write, 1)
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 0)
            if not os.environ.get("BENCH_STDERR"):
                os.dup2(null, 2)
            if cwd is not None:
                os.chdir(cwd)
            if prepare is not None:
                prepare()
            os.execvpe(command[0], list(command), {**os.environ, **(env or {})})
        finally:
            os._exit(127)
    os.close(write)
    if disturb is not None:
        disturb(pid)
    out = b""
    while chunk := os.read(read, 65536):
        out += chunk
    os.close(read)
    status, ended, peak = _wait_for_all(pid)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measure(ended - started, cpu, peak, status, out.decode(errors="replace"))


def median(measures: Iterable[Measure], field: str) -> float:
    return float(statistics.median(getattr(measure, field) for measure in measures))


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


class ControlGroup:
    """A control group with some limit, of whichever version is mounted.
    `place` is None where none can be made."""

    def __init__(
        self, kind: str, first: dict[str, str], second: dict[str, str]
    ) -> None:
        """`first` are the files to write in a hierarchy `kind` of version 1,
        `second` those of version 2."""
        self.place: Path | None = None
        for root, limits in (
            (Path("/sys/fs/cgroup") / kind, first),
            (Path("/sys/fs/cgroup"), second),
        ):
            place = root / f"leakline-bench-{os.getpid()}-{kind}"
            try:
                place.mkdir()
            except OSError:
                continue
            try:
                for name, value in limits.items():
                    (place / name).write_text(value)
            except OSError:
                place.rmdir()
                continue
            self.place = place
            return

    def join(self) -> None:
        """Moves the calling process into the group."""
        assert self.place is not None
        (self.place / "cgroup.procs").write_text(str(os.getpid()))

    def remove(self) -> None:
        if self.place is not None:
            self.place.rmdir()


def half_a_cpu() -> ControlGroup:
    return ControlGroup(
        "cpu",
        {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000"},
        {"cpu.max": "50000 100000"},
    )


def memory_of(size: int) -> ControlGroup:
    """A group with so many bytes for a program and its recorder together."""
    return ControlGroup(
        "memory",
        {"memory.limit_in_bytes": str(size)},
        {"memory.max": str(size), "memory.swap.max": "0"},
    )


def signal_collector(number: signal.Signals, after: float) -> Callable[[int], None]:
    """A disturbance: the collector gets this signal so many seconds in."""

    def disturb(pid: int) -> None:
        time.sleep(after)
        collector = collector_of(pid)
        if collector is not None:
            os.kill(collector, number)

    return disturb


def compiler(source: Path, output: Path) -> Path:
    """Builds a C workload."""
    command = ["cc", "-O2", "-g", "-pthread", "-o", str(output), str(source)]
    subprocess.run(command, check=True)
    return output


def machine() -> str:
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    cores = len(os.sched_getaffinity(0))
    system = os.uname()
    return f"{model}, {cores} cores, Linux {system.release}, Python {sys.version.split()[0]}"

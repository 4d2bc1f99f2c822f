"""Heap graphs: that taking them harms nobody, and what stops one."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import (
    PYTHON_PROGRAMS,
    TARGET_PYTHON,
    Json,
    Leakline,
    Part,
    Programs,
    Recording,
    collector_of,
    execute,
    wait_for,
)


class Worker:
    """tests/programs/python/heap_worker.py, being recorded."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        recording: Recording,
        pid: int,
        counts: Path,
    ) -> None:
        self.process = process
        self.recording = recording
        self.pid = pid
        self.counts = counts

    def asked(self, name: str) -> tuple[int, Json]:
        """Status and answer of a snapshot with a heap graph."""
        command: list[Part] = [self.recording.leakline, "snapshot", "--heap", "--json"]
        result = execute([*command, str(self.pid), name])
        assert result.status in (0, 3), result.err.decode() + result.out.decode()
        answer: Json = json.loads(result.out.splitlines()[0])
        return result.status, answer

    def snapshot(self, name: str, status: int = 0) -> Json:
        found, answer = self.asked(name)
        assert found == status, answer
        return answer

    def rounds(self) -> int:
        """All that its threads did so far."""
        counts = self.counts.read_bytes()
        return sum(struct.unpack(f"{len(counts) // 8}Q", counts))

    def end(self) -> Json:
        out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, err.decode()
        truth: Json = json.loads(out.splitlines()[-1])
        return truth


def children(pid: int) -> list[int]:
    with suppress(OSError):
        lists = Path(f"/proc/{pid}/task").glob("*/children")
        return [int(child) for one in lists for child in one.read_text().split()]
    return []


@contextmanager
def worker(
    leakline: Leakline,
    threads: int,
    objects: int,
    *options: str,
    before: Sequence[Part] = (),
    within: Sequence[Part] = (),
) -> Iterator[Worker]:
    """Words may come before the whole command, or before that of the program."""
    rounds = leakline.directory / "rounds"
    rounds.write_bytes(bytes(8 * threads))
    line, recording = leakline.command(
        *within,
        TARGET_PYTHON,
        PYTHON_PROGRAMS / "heap_worker.py",
        str(threads),
        str(objects),
        rounds,
        options=options,
    )
    process = subprocess.Popen(
        [os.fspath(part) for part in (*before, *line)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        [pid] = wait_for(
            "the program",
            lambda: [one for one in children(process.pid) if is_worker(one)],
        )
        yield Worker(process, recording, pid, rounds)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def is_worker(pid: int) -> bool:
    # `leakline run` has the program among its words, too.
    return (
        b"heap_worker" in words(pid) and b"leakline" not in words(pid).split(b"\0")[0]
    )


def words(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


@pytest.mark.parametrize(
    "options", [(), ("--sample", "16KiB")], ids=["exact", "sampled"]
)
def test_many_graphs_of_a_busy_worker(
    leakline: Leakline, long: bool, options: tuple[str, ...]
) -> None:
    count = 500 if long else 12
    with worker(leakline, 8, 2000, *options) as one:
        collector = wait_for("the collector", lambda: collector_of(one.process.pid))
        before = own_memory(one.pid)
        for number in range(count):
            if number == 8:
                # All that a first graph brings with it is there.
                held = {pid: Held.by(pid) for pid in (one.pid, collector)}
            [graph] = one.snapshot(f"graph {number}")["heap_graphs"]
            assert graph["outcome"] == "taken", graph
            # A session is the object and what it has: a list, a dict.
            assert graph["objects"] > 3 * 2000, graph
            assert graph["references"] > graph["objects"], graph
        # The last one's child is waited for when the next comes by, or some time later.
        wait_for("their ends", lambda: all(is_zombie(c) for c in children(one.pid)))
        assert len(children(one.pid)) <= 4
        assert own_memory(one.pid) < before + (8 << 20)
        for pid, first in held.items():
            # What the last snapshot asked for may still be read.
            most = first.descriptors + 2
            wait_for(
                "files", lambda pid=pid, most=most: Held.by(pid).descriptors <= most
            )
            last = Held.by(pid)
            print(f"process {pid}: {first} then {last}")
            assert last.maps <= first.maps + 16, pid
            assert last.memory < first.memory + (8 << 20), pid
        truth = one.end()
    assert truth["signals"] == []
    assert truth["children"] == "none"
    assert truth["same_descriptors"]
    assert truth["rounds"] > 0
    stats = one.recording.report("stats")
    assert [process["pid"] for process in stats["processes"]] == [one.pid]
    assert stats["totals"]["lost_events"] == 0


def is_zombie(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z"
    return True


@dataclass
class Held:
    """What a process has."""

    descriptors: int
    maps: int
    memory: int

    @classmethod
    def by(cls, pid: int) -> Held:
        place = Path(f"/proc/{pid}")
        maps = (place / "maps").read_text().count("\n")
        return cls(len(list((place / "fd").iterdir())), maps, own_memory(pid))


def own_memory(pid: int) -> int:
    """Not the rings, which grow with the load."""
    return figure(pid, "RssAnon")


def rss(pid: int) -> int:
    return figure(pid, "VmRSS")


def figure(pid: int, name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) << 10


def test_whom_a_graph_is_of(leakline: Leakline) -> None:
    """Each process of a tree, and none of the children that take them."""
    program = (
        "import os, sys, time\n"
        "kept = [object() for _ in range(5000)]\n"
        "pids = [os.fork() for _ in range(2)]\n"
        "end = time.monotonic() + 20\n"
        "while time.monotonic() < end and not os.path.exists(sys.argv[1]):\n"
        "    more = [str(number) for number in range(1000)]\n"
        "    time.sleep(0.002)\n"
        "if all(pids):\n"
        "    [os.waitpid(pid, 0) for pid in pids]\n"
    )
    over = leakline.directory / "over"
    command: list[Part] = [TARGET_PYTHON, "-c", program, over]
    with leakline.started(*command) as (process, recording):
        processes = wait_for("four processes", lambda: living(recording, 4), timeout=20)
        taken = execute(
            [leakline.binary, "snapshot", "--heap", "--json", recording.path, "all"]
        )
        over.touch()
        assert taken.status == 0, taken.err.decode()
        graphs = json.loads(taken.out)["heap_graphs"]
        assert {graph["pid"] for graph in graphs} == processes
        assert all(graph["outcome"] == "taken" for graph in graphs), graphs
        assert all(graph["objects"] > 5000 for graph in graphs), graphs
        process.communicate(timeout=60)
    assert {p["pid"] for p in recording.report("stats")["processes"]} == processes


def living(recording: Recording, count: int) -> set[int] | None:
    result = execute([recording.leakline, "stats", "--json", recording.path])
    if result.status != 0:
        return None
    pids = {process["pid"] for process in json.loads(result.out)["processes"]}
    return pids if len(pids) == count else None


@pytest.mark.parametrize("how", [1, 2], ids=["crashes", "hangs"])
def test_a_bad_traverse_harms_the_child_alone(
    leakline: Leakline, programs: Programs, long: bool, how: int
) -> None:
    directory = programs.extension("bad_traverse")
    program = (
        f"import sys; sys.path.insert(0, {str(directory)!r})\n"
        "import bad_traverse, time\n"
        "kept = [bad_traverse.Bad() for _ in range(10)]\n"
        "print('ready', flush=True)\n"
        f"bad_traverse.be_bad({how})\n"
        "end = time.monotonic() + 120\n"
        "import select\n"
        "while not select.select([0], [], [], 0)[0] and time.monotonic() < end:\n"
        "    more = [str(number) for number in range(1000)]\n"
        "bad_traverse.be_bad(0)\n"
        "print('unharmed', flush=True)\n"
    )
    line, recording = leakline.command(TARGET_PYTHON, "-c", program)
    process = subprocess.Popen(
        [os.fspath(part) for part in line],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        cwd=leakline.directory,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.2)
        command: list[Part] = [leakline.binary, "snapshot", "--heap", "--json"]
        command += [recording.path, "bad"]
        snapshot = subprocess.Popen(
            [os.fspath(part) for part in command], stdout=subprocess.PIPE
        )
        if how == 2:
            [pid] = [one for one in children(process.pid) if b"bad_tr" in words(one)]
            [child] = wait_for("its child", lambda: children(pid))
            time.sleep(0.3)
            if not long:
                # It would end by itself, after 72 s.
                os.kill(child, signal.SIGKILL)
        out, _ = snapshot.communicate(timeout=120)
        [graph] = json.loads(out)["heap_graphs"]
        assert graph["outcome"] == "cut off", graph
        assert "killed" in graph["why"]
        process.stdin.write(b"\n")
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err.decode()
        assert out == b"unharmed\n"
        assert not (leakline.directory / "handled").exists()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    notes = json.dumps(recording.report("stats"))
    assert "is not whole" in notes, notes


def test_a_process_that_does_nothing_is_given_up(leakline: Leakline) -> None:
    program = "import sys; print('ready', flush=True); sys.stdin.read()"
    line, recording = leakline.command(TARGET_PYTHON, "-c", program)
    process = subprocess.Popen(
        [os.fspath(part) for part in line],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.2)
        command: list[Part] = [leakline.binary, "snapshot", "--heap"]
        command += [recording.path, "idle"]
        result = execute(command)
        assert result.status == 3
        assert b"allocates nothing" in result.out, result.out
        assert b"no heap graph was taken; the snapshot `idle` is there" in result.err
    finally:
        process.communicate(timeout=60)


def memory_group() -> Path | None:
    for place in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")):
        if (place / "cgroup.procs").exists() and os.access(place, os.W_OK):
            controllers = place / "cgroup.controllers"
            if not controllers.exists() or "memory" in controllers.read_text():
                return place
    return None


def test_no_graph_where_memory_is_short(leakline: Leakline) -> None:
    place = memory_group()
    if place is None:
        pytest.skip("needs a writable memory cgroup")
    group = place / f"leakline-heap-{os.getpid()}"
    group.mkdir()
    name = "memory.max" if (group / "memory.max").exists() else "memory.limit_in_bytes"
    try:
        with worker(leakline, 1, 40_000) as one:
            (group / "cgroup.procs").write_text(str(one.pid))
            (group / name).write_text(str(48 << 20))
            answer = one.snapshot("short", status=3)
            [graph] = answer["heap_graphs"]
            assert graph["outcome"] == "refused", graph
            assert "MiB of memory are left" in graph["why"], graph
            (group / name).write_text(str(4 << 30))
            [graph] = one.snapshot("enough")["heap_graphs"]
            assert graph["outcome"] == "taken", graph
            (place / "cgroup.procs").write_text(str(one.pid))
            one.end()
    finally:
        group.rmdir()


class Group:
    """A control group of its own, of one controller."""

    def __init__(self, controller: str) -> None:
        self.controller = controller
        old = Path("/sys/fs/cgroup") / controller
        place = old if old.is_dir() else Path("/sys/fs/cgroup")
        self.path = place / f"leakline-{controller}-{os.getpid()}"
        try:
            self.path.mkdir()
        except OSError as error:
            pytest.skip(f"no control group can be made: {error}")
        if not (self.path / self.limit()).exists():
            self.path.rmdir()
            pytest.skip(f"control groups here have no {self.limit()}")

    def is_old(self) -> bool:
        return not (self.path / "cgroup.controllers").exists()

    def limit(self) -> str:
        if self.controller == "pids":
            return "pids.max"
        return "memory.limit_in_bytes" if self.is_old() else "memory.max"

    def read(self, name: str) -> str:
        return (self.path / name).read_text()

    def write(self, name: str, value: int) -> None:
        (self.path / name).write_text(str(value))

    def used_bytes(self) -> int:
        """Without files that the kernel drops before it kills anybody."""
        name = "memory.usage_in_bytes" if self.is_old() else "memory.current"
        droppable = re.search(r"\binactive_file (\d+)", self.read("memory.stat"))
        return int(self.read(name)) - (int(droppable[1]) if droppable else 0)

    def kills(self) -> int:
        name = "memory.oom_control" if self.is_old() else "memory.events"
        found = re.search(r"^oom_kill (\d+)", self.read(name), re.MULTILINE)
        assert found, self.read(name)
        return int(found[1])

    def entering(self) -> list[Part]:
        """What comes before a command that is to run in it."""
        return ["sh", "-c", f'echo $$ >{self.path}/cgroup.procs && exec "$@"', "sh"]

    def remove(self) -> None:
        def is_gone() -> bool:
            with suppress(OSError):
                self.path.rmdir()
            return not self.path.exists()

        wait_for("the group to be empty", is_gone)


SHORT = "N MiB of memory are left, and N may be needed"
# The collector is not to be what decides how fast such a worker is.
SAMPLED = ("--sample", "auto")


@dataclass
class Limited:
    """What became of many graphs of a worker."""

    outcomes: Counter[str]
    reasons: set[str]
    # Rounds in the time that a graph took, by those in as long before it.
    ratios: list[float]


def many_graphs(one: Worker, count: int) -> Limited:
    found = Limited(Counter(), set(), [])
    took = 0.3
    for number in range(count):
        before, began = one.rounds(), time.monotonic()
        time.sleep(took)
        between, middle = one.rounds(), time.monotonic()
        _, answer = one.asked(f"graph {number}")
        after, end = one.rounds(), time.monotonic()
        [graph] = answer["heap_graphs"]
        found.outcomes[graph["outcome"]] += 1
        if graph["outcome"] == "taken":
            ratio = (after - between) / (end - middle)
            found.ratios.append(ratio / ((between - before) / (middle - began)))
            took = min(end - middle, 2)
        else:
            found.reasons.add(re.sub(r"\d+", "N", graph["why"]))
    return found


def check_limited(
    one: Worker, found: Limited, count: int, long: bool, outcome: str, why: str = ""
) -> None:
    print(found.outcomes, found.reasons)
    said = {"taken", "refused"} if outcome == "either" else {outcome}
    assert set(found.outcomes) <= said, (found.outcomes, found.reasons)
    assert found.outcomes.total() == count
    if why:
        [reason] = found.reasons
        assert re.search(why, reason), reason
    elif long:
        ratios = sorted(found.ratios)
        print(f"throughput while a graph is taken: {ratios[len(ratios) // 2]:.3f}")
        assert ratios[len(ratios) // 2] >= 0.8, ratios
    truth = one.end()
    assert truth["signals"] == []
    assert truth["children"] == "none"
    assert truth["same_descriptors"]
    assert truth["rounds"] > 0


@pytest.mark.parametrize("share", [0.8, 0.5])
def test_graphs_in_a_memory_group(leakline: Leakline, long: bool, share: float) -> None:
    """With its collector in it, as in a container: none of them is killed."""
    count = 200 if long else 6
    group = Group("memory")
    try:
        if share > 0.7 and not group.is_old():
            # Who is killed takes all others along: twice as much has to be left.
            group.write("memory.oom.group", 1)
        with worker(leakline, 8, 60_000, *SAMPLED, before=group.entering()) as one:
            time.sleep(1)
            group.write(group.limit(), int(group.used_bytes() / share))
            found = many_graphs(one, count)
            assert group.kills() == 0
            if share > 0.7:
                check_limited(one, found, count, long, "refused", SHORT)
            else:
                # What the collector and the last child have counts, too.
                most = [reason for reason in found.reasons if SHORT not in reason]
                assert most == [], found.reasons
                assert found.outcomes["taken"] >= count / 2, found.outcomes
                check_limited(one, found, count, long, "either")
    finally:
        group.remove()


def test_a_child_is_ended_before_memory_runs_out(
    leakline: Leakline, programs: Programs
) -> None:
    """It would be the first to go, but others may be taken along, or be slow for want of
    memory long before."""
    directory = programs.extension("bad_traverse")
    program = (
        f"import sys; sys.path.insert(0, {str(directory)!r})\n"
        "import bad_traverse, select, time\n"
        "kept = [bad_traverse.Bad()]\n"
        "bad_traverse.be_bad(2)\n"
        "def works():\n"
        "    while not select.select([0], [], [], 0)[0]:\n"
        "        more = [str(number) for number in range(1000)]\n"
        "    sys.stdin.readline()\n"
        "print('ready', flush=True); works()\n"
        "for _ in range(46):\n"
        "    kept.append(bytearray(b'x') * (1 << 20)); time.sleep(0.01)\n"
        "print('grown', flush=True); works()\n"
        "bad_traverse.be_bad(0)\n"
    )
    group = Group("memory")
    line, recording = leakline.command(
        *group.entering(), TARGET_PYTHON, "-c", program, options=SAMPLED
    )
    process = subprocess.Popen(
        [os.fspath(part) for part in line],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        [pid] = map(int, group.read("cgroup.procs").split())
        needed = (rss(pid) // 2) + (32 << 20)
        group.write(group.limit(), group.used_bytes() + needed + (16 << 20))
        command: list[Part] = [leakline.binary, "snapshot", "--heap", "--json"]
        snapshot = subprocess.Popen(
            [os.fspath(part) for part in (*command, recording.path, "short")],
            stdout=subprocess.PIPE,
        )
        wait_for("its child", lambda: len(group.read("cgroup.procs").split()) == 2)
        process.stdin.write(b"\n")
        process.stdin.flush()
        out, _ = snapshot.communicate(timeout=60)
        [graph] = json.loads(out)["heap_graphs"]
        assert graph["outcome"] == "cut off", graph
        assert graph["why"].endswith("the process's memory ran short"), graph
        assert process.stdout.readline() == b"grown\n"
        assert group.kills() == 0
        process.communicate(b"\n", timeout=60)
        assert process.returncode == 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        group.remove()


@pytest.mark.parametrize("room", [0, 1])
def test_graphs_where_processes_are_limited(
    leakline: Leakline, long: bool, room: int
) -> None:
    count = 200 if long else 6
    group = Group("pids")
    try:
        with worker(leakline, 8, 20_000, *SAMPLED, within=group.entering()) as one:
            # Its threads count, too.
            wait_for("its threads", lambda: int(group.read("pids.current")) == 9)
            group.write("pids.max", 9 + room)
            found = many_graphs(one, count)
            why = "it may have no more processes"
            if room:
                # The last one's child may take some time to give its memory back.
                assert all(why in reason for reason in found.reasons), found.reasons
                assert found.outcomes["taken"] >= count / 2, found.outcomes
                check_limited(one, found, count, long, "either")
            else:
                check_limited(one, found, count, long, "refused", why)
    finally:
        group.remove()


@pytest.mark.parametrize("of", ["the program", "all"])
def test_graphs_under_a_seccomp_filter(leakline: Leakline, long: bool, of: str) -> None:
    """A program that is killed if it forks is not asked to; what a container does to
    all in it is no hindrance."""
    count = 200 if long else 6
    words: list[Part] = [TARGET_PYTHON, PYTHON_PROGRAMS / "filtered.py"]
    before: list[Part] = [*words, "nothing"] if of == "all" else []
    within: list[Part] = [*words, "forks"] if of != "all" else []
    with worker(leakline, 8, 20_000, *SAMPLED, before=before, within=within) as one:
        found = many_graphs(one, count)
        if of == "all":
            check_limited(one, found, count, long, "taken")
        else:
            why = "a seccomp filter of its own"
            check_limited(one, found, count, long, "refused", why)


def test_graphs_of_many_threads(leakline: Leakline, long: bool) -> None:
    count = 200 if long else 6
    with worker(leakline, 64, 20_000, *SAMPLED) as one:
        found = many_graphs(one, count)
        check_limited(one, found, count, long, "taken")


def test_no_graph_that_would_take_longer_than_allowed(leakline: Leakline) -> None:
    # 128 MiB and more: about 3 ms.
    program = (
        "kept = bytearray(b'x') * (160 << 20); print('ready', flush=True); input()"
    )
    process = subprocess.Popen(
        [TARGET_PYTHON, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        command: list[Part] = [leakline.binary, "attach", str(process.pid), "-f", "-o"]
        command += [leakline.directory / "short.leakline", "--duration", "1s"]
        result = execute([*command, "--max-pause", "2ms"])
        assert result.status == 0, result.err.decode()
        why = r"would stand still for about \d+ ms, longer than --max-pause allows \(2 ms\)"
        assert re.search(why, result.err.decode()), result.err.decode()
    finally:
        process.communicate("\n", timeout=60)


def test_the_graph_at_the_end_can_be_left_out(leakline: Leakline) -> None:
    program = "kept = [object() for _ in range(1000)]"
    _, recording = leakline.run(TARGET_PYTHON, "-c", program)
    _, without = leakline.run(TARGET_PYTHON, "-c", program, options=["--heap", "never"])
    # The graph of an interpreter that was just started is some 200 KB.
    grown = recording.path.stat().st_size - without.path.stat().st_size
    assert grown > 50_000


def test_an_attach_takes_one_at_each_end_and_leaves_nothing(
    leakline: Leakline,
) -> None:
    worker = subprocess.Popen(
        [TARGET_PYTHON, os.fspath(PYTHON_PROGRAMS / "heap_worker.py"), "4", "3000"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert worker.stdout is not None
    try:
        assert worker.stdout.readline() == b"ready\n"
        path = leakline.directory / "attached.leakline"
        command: list[Part] = [leakline.binary, "attach", str(worker.pid), "-o", path]
        result = execute([*command, "--duration", "2s", "--sample", "16KiB"])
        assert result.status == 0, result.err.decode()
        lines = [
            line for line in result.err.decode().splitlines() if "heap graph" in line
        ]
        assert len(lines) == 2, result.err.decode()
        for number, line in enumerate(lines, 1):
            assert re.match(
                rf"heap graph {number} of process {worker.pid}: [\d,]+ objects, "
                r"[\d.]+ MiB; paused [\d.]+ ms",
                line,
            )
        # Not even as a zombie, which this process would never wait for.
        assert children(worker.pid) == []
        out, err = worker.communicate(timeout=60)
        assert worker.returncode == 0, err.decode()
        truth = json.loads(out.splitlines()[-1])
        assert truth["signals"] == []
        assert truth["children"] == "none"
    finally:
        worker.kill()
        worker.communicate()


def test_of_many_processes_the_first_are_enough(leakline: Leakline) -> None:
    program = (
        "import subprocess, sys, time\n"
        "code = 'import atexit; atexit.register(lambda: [[] for _ in range(2000)])'\n"
        "for _ in range(40):\n"
        "    subprocess.run([sys.executable, '-c', code])\n"
        "    time.sleep(0.15)  # one at a time\n"
    )
    result, recording = leakline.run(TARGET_PYTHON, "-c", program)
    assert result.status == 0
    asked = execute([leakline.binary, "why", "--graph", "1000", recording.path])
    assert asked.status == 3
    graphs = {int(found) for found in re.findall(rb"\b\d+\b", asked.err)}
    assert 24 <= max(graphs - {1000}) < 32, asked.err
    notes = json.dumps(recording.report("stats"))
    assert "are taken of 24 processes" in notes

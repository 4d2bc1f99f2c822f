"""`leakline attach` and `detach`: into running programs and out again."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from harness import (
    FAR,
    PYTHON_PROGRAMS,
    TARGET_PYTHON,
    Json,
    Leakline,
    Part,
    Programs,
    Recording,
    Result,
    by_function,
    check_sites,
    collector_of,
    deviations,
    execute,
    python_lines,
    reads_filters,
    wait_for,
)


class Target:
    """A program that takes commands, one line each, and answers with a line."""

    def __init__(
        self, process: subprocess.Popen[bytes], pid: int | None = None
    ) -> None:
        self.process = process
        self.pid = pid or process.pid

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().rstrip("\n")

    def ask(self, command: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()
        return self.answer()

    def truth(self, command: str = "work") -> Json:
        truth: Json = json.loads(self.ask(command))
        return truth

    def end(self) -> None:
        """Ends it, which has to be as it would be by itself."""
        out, err = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, (out, err.decode())
        assert err == b""

    def resident(self) -> int:
        """In KiB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])

    def descriptors(self) -> set[str]:
        return set(os.listdir(f"/proc/{self.pid}/fd"))

    def maps_session(self) -> bool:
        return "memfd:leakline-session" in Path(f"/proc/{self.pid}/maps").read_text()


@contextmanager
def running(
    *command: Part, preexec_fn: Callable[[], None] | None = None
) -> Iterator[Target]:
    process = subprocess.Popen(
        [os.fspath(part) for part in command],
        preexec_fn=preexec_fn,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    target = Target(process)
    try:
        assert target.answer() == "ready"
        yield target
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


class Attached:
    """A `leakline attach` that runs."""

    def __init__(self, process: subprocess.Popen[bytes], recording: Recording) -> None:
        self.process = process
        self.recording = recording

    def leave(self, by: int = signal.SIGINT) -> Result:
        """Has it leave, and gives what it said from then on."""
        self.process.send_signal(by)
        return self.wait()

    def wait(self) -> Result:
        began = time.monotonic()
        out, err = self.process.communicate(timeout=60)
        return Result(self.process.returncode, out, err, time.monotonic() - began)


@contextmanager
def attached(
    leakline: Leakline, pid: int, options: Sequence[Part] = ()
) -> Iterator[Attached]:
    """Attaches, and goes on once the processes are recorded."""
    leakline.count += 1
    path = leakline.directory / f"{leakline.count}.leakline"
    exact = [] if {"--sample", "--exact"} & {*options} else ["--exact"]
    line = [leakline.binary, "attach", str(pid), "-o", path, *exact, *options]
    process = subprocess.Popen(
        [os.fspath(part) for part in line],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        said = []
        assert process.stderr is not None
        while True:
            text = process.stderr.readline().decode()
            said.append(text)
            assert text, f"attach failed: {''.join(said)}"
            if text.startswith("recording to"):
                break
        yield Attached(process, Recording(leakline.binary, path))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def has_left(target: Target) -> bool:
    return not target.maps_session()


def test_counts_are_exact(leakline: Leakline, programs: Programs) -> None:
    """From the attach on, in threads that were there before or came later; blocks
    from before are freed and resized without harm, and are no events' truth."""
    with running(programs.program("attached"), "4", "20000") as target:
        before = target.descriptors()
        with attached(leakline, target.pid) as attach:
            truth = target.truth()
            result = attach.leave()
        assert result.status == 0, result.err.decode()
        assert b"1 of 1 as before" in result.err
        assert b"0 events lost" in result.err
        assert target.descriptors() == before
        wait_for("the map to go", lambda: has_left(target))
        # What comes now is not recorded, and blocks recorded are freed.
        target.truth()
        target.end()
    totals = attach.recording.stats()["totals"]
    assert totals["complete"] is True
    names = truth["sites"]
    check_sites(attach.recording.rows(), names)


def test_python_lines_are_exact(leakline: Leakline) -> None:
    script = PYTHON_PROGRAMS / "attached.py"
    count = 3000
    with running(TARGET_PYTHON, script) as target:
        target.truth("work 10")
        with attached(leakline, target.pid) as attach:
            # The domains are hooked at the evaluator's next safe point.
            target.truth("pid")
            lines = target.truth(f"work {count}")["lines"]
            result = attach.leave()
        assert result.status == 0, result.err.decode()
        target.truth("work 10")
        target.end()
    rows = attach.recording.rows("--filter", "attached.py")
    found = python_lines(rows, script)
    # Some of the lists themselves come from CPython's free list: their blocks were
    # there before. What they hold does not.
    objects = found[(lines["lists"], "obj")]
    assert count - 80 <= objects["live_blocks"] <= count, objects
    assert found[(lines["lists"], "mem")]["live_blocks"] >= count
    texts = {domain: found.get((lines["texts"], domain)) for domain in ("raw", "obj")}
    assert sum(row["live_blocks"] for row in texts.values() if row) >= count, texts
    freed = [row for (line, _), row in found.items() if line == lines["freed"]]
    assert sum(row["total_bytes"] for row in freed) >= count * 1000
    assert sum(row["live_bytes"] for row in freed) < 5000
    process = attach.recording.process(target.pid)
    assert process["totals"]["complete"] is True


def test_python_gets_its_allocators_back(leakline: Leakline) -> None:
    """Those of its domains, and of the arenas."""
    with running(TARGET_PYTHON, PYTHON_PROGRAMS / "attached.py") as target:
        before = target.truth("allocators")["found"]
        for options in ("--exact",), ("--sample", "4KiB"):
            with attached(leakline, target.pid, options) as attach:
                target.truth("pid")
                target.truth("work 2000")
                during = target.truth("allocators")["found"]
                assert all(now != then for now, then in zip(during, before))
                assert attach.leave().status == 0
            wait_for("the map to go", lambda: has_left(target))
            target.truth("work 2000")
            assert target.truth("allocators")["found"] == before
        target.end()


def mode(leakline: Leakline, pid: int, *options: str) -> str:
    result = execute([leakline.binary, "mode", str(pid), *options])
    assert result.status == 0, result.err.decode()
    return result.out.decode().strip()


def test_between_all_blocks_and_a_sample(
    leakline: Leakline, programs: Programs, long: bool
) -> None:
    """Each recorded block's death is seen, whatever is recorded when it dies and
    whichever thread frees it; what is estimated is right on average."""
    with running(programs.program("attached"), "4", "20000") as target:
        assert target.ask("busy") == "busy"
        with attached(leakline, target.pid) as attach:
            assert mode(leakline, target.pid) == "every block is recorded"
            for turn in range(100 if long else 10):
                time.sleep(0.02)
                said = mode(leakline, target.pid, "--sample", "256")
                assert said == "a sample is recorded: one in 256 B on average"
                time.sleep(0.02)
                if turn % 2:
                    mode(leakline, target.pid, "--sample", "4KiB")
                said = mode(leakline, target.pid, "--exact")
                assert said == "every block is recorded"
            mode(leakline, target.pid, "--sample", "1KiB")
            target.ask("calm")
            truth = target.truth()
            result = attach.leave()
        assert result.status == 0, result.err.decode()
        assert b"0 events lost" in result.err
        target.truth()
        target.end()
    stats = attach.recording.stats()
    assert stats["mode"] == "mixed"
    assert stats["totals"]["complete"] is True
    assert stats["sample_bytes"] == 4096
    rows = by_function(attach.recording.rows(), ["busy"])
    busy = [row for row in rows["busy"] if row["domain"] == "native"]
    assert sum(row["total_blocks"] for row in busy) > 10_000
    # The threads freed all that they had.
    assert [
        (row["live_bytes"], row["live_blocks"]) for row in busy if row["live_blocks"]
    ] == []
    sites = truth["sites"]
    rows = by_function(attach.recording.rows(), sites)
    for name in ("kept_blocks", "freed_blocks", "cleared_blocks"):
        for key in ("total_bytes", "live_bytes"):
            off = deviations(rows[name], key, sites[name][key])
            assert abs(off) < FAR, (name, key, off)


def test_python_between_all_blocks_and_a_sample(leakline: Leakline) -> None:
    script = PYTHON_PROGRAMS / "attached.py"
    with running(TARGET_PYTHON, script) as target:
        with attached(leakline, target.pid) as attach:
            target.truth("pid")
            exact = target.truth("work 2000")["lines"]
            mode(leakline, target.pid, "--sample", "512")
            target.truth("work 10")
            target.ask("drop")
            mode(leakline, target.pid, "--exact")
            target.truth("work 2000")
            target.ask("drop")
            result = attach.leave()
        assert result.status == 0, result.err.decode()
        target.end()
    found = python_lines(attach.recording.rows("--filter", "attached.py"), script)
    kept = [found[(exact[name], "obj")] for name in ("lists", "texts")]
    assert all(row["total_blocks"] > 3000 for row in kept), kept
    # CPython keeps the blocks of 80 lists for those to come.
    assert kept[0]["live_blocks"] <= 80, kept
    assert kept[1]["live_blocks"] == 0, kept


def test_lists_that_grow_are_counted_once(leakline: Leakline) -> None:
    """Where the first block too large for CPython's pools is resized, not made."""
    with running(TARGET_PYTHON, PYTHON_PROGRAMS / "attached.py") as target:
        with attached(leakline, target.pid, ("--sample", "16KiB")) as attach:
            truth = target.truth("grow 500")
            assert attach.leave().status == 0
        target.end()
    assert attach.recording.stats()["totals"]["complete"] is True
    only = ("--filter", "attached.py")
    rows = attach.recording.rows(*only, at="end")
    grown = [row for row in rows if row["line"] == truth["lines"]["grown"]]
    assert abs(deviations(grown, "live_bytes", truth["room"])) < FAR
    domains = attach.recording.rows("--by", "domain", *only, at=None)
    total = {row["domain"]: row["total_bytes"] for row in domains}
    assert total["mem"] > truth["room"]
    assert total.get("raw", 0) + total.get("native", 0) < 1_000_000, total


def test_python_frees_as_ever_while_it_is_sampled(leakline: Leakline) -> None:
    """Samples are set apart, so that nobody has to look at any other block's death;
    until all blocks are recorded."""
    free = 4
    with running(TARGET_PYTHON, PYTHON_PROGRAMS / "attached.py") as target:
        before = target.truth("allocators")["found"]
        with attached(leakline, target.pid, ("--sample", "4KiB")) as attach:
            target.truth("work 20000")
            sampled = target.truth("allocators")["found"]
            for domain in (1, 2):
                assert sampled[domain][free] == before[domain][free]
                assert sampled[domain][1:free] != before[domain][1:free]
            target.truth("drop")
            mode(leakline, target.pid, "--exact")
            target.truth("work 2000")
            exact = target.truth("allocators")["found"]
            for domain in (1, 2):
                assert exact[domain][free] != before[domain][free]
            target.truth("drop")
            mode(leakline, target.pid, "--sample", "4KiB")
            target.truth("work 2000")
            # What was recorded when all blocks were may die yet.
            again = target.truth("allocators")["found"]
            assert [row[free] for row in again[:3]] == [row[free] for row in exact[:3]]
            target.truth("drop")
            assert attach.leave().status == 0
        wait_for("the map to go", lambda: has_left(target))
        assert target.truth("allocators")["found"] == before
        target.end()
    rows = attach.recording.rows("--filter", "attached.py", at="end")
    made = [row for row in rows if row["total_bytes"] > 500_000]
    assert len(made) >= 2, rows
    for row in made:
        assert row["live_bytes"] < 0.02 * row["total_bytes"], row
    assert attach.recording.stats()["totals"]["complete"] is True


def test_a_sample_does_not_wait_for_that_of_the_last_session(
    leakline: Leakline,
) -> None:
    script = PYTHON_PROGRAMS / "attached.py"
    with running(TARGET_PYTHON, script) as target:
        with attached(leakline, target.pid, ("--sample", "1GiB")) as attach:
            target.truth("aside 20000")
            assert attach.leave().status == 0
        wait_for("the map to go", lambda: has_left(target))
        with attached(leakline, target.pid, ("--sample", "512")) as attach:
            target.truth("work 2000")
            lines = target.truth("aside 20000")["lines"]
            assert attach.leave().status == 0
        target.end()
    found = python_lines(attach.recording.rows("--filter", "attached.py"), script)
    texts = found[(lines["slices"], "obj")]
    assert abs(texts["total_blocks"] - 20_000) < 2000, texts


def test_switched_domains(leakline: Leakline, programs: Programs) -> None:
    """While a domain is left out its new blocks are not told of, and all deaths are."""
    with running(programs.program("attached"), "4", "20000") as target:
        assert target.ask("busy") == "busy"
        with attached(leakline, target.pid) as attach:
            for _ in range(10):
                time.sleep(0.02)
                said = mode(leakline, target.pid, "--domains", "python")
                assert said == "every block is recorded, of Python's memory only"
                time.sleep(0.02)
                said = mode(leakline, target.pid, "--domains", "all")
                assert said == "every block is recorded"
            mode(leakline, target.pid, "--domains", "python")
            before = attach.recording.rows()
            time.sleep(0.1)
            target.ask("calm")
            result = attach.leave()
        assert result.status == 0, result.err.decode()
        target.end()
    rows = by_function(attach.recording.rows(), ["busy"])["busy"]
    assert sum(row["total_blocks"] for row in rows) > 1000
    assert [row for row in rows if row["live_blocks"]] == []
    then = by_function(before, ["busy"])["busy"]
    # Who was about to say so may have been.
    late = sum(r["total_blocks"] for r in rows) - sum(r["total_blocks"] for r in then)
    assert late <= 100
    notes = attach.recording.stats()["notes"]
    assert any("native new blocks are not recorded" in note["text"] for note in notes)


@pytest.mark.parametrize("options", [("--exact",), ("--sample", "256")], ids=str)
def test_switched_domains_of_python(
    leakline: Leakline, options: tuple[str, ...]
) -> None:
    script = PYTHON_PROGRAMS / "attached.py"
    with running(TARGET_PYTHON, script) as target:
        with attached(leakline, target.pid, options) as attach:
            target.truth("pid")
            lines = target.truth("work 2000")["lines"]
            said = mode(leakline, target.pid, "--domains", "native")
            assert said.endswith(", of native memory only")
            target.truth("work 2000")
            # Whoever allocates takes it, recorded or not.
            snapshot: list[Part] = [leakline.binary, "snapshot", str(target.pid)]
            with subprocess.Popen(
                [*snapshot, "held", "--heap", "--json"], stdout=subprocess.PIPE
            ) as taking:
                while taking.poll() is None:
                    target.truth("work 100")
                taken, _ = taking.communicate()
            [graph] = json.loads(taken)["heap_graphs"]
            assert graph["outcome"] == "taken", graph
            target.ask("drop")
            mode(leakline, target.pid, "--domains", "all")
            target.truth("work 1000")
            result = attach.leave()
        assert result.status == 0, result.err.decode()
        target.end()
    found = python_lines(attach.recording.rows("--filter", "attached.py"), script)
    texts = found[(lines["texts"], "obj")]
    if options == ("--exact",):
        # Each is made of the same number of blocks, but for the first on 3.14 and later.
        assert (texts["total_blocks"] + 10) % 3000 <= 10
        assert texts["live_blocks"] == 1000
    else:
        rows = attach.recording.rows("--filter", f"attached.py:{lines['texts']}")
        size = sum(len(str(number)) + 601 + 49 for number in range(1000))
        off = deviations(rows, "live_bytes", size)
        assert abs(off) < FAR, off


def test_only_what_can_be_switched_is(leakline: Leakline, programs: Programs) -> None:
    with running(programs.program("attached"), "1", "10") as target:
        result = execute([leakline.binary, "mode", str(target.pid), "--exact"])
        assert result.status == 3
        assert b"is not being recorded" in result.err
        target.end()


def test_fewer_samples_where_they_cost_too_much(
    leakline: Leakline, programs: Programs
) -> None:
    with running(programs.program("attached"), "2", "1000") as target:
        assert target.ask("busy") == "busy"
        options = ["--sample", "256", "--max-overhead", "1"]
        with attached(leakline, target.pid, options) as attach:
            wait_for(
                "a larger mean",
                lambda: "256 B" not in mode(leakline, target.pid),
            )
            time.sleep(0.3)
            result = attach.leave()
        assert result.status == 0, result.err.decode()
        assert b"samples took" in result.err
        assert b"one in 512 B from now on" in result.err
        target.ask("calm")
        target.end()
    stats = attach.recording.stats()
    assert stats["least_sample_bytes"] == 256
    assert stats["sample_bytes"] >= 512


STARTS = """\
import subprocess, sys

print("ready", flush=True)
for line in sys.stdin:
    child = subprocess.Popen(
        [sys.executable, *line.split()], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    child.stdout.readline()
    print(child.pid, flush=True)
    if sys.stdin.readline().startswith("work"):
        child.stdin.write(b"work 500\\n")
        child.stdin.flush()
        child.stdout.readline()
        print("worked", flush=True)
        sys.stdin.readline()
    child.communicate()
    print("ended", flush=True)
"""


def test_programs_that_a_recorded_one_starts(leakline: Leakline) -> None:
    """An exec takes the interposer away: they are gone to when they are seen."""
    script = leakline.directory / "starts.py"
    script.write_text(STARTS)
    worker = PYTHON_PROGRAMS / "attached.py"
    with running(TARGET_PYTHON, script) as target:
        with attached(leakline, target.pid, ["--exact"]) as attach:
            child = int(target.ask(str(worker)))
            wait_for(
                "the child to be recorded",
                lambda: (
                    "memfd:leakline-session" in Path(f"/proc/{child}/maps").read_text()
                ),
            )
            time.sleep(0.2)
            assert target.ask("work") == "worked"
            assert target.ask("end") == "ended"
            result = attach.leave()
        said = result.err.decode()
        assert result.status == 0, said
        assert f"{child} " in said
        assert "came later, and is recorded: paused" in said
        target.end()
    made = attach.recording.process(child)["totals"]
    assert made["complete"] is True
    assert made["allocations"] > 1000
    rows = attach.recording.rows("--filter", "attached.py")
    assert sum(row["total_blocks"] for row in rows) > 500


def test_again_and_again(leakline: Leakline, programs: Programs, long: bool) -> None:
    """Into a busy program and out again: it loses nothing and keeps nothing."""
    with running(programs.program("attached"), "16", "1000") as target:
        assert target.ask("busy") == "busy"
        sizes, recorded = [], []
        cycles = 300 if long else 12
        for cycle in range(cycles):
            with attached(leakline, target.pid) as attach:
                time.sleep(0.02)
                by = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)[cycle % 3]
                result = attach.leave(by)
            assert result.status == 0, result.err.decode()
            assert b"1 of 1 as before" in result.err, result.err.decode()
            wait_for("the map to go", lambda: has_left(target))
            sizes.append(target.resident())
            recorded.append(attach.recording.stats()["totals"]["allocations"])
            attach.recording.path.unlink()
        assert target.ask("calm") == "calm"
        target.end()
    # The first brings the interposer and its threads' states.
    assert sizes[-1] - sizes[0] < 8 * 1024, sizes
    # On a busy machine it may get no processor for as long.
    assert statistics.median(recorded) > 100, recorded


def test_a_sample(leakline: Leakline, programs: Programs) -> None:
    """By default a sample is recorded; it leaves and comes back as well."""
    with running(programs.program("attached"), "4", "20000") as target:
        assert target.ask("busy") == "busy"
        for options in (["--sample", "64KiB"], ["--sample", "auto"], ["--exact"]):
            for _ in range(3):
                with attached(leakline, target.pid, options) as attach:
                    time.sleep(0.2)
                    result = attach.leave()
                assert result.status == 0, result.err.decode()
                assert b"1 of 1 as before" in result.err, result.err.decode()
                wait_for("the map to go", lambda: has_left(target))
                stats = attach.recording.stats()
                assert stats["mode"] == ("exact" if "--exact" in options else "sampled")
                assert stats["totals"]["allocations"] > 1000, (options, stats)
        assert target.ask("calm") == "calm"
        with attached(leakline, target.pid, ["--sample", "16KiB"]) as attach:
            truth = target.truth()
            result = attach.leave()
        assert result.status == 0, result.err.decode()
        target.end()
    totals = attach.recording.stats()["totals"]
    true = sum(site["total_bytes"] for site in truth["sites"].values())
    # 16 KiB and some 27 MB: one deviation is 2.5 %.
    assert abs(totals["allocated_bytes"] - true) < 0.15 * true, (totals, true)


def test_a_library_that_comes_later(leakline: Leakline, programs: Programs) -> None:
    plugin = programs.plugin("gamma", 777)
    with running(programs.program("attached"), "1", "10") as target:
        with attached(leakline, target.pid) as attach:
            target.truth()
            assert target.ask(f"load {plugin}") == "loaded"
            result = attach.leave()
        assert result.status == 0, result.err.decode()
        target.end()
    rows = attach.recording.rows("--filter", "leak_of_gamma")
    assert sum(row["total_blocks"] for row in rows) == 10, rows


def test_children_are_taken(leakline: Leakline) -> None:
    """Those that are there, and those that come; each has its own share."""
    script = PYTHON_PROGRAMS / "attached.py"
    with running(TARGET_PYTHON, script) as target:
        child = target.truth("fork")["pid"]
        with attached(leakline, target.pid) as attach:
            assert target.truth("pid")["pid"] == child
            grandchild = target.truth("fork")["pid"]
            target.truth("work 2000")
            result = attach.leave()
        assert result.status == 0, result.err.decode()
        assert b"3 of 3 as before" in result.err, result.err.decode()
        target.end()
    processes = {one["pid"]: one for one in attach.recording.stats()["processes"]}
    assert set(processes) == {target.pid, child, grandchild}
    assert processes[grandchild]["totals"]["live_blocks"] > 4000


def test_no_follow_takes_one(leakline: Leakline) -> None:
    script = PYTHON_PROGRAMS / "attached.py"
    with running(TARGET_PYTHON, script) as target:
        child = target.truth("fork")["pid"]
        with attached(leakline, child, ["--no-follow"]) as attach:
            target.truth("fork")
            target.truth("work 100")
            result = attach.leave()
        assert result.status == 0, result.err.decode()
        target.end()
    processes = [one["pid"] for one in attach.recording.stats()["processes"]]
    assert processes == [child]


@pytest.mark.parametrize("who", ["attach", "collector", "both"])
def test_who_records_is_killed(
    leakline: Leakline, programs: Programs, who: str
) -> None:
    """The program goes on, leaves by itself, and can be attached to again."""
    with running(programs.program("attached"), "4", "5000") as target:
        with attached(leakline, target.pid) as attach:
            assert target.ask("busy") == "busy"
            collector = collector_of(attach.process.pid)
            assert collector is not None
            time.sleep(1.5)
            if who in ("attach", "both"):
                attach.process.kill()
            if who in ("collector", "both"):
                os.kill(collector, signal.SIGKILL)
            if who != "collector":
                attach.wait()
            wait_for("the program to leave", lambda: has_left(target), timeout=40)
            if who == "collector":
                result = attach.wait()
                assert result.status == 3, result.err.decode()
                assert b"the collector ended early" in result.err
        assert target.ask("calm") == "calm"
        # The collector of a killed attach finishes the file.
        assert attach.recording.stats()["totals"]["allocations"] > 100
        with attached(leakline, target.pid) as attach:
            truth = target.truth()
            result = attach.leave()
        assert result.status == 0, result.err.decode()
        target.end()
    check_sites(attach.recording.rows(), truth["sites"])


def test_a_thread_is_still_inside_of_the_last_session(
    leakline: Leakline, programs: Programs, tmp_path: Path
) -> None:
    """It is waited for, and where it does not come out the next session is refused."""
    hold, inside = tmp_path / "hold", tmp_path / "hold.inside"
    source = """
import ctypes, sys, threading
allocate = ctypes.CDLL(None).PyMem_RawMalloc
allocate.argtypes = [ctypes.c_size_t]
print("ready", flush=True)
for line in sys.stdin:
    threading.Thread(target=allocate, args=(77777,)).start()
    print("asked", flush=True)
"""
    command = ["env", f"LD_PRELOAD={programs.held()}", f"HOLD={hold}"]
    with running(*command, TARGET_PYTHON, "-c", source) as target:
        with attached(leakline, target.pid) as attach:
            hold.touch()
            assert target.ask("allocate") == "asked"
            wait_for("a thread to be inside", inside.exists)
            result = attach.leave()
        assert result.status == 0, result.err.decode()
        path = tmp_path / "refused.leakline"
        refused = execute(
            [leakline.binary, "attach", str(target.pid), "--exact", "-o", path]
        )
        assert refused.status == 3
        assert b"a thread is still inside of the last session" in refused.err
        later = threading.Timer(0.3, hold.unlink)
        later.start()
        with attached(leakline, target.pid) as attach:
            assert not hold.exists()
            inside.unlink()
            hold.touch()
            assert target.ask("allocate") == "asked"
            wait_for("a thread to be inside", inside.exists)
            hold.unlink()
            result = attach.leave()
        assert result.status == 0, result.err.decode()
        target.end()
    # Blocks of both threads: the first one's came when its session was over.
    rows = [row for row in attach.recording.rows() if row["total_bytes"] >= 77777]
    assert sum(row["total_blocks"] for row in rows) == 1, rows


def test_detach_from_elsewhere(leakline: Leakline, programs: Programs) -> None:
    with running(programs.program("attached"), "2", "1000") as target:
        with attached(leakline, target.pid) as attach:
            target.truth()
            result = execute([leakline.binary, "detach", str(target.pid)])
            assert result.status == 0, result.err.decode()
            wait_for("the map to go", lambda: has_left(target))
            assert attach.wait().status == 0
        result = execute([leakline.binary, "detach", str(target.pid)])
        assert result.status == 0, "it is as it was"
        target.end()
    result = execute([leakline.binary, "detach", str(target.pid)])
    assert result.status == 3
    assert b"there is no such process" in result.err


def test_detach_of_what_was_never_attached_to(
    leakline: Leakline, programs: Programs
) -> None:
    with running(programs.program("attached"), "1", "10") as target:
        result = execute([leakline.binary, "detach", str(target.pid)])
        target.end()
    assert result.status == 3
    assert b"is not being recorded by `leakline attach`" in result.err


def test_detach_of_what_run_records(leakline: Leakline, programs: Programs) -> None:
    """It was started to be recorded: that is not ended, and not said to be."""
    path = leakline.directory / "run.leakline"
    program = programs.program("attached")
    line = (leakline.binary, "run", "-o", path, "--", program, "1", "10")
    with running(*line) as target:
        children = Path(f"/proc/{target.pid}/task/{target.pid}/children").read_text()
        pid = next(
            child
            for child in children.split()
            if b"attached" in Path(f"/proc/{child}/cmdline").read_bytes()
        )
        result = execute([leakline.binary, "detach", pid])
        assert result.status == 3
        assert b"recorded from its start" in result.err, result.err.decode()
        truth = target.truth()
        target.end()
    check_sites(Recording(leakline.binary, path).rows(), truth["sites"])


def test_in_the_background(leakline: Leakline, programs: Programs) -> None:
    path = leakline.directory / "background.leakline"
    with running(programs.program("attached"), "2", "1000") as target:
        result = execute(
            [
                leakline.binary,
                "attach",
                str(target.pid),
                "-o",
                path,
                "--background",
                "--exact",
            ]
        )
        assert result.status == 0, result.err.decode()
        assert f"`leakline detach {target.pid}` detaches".encode() in result.err
        truth = target.truth()
        again = execute([leakline.binary, "attach", str(target.pid), "-o", path, "-f"])
        assert again.status == 3
        assert b"recorded already" in again.err, again.err.decode()
        result = execute([leakline.binary, "detach", str(target.pid)])
        assert result.status == 0, result.err.decode()
        target.end()
    recording = Recording(leakline.binary, path)
    check_sites(recording.rows(), truth["sites"])


def test_to_standard_output(leakline: Leakline, programs: Programs) -> None:
    with running(programs.program("attached"), "2", "1000") as target:
        assert target.ask("busy") == "busy"
        result = execute(
            [
                leakline.binary,
                "attach",
                str(target.pid),
                "-o",
                "-",
                "--exact",
                "--duration",
                "300ms",
            ]
        )
        assert result.status == 0, result.err.decode()
        assert target.ask("calm") == "calm"
        target.end()
    path = leakline.directory / "out.leakline"
    path.write_bytes(result.out)
    assert Recording(leakline.binary, path).stats()["totals"]["allocations"] > 100


def test_the_program_ends_first(leakline: Leakline, programs: Programs) -> None:
    with running(programs.program("attached"), "2", "1000") as target:
        with attached(leakline, target.pid) as attach:
            truth = target.truth()
            target.end()
            result = attach.wait()
    assert result.status == 0, result.err.decode()
    assert b"all processes ended" in result.err
    check_sites(attach.recording.rows(), truth["sites"])


def test_woken_without_ptrace(leakline: Leakline, programs: Programs) -> None:
    """A program under `run --idle` is attached to, left, and attached to again."""
    program = programs.program("attached")
    line = (leakline.binary, "run", "--idle", "--", program, "4", "5000")
    with running(*line) as target:
        children = Path(f"/proc/{target.pid}/task/{target.pid}/children").read_text()
        pid = next(
            int(child)
            for child in children.split()
            if b"attached" in Path(f"/proc/{child}/cmdline").read_bytes()
        )
        inside = Target(target.process, pid)
        for turn in range(3):
            assert not inside.maps_session()
            # It comes in when it next makes or frees a block.
            assert target.ask("busy") == "busy"
            with attached(leakline, pid) as attach:
                assert target.ask("calm") == "calm"
                truth = target.truth()
                assert target.ask("busy") == "busy"
                result = attach.leave()
            assert target.ask("calm") == "calm"
            assert result.status == 0, (turn, result.err.decode())
            assert b"1 of 1 as before" in result.err
            if turn == 0:
                check_sites(attach.recording.rows(), truth["sites"])
        target.end()


def test_an_idle_program_is_fetched(leakline: Leakline, programs: Programs) -> None:
    """One that makes and frees nothing does not come by."""
    with running(programs.program("attached"), "2", "1000") as target:
        with attached(leakline, target.pid) as attach:
            result = attach.leave()
        assert result.status == 0, result.err.decode()
        assert b"1 of 1 as before" in result.err
        wait_for("the map to go", lambda: has_left(target))
        target.truth()
        target.end()


FILTER = """
import ctypes, os, sys
# Allows everything: PR_SET_NO_NEW_PRIVS, then PR_SET_SECCOMP with one instruction.
libc = ctypes.CDLL(None, use_errno=True)
class Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte),
                ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint)]
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.POINTER(Instruction))]
allow = Instruction(6, 0, 0, 0x7FFF0000)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Program(1, ctypes.pointer(allow)))) == 0
"""
FILTERED = f"""
{FILTER}
print("ready", flush=True)
kept = []
for line in sys.stdin:
    kept.extend(str(number) for number in range(1000))
    print("done", flush=True)
"""


@pytest.mark.parametrize("kind", ["attributes", "redirected", "vforks"])
def test_odd_programs(leakline: Leakline, programs: Programs, kind: str) -> None:
    """The first two crashed or hung for ever where a step was taken that is not safe;
    the third loses events where a child leaves for its parent, if it comes to it."""
    with running(programs.program("odd_targets"), kind) as target:
        assert target.ask("before") == "fine"
        for _ in range(4):
            with attached(leakline, target.pid) as attach:
                assert target.ask("during") == "fine"
                result = attach.leave()
            assert result.status == 0, result.err.decode()
            totals = attach.recording.stats()["totals"]
            # It waits 100 ms for a collector that gets no processor, and no longer.
            has_waited = totals["stalled_seconds"] >= 0.09
            assert totals["complete"] is True or has_waited, totals
            assert target.ask("after") == "fine"
        target.end()


def test_a_library_with_an_allocator_of_its_own(
    leakline: Leakline, programs: Programs
) -> None:
    """Its calls are not bound yet, and lead to itself."""
    with running(programs.program("attached"), "2", "1000") as target:
        assert target.ask(f"deep {programs.own_allocator()}") == "loaded"
        for _ in range(2):
            with attached(leakline, target.pid) as attach:
                target.truth()
                result = attach.leave()
            assert result.status == 0, result.err.decode()
            target.truth()
        target.end()


def test_a_child_of_one_that_was_left(leakline: Leakline, programs: Programs) -> None:
    """Whose threads are others than its parent's."""
    with running(programs.program("attached"), "4", "5000") as target:
        assert target.ask("busy") == "busy"
        with attached(leakline, target.pid) as attach:
            assert target.ask("calm") == "calm"
            assert attach.leave().status == 0
        child = target.truth("fork")["pid"]
        for turn in range(2):
            with attached(leakline, child) as attach:
                truth = target.truth()
                result = attach.leave()
            assert result.status == 0, result.err.decode()
            totals = attach.recording.stats()["totals"]
            assert totals["complete"] is True, totals
            if turn == 0:
                check_sites(attach.recording.rows(), truth["sites"])
        target.end()


def test_a_child_that_is_not_followed(leakline: Leakline, programs: Programs) -> None:
    """It is left alone at its birth, and may be attached to by itself."""
    with running(programs.program("attached"), "4", "5000") as target:
        with attached(leakline, target.pid, ["--no-follow"]) as attach:
            child = target.truth("fork")["pid"]
            here = Target(target.process, child)
            assert not here.maps_session()
            assert attach.leave().status == 0
        with attached(leakline, child) as attach:
            truth = target.truth()
            result = attach.leave()
        assert result.status == 0, result.err.decode()
        target.end()
    check_sites(attach.recording.rows(), truth["sites"])


def test_tracemalloc_ends_meanwhile(leakline: Leakline) -> None:
    """It gives back the allocators that it found, before us: noticed, and told."""
    script = PYTHON_PROGRAMS / "attached.py"
    with running(TARGET_PYTHON, script) as target:
        target.truth("trace on")
        with attached(leakline, target.pid) as attach:
            target.truth("pid")
            target.truth("work 3000")
            target.truth("trace off")
            target.truth("drop")
            lines = target.truth("work 2000")["lines"]
            result = attach.leave()
        assert result.status == 0, result.err.decode()
        target.end()
    stats = attach.recording.stats()
    assert stats["totals"]["complete"] is False
    assert any("another tool took" in note["text"] for note in stats["notes"]), stats
    found = python_lines(attach.recording.rows("--filter", "attached.py"), script)
    assert found[(lines["lists"], "mem")]["total_blocks"] >= 5000


def test_a_detach_of_one_child_is_told(leakline: Leakline) -> None:
    script = PYTHON_PROGRAMS / "attached.py"
    with running(TARGET_PYTHON, script) as target:
        child = target.truth("fork")["pid"]
        with attached(leakline, target.pid) as attach:
            target.truth("work 100")
            result = execute([leakline.binary, "detach", str(child)])
            assert result.status == 0, result.err.decode()
            target.truth("work 100")
            assert attach.leave().status == 0
        target.end()
    notes = [note["text"] for note in attach.recording.stats()["notes"]]
    assert any(f"process {child} left the recording" in note for note in notes), notes


def test_despite_seccomp(leakline: Leakline) -> None:
    with running(TARGET_PYTHON, "-c", FILTERED) as target:
        # Who has a filter himself may read none.
        filtered = f"{FILTER}\nos.execv(sys.argv[1], sys.argv[1:])"
        command: list[Part] = [sys.executable, "-c", filtered, leakline.binary]
        refused = execute([*command, "attach", str(target.pid)])
        assert refused.status == 3
        assert b"--despite-seccomp" in refused.err
        options = [] if reads_filters() else ["--despite-seccomp"]
        with attached(leakline, target.pid, options) as attach:
            assert target.ask("work") == "done"
            assert target.ask("work") == "done"
            snapshot: list[Part] = [
                leakline.binary,
                "snapshot",
                str(target.pid),
                "held",
            ]
            with subprocess.Popen(
                [*snapshot, "--heap", "--json"], stdout=subprocess.PIPE
            ) as taking:
                while taking.poll() is None:
                    assert target.ask("work") == "done"
                taken, _ = taking.communicate()
            result = attach.leave()
        assert result.status == 0, result.err.decode()
        target.end()
    assert attach.recording.stats()["totals"]["allocations"] > 1000
    [graph] = json.loads(taken)["heap_graphs"]
    if reads_filters():
        # It is known that the filter lets it fork.
        assert graph["outcome"] == "taken", graph
    else:
        assert "seccomp" in graph["why"], graph


def as_nobody() -> None:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)


def test_of_another_user(leakline: Leakline, programs: Programs) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may attach to another user's process")
    program = programs.program("attached")
    for directory in program.parents:
        if os.stat(directory).st_mode & 0o5 != 0o5 and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o5)
    with running(program, "2", "1000", preexec_fn=as_nobody) as target:
        with attached(leakline, target.pid) as attach:
            truth = target.truth()
            result = attach.leave()
        assert result.status == 0, result.err.decode()
        target.end()
    check_sites(attach.recording.rows(), truth["sites"])


def test_in_namespaces_of_its_own(leakline: Leakline, programs: Programs) -> None:
    """Other files, pids and abstract sockets than leakline sees."""
    script = 'mount -t tmpfs none "$1" && exec "$2" 2 1000'
    command = ["unshare", "-pmn", "--fork", "--mount-proc", "sh", "-c", script, "sh"]
    probe = " ".join([*command[:4], "true"])
    if os.geteuid() != 0 or execute(["sh", "-c", probe]).status:
        pytest.skip("namespaces cannot be made here (root and util-linux)")
    program = programs.program("attached")
    with running(*command, "/var/tmp", program) as target:
        children = Path(f"/proc/{target.pid}/task/{target.pid}/children").read_text()
        pid = int(children.split()[0])
        with attached(leakline, pid) as attach:
            truth = target.truth()
            result = attach.leave()
        assert result.status == 0, result.err.decode()
        target.end()
    truth["pid"] = pid
    check_sites(attach.recording.rows(), truth["sites"])
    left = list(Path("/tmp").glob("leakline-*-*[0-9a-f]"))
    assert not [path for path in left if path.is_socket()], left


def test_children_in_a_pid_namespace(leakline: Leakline) -> None:
    """Their pids are others' here: it is they that are watched, and looked at."""
    program = "import os, sys, time\n"
    # What it calls its children is the name of nobody here.
    program += "with open('/proc/sys/kernel/ns_last_pid', 'w') as last:\n"
    program += " last.write(sys.argv[1])\n"
    program += "if os.fork(): print('ready', flush=True)\n"
    # A third, which is born while it is recorded.
    program += "else:\n time.sleep(1)\n os.fork()\n"
    program += "while True: [object() for _ in range(1000)]; time.sleep(0.005)"
    command = ["unshare", "-pm", "--fork", "--mount-proc"]
    can_choose = Path("/proc/sys/kernel/ns_last_pid").exists()
    if os.geteuid() != 0 or not can_choose or execute([*command, "true"]).status:
        pytest.skip("namespaces cannot be made here (root and util-linux)")

    def children(pid: int) -> list[int]:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(child) for child in text.split()]

    most = int(Path("/proc/sys/kernel/pid_max").read_text())
    free = next(
        pid for pid in range(most - 100, 0, -9) if not alive(range(pid, pid + 9))
    )
    with running(*command, TARGET_PYTHON, "-c", program, str(free)) as target:
        [outside] = children(target.pid)
        path = leakline.directory / "namespace.leakline"
        line: list[Part] = [leakline.binary, "attach", str(outside), "-f", "-o", path]
        result = execute([*line, "--duration", "3s"])
        [child] = children(outside)
        [grandchild] = children(child)
    said = result.err.decode()
    assert result.status == 0, said
    assert "3 of 3 as before" in said, said
    # A busy machine may leave too little time for some.
    graphs = [line for line in said.splitlines() if "objects" in line]
    assert len(graphs) >= 2, said
    for graph in graphs:
        assert "lost: none" in graph, said
    stats = Recording(leakline.binary, path).stats()
    processes = {one["pid"] for one in stats["processes"]}
    assert processes == {outside, child, grandchild}


def alive(pids: Sequence[int]) -> bool:
    return any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_where_no_library_can_be_put(leakline: Leakline, programs: Programs) -> None:
    """Nothing to write to but a `noexec` /dev/shm, as in many a container."""
    program = programs.program("attached")
    mounts = [
        f"mount -t tmpfs none {place} && mount -o remount,{options} {place}"
        for place, options in (
            ("/tmp", "ro"),
            ("/var/tmp", "ro"),
            ("/run", "ro"),
            ("/dev/shm", "noexec"),
        )
        if Path(place).is_dir() and not Path(place).is_symlink()
    ]
    # It may lie below what is mounted over.
    script = f"exec 3<{program}; {' && '.join(mounts)} && exec /proc/self/fd/3 2 1000"
    command = ["unshare", "-mn", "sh", "-c"]
    if os.geteuid() != 0 or execute([*command, "true"]).status:
        pytest.skip("namespaces cannot be made here (root and util-linux)")
    with running(*command, script) as target:
        before = sorted(os.listdir(f"/proc/{target.pid}/fd"))
        recordings = []
        for _ in range(2):
            with attached(leakline, target.pid) as attach:
                truth = target.truth()
                result = attach.leave()
            assert result.status == 0, result.err.decode()
            assert sorted(os.listdir(f"/proc/{target.pid}/fd")) == before
            recordings.append((attach.recording, truth["sites"]))
        check_sites(recordings[0][0].rows(), recordings[0][1])
        [again] = recordings[1][0].rows("--filter", "kept_blocks")
        assert again["live_blocks"] > 0
        maps = Path(f"/proc/{target.pid}/maps").read_text()
        assert "/memfd:leakline-" in maps
        assert os.listdir(f"/proc/{target.pid}/root/dev/shm") == []
        target.end()


def test_a_collector_that_is_late(leakline: Leakline) -> None:
    """Processes wait 100 ms for it, and are asked again when it is there."""
    script = "import os, time\n"
    script += "if all(os.fork() for _ in range(24)): print('ready', flush=True)\n"
    script += "while True: time.sleep(0.05)\n"
    with running(TARGET_PYTHON, "-c", script) as target:
        path = leakline.directory / "late.leakline"
        line: list[Part] = [
            leakline.binary,
            "attach",
            str(target.pid),
            "-o",
            path,
            "--heap",
            "never",
        ]
        attach = subprocess.Popen(
            [os.fspath(part) for part in line], stderr=subprocess.PIPE
        )
        maps = Path(f"/proc/{target.pid}/maps")
        wait_for("the first", lambda: "libleakline_preload" in maps.read_text())
        [collector] = [
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and is_collector_of(int(entry.name), path)
        ]
        os.kill(collector, signal.SIGSTOP)
        time.sleep(0.6)
        os.kill(collector, signal.SIGCONT)
        assert attach.stderr is not None
        said = [attach.stderr.readline()]
        while said[-1] and not said[-1].startswith(b"recording to"):
            said.append(attach.stderr.readline())
        attach.send_signal(signal.SIGINT)
        _, rest = attach.communicate(timeout=60)
        assert attach.returncode == 0, b"".join(said) + rest
        assert b"25 of 25 as before" in rest, rest
    report = json.dumps(Recording(leakline.binary, path).stats())
    assert "did not answer" not in report


def is_collector_of(pid: int, path: Path) -> bool:
    """Whether a process writes a recording, of this name."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
        return b"__collector" in words and os.readlink(f"/proc/{pid}/fd/3") == str(path)
    return False


def test_a_stopped_program_is_refused(leakline: Leakline, programs: Programs) -> None:
    with running(programs.program("attached"), "2", "1000") as target:
        os.kill(target.pid, signal.SIGSTOP)
        path = leakline.directory / "stopped.leakline"
        result = execute([leakline.binary, "attach", str(target.pid), "-o", path])
        assert result.status == 3
        assert b"stopped" in result.err
        assert not path.exists()
        state = Path(f"/proc/{target.pid}/stat").read_text().rsplit(") ")[1][0]
        assert state == "T"
        os.kill(target.pid, signal.SIGCONT)
        target.truth()
        target.end()

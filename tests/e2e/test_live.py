"""Recordings while they are made: snapshots of running programs, reports by pid,
and the terminal UI beside the program."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from harness import (
    TARGET_PYTHON,
    Json,
    Leakline,
    Part,
    Programs,
    Recording,
    Result,
    by_function,
    check_complete,
    check_sites,
    collector_of,
    execute,
    wait_for,
)
from terminal import Terminal, needs_tmux


class Recorded:
    """A program that takes commands, one line each, and is being recorded."""

    def __init__(
        self, process: subprocess.Popen[bytes], recording: Recording, pid: int
    ) -> None:
        self.process = process
        self.recording = recording
        self.leakline = recording.leakline
        self.pid = pid

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().rstrip("\n")

    def ask(self, command: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()
        return self.answer()

    def work(self) -> Json:
        """Has it allocate; what it knows of all that it did."""
        sites: Json = json.loads(self.ask("work"))["sites"]
        return sites

    def run(self, *arguments: Part | int) -> Result:
        words = [str(argument) for argument in arguments]
        line: list[Part] = [self.leakline, *words]
        return execute(line, cwd=self.recording.path.parent)

    def snapshot(self, name: str, of: Part | int | None = None) -> Json:
        result = self.run("snapshot", of or self.pid, name, "--json")
        assert result.status == 0, result.err.decode()
        taken: Json = json.loads(result.out)
        assert taken["name"] == name
        return taken

    def end(self) -> None:
        out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, (out, err.decode())


def program_of(supervisor: int) -> int:
    """The program that `leakline run` with this pid has started."""

    def found() -> int | None:
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children")
        collector = collector_of(supervisor)
        pids = [int(pid) for pid in children.read_text().split()]
        others = [pid for pid in pids if pid != collector]
        return others[0] if collector and others else None

    pid: int = wait_for("the program", found)
    maps = Path(f"/proc/{pid}/maps")
    wait_for("its session", lambda: "memfd:leakline-session" in maps.read_text())
    return pid


@contextmanager
def recorded(
    leakline: Leakline, *command: Part, options: tuple[str, ...] = ()
) -> Iterator[Recorded]:
    line, recording = leakline.command(*command, options=options)
    process = subprocess.Popen(
        [os.fspath(part) for part in line],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield Recorded(process, recording, program_of(process.pid))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def grown(before: Mapping[str, Json], after: Mapping[str, Json]) -> dict[str, int]:
    """By how many live blocks each function grew."""
    live = "live_blocks"
    return {name: after[name][live] - before[name][live] for name in after}


def test_snapshots_hold_the_truth(leakline: Leakline, programs: Programs) -> None:
    """Between two of them lies what was allocated between them, to the block,
    in threads that end and in one that stays."""
    with recorded(leakline, programs.program("attached"), "4", "5000") as target:
        first = target.work()
        before = target.snapshot("before")
        second = target.work()
        after = target.snapshot("after", of=target.process.pid)
        target.work()
        later = target.snapshot("later", of=target.recording.path)
        assert before["seconds"] < after["seconds"] < later["seconds"]
        assert before["estimated"] is False
        # While it runs, and by its pid.
        result = target.run("diff", target.pid, "--from", "before", "--to", "after")
        assert result.status == 0, result.err.decode()
        assert b"kept_blocks" in result.out
        assert b"goes on" in result.out
        target.end()
    check_complete(target.recording)
    for name, truth in {"before": first, "after": second}.items():
        check_sites(target.recording.rows(at=name), truth)
    options = ("--from", "before", "--to", "after", "--limit", "0")
    diff = target.recording.report("diff", *options)
    assert diff["resolution_seconds"] == 0
    found = by_function(diff["rows"], second)
    for function, blocks in grown(first, second).items():
        told = sum(row["delta_blocks"] for row in found[function])
        assert told == blocks, (function, told, blocks)
    # What was born between them and stayed.
    stayed = target.recording.report("diff", *options, "--alive-at", "later")
    found = by_function(stayed["rows"], second)
    for function in ("kept_blocks", "cleared_blocks", "aligned_blocks"):
        told = sum(row["delta_blocks"] for row in found[function])
        assert told == grown(first, second)[function], (function, stayed["rows"])


def test_a_busy_program_is_cut_at_one_instant(
    leakline: Leakline, programs: Programs
) -> None:
    """What is said when it is taken is what reports say of it afterwards."""
    with recorded(leakline, programs.program("attached"), "3", "10") as target:
        assert target.ask("busy") == "busy"
        taken = [target.snapshot(f"number {number}") for number in range(12)]
        assert target.ask("calm") == "calm"
        target.end()
    check_complete(target.recording)
    assert len({one["seconds"] for one in taken}) == len(taken)
    for one in taken:
        rows = target.recording.rows(at=one["name"])
        assert sum(row["live_bytes"] for row in rows) == one["live_bytes"]
        assert sum(row["live_blocks"] for row in rows) == one["live_blocks"]


def test_reports_by_pid_are_up_to_the_instant(
    leakline: Leakline, programs: Programs, tmp_path: Path
) -> None:
    with recorded(leakline, programs.program("attached"), "2", "3000") as target:
        for _ in range(3):
            truth = target.work()
            result = target.run(
                "top", target.pid, "--json", "--limit", "0", "--at", "end"
            )
            assert result.status == 0, result.err.decode()
            report = json.loads(result.out)
            assert report["file"] == target.recording.path.name
            assert report["ended"] is False
            check_sites(report["rows"], truth)
            assert f"reading {target.recording.path.name}" in result.err.decode()
        # By its file as well.
        truth = target.work()
        check_sites(target.recording.rows(), truth)
        # A file of that name wins.
        named = tmp_path / str(target.pid)
        named.write_text("no recording at all, whatever its name may say")
        result = target.run("top", target.pid)
        assert result.status == 3
        assert "not a leakline recording" in result.err.decode()
        named.unlink()
        target.end()
    # It is gone: what bears its number is meant, if there is something.
    result = target.run("top", target.pid)
    assert result.status == 3
    assert f"there is no process {target.pid}" in result.err.decode()
    target.recording.path.rename(tmp_path / f"attached.{target.pid}.leakline")
    assert target.run("top", target.pid).status == 0


def test_an_attached_process(leakline: Leakline, programs: Programs) -> None:
    process = subprocess.Popen(
        [programs.program("attached"), "2", "2000"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    path = leakline.directory / "attached.leakline"
    target = Recorded(process, Recording(leakline.binary, path), process.pid)
    try:
        assert target.answer() == "ready"
        result = target.run(
            "attach", process.pid, "-o", path, "--exact", "--background"
        )
        assert result.status == 0, result.err.decode()
        first = target.work()
        target.snapshot("before")
        second = target.work()
        target.snapshot("after")
        assert target.run("snapshot", process.pid, "after").status == 3
        assert target.run("detach", process.pid).status == 0
        assert target.run("snapshot", process.pid, "late").status == 3
        target.end()
    finally:
        process.kill()
        process.communicate()
    options = ("--from", "before", "--to", "after", "--limit", "0")
    found = by_function(target.recording.report("diff", *options)["rows"], second)
    for function, blocks in grown(first, second).items():
        assert sum(row["delta_blocks"] for row in found[function]) == blocks, function


def test_a_sampled_session(leakline: Leakline, programs: Programs) -> None:
    program = programs.program("attached")
    options = ("--sample", "16KiB")
    with recorded(leakline, program, "2", "20000", options=options) as target:
        target.work()
        taken = target.snapshot("before")
        assert taken["estimated"] is True
        result = target.run("snapshot", target.pid, "again")
        assert b"about" in result.out
        target.end()
    rows = target.recording.rows(at="before")
    assert sum(row["live_bytes"] for row in rows) == taken["live_bytes"]


def test_what_cannot_be_done_is_said(leakline: Leakline, programs: Programs) -> None:
    own = os.getpid()
    with recorded(leakline, programs.program("attached"), "1", "10") as target:
        names = ["", " x", "start", "peak", "+90s", "14:05", "a\nb", "x" * 65]
        for name in names:
            result = target.run("snapshot", target.pid, name)
            assert result.status == 2, (name, result.err.decode())
            assert "cannot name a snapshot" in result.err.decode()
        assert target.run("snapshot", target.pid, "main left").status == 3
        target.snapshot("once")
        wrong: dict[tuple[str, str], str] = {
            (str(target.pid), "once"): "there is one of that name already",
            (str(own), "x"): f"process {own} is not being recorded",
            ("4194300", "x"): "there is no process 4194300",
            ("nothing.leakline", "x"): "there is no file `nothing.leakline`",
        }
        for what, words in wrong.items():
            result = target.run("snapshot", *what, "--json")
            assert result.status == 3
            assert words in json.loads(result.out)["error"]
            assert words in result.err.decode()
        for report in ("top", "leaks", "summary", "tui"):
            result = target.run(report, own)
            assert result.status == 3
            assert f"process {own} is not being recorded" in result.err.decode()
        target.end()
    result = target.run("snapshot", target.recording.path, "late")
    assert result.status == 3
    assert "is not being written" in result.err.decode()
    marks = [mark for mark in leaks_marks(target.recording) if mark == "once"]
    assert marks == ["once"]


def leaks_marks(recording: Recording) -> list[str]:
    """Names of all marks, as the error about one that is not there has them."""
    line: list[Part] = [
        recording.leakline,
        "top",
        "--at",
        "no such mark",
        recording.path,
    ]
    result = execute(line)
    assert result.status == 3
    return result.err.decode().split("`")[1::2]


COMMANDS = """
import socket, sys
client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
client.settimeout(20)
client.connect(b"\\0" + sys.argv[1].encode())
try:
    client.send(bytes([4, 0]))
    print(len(client.recv(65536)))
except ConnectionError:
    print(0)
"""


def commands_name(collector: int) -> str:
    stat = Path(f"/proc/{collector}/stat").read_text().rsplit(")", 1)[1].split()
    return f"leakline-commands-{collector}-{stat[19]}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_other_users_are_told_nothing(leakline: Leakline, programs: Programs) -> None:
    with recorded(leakline, programs.program("attached"), "1", "10") as target:
        collector = collector_of(target.process.pid)
        assert collector is not None

        def told(user: int) -> int:
            line = ["/usr/bin/env", "python3", "-c", COMMANDS, commands_name(collector)]
            drop: Callable[[], None] = lambda: os.setuid(user)  # noqa: E731
            run = subprocess.run(
                line, check=False, capture_output=True, preexec_fn=drop, cwd="/"
            )
            return int(run.stdout or run.stderr[-200:])

        assert told(0) > 20
        assert told(65534) == 0
        target.end()


def test_nobody_waits_for_a_silent_client(
    leakline: Leakline, programs: Programs
) -> None:
    with recorded(leakline, programs.program("attached"), "2", "3000") as target:
        collector = collector_of(target.process.pid)
        assert collector is not None
        clients = []
        for number in range(20):
            client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            client.connect("\0" + commands_name(collector))
            if number % 3 == 0:
                client.send(b"\xff" * 100)
            clients.append(client)
        began = time.monotonic()
        truth = target.work()
        assert time.monotonic() - began < 5
        target.snapshot("among them")
        for client in clients:
            client.close()
        target.end()
    check_complete(target.recording)
    check_sites(target.recording.rows(at="among them"), truth)


GROWS = """
import sys, time
KEPT = []
def keep():
    KEPT.append(bytes(1 << 20))
print("begun", flush=True)
for _ in range(int(sys.argv[1])):
    keep()
    time.sleep(0.05)
print("done", flush=True)
sys.exit(3)
"""


@pytest.fixture
def grows(tmp_path: Path) -> Path:
    program = tmp_path / "grows.py"
    program.write_text(GROWS)
    return program


@needs_tmux
def test_the_screen_of_a_process(
    terminal: Terminal, leakline: Leakline, grows: Path
) -> None:
    with leakline.started(TARGET_PYTHON, grows, "1000") as (process, recording):
        pid = program_of(process.pid)
        terminal.command(leakline.binary, pid)
        terminal.shows("LIVE", "now,", f"pid {pid}")
        terminal.type("mbefore it leaks")
        terminal.shows("enter keeps it")
        terminal.press("Enter")
        terminal.shows("this instant is kept as `before it leaks`")
        terminal.type(":mark before it leaks")
        terminal.press("Enter")
        terminal.shows("there is one of that name already")

        def is_there() -> bool:
            # The file is looked at twice a second.
            terminal.type(":goto before it leaks")
            terminal.press("Enter")
            time.sleep(0.1)
            return "at `before it leaks`" in terminal.screen()

        wait_for("the mark", is_there)
        os.kill(pid, signal.SIGKILL)
        terminal.shows("the program was killed (SIGKILL) at", "SIGKILL ")
        terminal.press("m")
        terminal.shows("the recording has ended")
        terminal.press("q")
        terminal.shows("status 0")
        terminal.is_as_it_was()
    rows = recording.rows("--filter", "grows.py", at="before it leaks")
    assert rows


def children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()]


@needs_tmux
def test_run_live_until_the_program_ends(
    terminal: Terminal, leakline: Leakline, grows: Path, tmp_path: Path
) -> None:
    path = tmp_path / "live.leakline"
    options = ["run", "--live", "-o", path, "--"]
    terminal.command(leakline.binary, *options, TARGET_PYTHON, grows, "60")
    terminal.shows("LIVE", "MiB live")
    terminal.type("mone")
    terminal.press("Enter")
    terminal.shows("kept as `one`")
    terminal.shows("the program ended with status 3", "status 3 ")
    terminal.press("q")
    terminal.shows(
        "ended with status 3 after", "next      leakline leaks", "status 3\n"
    )
    terminal.is_as_it_was()
    assert (tmp_path / "live.out").read_text() == "begun\ndone\n"
    assert (tmp_path / "live.out").stat().st_mode & 0o777 == 0o600
    recording = Recording(leakline.binary, path)
    check_complete(recording)
    assert recording.rows("--filter", "grows.py", at="one")


@needs_tmux
def test_run_live_that_is_left(
    terminal: Terminal, leakline: Leakline, grows: Path, tmp_path: Path
) -> None:
    """The program goes on, and gets the signals that come."""
    path = tmp_path / "live.leakline"
    options = ["run", "--live", "-o", path, "--"]
    terminal.command(leakline.binary, *options, TARGET_PYTHON, grows, "4000")
    terminal.shows("LIVE", "MiB live")
    terminal.press("C-z")
    terminal.shows("Stopped")
    terminal.type("fg")
    terminal.press("Enter")
    terminal.shows("LIVE", "MiB live")
    terminal.press("q")
    terminal.shows("the program goes on")
    terminal.press("C-c")
    terminal.shows("was killed (SIGINT)")
    terminal.is_as_it_was()
    assert "KeyboardInterrupt" in (tmp_path / "live.out").read_text()


@needs_tmux
def test_run_live_that_loses_its_terminal(
    terminal: Terminal, leakline: Leakline, grows: Path, tmp_path: Path
) -> None:
    """The program learns of it as it would without leakline."""
    path = tmp_path / "live.leakline"
    options = ["run", "--live", "-o", path, "--"]
    terminal.command(leakline.binary, *options, TARGET_PYTHON, grows, "4000")
    terminal.shows("LIVE", "MiB live")
    pid = terminal.pid(Recording(leakline.binary, path))
    below = wait_for("its recorder", lambda: children(pid))
    program = program_of(below[0])
    terminal.close()
    wait_for("its end", lambda: not Path(f"/proc/{program}").exists())
    wait_for("its recorder's", lambda: not Path(f"/proc/{below[0]}").exists())
    stats = Recording(leakline.binary, path).stats()
    assert stats["processes"][0]["signal"] == signal.SIGHUP


@needs_tmux
def test_attach_live(terminal: Terminal, leakline: Leakline, grows: Path) -> None:
    process = subprocess.Popen(
        [TARGET_PYTHON, grows, "1000"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        path = leakline.directory / "attached.leakline"
        options = ["--live", "--exact", "-o", path]
        terminal.command(leakline.binary, "attach", process.pid, *options)
        terminal.shows("LIVE", "keep")
        terminal.press("q")
        screen = terminal.shows("1 of 1 as before", "status 0")
        assert "leaving what shows it detaches" in screen
        terminal.is_as_it_was()
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        assert "memfd:leakline-session" not in maps
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()
    check_complete(Recording(leakline.binary, path))


WORKER = """
import time
SESSIONS, PAGES = [], {}
def login(request):
    SESSIONS.append(bytearray(2000))
def render(page):
    if page not in PAGES:
        PAGES[page] = bytearray(4000)
print("begun", flush=True)
for request in range(100_000):
    login(request)
    render(request % 20)
    time.sleep(0.01)
"""


@needs_tmux
@pytest.mark.parametrize(
    "terminal, is_tiny",
    [((80, 24), False), ((20, 5), True)],
    indirect=["terminal"],
)
def test_from_a_live_worker_to_the_guilty_line(
    terminal: Terminal, is_tiny: bool, leakline: Leakline, tmp_path: Path
) -> None:
    """By keys alone, once it is said that it leaks."""
    program = tmp_path / "worker.py"
    program.write_text(WORKER)
    process = subprocess.Popen(
        [TARGET_PYTHON, program], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        path = leakline.directory / "worker.leakline"
        options = ["--live", "--exact", "-o", path]
        terminal.command(leakline.binary, "attach", process.pid, *options)
        wait_for("a verdict", lambda: "LEAK" in terminal.screen(), timeout=90)
        screen = terminal.screen()
        assert is_tiny or "L1 leaking" in screen
        row = next(line for line in screen.splitlines() if line.startswith(">"))
        assert "login" in row
        terminal.press("Enter")
        if not is_tiny:
            terminal.shows("stack of", "login", "worker.py:5")
        terminal.press("Enter")
        line = "SESSIONS.append" if not is_tiny else "SESS"
        screen = terminal.shows(line)
        guilty = next(row for row in screen.splitlines() if row.startswith(">"))
        assert line in guilty
        terminal.press("q")
        terminal.shows("status 0")
    finally:
        process.kill()
        process.communicate()


def test_live_needs_a_terminal(leakline: Leakline, grows: Path) -> None:
    for line in (
        ["run", "--live", "--", TARGET_PYTHON, grows, "1"],
        ["attach", "--live", "1"],
    ):
        result = execute([leakline.binary, *line], cwd=grows.parent)
        assert result.status in (2, 3)
        assert result.out == b""
    assert (
        "`--live` needs a terminal"
        in execute(
            [leakline.binary, "run", "--live", "--", TARGET_PYTHON, grows, "1"],
            cwd=grows.parent,
        ).err.decode()
    )
    assert not list(grows.parent.glob("*.leakline"))

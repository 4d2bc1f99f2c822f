"""What few machines can be asked to be: with Yama, with swap, with little memory to
promise, and what an ordinary user may do there.

Most of these change the whole machine. They run in those that `tests/vm/run` boots, where
LEAKLINE_TEST_MACHINE names a device to swap to; elsewhere they are left out.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from harness import (
    PYTHON_PROGRAMS,
    TARGET_PYTHON,
    Json,
    Leakline,
    Part,
    Programs,
    Result,
    check_complete,
    check_sites,
    execute,
    wait_for,
)
from test_attach import Target, attached, has_left, running
from test_heap import SAMPLED, Group, children, worker
from test_ledger import amounts, report, rss
from test_unasked import PROGRAM as GROWING
from test_unasked import check_holder, graphs

MACHINE = os.environ.get("LEAKLINE_TEST_MACHINE", "")
pytestmark = pytest.mark.skipif(
    not MACHINE, reason="changes the machine: it is for those of `tests/vm/run`"
)

KIB, MIB = 1 << 10, 1 << 20
USER = 1000
AS_USER: list[Part] = ["setpriv", f"--reuid={USER}", f"--regid={USER}"]
AS_USER += ["--clear-groups"]
SCOPE = Path("/proc/sys/kernel/yama/ptrace_scope")


@contextmanager
def setting(file: Path, value: str) -> Iterator[None]:
    """A setting of the kernel, for as long as it lasts."""
    before = file.read_text().strip()
    chosen = re.search(r"\[(.*)\]", before)
    file.write_text(value)
    try:
        yield
    finally:
        file.write_text(chosen[1] if chosen else before)


class User:
    """An ordinary user, with a directory."""

    def __init__(self, place: Path) -> None:
        # The command as theirs.
        command = place / "leakline"
        words = " ".join(os.fspath(word) for word in AS_USER)
        binary = shutil.which("leakline")
        command.write_text(f'#!/bin/sh\nHOME={place} exec {words} {binary} "$@"\n')
        command.chmod(0o755)
        own = place / "own"
        own.mkdir()
        os.chown(own, USER, USER)
        self.place = place
        self.leakline = Leakline(command, own)

    def program(self, programs: Programs, name: str) -> Path:
        return Path(shutil.copy(programs.program(name), self.place))

    def doctor(self, *arguments: str) -> Json:
        command: list[Part] = [self.leakline.binary, "doctor", *arguments, "--json"]
        result = execute(command)
        assert result.status == 0, result.err.decode()
        found: Json = json.loads(result.out)
        return found


@pytest.fixture
def user() -> Iterator[User]:
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        yield User(Path(place))


def flat(text: bytes) -> str:
    return " ".join(text.decode().split())


def attach(leakline: Leakline, pid: int) -> Result:
    path = leakline.directory / "refused.leakline"
    return execute([leakline.binary, "attach", str(pid), "-o", path])


def check_attached(leakline: Leakline, target: Target) -> None:
    """All that it does while it is attached to is recorded."""
    with attached(leakline, target.pid) as attach:
        truth = target.truth()
        result = attach.leave()
    assert result.status == 0, result.err.decode()
    assert b"1 of 1 as before" in result.err
    check_sites(attach.recording.rows(), truth["sites"])


def check_refused(user: User, target: Target, *said: str) -> None:
    result = attach(user.leakline, target.pid)
    assert result.status == 3, result.err.decode()
    words = flat(result.err)
    for part in (
        f"cannot attach to process {target.pid}: ptrace is not allowed",
        *said,
    ):
        assert part in words, words
    assert not (user.leakline.directory / "refused.leakline").exists()
    found = user.doctor(str(target.pid))["process"]
    assert [one["name"] for one in found["obstacles"]] == ["permission"], found
    text = flat(execute([user.leakline.binary, "doctor", str(target.pid)]).out)
    assert text.startswith("CANNOT ATTACH"), text
    assert said[0] in text, text


def check_woken(leakline: Leakline, program: Path, *words: Part) -> None:
    """`run --idle`, and an attach, which takes no ptrace."""
    line = (*words, leakline.binary, "run", "--idle", "--", program, "4", "5000")
    with running(*line) as target:
        [pid] = [
            child
            for child in children(target.pid)
            if b"attached" in Path(f"/proc/{child}/cmdline").read_bytes()
            and b"run" not in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        ]
        inside = Target(target.process, pid)
        assert not inside.maps_session()
        # It comes in when it next makes or frees a block.
        assert target.ask("busy") == "busy"
        with attached(leakline, pid) as attach:
            assert target.ask("calm") == "calm"
            truth = target.truth()
            assert target.ask("busy") == "busy"
            result = attach.leave()
        assert target.ask("calm") == "calm"
        assert result.status == 0, result.err.decode()
        assert b"1 of 1 as before" in result.err
        check_sites(attach.recording.rows(), truth["sites"])
        target.end()


# --- Yama --------------------------------------------------------------------


def machine(found: Json, name: str) -> Json:
    [check] = [check for check in found["checks"] if check["name"] == name]
    assert isinstance(check, dict)
    return check


def test_without_yama_one_may_attach_to_ones_own(
    user: User, programs: Programs
) -> None:
    with (
        setting(SCOPE, "0"),
        running(*AS_USER, user.program(programs, "attached"), "4", "5000") as target,
    ):
        check_attached(user.leakline, target)
        target.end()
        found = user.doctor()
        assert found["ready"] == {"run": True, "attach": True}
        assert machine(found, "tracing")["grade"] == "fine"


@pytest.mark.parametrize(
    ("scope", "who"), [(1, "only a parent may trace"), (2, "only root may trace")]
)
def test_yama(
    leakline: Leakline, user: User, programs: Programs, scope: int, who: str
) -> None:
    program = user.program(programs, "attached")
    why = f"no CAP_SYS_PTRACE, and kernel.yama.ptrace_scope is {scope}"
    with setting(SCOPE, str(scope)):
        with running(*AS_USER, program, "4", "5000") as target:
            mend = f"`sudo leakline attach {target.pid}`"
            check_refused(user, target, why, mend)
            # It is as it was, and root may.
            check_attached(leakline, target)
            target.truth()
            target.end()
        check_woken(user.leakline, program)
        found = user.doctor()
        assert found["ready"] == {"run": True, "attach": False}
        tracing = machine(found, "tracing")
        assert (tracing["grade"], tracing["message"]) == ("stops", who)
        assert tracing["cause"] == why
        assert tracing["hint"] == "`sudo leakline attach PID`"
        result = execute([leakline.binary, "doctor", "--json"])
        assert json.loads(result.out)["ready"] == {"run": True, "attach": True}


@pytest.mark.parametrize("scope", [0, 1, 2])
def test_a_run_of_python_takes_no_ptrace(user: User, scope: int) -> None:
    """Heap graphs, too."""
    with setting(SCOPE, str(scope)):
        script = PYTHON_PROGRAMS / "holders.py"
        result, recording = user.leakline.run(TARGET_PYTHON, script)
        assert result.status == 0, result.err.decode()
        check_complete(recording)
        [group] = recording.report("why", "Session")["groups"]
        assert group["paths"][0]["words"] == "__main__.SESSIONS[*]"
        assert recording.report("leaks")["suspects"] is not None


@pytest.mark.parametrize("scope", [0, 1, 2])
def test_a_ledger_of_ones_own(user: User, scope: int) -> None:
    """Without ptrace there is what the kernel sums up, and it is said why no more."""
    source = "import time; kept = [str(i) for i in range(200_000)]; print('ready', flush=True)"
    with setting(SCOPE, str(scope)):
        process = subprocess.Popen(
            [*AS_USER, TARGET_PYTHON, "-c", f"{source}; time.sleep(100)"],
            stdout=subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            command: list[Part] = [user.leakline.binary, "ledger", str(process.pid)]
            said = flat(execute(command).out)
            found = report(user.leakline, process.pid)
            why = (
                "its memory may not be read (as root, or with `CAP_SYS_PTRACE`, it may)"
            )
            if scope == 0:
                assert why not in said, said
                assert amounts(found)["python_live"] > 10 * MIB
            else:
                assert why in said, said
                assert amounts(found)["python_live"] == 0
        finally:
            process.kill()
            process.communicate()


# --- an ordinary user --------------------------------------------------------


def test_an_ordinary_user_records(user: User, programs: Programs) -> None:
    """Nothing locked, no counters of the processor, no addresses of the kernel's."""
    program = user.program(programs, "truth")
    kernel = Path("/proc/sys/kernel")
    with (
        setting(kernel / "perf_event_paranoid", "3"),
        setting(kernel / "kptr_restrict", "2"),
        setting(kernel / "dmesg_restrict", "1"),
        setting(kernel / "unprivileged_bpf_disabled", "2"),
    ):
        line: list[Part] = ["sh", "-c", 'ulimit -Hl 0; exec "$0" "$@"']
        command, recording = user.leakline.command(program, "2")
        result = execute([*line, *command])
        assert result.status == 0, result.err.decode()
        check_complete(recording)
        check_sites(recording.rows(), result.truth()["sites"])


def test_other_users_processes_are_refused(user: User, programs: Programs) -> None:
    with (
        setting(SCOPE, "0"),
        running(user.program(programs, "attached"), "2", "1000") as target,
    ):
        why = f"no CAP_SYS_PTRACE, and it runs as user 0, leakline as user {USER}"
        check_refused(user, target, why, f"`sudo leakline attach {target.pid}`")
        target.truth()
        target.end()


def test_in_a_user_namespace(user: User, programs: Programs) -> None:
    """An ordinary user, who is root there: of what is within, and not of what is not."""
    program = user.program(programs, "attached")
    within: list[Part] = [*AS_USER, "unshare", "--user", "--map-root-user", "--"]
    binary = shutil.which("leakline")
    assert binary is not None
    with setting(SCOPE, "0"):
        # From outside, as who made it.
        with running(*within, program, "4", "5000") as target:
            check_attached(user.leakline, target)
            target.end()
        # All of it inside.
        command, recording = user.leakline.command(program, "4", "5000")
        command[0] = binary
        with running(*within, *command) as target:
            truth = target.truth()
            target.end()
        check_sites(recording.rows(), truth["sites"])
        # What is outside is not for that root.
        with running(*AS_USER, program, "2", "1000") as target:
            line: list[Part] = [*within, binary]
            result = execute([*line, "attach", str(target.pid), "-o", "/dev/null"])
            assert result.status == 3, result.err.decode()
            words = flat(result.err)
            assert "ptrace is not allowed here" in words, words
            assert "another user namespace" in words, words
            answer = execute([*line, "doctor", "--json"])
            tracing = machine(json.loads(answer.out), "tracing")
            assert "of this user namespace" in tracing["message"], tracing
            target.truth()
            target.end()


# --- memory ------------------------------------------------------------------


@contextmanager
def swap() -> Iterator[None]:
    assert execute(["swapon", MACHINE]).status == 0
    try:
        yield
    finally:
        assert execute(["swapoff", MACHINE], timeout=300).status == 0


@contextmanager
def memory(kind: str) -> Iterator[None]:
    """A machine whose memory is managed in another way."""
    pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if kind == "huge pages":
        with setting(pages, "always"):
            yield
    elif kind == "no overcommitment":
        with setting(Path("/proc/sys/vm/overcommit_memory"), "2"):
            yield
    elif kind == "swap":
        with swap():
            yield
    else:
        yield


KINDS = ["as ever", "huge pages", "no overcommitment", "swap"]
CYCLES = 100


@pytest.mark.parametrize("kind", KINDS)
def test_in_and_out_of_a_busy_program(
    leakline: Leakline, programs: Programs, kind: str
) -> None:
    with memory(kind), running(programs.program("attached"), "8", "1000") as target:
        assert target.ask("busy") == "busy"
        sizes = []
        for cycle in range(CYCLES):
            with attached(leakline, target.pid, ["--heap", "never"]) as attach:
                time.sleep(0.02)
                result = attach.leave((signal.SIGINT, signal.SIGTERM)[cycle % 2])
            assert result.status == 0, (cycle, result.err.decode())
            # A slow machine may have to come twice.
            all_of_it = rb"\b(\d) of \1 as before"
            assert re.search(all_of_it, result.err), (cycle, result.err.decode())
            wait_for("the map to go", lambda: has_left(target))
            sizes.append(target.resident())
            attach.recording.path.unlink()
        assert target.ask("calm") == "calm"
        check_attached(leakline, target)
        target.truth()
        target.end()
    assert sizes[-1] - sizes[0] < 8 * 1024, sizes


@pytest.mark.parametrize("kind", KINDS)
def test_in_and_out_of_python(leakline: Leakline, kind: str) -> None:
    script = PYTHON_PROGRAMS / "attached.py"
    with memory(kind), running(TARGET_PYTHON, script) as target:
        before = target.truth("allocators")["found"]
        sizes = []
        for cycle in range(CYCLES):
            with attached(leakline, target.pid, ["--heap", "never"]) as attach:
                target.truth("work 200")
                result = attach.leave()
            assert result.status == 0, (cycle, result.err.decode())
            # A slow machine may have to come twice.
            all_of_it = rb"\b(\d) of \1 as before"
            assert re.search(all_of_it, result.err), (cycle, result.err.decode())
            wait_for("the map to go", lambda: has_left(target))
            target.ask("drop")
            sizes.append(target.resident())
            attach.recording.path.unlink()
        assert target.truth("allocators")["found"] == before
        target.end()
    assert sizes[-1] - sizes[5] < 8 * 1024, sizes


def test_a_graph_that_the_kernel_promises_no_memory_for(leakline: Leakline) -> None:
    """A fork of more than may be promised is refused; the program goes on."""
    program = (
        "import sys\n"
        "print('ready', flush=True)\n"
        "for line in sys.stdin:\n"
        "    more = bytearray(int(line) << 20); print(len(more), flush=True)\n"
        "    for _ in range(50): kept = [str(number) for number in range(10000)]\n"
        "    print('worked', flush=True)\n"
    )

    def promised() -> int:
        """Bytes that may still be."""
        text = Path("/proc/meminfo").read_text()
        limit, used = (
            int(found[1])
            for found in (
                re.search(rf"{name}:\s+(\d+) kB", text)
                for name in ("CommitLimit", "Committed_AS")
            )
            if found
        )
        return (limit - used) * KIB

    line, recording = leakline.command(TARGET_PYTHON, "-c", program, options=SAMPLED)
    process = subprocess.Popen(
        [os.fspath(part) for part in line],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        with setting(Path("/proc/sys/vm/overcommit_memory"), "2"):
            # More than half of it: there is no room for the same again.
            size = promised() * 2 // 3 // MIB
            assert size > 100, size
            process.stdin.write(b"%d\n" % size)
            process.stdin.flush()
            assert process.stdout.readline() == b"%d\n" % (size * MIB)
            command: list[Part] = [leakline.binary, "snapshot", "--heap", "--json"]
            result = execute([*command, recording.path, "short"])
            assert result.status == 3, result.out.decode()
            [graph] = json.loads(result.out.splitlines()[0])["heap_graphs"]
            assert graph["outcome"] == "refused", graph
            assert "memory" in graph["why"], graph
            assert process.stdout.readline() == b"worked\n"
            process.stdin.write(b"1\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"%d\n" % MIB
        process.communicate(timeout=120)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def swapped(pid: int) -> int:
    found = re.search(r"VmSwap:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * KIB


def test_a_ledger_of_what_is_swapped_out(leakline: Leakline) -> None:
    source = "data = [(i, str(i)) for i in range(500_000)]; big = bytearray(64 << 20)"
    source += "; big[::4096] = b'x' * 16384"
    group = Group("memory")
    try:
        line = [*group.entering(), TARGET_PYTHON, "-c"]
        line.append(
            f"{source}; print('ready', flush=True); import time; time.sleep(100)"
        )
        with swap():
            process = subprocess.Popen(
                [os.fspath(part) for part in line], stdout=subprocess.PIPE
            )
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == b"ready\n"
                whole = rss(process.pid)
                with suppress(OSError):  # Less than was asked for.
                    group.write("memory.reclaim", whole * 2 // 3)
                out = swapped(process.pid)
                assert out > whole // 4, (out, whole)
                found = report(leakline, process.pid)
                assert found["swapped_bytes"] == pytest.approx(out, rel=0.02)
                text = execute([leakline.binary, "ledger", str(process.pid)]).out
                assert "swapped out" in flat(text), text.decode()
                # Looking has not brought it back.
                assert swapped(process.pid) > out * 0.9
            finally:
                process.kill()
                process.communicate()
    finally:
        group.remove()


# --- control groups of version 2 ---------------------------------------------


@contextmanager
def nested(controller: str) -> Iterator[tuple[Group, Path]]:
    """A group, and one in it."""
    outer = Group(controller)
    inner = outer.path / "inner"
    try:
        (outer.path / "cgroup.subtree_control").write_text(f"+{controller}")
        inner.mkdir()
        yield outer, inner
    finally:

        def is_gone() -> bool:
            with suppress(OSError):
                inner.rmdir()
            return not inner.exists()

        wait_for("the inner group to be empty", is_gone)
        outer.remove()


def entering(group: Path) -> list[Part]:
    return ["sh", "-c", f'echo $$ >{group}/cgroup.procs && exec "$@"', "sh"]


@pytest.mark.parametrize("name", ["memory.max", "memory.high"])
@pytest.mark.parametrize("where", ["inner", "outer"])
def test_limits_of_nested_groups(leakline: Leakline, name: str, where: str) -> None:
    """The nearest one counts. Above `memory.high` nobody is killed, but all are slow."""
    with nested("memory") as (outer, inner):
        place = inner if where == "inner" else outer.path
        line = entering(inner)
        with worker(leakline, 2, 20_000, *SAMPLED, within=line) as one:
            used = int((place / "memory.current").read_text())
            limit = (used + (24 * MIB)) & ~0xFFFF
            far = inner if where == "outer" else outer.path
            (far / "memory.max").write_text(str(4 << 30))
            (place / name).write_text(str(limit))
            [graph] = one.snapshot("short", status=3)["heap_graphs"]
            assert graph["outcome"] == "refused", graph
            assert re.search(r"\d+ MiB of memory are left", graph["why"]), graph
            result = execute([leakline.binary, "doctor", str(one.pid), "--json"])
            found = json.loads(result.out)["process"]
            assert found["memory_limit_bytes"] == limit
            assert 0 < found["memory_headroom_bytes"] < 24 * MIB + (8 << 20)
            (place / name).write_text("max")
            [graph] = one.snapshot("enough")["heap_graphs"]
            assert graph["outcome"] == "taken", graph
            one.end()


def test_killed_together_by_the_limit_of_a_group_above(leakline: Leakline) -> None:
    """As a unit of systemd's in a slice that has a limit: twice as much has to be left."""
    with nested("memory") as (outer, inner):
        with worker(leakline, 2, 60_000, *SAMPLED, within=entering(inner)) as one:
            # Between what is needed with and without it: some MiB are other processes'.
            needed = rss(one.pid) * 3 // 4 + 32 * MIB
            used = int(outer.read("memory.current"))
            outer.write("memory.max", (used + needed) & ~0xFFFF)
            [graph] = one.snapshot("enough")["heap_graphs"]
            assert graph["outcome"] == "taken", graph
            (inner / "memory.oom.group").write_text("1")
            [graph] = one.snapshot("short", status=3)["heap_graphs"]
            assert graph["outcome"] == "refused", graph
            assert "takes all others along" in graph["why"], graph
            one.end()
        assert outer.kills() == 0


@pytest.mark.parametrize("takes_all", [False, True], ids=["one", "all"])
@pytest.mark.parametrize("inside", ["worker", "everything"])
def test_who_is_killed_for_memory(
    leakline: Leakline, inside: str, takes_all: bool
) -> None:
    """What is in the file names the leak, whoever was killed."""
    group = Group("memory")
    try:
        group.write("memory.swap.max", 0)
        group.write("memory.oom.group", int(takes_all))
        group.write("memory.max", 256 * MIB)
        enter = group.entering()
        line, recording = leakline.command(
            *(enter if inside == "worker" else ()), TARGET_PYTHON, GROWING, "5", "400"
        )
        whole = [*(enter if inside == "everything" else ()), *line]
        process = subprocess.Popen(
            [os.fspath(part) for part in whole], stdout=subprocess.PIPE
        )
        try:
            process.communicate(timeout=500)
        finally:
            process.kill()
            process.communicate()
        assert process.returncode == -signal.SIGKILL
        # With all others the kernel counts the first once more.
        few = {
            (False, "worker"): [1],
            # The collector, too, where that is the larger one by then.
            (False, "everything"): [1, 2],
            (True, "worker"): [1, 2],
        }
        killed = group.kills()
        assert killed in few.get((takes_all, inside), [3, 4]), killed
    finally:
        group.remove()
    found = graphs(recording)
    assert {name for _, name in found} <= {"warm", "growth"}, found
    check_holder(recording, found[-1][0])
    [cause, *_] = recording.report("leaks")["suspects"]
    assert "handle" in json.dumps(cause), cause
    # Near the limit, since what was written lately is there, too.
    peak = recording.stats()["totals"]["peak_bytes"]
    assert peak > 130 * MIB, peak


# --- for good: until the next boot -------------------------------------------


def test_yama_that_lets_nobody(
    leakline: Leakline, user: User, programs: Programs
) -> None:
    """The last of this file, since it cannot be taken back."""
    program = user.program(programs, "attached")
    SCOPE.write_text("3")
    why = "kernel.yama.ptrace_scope is 3: nobody may trace until the next boot"
    mend = (
        "boot with a lower kernel.yama.ptrace_scope, or start it under `leakline run`"
    )
    with running(*AS_USER, program, "2", "1000") as target:
        check_refused(user, target, why, mend)
        result = attach(leakline, target.pid)
        assert result.status == 3, result.err.decode()
        assert why in flat(result.err)
        target.truth()
        target.end()
    check_woken(user.leakline, program)
    check_woken(leakline, program)
    for who in (user.leakline, leakline):
        found = json.loads(execute([who.binary, "doctor", "--json"]).out)
        assert found["ready"] == {"run": True, "attach": False}
        tracing = machine(found, "tracing")
        assert tracing["message"] == "nobody may trace until the next boot"
        assert "boot with" in tracing["hint"]

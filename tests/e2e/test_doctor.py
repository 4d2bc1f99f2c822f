"""`leakline doctor` and `leakline ps` over real processes: what each is, what
would stop an attach, and what it says about it."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import (
    PROGRAMS,
    TARGET_PYTHON,
    Json,
    Leakline,
    Part,
    Programs,
    Result,
    collector_of,
    execute,
    find_leakline,
    reads_filters,
    wait_for,
)

NOBODY = 65534
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="takes another user's place")
SLEEP = "import time; print('ready', flush=True); time.sleep(100)"


@contextmanager
def target(
    *command: Part,
    user: int | None = None,
    env: Mapping[str, str] | None = None,
    says_ready: bool = True,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process to look at, once it has said that it is ready. Killed at the
    end of the test."""
    who = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    process = subprocess.Popen(
        [os.fspath(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={**os.environ, **(env or {})},
        start_new_session=True,
        **who,  # type: ignore[call-overload]
    )
    try:
        if says_ready:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def doctor(leakline: Leakline, pid: int) -> Json:
    """What doctor says of a process."""
    result = execute([leakline.binary, "doctor", str(pid), "--json"])
    assert result.status == 0, result.err.decode()
    report: Json = json.loads(result.out)
    assert (report["schema"], report["version"]) == ("leakline.doctor", 1)
    process: Json = report["process"]
    assert process["pid"] == pid
    assert process["attachable"] is (not process["obstacles"]) or not report["ready"]
    return process


def names(findings: list[Json]) -> list[str]:
    return [finding["name"] for finding in findings]


def text(leakline: Leakline, *arguments: Part, columns: int = 80) -> str:
    env = {"COLUMNS": str(columns)}
    result = execute([leakline.binary, *arguments], env=env)
    assert result.status == 0, result.err.decode()
    return result.out.decode()


def flat(words: str) -> str:
    """Text without its line breaks."""
    return " ".join(words.split())


@pytest.fixture
def program(programs: Programs) -> Path:
    return programs.program("obstacles")


# --- what a process is -------------------------------------------------------


def test_a_plain_program_may_be_attached_to(leakline: Leakline, program: Path) -> None:
    with target(program) as process:
        found = doctor(leakline, process.pid)
        said = text(leakline, "doctor", str(process.pid))
    assert found["obstacles"] == []
    assert found["attachable"] is True
    assert found["command"] == os.fspath(program)
    assert found["parent_pid"] == os.getpid()
    assert found["user"] == os.geteuid()
    assert found["program"]["path"] == os.fspath(program)
    assert (found["program"]["bits"], found["program"]["machine"]) == (
        64,
        platform.machine(),
    )
    libc, version = platform.libc_ver()
    assert (libc, found["program"]["libc"]) == ("glibc", f"glibc {version}")
    assert found["program"]["python"] is None
    assert found["program"]["stripped"] is False
    assert found["recorded"] is False
    assert said.startswith("CAN ATTACH")
    assert said.endswith(f"\nnext: leakline attach {process.pid}\n")


def test_python_is_told_with_its_version(leakline: Leakline) -> None:
    version = execute(
        [TARGET_PYTHON, "-c", "import platform as p; print(p.python_version())"]
    )
    with target(TARGET_PYTHON, "-c", SLEEP, "--password", "hunter2") as process:
        found = doctor(leakline, process.pid)
        said = text(leakline, "doctor", str(process.pid))
    expected = version.out.decode().strip()
    assert found["program"]["python"] == expected
    assert found["program"]["embedded"] is False
    assert f"CPython {expected}" in flat(said)
    # Arguments may be secrets.
    assert "hunter2" not in said + json.dumps(found)


def test_allocators_are_told_by_name(leakline: Leakline, tmp_path: Path) -> None:
    """By the name of a library, and by what is linked into the program."""
    library = tmp_path / "libjemalloc.so.2"
    source = tmp_path / "nothing.c"
    source.write_text("int nothing;\n")
    command: list[Part] = ["cc", "-shared", "-fPIC", "-o", library, source]
    assert execute(command).status == 0
    linked = tmp_path / "linked"
    source.write_text(
        "#include <stdlib.h>\n"
        "void *mi_malloc(size_t size) { return malloc(size); }\n"
        '#include "obstacles.c"\n'
    )
    command = ["cc", "-I", PROGRAMS, "-o", linked, source]
    result = execute(command)
    assert result.status == 0, result.err.decode()
    with target(linked, env={"LD_PRELOAD": os.fspath(library)}) as process:
        found = doctor(leakline, process.pid)
    assert found["program"]["allocators"] == [
        {"name": "mimalloc", "linked_in": True},
        {"name": "jemalloc", "linked_in": False},
    ]
    assert names(found["warnings"]) == ["own allocator"]
    assert found["obstacles"] == []


def test_a_recorded_program_is_told(leakline: Leakline, program: Path) -> None:
    with leakline.started(program) as (process, _):
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        collector = wait_for("the collector", lambda: collector_of(process.pid))
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        pid = next(
            pid for pid in map(int, children.read_text().split()) if pid != collector
        )
        found = doctor(leakline, pid)
    assert names(found["obstacles"]) == ["recorded"]
    assert (found["recorded"], found["collector"]) == (True, collector)
    assert "libleakline_preload-" in found["program"]["interposer"]


# --- what stops an attach ----------------------------------------------------


def test_a_static_program(leakline: Leakline, tmp_path: Path) -> None:
    static = tmp_path / "static"
    if execute(["cc", "-static", "-o", static, PROGRAMS / "obstacles.c"]).status:
        pytest.skip("no static libc is installed")
    with target(static) as process:
        found = doctor(leakline, process.pid)
        said = text(leakline, "doctor", str(process.pid))
    assert names(found["obstacles"]) == ["static"]
    assert found["program"]["libc"] == "none (static)"
    assert "link it dynamically" in said


def test_a_program_for_musl(leakline: Leakline, tmp_path: Path) -> None:
    """The loader's name is what tells musl; this one is glibc's under it."""
    loader = Path(f"/lib64/ld-linux-{platform.machine().replace('_', '-')}.so.2")
    if not loader.exists():
        pytest.skip("the loader is not where it is on x86-64")
    musl = tmp_path / "ld-musl-x86_64.so.1"
    shutil.copy(loader, musl)
    built = tmp_path / "musl"
    flag = f"-Wl,--dynamic-linker={musl}"
    assert execute(["cc", flag, "-o", built, PROGRAMS / "obstacles.c"]).status == 0
    with target(built) as process:
        found = doctor(leakline, process.pid)
    assert names(found["obstacles"]) == ["musl"]


def test_a_32_bit_program(leakline: Leakline, tmp_path: Path) -> None:
    """Made by hand: `pause()` for ever, in i386's own system calls."""
    code = bytes.fromhex("b81d000000cd80ebf7")
    base, headers = 0x08048000, 52 + 32
    size = headers + len(code)
    ident = b"\x7fELF" + bytes([1, 1, 1]) + bytes(9)
    header = ident + struct.pack(
        "<HHIIIIIHHHHHH", 2, 3, 1, base + headers, 52, 0, 0, 52, 32, 1, 0, 0, 0
    )
    segment = struct.pack("<8I", 1, 0, base, base, size, size, 5, 0x1000)
    binary = tmp_path / "narrow"
    binary.write_bytes(header + segment + code)
    binary.chmod(0o755)
    try:
        process = subprocess.Popen([binary])
    except OSError as error:
        pytest.skip(f"this kernel runs no 32-bit programs: {error}")
    try:
        found = doctor(leakline, process.pid)
    finally:
        process.kill()
        process.wait()
    assert names(found["obstacles"]) == ["32-bit"]
    assert (found["program"]["bits"], found["program"]["machine"]) == (32, "i386")


def test_a_sanitizer(leakline: Leakline, tmp_path: Path) -> None:
    built = tmp_path / "sanitized"
    flags: list[Part] = ["-fsanitize=address", "-o", built]
    if execute(["cc", *flags, PROGRAMS / "obstacles.c"]).status:
        pytest.skip("no AddressSanitizer is installed")
    with target(built, env={"ASAN_OPTIONS": "detect_leaks=0"}) as process:
        found = doctor(leakline, process.pid)
    assert names(found["obstacles"]) == ["sanitizer"]
    assert found["program"]["sanitizer"] == "AddressSanitizer"


def test_valgrind(leakline: Leakline, program: Path) -> None:
    if shutil.which("valgrind") is None:
        pytest.skip("no valgrind is installed")
    with target("valgrind", "-q", program) as process:
        found = doctor(leakline, process.pid)
    assert names(found["obstacles"])[0] == "valgrind"


def test_a_traced_program(leakline: Leakline, program: Path) -> None:
    with target(program) as process:
        with target(program, "trace", str(process.pid)) as tracer:
            found = doctor(leakline, process.pid)
        wait_for(
            "the tracer's end", lambda: not doctor(leakline, process.pid)["tracer"]
        )
        again = doctor(leakline, process.pid)
    assert found["tracer"] == {"pid": tracer.pid, "name": "obstacles"}
    assert names(found["obstacles"]) == ["traced"]
    said = found["obstacles"][0]
    assert said["message"] == (f"`obstacles` (pid {tracer.pid}) is already tracing it")
    assert said["hint"] == (
        f"stop that tracer, then run `leakline attach {process.pid}` again"
    )
    assert again["obstacles"] == []


def test_a_seccomp_filter(leakline: Leakline, program: Path) -> None:
    with target(program, "seccomp") as process:
        found = doctor(leakline, process.pid)
    assert names(found["obstacles"]) == ([] if reads_filters() else ["seccomp"])
    assert (found["seccomp"], found["no_new_privileges"]) == ("filter", True)


SYS_CONNECT = 42


def test_a_filter_that_forbids(leakline: Leakline, program: Path) -> None:
    if not reads_filters():
        pytest.skip("filters cannot be read here (CAP_SYS_ADMIN, and no filter)")
    with target(program, "forbid", str(SYS_CONNECT)) as process:
        found = doctor(leakline, process.pid)
        refused = execute([leakline.binary, "attach", str(process.pid)])
        assert process.poll() is None
    (obstacle,) = found["obstacles"]
    assert obstacle["message"].startswith("its seccomp filter forbids `connect`")
    assert refused.status == 3
    assert b"its seccomp filter forbids `connect`" in refused.err
    with target(program, "forbid", "101") as process:  # ptrace
        assert doctor(leakline, process.pid)["obstacles"] == []


def test_a_stopped_program_and_a_zombie(leakline: Leakline, program: Path) -> None:
    with target(program) as process:
        process.send_signal(signal.SIGSTOP)
        wait_for(
            "the stop", lambda: doctor(leakline, process.pid)["state"] == "stopped"
        )
        found = doctor(leakline, process.pid)
        assert names(found["obstacles"]) == ["stopped"]
        assert f"kill -CONT {process.pid}" in found["obstacles"][0]["hint"]
        # It is as stopped as before.
        assert doctor(leakline, process.pid)["state"] == "stopped"
        process.kill()
        wait_for("the end", lambda: doctor(leakline, process.pid)["state"] == "zombie")
        found = doctor(leakline, process.pid)
    assert names(found["obstacles"]) == ["zombie"]
    assert str(os.getpid()) in found["obstacles"][0]["message"]
    assert found["command"] == "[obstacles]"


def test_a_thread_of_the_kernel(leakline: Leakline) -> None:
    try:
        parent, line = (
            Path("/proc/2/stat").read_text().rsplit(")", 1)[1].split()[1],
            Path("/proc/2/cmdline").read_bytes(),
        )
    except OSError:
        pytest.skip("no process 2 is seen here")
    if parent != "0" or line:
        pytest.skip("process 2 is none of the kernel's")
    found = doctor(leakline, 2)
    assert names(found["obstacles"]) == ["kernel"]


def test_a_thread_and_leakline_itself(leakline: Leakline) -> None:
    source = (
        "import threading, time\n"
        "def show():\n"
        "    print(threading.get_native_id(), flush=True); time.sleep(100)\n"
        "threading.Thread(target=show).start()\n"
    )
    with target(TARGET_PYTHON, "-c", source, says_ready=False) as process:
        assert process.stdout is not None
        thread = int(process.stdout.readline())
        found = doctor(leakline, thread)
    assert names(found["obstacles"]) == ["thread"]
    assert f"leakline attach {process.pid}" in found["obstacles"][0]["hint"]
    # The shell's pid stays when it becomes leakline.
    command = f"exec {shlex.quote(os.fspath(leakline.binary))} doctor --json $$"
    result = execute(["sh", "-c", command])
    assert names(json.loads(result.out)["process"]["obstacles"]) == ["itself"]


def test_a_process_that_is_gone(leakline: Leakline) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    result = execute([leakline.binary, "doctor", str(gone.pid)])
    assert (result.status, result.out) == (3, b"")
    assert result.err.decode() == (
        f"error: cannot attach to process {gone.pid}: there is no such process\n\n"
        "hint: `leakline ps` lists the processes that there are\n"
    )
    result = execute([leakline.binary, "doctor", str(gone.pid), "--json"])
    assert result.status == 3
    assert set(json.loads(result.out)) == {"error", "hint"}
    for wrong in ("0", "-1", "x", "99999999999"):
        assert execute([leakline.binary, "doctor", wrong]).status == 2


def test_a_program_whose_file_was_exchanged(leakline: Leakline, program: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "server"
        shutil.copy(program, copy)
        with target(copy) as process:
            assert "deleted" not in names(doctor(leakline, process.pid)["warnings"])
            copy.unlink()
            copy.write_text("something else")
            found = doctor(leakline, process.pid)
    assert found["obstacles"] == []
    assert "deleted" in names(found["warnings"])
    # What it runs is told by what it has mapped.
    assert found["program"]["bits"] == 64
    assert found["program"]["path"] == os.fspath(copy)


def test_a_program_without_symbols(leakline: Leakline, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    flags = ["-s", "-Wl,--build-id=none"]
    result = execute(["cc", *flags, "-o", bare, PROGRAMS / "obstacles.c"])
    assert result.status == 0, result.err.decode()
    with target(bare) as process:
        found = doctor(leakline, process.pid)
    warnings = {warning["name"]: warning for warning in found["warnings"]}
    for name in ("stripped", "no build-id"):
        assert f"`{bare}`" in warnings[name]["message"]
        assert warnings[name]["hint"]
    assert found["program"]["stripped"] is True


def test_another_file_system(leakline: Leakline, program: Path, tmp_path: Path) -> None:
    """A process with mounts of its own: `noexec`, and without a place."""
    unshare = ["unshare", "--mount", "sh", "-c"]

    def mounted(options: str) -> str:
        mount = "mount -t tmpfs none {} && mount -o remount,{} {}"
        return " && ".join(
            mount.format(place, options, place)
            for place in ("/tmp", "/var/tmp", "/dev/shm", "/run")
            if Path(place).is_dir() and not Path(place).is_symlink()
        )

    # Not the environment's: that may lie below what is mounted over.
    python = os.path.realpath(TARGET_PYTHON)
    sleeper = f"exec {python} -c {shlex.quote(SLEEP)}"
    if execute([*unshare, mounted("noexec")]).status:
        pytest.skip("nothing can be mounted here")
    with target(*unshare, sleeper) as process:
        found = doctor(leakline, process.pid)
        said = flat(text(leakline, "doctor", str(process.pid)))
    assert found["obstacles"] == []
    assert found["own_namespaces"] == ["files"]
    assert found["library_place"] == "/tmp"
    assert "other mounts" in names(found["warnings"])
    assert "container its own files; a library can be put into /tmp" in said
    with target(*unshare, f"{mounted('noexec')}; {sleeper}") as process:
        found = doctor(leakline, process.pid)
        said = flat(text(leakline, "doctor", str(process.pid)))
    assert found["obstacles"] == []
    assert found["library_place"] == "memory"
    assert "a library can be put into its memory only" in said
    # Nor a socket.
    with target(*unshare, f"{mounted('ro')}; {sleeper}") as process:
        found = doctor(leakline, process.pid)
    assert names(found["obstacles"]) == ["no place"]
    assert "`/tmp` is read-only" in found["obstacles"][0]["cause"]


@contextmanager
def control_group(controller: str) -> Iterator[Path]:
    """A control group of the test's own, in either version."""
    place = Path("/sys/fs/cgroup")
    old = place / controller
    group = (old if old.is_dir() else place) / f"leakline-doctor-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")
    try:
        yield group
    finally:
        wait_for("the group to be empty", lambda: is_removed(group))


def is_removed(group: Path) -> bool:
    try:
        group.rmdir()
    except OSError:
        return False
    return True


@ROOT_ONLY
def test_a_memory_limit(leakline: Leakline, program: Path) -> None:
    limit = 40 << 20
    with control_group("memory") as group, target(program) as process:
        files = [group / "memory.max", group / "memory.limit_in_bytes"]
        file = next((file for file in files if file.exists()), None)
        if file is None:
            pytest.skip("memory is not accounted for here")
        file.write_text(str(limit))
        (group / "cgroup.procs").write_text(str(process.pid))
        found = doctor(leakline, process.pid)
        said = flat(text(leakline, "doctor", str(process.pid)))
    assert found["memory_limit_bytes"] == limit
    assert 0 < found["memory_headroom_bytes"] <= limit
    assert names(found["warnings"]) == ["tight memory"]
    assert "limit 40.0 MiB, of which " in said


@ROOT_ONLY
def test_a_frozen_control_group(leakline: Leakline, program: Path) -> None:
    with control_group("freezer") as group, target(program) as process:
        old = group / "freezer.state"
        file, on, off = (
            (old, "FROZEN", "THAWED")
            if old.exists()
            else (group / "cgroup.freeze", "1", "0")
        )
        (group / "cgroup.procs").write_text(str(process.pid))
        file.write_text(on)
        try:
            found = wait_for(
                "the frost",
                lambda: doctor(leakline, process.pid)["obstacles"],
            )
        finally:
            file.write_text(off)
        again = doctor(leakline, process.pid)
    assert names(found) == ["frozen"]
    assert again["obstacles"] == []


# --- rights ------------------------------------------------------------------


@pytest.fixture(scope="module")
def for_everybody() -> Iterator[Path]:
    """A directory that every user may read, with the command and the program."""
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        directory.chmod(0o755)
        shutil.copy(find_leakline(), directory / "leakline")
        own = directory / "own"
        own.mkdir()
        if os.geteuid() == 0:
            os.chown(own, NOBODY, NOBODY)
        yield directory


def as_nobody(for_everybody: Path, *arguments: Part) -> Result:
    command: Sequence[Part] = [
        "setpriv",
        f"--reuid={NOBODY}",
        f"--regid={NOBODY}",
        "--clear-groups",
        for_everybody / "leakline",
        *arguments,
    ]
    env = {"LEAKLINE_PRELOAD_DIR": os.fspath(for_everybody / "own"), "HOME": "/"}
    return execute(command, env=env, cwd=for_everybody)


@ROOT_ONLY
def test_another_users_process(program: Path, for_everybody: Path) -> None:
    with target(program) as process:
        result = as_nobody(for_everybody, "doctor", str(process.pid))
        report = as_nobody(for_everybody, "doctor", str(process.pid), "--json")
        listed = as_nobody(for_everybody, "ps", "--interval", "0", "--json")
        everybody = as_nobody(for_everybody, "ps", "--interval", "0", "--json", "--all")
    assert result.status == 0, result.err.decode()
    said = flat(result.out.decode())
    assert said.startswith("CANNOT ATTACH")
    assert (
        "ptrace is not allowed here: no CAP_SYS_PTRACE, and it runs as user 0, "
        f"leakline as user {NOBODY} mend: `sudo leakline attach {process.pid}`"
    ) in said
    found = json.loads(report.out)["process"]
    assert names(found["obstacles"]) == ["permission"]
    assert found["program"] is None
    assert found["command"] == os.fspath(program)
    rows = json.loads(listed.out)
    assert process.pid not in [row["pid"] for row in rows["rows"]]
    assert rows["left_out"]["other_users"] > 0
    rows = {row["pid"]: row for row in json.loads(everybody.out)["rows"]}
    assert rows[process.pid]["obstacle"] == "permission"


@ROOT_ONLY
def test_ones_own_process_that_may_not_be_looked_into(
    leakline: Leakline, program: Path, for_everybody: Path
) -> None:
    built = for_everybody / "obstacles"
    shutil.copy(program, built)
    with target(built, user=NOBODY) as process:
        own = as_nobody(for_everybody, "doctor", str(process.pid), "--json")
    with target(built, "undumpable", user=NOBODY) as process:
        closed = as_nobody(for_everybody, "doctor", str(process.pid), "--json")
        by_root = doctor(leakline, process.pid)
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    if not scope.exists() or scope.read_text().strip() == "0":
        found = json.loads(own.out)["process"]
        assert (found["obstacles"], found["dumpable"]) == ([], True)
    found = json.loads(closed.out)["process"]
    assert names(found["obstacles"]) == ["undumpable"]
    assert found["dumpable"] is False
    # Root may, whatever the process says.
    assert (by_root["obstacles"], by_root["dumpable"]) == ([], False)


# --- the machine -------------------------------------------------------------


def test_the_machine(leakline: Leakline, tmp_path: Path) -> None:
    result = execute([leakline.binary, "doctor", "--json"])
    assert result.status == 0, result.err.decode()
    report = json.loads(result.out)
    assert report["process"] is None
    checks = {check["name"]: check for check in report["checks"]}
    expected = ["kernel", "tracing", "memory", "clock", "limits", "library", "place"]
    assert list(checks) == expected
    assert report["ready"]["run"] is True
    assert platform.release() in checks["kernel"]["message"]
    assert text(leakline, "doctor").startswith("READY")
    # What would stop `run` is found before.
    place = tmp_path / "a place"
    env = {"LEAKLINE_PRELOAD_DIR": os.fspath(place)}
    result = execute([leakline.binary, "doctor", "--json"], env=env)
    report = json.loads(result.out)
    assert (result.status, report["ready"]) == (0, {"run": False, "attach": False})
    check = next(c for c in report["checks"] if c["name"] == "library")
    assert (check["grade"], check["stops"]) == ("stops", ["run", "attach"])
    assert "has a space" in check["cause"]
    result = execute([leakline.binary, "doctor"], env=env)
    assert result.out.decode().startswith("NOT READY: 1 thing in the way\n")
    limited = f"ulimit -v 900000; exec {leakline.binary} doctor --json"
    report = json.loads(execute(["sh", "-c", limited]).out)
    check = next(c for c in report["checks"] if c["name"] == "limits")
    assert check["grade"] == "stops"
    assert "ulimit -v unlimited" in check["hint"]


# --- ps ----------------------------------------------------------------------


def processes(leakline: Leakline, *arguments: str) -> Json:
    result = execute([leakline.binary, "ps", "--json", *arguments])
    assert result.status == 0, result.err.decode()
    # Nothing but the answer where no terminal is.
    assert result.err == b""
    report: Json = json.loads(result.out)
    assert (report["schema"], report["version"]) == ("leakline.ps", 1)
    return report


GROW = (
    "import time; print('ready', flush=True); kept = []\n"
    "while True: kept.append(bytearray(b'x' * 1_000_000)); time.sleep(0.02)\n"
)


def test_what_grows_comes_first(leakline: Leakline, program: Path) -> None:
    with target(TARGET_PYTHON, "-c", GROW) as growing, target(program) as quiet:
        report = processes(leakline, "--interval", "0.7")
        said = text(leakline, "ps", "--interval", "0.5", "--limit", "3")
    rows = {row["pid"]: row for row in report["rows"]}
    assert report["interval_seconds"] == pytest.approx(0.7, abs=0.3)
    assert report["total_rows"] == len(report["rows"])
    assert rows[growing.pid]["growth_bytes"] > 5_000_000
    assert rows[growing.pid]["growth_bytes_per_second"] > 5_000_000
    version = ".".join(platform.python_version_tuple()[:2])
    if sys.executable == TARGET_PYTHON:
        assert rows[growing.pid]["kind"] == f"CPython {version}"
    # It may still be touching its first pages.
    assert rows[quiet.pid]["growth_bytes"] < 1_000_000
    assert (rows[quiet.pid]["kind"], rows[quiet.pid]["attachable"]) == ("native", True)
    order = [row["growth_bytes"] or 0 for row in report["rows"]]
    assert order == sorted(order, reverse=True)
    assert re.search(rf"^ *{growing.pid} +[\d.]+ MiB +\+", said, re.MULTILINE)
    assert re.search(r"^and \d+ more \(--limit 0 shows all\)$", said, re.MULTILINE)


def test_one_look_filtered_sorted_and_cut(leakline: Leakline, program: Path) -> None:
    with target(program) as first, target(program) as second:
        second.send_signal(signal.SIGSTOP)
        wait_for("the stop", lambda: doctor(leakline, second.pid)["state"] == "stopped")
        asked = ("--interval", "0", "--filter", os.fspath(program))
        started = time.monotonic()
        report = processes(leakline, *asked, "--sort", "pid")
        assert time.monotonic() - started < 10
        cut = processes(leakline, *asked, "--limit", "1", "--sort", "rss")
        by_pid = processes(leakline, "--interval", "0", "--filter", str(first.pid))
    pids = sorted([first.pid, second.pid])
    assert [row["pid"] for row in report["rows"]] == pids
    assert report["interval_seconds"] is None
    assert report["left_out"]["unmatched"] > 0
    rows = {row["pid"]: row for row in report["rows"]}
    assert rows[second.pid]["obstacle"] == "stopped"
    assert rows[first.pid]["growth_bytes"] is None
    assert (len(cut["rows"]), cut["rest"], cut["total_rows"]) == (1, {"rows": 1}, 2)
    assert first.pid in [row["pid"] for row in by_pid["rows"]]


def test_kernel_threads_are_counted_and_shown_on_demand(leakline: Leakline) -> None:
    own = processes(leakline, "--interval", "0")
    every = processes(leakline, "--interval", "0", "--all")
    kernel = [row for row in every["rows"] if row["obstacle"] == "kernel"]
    assert not [row for row in own["rows"] if row["obstacle"] == "kernel"]
    assert (len(kernel) > 0) is (own["left_out"]["kernel_threads"] > 0)
    assert every["left_out"]["kernel_threads"] == 0


def test_intervals_that_are_none(leakline: Leakline) -> None:
    for wrong in ("-1", "x", "nan", "1e9"):
        result = execute([leakline.binary, "ps", f"--interval={wrong}"])
        assert result.status == 2, wrong


# --- terminals ---------------------------------------------------------------

ESCAPE = b"\x1b["


def on_terminal(command: str, columns: int, env: Mapping[str, str]) -> bytes:
    result = subprocess.run(
        ["script", "-qec", f"stty cols {columns} rows 24; {command}", "/dev/null"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        env={**os.environ, "TERM": "xterm", **env},
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.mark.skipif(shutil.which("script") is None, reason="script is not installed")
@pytest.mark.parametrize("columns", [20, 80])
def test_widths_and_colours(leakline: Leakline, program: Path, columns: int) -> None:
    with target(program, "forbid", str(SYS_CONNECT)) as process:
        doctors = f"{leakline.binary} doctor {process.pid}"
        plain = on_terminal(doctors, columns, {"NO_COLOR": "1"})
        coloured = on_terminal(doctors, columns, {})
        lists = f"{leakline.binary} ps --interval 0.1"
        listed = on_terminal(lists, columns, {"NO_COLOR": "1"})
        piped = text(leakline, "doctor", str(process.pid), columns=columns)
    assert ESCAPE not in plain
    assert ESCAPE in coloured
    assert "\x1b" not in piped
    assert re.sub(rb"\x1b\[[0-9;]*m", b"", coloured) == plain
    # The line that says what it waits for is taken back.
    assert b"\r\x1b[K" in listed
    shown = listed.split(b"\r\x1b[K")[1].decode()
    for line in (plain.decode() + shown).splitlines():
        # What is one word, or there to be pasted, is not cut.
        if line.startswith("next: ") or len(line.split()) < 2:
            continue
        words = max(len(word) for word in line.split())
        assert len(line) <= max(columns, words + 13), line

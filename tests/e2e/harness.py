"""What the end-to-end tests stand on: the `leakline` command, the test
programs, and comparing what a recording says with what a program knows.

Environment:

LEAKLINE_BIN            the command under test; else the newest of
                        target/{debug,release}/leakline
LEAKLINE_TARGET_PYTHON  the interpreter that is recorded; else the one that
                        runs the tests
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "tests" / "programs"
PYTHON_PROGRAMS = PROGRAMS / "python"
SAMPLES = ROOT / "samples"
TARGET_PYTHON = os.environ.get("LEAKLINE_TARGET_PYTHON", sys.executable)

Json = dict[str, Any]
Part = Union[str, Path]  # of a command


def find_leakline() -> Path:
    """The command under test."""
    named = os.environ.get("LEAKLINE_BIN")
    if named:
        return Path(named).resolve()
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    built = [target / profile / "leakline" for profile in ("debug", "release")]
    found = [path for path in built if path.exists()]
    if not found:
        raise FileNotFoundError(
            "no leakline command: run `cargo build`, or set LEAKLINE_BIN"
        )
    return max(found, key=lambda path: path.stat().st_mtime)


@dataclass(frozen=True)
class Result:
    """How a command ended. `status` is negative for a death by signal."""

    status: int
    out: bytes
    err: bytes
    seconds: float

    def json_lines(self) -> list[Json]:
        """Lines of stdout that are JSON objects."""
        lines = self.out.decode().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def truth(self) -> Json:
        """The last line of JSON: what the program knows of itself."""
        lines = self.json_lines()
        assert lines, f"no truth on stdout: {self.out!r}\n{self.err.decode()}"
        return lines[-1]


def execute(
    command: Sequence[Part],
    *,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 60,
) -> Result:
    """Runs a command in a session of its own. One that does not end in time is
    killed with all of its session, and fails the test."""
    started = time.monotonic()
    process = subprocess.Popen(
        [os.fspath(part) for part in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(stdin, timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(
            f"no end after {timeout} s: {command}\n{out[-2000:]!r}\n{err.decode()}"
        ) from None
    return Result(process.returncode, out, err, time.monotonic() - started)


class Recording:
    """A recording and the reports over it."""

    def __init__(self, leakline: Path, path: Path) -> None:
        self.leakline = leakline
        self.path = path

    def report(self, *arguments: str) -> Json:
        """A report's JSON."""
        result = execute([self.leakline, *arguments, "--json", self.path])
        assert result.status == 0, (
            f"{arguments} ended with {result.status}: {result.err.decode()}"
        )
        report: Json = json.loads(result.out)
        return report

    def stats(self) -> Json:
        return self.report("stats")

    def rows(self, *arguments: str, at: str | None = "end") -> list[Json]:
        """All rows of `top`, at the end or at the instant that it shows when
        none is asked for. Those of a whole Python program have many and deep
        stacks: with `--filter` there are fewer to read."""
        if at is not None:
            arguments = ("--at", at, *arguments)
        rows: list[Json] = self.report("top", "--limit", "0", *arguments)["rows"]
        return rows

    def process(self, pid: int) -> Json:
        """What `stats` says of the last program that ran under this pid."""
        found = [one for one in self.stats()["processes"] if one["pid"] == pid]
        assert found, f"process {pid} is not in the recording"
        process: Json = found[-1]
        return process


@dataclass
class Leakline:
    """The command under test, recording into `directory`."""

    binary: Path
    directory: Path
    count: int = 0

    def command(
        self, *command: Part, options: Iterable[str] = ()
    ) -> tuple[list[Part], Recording]:
        """`leakline run` of a command, and the recording it will make."""
        self.count += 1
        path = self.directory / f"{self.count}.leakline"
        line = [self.binary, "run", "-o", path, *options, "--", *command]
        return line, Recording(self.binary, path)

    def run(
        self,
        *command: Part,
        options: Iterable[str] = (),
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 60,
    ) -> tuple[Result, Recording]:
        """Records a command to its end."""
        line, recording = self.command(*command, options=options)
        result = execute(line, stdin=stdin, env=env, cwd=cwd, timeout=timeout)
        return result, recording

    @contextmanager
    def started(
        self, *command: Part, options: Iterable[str] = ()
    ) -> Iterator[tuple[subprocess.Popen[bytes], Recording]]:
        """Records a command that the test will disturb. Whatever is left of it
        at the end is killed."""
        line, recording = self.command(*command, options=options)
        process = subprocess.Popen(
            [os.fspath(part) for part in line],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            yield process, recording
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def wait_for(what: str, condition: Any, timeout: float = 20) -> Any:
    """Waits until the condition gives something true, and gives that."""
    deadline = time.monotonic() + timeout
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {timeout} s in vain for {what}"
        time.sleep(0.005)


def collector_of(pid: int) -> int | None:
    """The collector started by `leakline run` with this pid."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = (entry / "stat").read_text().rsplit(")", 1)[1].split()[1]
            command = (entry / "cmdline").read_bytes().split(b"\0")
        except (OSError, IndexError):
            continue
        if int(parent) == pid and b"__collector" in command[:3]:
            return int(entry.name)
    return None


# --- test programs -----------------------------------------------------------

C_FLAGS = ["-O2", "-g", "-fno-optimize-sibling-calls", "-pthread"]


class Programs:
    """Test programs, each built when it is first asked for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.built: dict[str, Path] = {}

    def _build(self, name: str, *arguments: Part) -> Path:
        if name not in self.built:
            output = self.directory / name
            compiler = "c++" if any(".cpp" in str(a) for a in arguments) else "cc"
            result = execute([compiler, *C_FLAGS, "-o", output, *arguments])
            assert result.status == 0, result.err.decode()
            self.built[name] = output
        return self.built[name]

    def program(self, name: str, *flags: str) -> Path:
        """tests/programs/NAME.c or .cpp."""
        source = PROGRAMS / f"{name}.c"
        if not source.exists():
            source = PROGRAMS / f"{name}.cpp"
        return self._build(name, source, "-ldl", *flags)

    def plugin(self, name: str, size: int) -> Path:
        return self._build(
            f"{name}.so",
            "-shared",
            "-fPIC",
            f"-DPLUGIN={name}",
            f"-DBYTES={size}",
            PROGRAMS / "plugin.c",
        )

    def own_allocator(self) -> Path:
        """A library that allocates for itself."""
        source = PROGRAMS / "own_allocator.c"
        options = ["-shared", "-fPIC", "-fno-builtin", "-Wl,-z,lazy"]
        return self._build("own_allocator.so", *options, source)

    def held(self) -> Path:
        """A library whose malloc can be made to wait."""
        options = ["-shared", "-fPIC", "-fno-builtin"]
        return self._build("held.so", *options, PROGRAMS / "held.c", "-ldl")

    def reentrant(self) -> Path:
        """The other allocator, as a library."""
        source = PROGRAMS / "reentrant.c"
        return self._build(
            "libreentrant.so", "-shared", "-fPIC", "-fno-builtin", source
        )

    def _with_reentrant(self, name: str, *arguments: Part) -> Path:
        rpath = f"-Wl,-rpath,{self.directory}"
        return self._build(name, *arguments, self.reentrant(), rpath)

    def signals_anywhere(self) -> Path:
        return self._with_reentrant(
            "signals_anywhere", "-DANYWHERE", PROGRAMS / "signals.c"
        )

    def storm(self) -> Path:
        return self._with_reentrant("storm", "-ldl", PROGRAMS / "storm.c")

    def closing(self) -> Path:
        return self._with_reentrant("closing", "-ldl", PROGRAMS / "closing.c")

    def abandoned(self) -> Path:
        return self._with_reentrant("abandoned", PROGRAMS / "abandoned.c")

    def embedding(self, name: str, library: Path) -> Path:
        """tests/programs/python/NAME.c, linked against the target interpreter."""
        source = PYTHON_PROGRAMS / f"{name}.c"
        include, _ = target_paths()
        rpath = f"-Wl,-rpath,{library.parent}"
        return self._build(name, "-I", include, source, library, rpath)

    def extension(self, name: str, *flags: str) -> Path:
        """Directory of tests/programs/python/NAME.c as an extension module of
        the target interpreter."""
        directory = self.directory / name
        directory.mkdir(exist_ok=True)
        if name not in self.built:
            include, suffix = target_paths()
            output = directory / f"{name}{suffix}"
            source = PYTHON_PROGRAMS / f"{name}.c"
            options = [*C_FLAGS, *flags, "-shared", "-fPIC", "-I", include]
            result = execute(["cc", *options, "-o", output, source])
            assert result.status == 0, result.err.decode()
            self.built[name] = output
        return directory

    def rust_extension(self) -> Path:
        """Directory of tests/extension as a module; any CPython can import it."""
        directory = self.directory / "keeping"
        if "keeping" not in self.built:
            directory.mkdir(exist_ok=True)
            # As for the module of leakline itself: libpython is the interpreter's matter.
            env = {"PYO3_BUILD_EXTENSION_MODULE": "1", "PYO3_PYTHON": TARGET_PYTHON}
            command = ["cargo", "build", "--quiet", "--package"]
            command += ["leakline-test-extension", "--message-format", "json"]
            result = execute(command, env=env, cwd=ROOT, timeout=600)
            assert result.status == 0, result.err.decode()
            made = [one for one in result.json_lines() if one.get("filenames")]
            output = directory / "keeping.abi3.so"
            shutil.copy(made[-1]["filenames"][0], output)
            self.built["keeping"] = output
        return directory


def library_of_target() -> tuple[Path, str] | None:
    """The target interpreter as a shared library, and its home, if it has one."""
    source = (
        "import sys, sysconfig as s; print(sys.base_prefix);"
        "print(s.get_config_var('LIBDIR')); print(s.get_config_var('MULTIARCH'));"
        "print(s.get_config_var('INSTSONAME'))"
    )
    lines = execute([TARGET_PYTHON, "-c", source]).out.decode().splitlines()
    home, directory, architecture, name = lines
    for path in (Path(directory) / name, Path(directory) / architecture / name):
        if path.exists() and ".so" in name:
            return path, home
    return None


def target_paths() -> tuple[str, str]:
    """Headers and extension suffix of the target interpreter."""
    if sys.executable == TARGET_PYTHON:
        suffix = sysconfig.get_config_var("EXT_SUFFIX")
        return sysconfig.get_path("include"), str(suffix)
    source = (
        "import sysconfig; print(sysconfig.get_path('include'));"
        "print(sysconfig.get_config_var('EXT_SUFFIX'))"
    )
    include, suffix = execute([TARGET_PYTHON, "-c", source]).out.decode().split()
    return include, suffix


# --- comparing ---------------------------------------------------------------

COUNTERS = ("total_blocks", "total_bytes", "live_blocks", "live_bytes")


def plain_name(function: str) -> str:
    """A function's name without arguments, template arguments and clones."""
    name = re.sub(r"\(.*|<.*|\.(constprop|isra|part|cold).*", "", function or "")
    return name.rsplit("::", 1)[-1].rsplit(" ", 1)[-1]


def sums(rows: Iterable[Json]) -> dict[str, int]:
    """Counters of several rows together."""
    total = dict.fromkeys(COUNTERS, 0)
    for row in rows:
        for counter in COUNTERS:
            total[counter] += row[counter]
    return total


# Half of an interval of 95 %, in standard deviations.
DEVIATIONS = 1.96
# What chance does once in 100,000 runs is a bug.
FAR = 4.5


def reads_filters() -> bool:
    """Whether the kernel lets us read other processes' seccomp filters."""
    lines = dict(
        line.split(":", 1)
        for line in Path("/proc/self/status").read_text().splitlines()
    )
    may = int(lines["CapEff"], 16) >> 21 & 1
    return bool(may) and lines.get("Seccomp", "0").strip() == "0"


def deviations(rows: Iterable[Json], key: str, truth: float) -> float:
    """How far an estimate is off, in standard deviations as it states them."""
    rows = list(rows)
    estimate = sum(row[key] for row in rows)
    variance = sum((row[f"{key}_error"] / DEVIATIONS) ** 2 for row in rows)
    if variance == 0:
        assert estimate == truth, (key, estimate, truth)
        return 0.0
    return float((estimate - truth) / variance**0.5)


def by_function(rows: Iterable[Json], names: Iterable[str]) -> dict[str, list[Json]]:
    """Rows under the innermost function of their stack that is in `names`;
    rows without one under the empty name."""
    wanted = set(names)
    groups: dict[str, list[Json]] = {name: [] for name in [*wanted, ""]}
    for row in rows:
        stack = [plain_name(frame["function"]) for frame in row["stack"]]
        groups[next((name for name in stack if name in wanted), "")].append(row)
    return groups


def check_sites(rows: list[Json], truth: Mapping[str, Json]) -> None:
    """Every site's counters equal what the program counted itself."""
    wrong = []
    for name, group in by_function(rows, truth).items():
        if not name:
            continue
        said, known = sums(group), truth[name]
        expected = {
            "total_blocks": known["births"],
            "total_bytes": known["total_bytes"],
            "live_blocks": known["live_blocks"],
            "live_bytes": known["live_bytes"],
        }
        if any("resizes" in row for row in group):
            said["resizes"] = sum(row["resizes"] for row in group)
            expected["resizes"] = known["resizes"]
        if said != expected:
            wrong.append(f"{name}: recorded {said}, true {expected}")
        # A block that libc makes for its caller (strdup) is libc's by name.
        unnamed = {
            plain_name(row["function"])
            for row in group
            if "libc.so" not in (row["module"] or "")
        } - {name}
        if unnamed:
            wrong.append(f"{name}: rows are named {sorted(unnamed)}")
    assert not wrong, "\n".join(wrong)


def python_lines(rows: Iterable[Json], file: Path) -> dict[tuple[int, str], Json]:
    """Counters by (line, domain) of rows whose innermost Python frame lies in
    this file."""
    lines: dict[tuple[int, str], Json] = {}
    for row in rows:
        if row["domain"] not in ("raw", "mem", "obj"):
            continue
        frames = (frame for frame in row["stack"] if frame["kind"] == "python")
        frame = next(frames, None)
        if frame is None or frame["file"] != os.fspath(file):
            continue
        key = (frame["line"], row["domain"])
        line = lines.setdefault(key, dict.fromkeys(COUNTERS, 0))
        for counter in COUNTERS:
            line[counter] += row[counter]
    return lines


def check_complete(recording: Recording) -> Json:
    """Nothing was lost, and it says so."""
    stats = recording.stats()
    totals = stats["totals"]
    assert totals["complete"] is True, totals
    assert totals["lost_events"] == 0, totals
    return stats


def without_pids(out: bytes) -> bytes:
    """Output with process ids replaced, to compare two runs."""
    return re.sub(rb'("pid": |pid )\d+', rb"\g<1>PID", out)

"""Native blocks that nothing points to: equal to LeakSanitizer, and never one that is
reachable."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from harness import (
    PROGRAMS,
    PYTHON_PROGRAMS,
    TARGET_PYTHON,
    Json,
    Leakline,
    Part,
    Programs,
    Recording,
    execute,
    wait_for,
)

# What of each function's blocks is lost: blocks and bytes, directly and indirectly.
Found = dict[tuple[str, str], int]


def of_sanitizer(program: Path, arguments: list[str]) -> Found:
    result = execute([program, *arguments])
    pattern = (
        r"(Direct|Indirect) leak of (\d+) byte\(s\) in (\d+) object\(s\) allocated "
        r"from:\n.*\n\s+#1 \S+ in (\w+)"
    )
    found: Counter[tuple[str, str]] = Counter()
    for kind, size, count, function in re.findall(pattern, result.err.decode()):
        found[function, f"{kind.lower()}_blocks"] += int(count)
        found[function, f"{kind.lower()}_bytes"] += int(size)
    if not found:
        pytest.skip("LeakSanitizer does not work here")
    return dict(found)


def lost(recording: Recording) -> Json:
    answer: Json = recording.report("why")["lost"]
    assert answer is not None
    return answer


def of_leakline(answer: Json) -> Found:
    found: Counter[tuple[str, str]] = Counter()
    for row in answer["rows"]:
        for kind in ("direct", "indirect"):
            for unit in ("blocks", "bytes"):
                key = f"{kind}_{unit}"
                found[row["made_in"]["function"], key] += row[key]
    return {key: value for key, value in found.items() if value}


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lost") / "sanitized"
    flags = ["-g", "-O1", "-DLSAN", "-fsanitize=leak", "-pthread"]
    built = execute(["cc", *flags, "-o", path, PROGRAMS / "lost.c"])
    if built.status != 0:
        pytest.skip("this compiler has no LeakSanitizer")
    return path


def test_what_is_lost_is_what_leak_sanitizer_says(
    leakline: Leakline, programs: Programs, sanitized: Path, long: bool
) -> None:
    program = programs.program("lost", "-O1", "-pthread")
    for seed in range(1, 60 if long else 4):
        for most, threads in (("60", "0"), ("300", "3")):
            arguments = [str(seed), most, threads]
            _, recording = leakline.run(program, *arguments)
            answer = lost(recording)
            expected = of_sanitizer(sanitized, arguments)
            assert of_leakline(answer) == expected, arguments
            [look] = answer["looks"]
            assert look["other_threads"] == int(threads)
            # Registers of other threads were not seen.
            assert look["is_certain"] == (threads == "0")
            assert look["unread_bytes"] == 0


def test_lost_blocks_are_a_leak_without_growth(
    leakline: Leakline, programs: Programs
) -> None:
    program = programs.program("lost", "-O1", "-pthread")
    _, recording = leakline.run(program, "1", "60")
    leaks = recording.report("leaks")
    causes = {cause["function"]: cause for cause in leaks["suspects"]}
    alone = causes["lost_alone"]
    assert alone["verdict"] == "unreachable"
    assert alone["lost_blocks"] == 60
    assert alone["held_by"] is None
    assert not any(function.startswith("kept") for function in causes)
    assert any("nothing points to any of the 60 blocks" in e for e in alone["evidence"])
    command: list[Part] = [leakline.binary, "check", recording.path]
    assert execute(command).status == 1
    # A cause's name and its function mean the same.
    command = [leakline.binary, "why", recording.path]
    for question in (alone["id"], "lost_alone"):
        told = execute([*command, question])
        assert told.status == 0, told.err.decode()
        assert b"60 blocks that nothing reaches" in told.out, told.out
    told = execute(command)
    assert told.out.startswith(b"lost: "), told.out


def ended(process: subprocess.Popen[bytes]) -> bytes:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err.decode()
    return out


def snapshot(recording: Recording, name: str) -> list[Any]:
    command: list[Part] = [recording.leakline, "snapshot", "--heap", "--json"]
    result = execute([*command, recording.path, name])
    assert result.status == 0, result.err.decode() + result.out.decode()
    graphs: list[Any] = json.loads(result.out.splitlines()[0])["heap_graphs"]
    return graphs


EXTENSION = r"""
#include <stdlib.h>
#include <string.h>

/* A record whose header is bad is forgotten. */
__attribute__((noinline)) void *parse_header(const char *text)
{
    char *block = malloc(224);
    strncpy(block, text, 200);
    __asm__ volatile("" : "+r"(block) : : "memory");
    if (*text == 'x')
        return NULL;
    return block;
}
"""

WORKER = """
import ctypes, sys, threading
library = ctypes.CDLL(sys.argv[1])
library.parse_header.restype = ctypes.c_void_p
kept = (ctypes.c_void_p * 500)(*[library.parse_header(b"good") for _ in range(500)])

def upload(lines):
    for line in lines:
        library.parse_header(line)

def serve():
    for line in sys.stdin:
        upload([b"x"] * 700)
        filler = [str(i) for i in range(20000)]
        print("done", flush=True)

if sys.argv[2] == "thread":
    thread = threading.Thread(target=serve)
    thread.start()
    thread.join()
else:
    serve()
"""


@pytest.fixture
def extension(tmp_path: Path) -> Path:
    source = tmp_path / "parse.c"
    source.write_text(EXTENSION)
    library = tmp_path / "libparse.so"
    built = execute(["cc", "-g", "-O1", "-shared", "-fPIC", "-o", library, source])
    assert built.status == 0, built.err.decode()
    return library


@pytest.mark.parametrize("place", ["main", "thread"])
def test_a_live_worker_names_what_its_extension_lost(
    leakline: Leakline, extension: Path, tmp_path: Path, place: str
) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    line, recording = leakline.command(TARGET_PYTHON, script, extension, place)
    process = subprocess.Popen(
        [os.fspath(part) for part in line],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def work() -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"line\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"done\n"

    def looked(name: str) -> Json:
        command: list[Part] = [leakline.binary, "snapshot", "--heap", "--json"]
        asking = subprocess.Popen(
            [os.fspath(part) for part in [*command, recording.path, name]],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        while asking.poll() is None:
            work()
            time.sleep(0.05)
        out, err = asking.communicate()
        assert asking.returncode == 0, err.decode() + out.decode()
        [graph] = json.loads(out.splitlines()[0])["heap_graphs"]
        assert isinstance(graph, dict)
        return graph

    try:
        work()
        first = looked("one")
        assert first["lost_blocks"] >= 699
        second = looked("two")
        assert second["lost_blocks"] >= first["lost_blocks"]
        ended(process)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.communicate()
    answer = lost(recording)
    [row] = answer["rows"]
    assert row["made_in"]["function"] == "parse_header"
    names = [frame["function"] for frame in row["stack"]]
    assert names.index("parse_header") < names.index("upload") < names.index("serve")
    # Those that are kept have another stack; none of them is lost.
    assert row["blocks"] % 700 in (0, 699)
    assert row["certain_blocks"] >= first["lost_blocks"] - 1
    [cause] = [
        cause
        for cause in recording.report("leaks")["suspects"]
        if cause["function"] == "parse_header"
    ]
    assert cause["verdict"] == "unreachable"


HEALTHY = PYTHON_PROGRAMS / "healthy.py"


def test_a_healthy_interpreter_has_lost_nothing(leakline: Leakline) -> None:
    result, recording = leakline.run(TARGET_PYTHON, HEALTHY)
    answer = lost(recording)
    assert answer["rows"] == [], answer["rows"]
    assert answer["looks"][0]["asked_blocks"] > 1000
    assert b"touched" in result.out


def test_a_live_native_process_is_looked_at(
    leakline: Leakline, programs: Programs
) -> None:
    program = programs.program("lost_live", "-O1")
    line, recording = leakline.command(program, "2000")
    process = subprocess.Popen(
        [os.fspath(part) for part in line],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        [one] = snapshot(recording, "one")
        [two] = snapshot(recording, "two")
        for graph in (one, two):
            assert graph["outcome"] == "taken", graph
        assert 0 < one["lost_blocks"] < two["lost_blocks"]
        assert one["native_blocks"] - one["lost_blocks"] in range(2000, 2010)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    rows = lost(recording)["rows"]
    assert {row["made_in"]["function"] for row in rows} == {"lose"}
    # It may not harm: no child is left, whatever is waited for.
    wait_for("no process", lambda: not Path(f"/proc/{process.pid}").exists())


def test_an_idle_native_process_is_given_up(
    leakline: Leakline, programs: Programs
) -> None:
    line, recording = leakline.command("sleep", "30")
    process = subprocess.Popen([os.fspath(part) for part in line])
    try:
        wait_for("the recording", lambda: recording.path.exists())
        time.sleep(1)
        command: list[Part] = [leakline.binary, "snapshot", "--heap"]
        result = execute([*command, recording.path, "idle"])
        assert result.status == 3
        assert b"did not come by in 3 s: it allocates nothing" in result.out
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_samples_are_found_by_what_points_to_them(
    leakline: Leakline, extension: Path, tmp_path: Path
) -> None:
    program = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
library.parse_header.restype = ctypes.c_void_p
kept = (ctypes.c_void_p * 20000)(*[library.parse_header(b"good") for _ in range(20000)])
for _ in range(20000):
    library.parse_header(b"x")
"""
    options = ["--sample", "16KiB"]
    _, recording = leakline.run(
        TARGET_PYTHON, "-c", program, extension, options=options
    )
    answer = lost(recording)
    [look] = answer["looks"]
    assert not look["knows_all_blocks"]
    rows = [r for r in answer["rows"] if r["made_in"]["function"] == "parse_header"]
    # Half of what lives, as far as samples tell.
    blocks = sum(row["blocks"] for row in rows)
    assert blocks == pytest.approx(20000, rel=0.35)

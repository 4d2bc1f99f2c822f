"""Python programs: line by line, frame by frame, and in every way they end.

These run over other interpreters too (tests/matrix)."""

from __future__ import annotations

import json
import math
import os
import re
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
    by_function,
    check_complete,
    execute,
    library_of_target,
    python_lines,
    sums,
    wait_for,
    without_pids,
)

Line = tuple[int, str]


def compare(
    recorded: dict[Line, Json], known: list[Json], counters: tuple[str, ...]
) -> None:
    wrong = []
    for row in known:
        said = recorded.get(row["key"], dict.fromkeys(counters, 0))
        pairs = {name: (said[name], row[name]) for name in counters}
        if any(said != true for said, true in pairs.values()):
            wrong.append(f"{row['key']}: (recorded, true) {pairs}")
    assert not wrong, "\n".join(wrong)


def test_lines_of_known_sizes(leakline: Leakline) -> None:
    program = PYTHON_PROGRAMS / "truth.py"
    result, recording = leakline.run(TARGET_PYTHON, program)
    assert result.status == 0
    check_complete(recording)
    known = result.truth()["lines"]
    for row in known:
        row["key"] = (row["line"], "obj")
    counters = ("total_blocks", "total_bytes", "live_blocks", "live_bytes")
    rows = recording.rows("--filter", "*/truth.py")
    compare(python_lines(rows, program), known, counters)


def test_every_line_equals_a_counting_allocator(
    leakline: Leakline, programs: Programs
) -> None:
    program, workload = (
        PYTHON_PROGRAMS / "counted.py",
        PYTHON_PROGRAMS / "workload.py",
    )
    result, recording = leakline.run(
        TARGET_PYTHON, program, programs.extension("counting"), workload
    )
    assert result.status == 0, result.err.decode()
    check_complete(recording)
    known = result.truth()["lines"]
    assert len(known) > 60
    for row in known:
        row["key"] = (row["line"], row["domain"])
    # Every block after its start was made through the counting allocator.
    rows = recording.rows("--filter", "*/counting.c")
    recorded = python_lines(rows, workload)
    counters = ("total_blocks", "total_bytes", "live_blocks", "live_bytes")
    compare(recorded, known, counters)
    extra = set(recorded) - {row["key"] for row in known}
    assert not extra, f"lines that allocated nothing: {sorted(extra)}"


def version_of(python: str) -> tuple[int, ...]:
    code = "import sys; print(*sys.version_info[:3])"
    return tuple(int(part) for part in execute([python, "-c", code]).out.split())


def test_objects_from_free_lists(leakline: Leakline) -> None:
    """With --objects an object made of a freed one is its own line's, as
    tracemalloc has it."""
    if version_of(TARGET_PYTHON) < (3, 13, 3):
        pytest.skip("before 3.13.3 CPython does not tell of them")
    program = PYTHON_PROGRAMS / "free_lists.py"
    traced = execute([TARGET_PYTHON, "-X", "tracemalloc", program])
    known = {line: (blocks, size) for line, blocks, size in json.loads(traced.out)}
    result, recording = leakline.run(TARGET_PYTHON, program, options=["--objects"])
    assert result.status == 0
    check_complete(recording)
    rows = recording.rows("--filter", "*/free_lists.py", at="main left")
    found: dict[int, tuple[int, int]] = {}
    for (line, _), row in python_lines(rows, program).items():
        blocks, size = found.get(line, (0, 0))
        found[line] = (blocks + row["live_blocks"], size + row["live_bytes"])
    source = program.read_text().splitlines()
    made = [at for at, text in enumerate(source, 1) if "made.append" in text]
    assert len(made) == 4
    for line in made:
        assert python_lines(rows, program)[line, "obj"]["live_blocks"] >= 60
        # tracemalloc does not know a block from before it started.
        blocks, size = known[line]
        assert 0 <= found[line][0] - blocks <= 3
        assert 0 <= found[line][1] - size <= 3 * 64


@pytest.fixture
def shared() -> tuple[Path, str]:
    """The target interpreter as a shared library, and its home."""
    found = library_of_target()
    if found is None:
        pytest.skip("the target interpreter is not a shared library")
    return found


def test_an_interpreter_that_is_loaded_and_unloaded(
    leakline: Leakline, programs: Programs, shared: tuple[Path, str]
) -> None:
    """It is listed by the loader before its code may run, and gone afterwards."""
    library, home = shared
    program: list[Part] = [programs.program("embedded"), library, "3"]
    env = {"PYTHONHOME": home}
    bare = execute(program, env=env)
    assert bare.status == 0, bare.err.decode()
    result, recording = leakline.run(*program, env=env)
    assert result.status == 0, result.err.decode()
    assert result.truth() == bare.truth()
    check_complete(recording)
    rows = [
        row
        for row in recording.rows()
        if row["domain"] == "obj"
        and any(
            frame["kind"] == "python" and frame["file"] == "<string>"
            for frame in row["stack"]
        )
    ]
    assert sums(rows)["total_bytes"] > 3 * 100 * 1000


def test_allocators_whose_context_is_a_number(
    leakline: Leakline, programs: Programs, shared: tuple[Path, str]
) -> None:
    library, home = shared
    program = programs.embedding("contexts", library)
    result, recording = leakline.run(program, env={"PYTHONHOME": home})
    assert result.status == 0, result.err.decode()
    assert result.truth() == {"made": 100}
    check_complete(recording)


def test_objects_made_after_a_hook_was_left(
    leakline: Leakline, programs: Programs, shared: tuple[Path, str]
) -> None:
    """Recorded as soon as it is seen that the hook was left; counted as lost
    until then."""
    library, home = shared
    program = programs.embedding("left_hooks", library)
    result, recording = leakline.run(program, env={"PYTHONHOME": home})
    assert result.status == 0, result.err.decode()
    truth = result.truth()
    assert truth["jumps"] == 40
    rows = by_function(recording.rows(), ["make_lists"])["make_lists"]
    recorded = sums(row for row in rows if row["domain"] == "obj")["total_blocks"]
    lost = recording.stats()["totals"]["lost_events"]
    assert recorded + lost >= truth["made"]


@pytest.mark.parametrize("after", ["", "tracemalloc.stop()"])
def test_another_tool_takes_the_tracer(leakline: Leakline, after: str) -> None:
    """Objects from free lists are no longer told of: this is."""
    if version_of(TARGET_PYTHON) < (3, 13, 3):
        pytest.skip("before 3.13.3 there is none to take")
    program = f"import tracemalloc; [[]]; tracemalloc.start(); [[]]; {after}"
    result, recording = leakline.run(
        TARGET_PYTHON, "-c", program, options=["--objects"]
    )
    assert result.status == 0
    notes = [note["text"] for note in recording.stats()["notes"]]
    assert any("took the reference tracer" in note for note in notes), notes


def test_an_interpreter_that_tells_of_no_objects(leakline: Leakline) -> None:
    if version_of(TARGET_PYTHON) >= (3, 13, 3):
        pytest.skip("it does")
    result, recording = leakline.run(TARGET_PYTHON, "-c", "[[]]", options=["--objects"])
    assert result.status == 0
    assert result.err == b""
    notes = [note["text"] for note in recording.stats()["notes"]]
    assert any("does not tell of objects" in note for note in notes)


def test_nine_hundred_frames_are_all_there(leakline: Leakline) -> None:
    program = PYTHON_PROGRAMS / "deep.py"
    result, recording = leakline.run(TARGET_PYTHON, program)
    truth = result.truth()
    big = [
        row
        for row in recording.rows("--filter", "at_the_bottom")
        if row["live_bytes"] >= 5000 and row["function"] == truth["function"]
    ]
    assert sums(big)["live_blocks"] == truth["live_blocks"]
    for row in big:
        names = [f["function"] for f in row["stack"] if f["kind"] == "python"]
        assert names == ["at_the_bottom"] + ["descend"] * 901 + ["<module>"]


def test_main_is_left_once(leakline: Leakline) -> None:
    """Deeper than stacks are kept, the outermost frame is not known: that once
    looked as if __main__ had been left."""
    code = """
import sys

def fall(depth):
    kept = [depth]
    return fall(depth - 1) if depth else len(kept)

sys.setrecursionlimit(10000)
for _ in range(3):
    fall(3000)
blocks = [bytes(1000) for _ in range(1000)]
"""
    result, recording = leakline.run(TARGET_PYTHON, "-c", code)
    assert result.status == 0
    marks = [mark["name"] for mark in recording.stats()["marks"]]
    assert marks.count("main left") == 1
    rows = recording.rows("--sort", "live", at="main left")
    assert max(row["live_blocks"] for row in rows) >= 1000


def made(recording: Recording) -> dict[int, int]:
    """Live bytes of what the functions of `codes.py` made, by their numbers."""
    sizes = {}
    for row in recording.rows("--filter", "made_*"):
        name = row["function"]
        if name.startswith("made_") and row["live_bytes"]:
            sizes[int(name[len("made_") :])] = row["live_bytes"]
    return sizes


def test_a_code_object_where_another_stood(leakline: Leakline) -> None:
    result, recording = leakline.run(TARGET_PYTHON, PYTHON_PROGRAMS / "codes.py")
    truth = result.truth()
    first = truth["first_bytes"]
    expected = {number + 1: first + number for number in range(truth["count"])}
    assert made(recording) == expected


def test_a_code_object_where_another_stood_of_a_sample(leakline: Leakline) -> None:
    """Nearly all of its blocks are chosen; not all by which its death was told."""
    mean = 256
    result, recording = leakline.run(
        TARGET_PYTHON, PYTHON_PROGRAMS / "codes.py", options=["--sample", str(mean)]
    )
    truth = result.truth()
    sizes = made(recording)
    assert 0.95 * truth["count"] < len(sizes) <= truth["count"]
    for number, found in sizes.items():
        size = truth["first_bytes"] + number - 1
        # One block of its own, and no other's.
        assert abs(found - size / (1 - math.exp(-size / mean))) <= 1, (number, found)


def test_tasks_generators_and_threads(leakline: Leakline) -> None:
    result, recording = leakline.run(TARGET_PYTHON, PYTHON_PROGRAMS / "tasks.py")
    check_complete(recording)
    rows = recording.rows("--filter", "keep_in_*")
    keepers = result.truth()
    for name, known in keepers.items():
        group = [
            row for row in rows if row["function"] == name and row["domain"] == "obj"
        ]
        assert sums(group)["live_blocks"] == known["blocks"]
        for row in group:
            names = [f["function"] for f in row["stack"] if f["kind"] == "python"]
            callers = names[1 : 1 + len(known["callers"])]
            assert [c.rsplit(".", 1)[-1] for c in callers] == known["callers"]
            assert not set(names[1:]) & set(keepers)


@pytest.mark.parametrize(
    "way", ["os.fork", "fork", "spawn", "forkserver", "subprocess"]
)
def test_children(leakline: Leakline, way: str) -> None:
    program = PYTHON_PROGRAMS / "children.py"
    result, recording = leakline.run(TARGET_PYTHON, program, way)
    assert result.status == 0, result.err.decode()
    *children, end = result.json_lines()
    assert end["statuses"] == [0, 1, 2, 3]
    # What multiprocessing starts for itself may end after the program.
    wait_for("the last process to end", lambda: recording.stats()["ended"])
    stats = check_complete(recording)
    recorded = {process["pid"]: process for process in stats["processes"]}
    for child in children:
        assert child["pid"] in recorded
        if way == "os.fork" or way == "subprocess":
            assert recorded[child["pid"]]["exit_status"] in (child["number"], None)
    line = 1 + next(
        number
        for number, text in enumerate(program.read_text().splitlines())
        if "# LINE in_child" in text
    )
    rows = recording.rows("--filter", "in_child")
    obj = python_lines(rows, program)[(line, "obj")]
    assert obj["total_blocks"] == sum(child["blocks"] for child in children)
    assert obj["live_blocks"] == obj["total_blocks"]


@pytest.mark.parametrize(
    "way",
    ["return", "exit", "raise", "os._exit", "abort", "kill", "term", "interrupt"],
)
def test_ends_as_without(leakline: Leakline, way: str) -> None:
    command: list[Part] = [TARGET_PYTHON, PYTHON_PROGRAMS / "ending.py", way]
    bare = execute(command)
    result, recording = leakline.run(*command)
    assert (result.status, result.out) == (bare.status, bare.out)
    assert result.err == bare.err
    totals = recording.stats()["totals"]
    assert totals["allocations"] > 1000
    process = recording.stats()["processes"][0]
    if bare.status < 0:
        assert process["signal"] == -bare.status
    else:
        assert process["exit_status"] == bare.status


def test_reads_what_it_is_given(leakline: Leakline) -> None:
    command: list[Part] = [TARGET_PYTHON, PYTHON_PROGRAMS / "ending.py", "stdin"]
    result, _ = leakline.run(*command, stdin=b"x" * 100000)
    assert result.out == b"kept 1000\nread 100000\nat exit\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["-c", "import json, decimal; print(json.dumps([1, {'a': None}]))"],
        ["-m", "json.tool", "--help"],
        ["-X", "dev", "-c", "print(len(bytes(1000)))"],
        ["-I", "-S", "-c", "import sys; print(sys.flags)"],
        ["-X", "tracemalloc=5", "-c", "print(len([bytes(i) for i in range(999)]))"],
    ],
)
def test_same_output(leakline: Leakline, arguments: list[str]) -> None:
    bare = execute([TARGET_PYTHON, *arguments])
    result, recording = leakline.run(TARGET_PYTHON, *arguments)
    assert (result.status, result.out, result.err) == (
        bare.status,
        bare.out,
        bare.err,
    )
    check_complete(recording)


@pytest.mark.parametrize("allocator", ["malloc", "debug", "pymalloc"])
def test_other_python_allocators(leakline: Leakline, allocator: str) -> None:
    result, recording = leakline.run(
        TARGET_PYTHON,
        PYTHON_PROGRAMS / "truth.py",
        env={"PYTHONMALLOC": allocator},
    )
    assert result.status == 0
    check_complete(recording)
    known = result.truth()["lines"]
    for row in known:
        row["key"] = (row["line"], "obj")
    counters = ("total_blocks", "live_blocks")
    rows = recording.rows("--filter", "*/truth.py")
    compare(python_lines(rows, PYTHON_PROGRAMS / "truth.py"), known, counters)


def test_the_program_sees_itself_as_without(leakline: Leakline) -> None:
    """Arguments, environment (but for leakline's own), directory, umask,
    descriptors, signal handling and limits are what they were."""
    source = (
        "import os, resource, signal, sys;"
        "print(sys.argv, os.getcwd(), os.umask(0));"
        "print({k: v for k, v in os.environ.items()"
        "       if not k.startswith('LEAKLINE') and k not in ('LD_PRELOAD', '_')});"
        "print(sorted(os.listdir('/proc/self/fd')));"
        "print([signal.getsignal(s) for s in range(1, 32)]);"
        "print(signal.pthread_sigmask(signal.SIG_BLOCK, []));"
        "print([resource.getrlimit(i) for i in range(10)]);"
    )
    command: list[Part] = [TARGET_PYTHON, "-c", source, "an argument", ""]
    bare = execute(command)
    result, _ = leakline.run(*command)
    assert without_pids(result.out) == without_pids(bare.out)


GOES_ON = """
import threading
def work():
    threading.main_thread().join()
    kept.append([bytes(1000) for _ in range(20000)])
    print("done", flush=True)
kept = []
threading.Thread(target=work).start()
"""


def test_without_an_instant_it_is_that_of_leaving_main(leakline: Leakline) -> None:
    program = "kept = [bytes(1000) for _ in range(777)]"
    _, recording = leakline.run(TARGET_PYTHON, "-c", program)

    def live(at: str | None) -> int:
        rows = recording.rows("--filter", "<string>:1", at=at)
        return sum(row["live_blocks"] for row in rows if row["live_bytes"] > 700_000)

    assert live(None) == live("main left") == 777
    assert live("end") == 0
    report = recording.report("top", "--limit", "1")
    mark = next(m for m in recording.stats()["marks"] if m["name"] == "main left")
    assert report["resolved_to"] == mark["seconds"]
    assert (report["as_left_main"], report["resolution_seconds"]) == (True, 0)


def test_json_without_a_limit_stays_small(leakline: Leakline) -> None:
    program = "import asyncio, decimal, email.mime.text, json"
    _, recording = leakline.run(TARGET_PYTHON, "-c", program)
    report = recording.report("top")
    frames = sum(len(row["stack"]) for row in report["rows"])
    assert 50_000 < frames <= 100_000
    assert len(report["rows"]) + report["rest"]["rows"] == report["total_rows"]
    live = sum(row["live_bytes"] for row in report["rows"])
    assert live + report["rest"]["live_bytes"] == report["sum"]["live_bytes"]


def test_threads_that_go_on_after_main_are_seen_at_the_end(leakline: Leakline) -> None:
    result, recording = leakline.run(TARGET_PYTHON, "-c", GOES_ON)
    assert result.out == b"done\n"
    report = recording.report("top", "--limit", "1")
    assert report["as_left_main"] is False
    assert (
        report["resolved_to"]
        > recording.report("top", "--at", "main left")["resolved_to"]
    )


def test_builtins_of_a_stripped_module_have_their_names(
    leakline: Leakline, programs: Programs
) -> None:
    directory = programs.extension("fastparse", "-s")
    program = (
        f"import sys; sys.path.insert(0, {os.fspath(directory)!r}); import fastparse\n"
        "fastparse.parse(31); fastparse.scan(17)\n"
        "fastparse.Parser()(5)\n"
    )
    _, recording = leakline.run(TARGET_PYTHON, "-c", program)
    rows = [
        [frame["function"] for frame in row["stack"]]
        for row in recording.rows("--filter", "fastparse")
        if row["live_blocks"] in (31, 17, 5)
        and row["live_bytes"] % 112 == 0
        and row["domain"] == "native"
    ]
    own = [
        [name for name in stack if "fastparse" in name or "<module>" in name]
        for stack in rows
    ]
    named = {tuple(stack[stack.index("<module>") - 1 :][:2]) for stack in own}
    assert named == {
        ("fastparse.parse (builtin)", "<module>"),
        ("fastparse.scan (builtin)", "<module>"),
        ("fastparse.Parser.__call__ (builtin)", "<module>"),
    }
    helper = next(stack[0] for stack in own if "fastparse.parse (builtin)" in stack)
    assert re.fullmatch(
        r"fastparse\..*so\+0x[0-9a-f]+( \(near .*\+0x[0-9a-f]+\))?", helper
    )


def test_codes_met_by_two_threads_at_once(
    leakline: Leakline, programs: Programs
) -> None:
    """Both entered it into the table, its death was noted once, and the next
    code at its address got its name."""
    count = 400
    program = PYTHON_PROGRAMS / "short_lived.py"
    directory = programs.extension("together")
    result, recording = leakline.run(TARGET_PYTHON, program, directory, str(count))
    assert result.status == 0, result.err.decode()
    check_complete(recording)
    names = [f"code_{i:04}" for i in range(count)]
    rows = by_function(recording.rows("--filter", "*/together.c"), names)
    blocks = {name: sums(rows[name])["live_blocks"] for name in names}
    assert {name: n for name, n in blocks.items() if n != 2} == {}

"""The Python package beside, and in place of, the standard library's tracemalloc."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from harness import PYTHON_PROGRAMS, ROOT, TARGET_PYTHON, Json, Result, execute

SHIM = ROOT / "python-shim" / "python"
RECURSE, PAYLOAD = 58, 47  # lines of moved.py


def run_python(*command: str | Path, cwd: Path) -> Result:
    return execute([TARGET_PYTHON, *command], env={"PYTHONPATH": str(SHIM)}, cwd=cwd)


def told(tmp_path: Path, code: str) -> Json:
    """What a program that uses the package prints as JSON."""
    program = tmp_path / "program.py"
    program.write_text(
        "import json, sys, tracemalloc\nimport leakline\n" + code.lstrip("\n")
    )
    result = run_python(program, cwd=tmp_path)
    assert result.status == 0, result.err.decode()
    return result.truth()


def moved(tmp_path: Path, module: str, frames: int) -> Json:
    program = PYTHON_PROGRAMS / "moved.py"
    result = run_python(program, module, str(frames), "x.dump", cwd=tmp_path)
    assert result.status == 0, result.err.decode()
    return result.truth()


@pytest.mark.parametrize("frames", [1, 25])
def test_code_written_for_tracemalloc_finds_the_same(
    tmp_path: Path, frames: int
) -> None:
    known = moved(tmp_path, "tracemalloc", frames)
    found = moved(tmp_path, "leakline.tracemalloc", frames)
    assert (known["backend"], found["backend"]) == (None, "leakline")
    for key in ("shown", "biggest", "formatted"):
        assert found[key] == known[key]
    lines: dict[str, dict[int, list[int]]] = {
        name: {line: change for line, *change in report["differences"]}
        for name, report in (("known", known), ("found", found))
    }
    assert lines["found"][RECURSE] == lines["known"][RECURSE]
    for line in {*lines["found"], *lines["known"]}:
        have = lines["found"].get(line, [0] * 4)
        want = lines["known"].get(line, [0] * 4)
        # Objects that CPython made of freed ones bear the line of the first.
        assert abs(have[0] - want[0]) <= 600, (line, have, want)
        assert abs(have[1] - want[1]) <= 10, (line, have, want)
    assert abs(found["top"][1] - known["top"][1]) < known["top"][1] / 100
    assert found["top"][0][:2] == known["top"][0][:2]
    # What was dumped is what was there.
    assert found["loaded"] == found["blocks"]
    assert found["same"] == []


def test_the_rest_of_the_interface(tmp_path: Path) -> None:
    answer = told(
        tmp_path,
        """
import os
import leakline.tracemalloc as traced

assert traced.backend() is None and not traced.is_tracing()
for wrong in (traced.take_snapshot, lambda: traced.start(0)):
    try:
        wrong()
    except (RuntimeError, ValueError):
        continue
    raise SystemExit("it should not have worked")
traced.start(3)
traced.start(9)  # does nothing, as in the standard library
limit = traced.get_traceback_limit()
kept = [bytearray(1 << 20) for _ in range(8)]
del kept[2:]
live, peak = traced.get_traced_memory()
traced.reset_peak()
lower = traced.get_traced_memory()[1]
early = traced.take_snapshot()
traced.clear_traces()
kept.append(bytearray(3 << 20))
late = traced.take_snapshot()
path = traced._tracer.path
assert os.path.exists(path)
child = os.fork()
if child == 0:
    os._exit(0 if not traced.is_tracing() else 1)
assert os.waitpid(child, 0)[1] == 0
traced.stop()
sizes = [sum(t.size for t in s.traces) >> 20 for s in (early, late)]
del early, late
print(json.dumps({"limit": limit, "mib": [live >> 20, peak >> 20, lower >> 20],
                  "sizes": sizes, "left": os.path.exists(path),
                  "backend": traced.backend()}))
""",
    )
    assert answer == {
        "limit": 3,
        "mib": [2, 8, 2],
        # Traces from before are forgotten.
        "sizes": [2, 3],
        "left": False,
        "backend": None,
    }


def test_where_tracemalloc_traces_already_it_is_used(tmp_path: Path) -> None:
    answer = told(
        tmp_path,
        """
import leakline.tracemalloc as traced
tracemalloc.start(2)
traced.start(25)
made = bytes(1000)
print(json.dumps({"backend": traced.backend(), "limit": traced.get_traceback_limit(),
                  "line": traced.get_object_traceback(made)[0].lineno,
                  "kind": type(traced.take_snapshot()).__module__}))
""",
    )
    assert answer == {
        "backend": "tracemalloc",
        "limit": 2,
        "line": 6,
        "kind": "tracemalloc",
    }


def test_load_runs_nothing(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[Any, ...]:
            return (exec, (f"open({str(tmp_path / 'trap')!r}, 'w')",))

    (tmp_path / "evil").write_bytes(pickle.dumps(Malicious()))
    (tmp_path / "other").write_bytes(pickle.dumps({"traces": []}))
    answer = told(
        tmp_path,
        """
import pickle
import leakline.tracemalloc as traced
said = []
for name in ("evil", "other"):
    try:
        traced.Snapshot.load(name)
    except pickle.UnpicklingError as error:
        said.append(str(error))
print(json.dumps(said[:2]) and json.dumps({"said": said}))
""",
    )
    refused, other = answer["said"]
    assert "refused: the dump names builtins.exec" in refused
    assert "no dump" in other
    assert not (tmp_path / "trap").exists()


LIVE = """
import ctypes
def keep(count):
    return [str(number) * 3 for number in range(count)]
def track(domain, address, size):
    track = ctypes.pythonapi.PyTraceMalloc_Track
    track.argtypes = (ctypes.c_uint, ctypes.c_size_t, ctypes.c_size_t)
    track(domain, address, size)
def lines(rows):
    return sorted([r.file, r.line, r.live_bytes, r.live_blocks] for r in rows)
def known(snapshot):
    stats = snapshot.statistics("lineno")
    return sorted([s.traceback[0].filename, s.traceback[0].lineno, s.size, s.count] for s in stats)
tracemalloc.start(FRAMES)
before = leakline.snapshot()
kept = keep(1000)
track(389047, 1 << 30, 5000)
track(7, 1 << 30, 70)
after = leakline.snapshot()
tracemalloc.stop()
assert lines(after.top(by="line")) == known(after.traces)
stacks = {}
for row in after.top():
    key = tuple((f.file, f.line) for f in row.stack)
    stacks[key] = stacks.get(key, 0) + row.live_bytes
for stat in after.traces.statistics("traceback"):
    assert stacks.pop(tuple((f.filename, f.lineno) for f in reversed(stat.traceback))) == stat.size
assert not stacks
change = {(r.file, r.line): (r.delta_bytes, r.delta_blocks) for r in after.diff(before, by="line")}
for stat in after.traces.compare_to(before.traces, "lineno"):
    key = (stat.traceback[0].filename, stat.traceback[0].lineno)
    assert change.pop(key, (0, 0)) == (stat.size_diff, stat.count_diff)
assert not change
growing = after.diff(before).growing()
recording = after.save("saved.leakline")
two = after.save("two.leakline", earlier=[before])
assert sum(r.delta_bytes for r in two.diff("snapshot 1", "snapshot 2")) == sum(
    stat.size_diff for stat in after.traces.compare_to(before.traces, "traceback"))
print(json.dumps({
    "domains": {r.domain: r.live_bytes for r in after.top() if r.domain != "python"},
    "first": [growing[0].line, growing[0].delta_blocks, str(growing[0])],
    "saved": sum(r.live_bytes for r in recording.top()) - sum(r.live_bytes for r in after.top()),
    "sources": after.sources,
}))
"""


@pytest.mark.parametrize("frames", [1, 25])
def test_a_live_tracemalloc_is_taken_whole(tmp_path: Path, frames: int) -> None:
    answer = told(tmp_path, LIVE.replace("FRAMES", str(frames)))
    assert answer["domains"] == {"numpy": 5000, "foreign": 70}
    line, blocks, words = answer["first"]
    assert (line, 990 <= blocks <= 1010) == (5, True)
    assert words.startswith("+")
    assert words.endswith("program.py:5")
    assert (answer["saved"], answer["sources"]) == (0, ["tracemalloc"])


def test_snapshots_of_a_session_are_read_while_it_runs(tmp_path: Path) -> None:
    answer = told(
        tmp_path,
        """
def keep(count):
    return [bytearray(1000) for number in range(count)]
try:
    leakline.snapshot()
except leakline.LeaklineError as error:
    said = str(error)
kept = []
with leakline.record("out.leakline", native=False):
    one = leakline.snapshot()
    kept += keep(500)
    two = leakline.snapshot("filled")
    kept += keep(200)
    tracemalloc.start()
    three = leakline.snapshot()
    kept += keep(300)
    four = leakline.snapshot()
    live = two.diff(one).growing()[0]
    both = four.diff(three, source="tracemalloc").growing()[0]
    own = [r for r in four.diff(three) if r.line == 4]
    tracemalloc.stop()
ended = three.diff(two).growing()
try:
    three.diff(two, source="tracemalloc")
except leakline.LeaklineError as error:
    wrong = str(error)
print(json.dumps({
    "said": said, "wrong": wrong, "names": [one.name, two.name, three.name],
    "sources": [one.sources, three.sources],
    "live": [live.line, live.delta_blocks, live.domain],
    "both": [both.line, both.delta_bytes], "own": sum(r.delta_bytes for r in own),
    "ended": sum(r.delta_bytes for r in ended if r.line == 4),
    "shown": repr(two.diff(one)),
}))
""",
    )
    assert "nothing is recorded" in answer["said"]
    assert "tracemalloc knows nothing" in answer["wrong"]
    assert answer["names"] == ["snapshot 1", "filled", "snapshot 2"]
    assert answer["sources"] == [["leakline"], ["leakline", "tracemalloc"]]
    line, blocks, domain = answer["live"]
    # An object and its bytes each.
    assert (line, 490 <= blocks <= 1010) == (4, True)
    assert domain in ("obj", "raw", "mem")
    assert answer["both"][0] == 4
    for kept, size in (
        (300, answer["both"][1]),
        (300, answer["own"]),
        (200, answer["ended"]),
    ):
        assert kept * 1000 <= size <= kept * 1150
    assert answer["shown"].startswith("<Diff of ")

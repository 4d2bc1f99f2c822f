"""`leakline import tracemalloc`: what a dump says and no more, and nothing of it run."""

from __future__ import annotations

import os
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from harness import (
    PYTHON_PROGRAMS,
    TARGET_PYTHON,
    Json,
    Part,
    Recording,
    Result,
    execute,
    find_leakline,
)
from terminal import Terminal, needs_tmux

Held = dict[tuple[object, ...], tuple[int, int]]


@pytest.fixture(scope="module", params=[1, 25], ids=["1 frame", "25 frames"])
def traced(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Json]:
    """A directory with dumps, and what the program knew."""
    directory = tmp_path_factory.mktemp("dumps")
    program = PYTHON_PROGRAMS / "traced.py"
    frames = str(request.param)
    return directory, execute([TARGET_PYTHON, program, frames, directory]).truth()


def imported(directory: Path, *arguments: Part) -> Result:
    command = [find_leakline(), "import", "tracemalloc", *arguments]
    return execute(command, cwd=directory)


def recording_of(directory: Path, *dumps: str) -> Recording:
    result = imported(directory, *dumps, "-f", "-o", "out.leakline")
    assert result.status == 0, result.err.decode()
    return Recording(find_leakline(), directory / "out.leakline")


def summed(rows: list[tuple[tuple[object, ...], int, int]]) -> Held:
    held: Held = {}
    for key, size, count in rows:
        before = held.get(key, (0, 0))
        held[key] = (before[0] + size, before[1] + count)
    return {key: value for key, value in held.items() if value != (0, 0)}


def lines(recording: Recording, at: str) -> Held:
    rows = recording.rows("--by", "line", at=at)
    return summed(
        [
            ((row["file"], row["line"]), row["live_bytes"], row["live_blocks"])
            for row in rows
        ]
    )


def tracebacks(recording: Recording, at: str) -> Held:
    def stack(row: Json) -> tuple[object, ...]:
        frames = [frame for frame in row["stack"] if frame["kind"] == "python"]
        return tuple((frame["file"], frame["line"]) for frame in frames)

    rows = recording.rows("--by", "site", at=at)
    return summed([(stack(row), row["live_bytes"], row["live_blocks"]) for row in rows])


def test_lines_and_stacks_are_those_of_statistics(traced: tuple[Path, Json]) -> None:
    directory, truth = traced
    recording = recording_of(directory, "before.dump", "after.dump")
    for at in ("before", "after"):
        known = summed(
            [((f, n), size, count) for f, n, size, count in truth[at]["lines"]]
        )
        assert lines(recording, at) == known
        known = summed(
            [
                (tuple((f, n) for f, n in stack), size, count)
                for stack, size, count in truth[at]["tracebacks"]
            ]
        )
        assert tracebacks(recording, at) == known


def test_domains_are_told_apart(traced: tuple[Path, Json]) -> None:
    directory, truth = traced
    recording = recording_of(directory, "before.dump", "after.dump")
    for at in ("before", "after"):
        rows = recording.rows("--by", "domain", at=at)
        held = {row["domain"]: [row["live_bytes"], row["live_blocks"]] for row in rows}
        for domain in ("python", "numpy", "foreign"):
            assert held.get(domain, [0, 0]) == truth[at][domain]
    notes = [note["text"] for note in recording.stats()["notes"]]
    assert any("7 (77 B)" in note for note in notes), notes


def test_diff_is_compare_to(traced: tuple[Path, Json]) -> None:
    directory, truth = traced
    recording = recording_of(directory, "before.dump", "after.dump")
    change: Counter[tuple[str, int]] = Counter()
    for at, sign in (("before", -1), ("after", 1)):
        for file, line, size, _ in truth[at]["lines"]:
            change[file, line] += sign * size
    rows = recording.report(
        "diff", "--from", "before", "--to", "after", "--by", "line", "--limit", "0"
    )["rows"]
    found = {(row["file"], row["line"]): row["delta_bytes"] for row in rows}
    known = {key: value for key, value in change.items() if value}
    assert {key: value for key, value in found.items() if value} == known


def test_every_protocol_is_read(traced: tuple[Path, Json]) -> None:
    directory, truth = traced
    known = summed(
        [((f, n), size, count) for f, n, size, count in truth["before"]["lines"]]
    )
    names = [f"protocol{n}" for n in range(pickle.HIGHEST_PROTOCOL + 1)] + ["python"]
    for name in names:
        recording = recording_of(directory, f"{name}.pickle")
        assert lines(recording, name) == known, name


def test_what_cannot_be_known_is_said(traced: tuple[Path, Json]) -> None:
    directory, _ = traced
    recording = recording_of(directory, "before.dump", "after.dump")
    stats = recording.stats()
    assert stats["mode"] == "imported"
    notes = " ".join(note["text"] for note in stats["notes"])
    for words in ("is not known", "tracemalloc cut"):
        assert words in notes, notes
    leaks = execute([recording.leakline, "leaks", recording.path])
    assert leaks.status == 0
    assert leaks.out.startswith(b"UNCLEAR: 2 snapshots cannot tell"), leaks.out
    assert not recording.report("leaks")["suspects"]
    for command in ("summary", "tree", "stats", "why", "check"):
        result = execute([recording.leakline, command, recording.path])
        assert b"panicked" not in result.err
        assert result.status == (3 if command == "why" else 0), command


def test_what_grows_in_many_snapshots_is_named(tmp_path: Path) -> None:
    program = tmp_path / "grows.py"
    program.write_text(
        "import tracemalloc, os\n"
        "tracemalloc.start(5)\n"
        "kept, cache = [], {}\n"
        "def leak():\n"
        "    kept.extend(str(n) * 40 for n in range(400))\n"
        "for n in range(16):\n"
        "    leak()\n"
        "    cache[n % 2] = bytearray(90_000)\n"
        "    name = 'n%02d.dump' % n\n"
        "    tracemalloc.take_snapshot().dump(name)\n"
        "    os.utime(name, (1_700_000_000 + 60 * n,) * 2)\n"
    )
    assert execute([TARGET_PYTHON, program], cwd=tmp_path).status == 0
    names = sorted(path.name for path in tmp_path.glob("*.dump"))
    recording = recording_of(tmp_path, *names)
    (cause,) = recording.report("leaks")["suspects"]
    # What died in between nobody knows, so it is no more than that.
    assert (cause["verdict"], cause["line"]) == ("growing", 5)
    assert recording.stats()["duration_seconds"] == pytest.approx(900, abs=1)


@needs_tmux
def test_the_terminal_ui_shows_an_import(
    terminal: Terminal, traced: tuple[Path, Json]
) -> None:
    directory, _ = traced
    recording = recording_of(directory, "before.dump", "after.dump")
    terminal.command(recording.leakline, recording.path)
    screen = terminal.shows("imported", "UNCLEAR from 2 snapshots", "not known, nor")
    assert "pid" not in screen
    terminal.press("2")
    terminal.shows("sites")
    terminal.press("g", "d")
    terminal.shows("numpy", "NumPy's arrays", "Python's allocators")
    terminal.press("q")
    terminal.shows("status 0")


class Malicious:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.path}",))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_is_refused_and_runs_nothing(
    tmp_path: Path, protocol: int
) -> None:
    trap = tmp_path / "trap"
    dump = tmp_path / "evil.dump"
    dump.write_bytes(pickle.dumps(Malicious(str(trap)), protocol))
    result = imported(tmp_path, dump, "-o", "out.leakline")
    assert result.status == 3
    assert b"refused: the dump names `posix.system`" in result.err
    assert not trap.exists()
    assert not (tmp_path / "out.leakline").exists()
    # It would have run, had it been read as pickles are.
    pickle.loads(dump.read_bytes())
    assert trap.exists()


def test_no_dump_no_recording(tmp_path: Path) -> None:
    for name, content, words in (
        ("empty", b"", b"cut short"),
        ("text", b"Hello", b"no dump of tracemalloc's"),
        ("other", pickle.dumps({"a": 1}), b"no tracemalloc snapshot"),
        ("cut", pickle.dumps([1])[:-1], b"cut short"),
    ):
        (tmp_path / name).write_bytes(content)
        result = imported(tmp_path, name, "-o", "out.leakline")
        assert (result.status, words in result.err) == (3, True), result.err
        assert not (tmp_path / "out.leakline").exists()
    assert imported(tmp_path, "absent").status == 3
    assert imported(tmp_path, ".", "-o", "out.leakline").status == 3
    assert imported(tmp_path).status == 2
    command: list[Part] = [find_leakline(), "import", "memray", "x"]
    assert execute(command, cwd=tmp_path).status == 2


def test_a_file_is_replaced_only_when_asked(traced: tuple[Path, Json]) -> None:
    directory, _ = traced
    out = directory / "kept.leakline"
    out.write_bytes(b"mine")
    result = imported(directory, "before.dump", "-o", out)
    assert result.status == 3
    assert b"-f replaces it" in result.err
    assert out.read_bytes() == b"mine"
    result = imported(directory, "before.dump", "-f", "-o", out, "--json")
    told = result.json_lines()[0]
    assert told["schema"] == "leakline.import"
    assert [one["name"] for one in told["snapshots"]] == ["before"]
    assert told["snapshots"][0]["live_blocks"] > 1000
    # Not by one that cannot be read.
    (directory / "bad.dump").write_bytes(b"cos\nsystem\n.")
    assert imported(directory, "bad.dump", "-f", "-o", out).status == 3
    assert out.stat().st_size > 100

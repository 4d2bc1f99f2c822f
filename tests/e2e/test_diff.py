"""What changed between two instants, and what survived, equals what the program
knows; two recordings of a program that was edited still match."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from harness import (
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


def kept(rows: list[Json]) -> tuple[int, int]:
    """What `keep` of tests/programs/cohorts.c holds: blocks and bytes."""
    mine = [row for row in rows if row["function"] == "keep"]
    return (
        sum(row["delta_blocks"] for row in mine),
        sum(row["delta_bytes"] for row in mine),
    )


def since_start(recording: Recording, truth: Json) -> list[str]:
    """The rests of the program, as instants of the recording."""
    started = recording.stats()["started_unix_seconds"]
    return ["start", *(f"+{rest - started:.3f}s" for rest in truth["rests"])]


@pytest.mark.parametrize("arguments", [[], ["fork"]])
def test_survivors_are_exact(
    leakline: Leakline, programs: Programs, arguments: list[str]
) -> None:
    result, recording = leakline.run(programs.program("cohorts"), *arguments)
    assert result.status == 0
    truth = result.truth()
    instants = since_start(recording, truth)
    for at, alive in enumerate(truth["alive"]):
        for of, (blocks, size) in enumerate(alive):
            report = recording.report(
                *("diff", "--from", instants[of], "--to", instants[of + 1]),
                *("--alive-at", instants[at + 1], "--limit", "0"),
            )
            assert kept(report["rows"]) == (blocks, size), (at, of)
            born = [row for row in report["rows"] if row["function"] == "keep"]
            born_blocks = sum(row["total_blocks"] for row in born)
            assert born_blocks == truth["born"][of][0]
            # In the rests nothing is born: which instant it is does not matter,
            # but it is one of them.
            for key, wanted in [
                ("resolved_from", instants[of]),
                ("resolved_to", instants[of + 1]),
            ]:
                if wanted != "start":
                    asked = float(wanted.strip("+s"))
                    assert abs(report[key] - asked) < 0.2


def test_growth_between_two_instants(leakline: Leakline, programs: Programs) -> None:
    result, recording = leakline.run(programs.program("cohorts"))
    truth = result.truth()
    instants = since_start(recording, truth)

    def live(at: int) -> tuple[int, int]:
        if at == 0:
            return (0, 0)
        alive = truth["alive"][at - 1]
        return (sum(one[0] for one in alive), sum(one[1] for one in alive))

    for first in range(len(instants)):
        for last in range(first + 1, len(instants)):
            report = recording.report(
                "diff", "--from", instants[first], "--to", instants[last]
            )
            before, after = live(first), live(last)
            assert kept(report["rows"]) == (after[0] - before[0], after[1] - before[1])
            row = next(row for row in report["rows"] if row["function"] == "keep")
            assert (row["from_blocks"], row["from_bytes"]) == before
            assert row["change"] == ("new" if first == 0 else "grew")
    # Up to a mark.
    report = recording.report("diff", "--from", instants[3], "--to", "exiting")
    before, after = live(3), live(len(instants) - 1)
    assert kept(report["rows"]) == (after[0] - before[0], after[1] - before[1])
    assert report["resolution_seconds"] < 0.3


def test_survivors_of_a_killed_recording(
    leakline: Leakline, programs: Programs
) -> None:
    """The collector is killed in the last phase: the others are told."""
    with leakline.started(programs.program("cohorts")) as (process, recording):
        collector = wait_for("the collector", lambda: collector_of(process.pid))
        stats: list[Part] = [leakline.binary, "stats", "--json", recording.path]

        def recorded() -> float:
            said = execute(stats).json_lines()[0]
            return float(said.get("duration_seconds", 0))

        # The third phase: the first second has come to the file.
        wait_for("a second of it", lambda: recorded() > 0.62)
        os.kill(collector, signal.SIGKILL)
        out, _ = process.communicate(timeout=30)
    truth = json.loads(out.decode().splitlines()[-1])
    instants = since_start(recording, truth)
    for of in range(2):
        report = recording.report(
            *("diff", "--from", instants[of], "--to", instants[of + 1]),
            *("--alive-at", instants[2], "--limit", "0"),
        )
        # Its names may not have come to the file.
        row = max(report["rows"], key=lambda row: int(row["delta_blocks"]))
        said = [row["delta_blocks"], row["delta_bytes"]]
        assert said == truth["alive"][1][of]


def sample(path: Path, *, edited: bool) -> None:
    """A program, and the same after a change: it begins with more lines, one
    function has another name, one of two lines that keep is new, and one
    function keeps twice as much."""
    store = "stash" if edited else "store"
    lines = [
        "import sys",
        *(["# A comment that was not there.", "LIMIT = 3", ""] if edited else []),
        "KEPT = []",
        "",
        f"def {store}(size):",
        "    KEPT.append(bytearray(size))",
        "",
        "def collect(turn):",
        *(["    KEPT.append(bytearray(7000))"] if edited else []),
        "    KEPT.append(bytearray(3000))",
        f"    {store}(5000)",
        "",
        "def grow(turn):",
        f"    KEPT.append(bytearray({40000 if edited else 20000}))",
        "",
        *([] if edited else ["def leave():", "    KEPT.append(bytearray(9000))", ""]),
        "def main():",
        "    for turn in range(10):",
        "        collect(turn)",
        "        grow(turn)",
        *([] if edited else ["        leave()"]),
        "",
        "main()",
        "",
    ]
    path.write_text("\n".join(lines))


@pytest.mark.parametrize("moved", [False, True])
def test_an_edited_program_still_matches(
    leakline: Leakline, tmp_path: Path, moved: bool
) -> None:
    recordings = []
    for edited in (False, True):
        directory = tmp_path / ("after" if edited and moved else "before")
        directory.mkdir(exist_ok=True)
        source = directory / "sample.py"
        sample(source, edited=edited)
        result, recording = leakline.run(TARGET_PYTHON, source)
        assert result.status == 0, result.err
        recordings.append(recording)
    before, after = recordings
    compared: list[Part] = [leakline.binary, "diff", before.path, after.path, "--json"]
    of_sample = ["--limit", "0", "--filter", "*sample.py"]
    report = json.loads(execute([*compared, *of_sample]).out)
    renamed = [(one["from"], one["to"]) for one in report["renamed"]]
    assert ("store", "stash") in renamed
    files = [one["to"] for one in report["moved"]]
    assert any(file.endswith("after/sample.py") for file in files) == moved

    def of(size: int) -> list[Json]:
        # Each block has its bytes and a little of Python's.
        return [
            row
            for row in report["rows"]
            if abs(abs(row["delta_bytes"]) - 10 * size) < 1000
        ]

    (grown,) = of(20000)
    assert grown["change"] == "grew"
    assert grown["function"] == "grow"
    assert grown["matched_by"] == ("file" if moved else "lines")
    assert grown["was"]["line"] != grown["line"]
    (new,) = of(7000)
    assert new["change"] == "new"
    assert new["matched_by"] is None
    assert new["function"] == "collect"
    (gone,) = of(9000)
    assert gone["change"] == "gone"
    assert gone["function"] == "leave"
    # What only moved, and what was only renamed, has not changed.
    assert not of(3000)
    assert not of(5000)

    by_function = execute([*compared, "--by", "function", *of_sample])
    functions = json.loads(by_function.out)
    changed = {row["function"]: row["change"] for row in functions["rows"]}
    assert changed.get("grow") == "grew"
    assert changed.get("leave") == "gone"
    assert not {"stash", "store"} & set(changed)


def test_the_text_begins_with_the_answer(
    leakline: Leakline, programs: Programs
) -> None:
    _, recording = leakline.run(programs.program("cohorts"))
    for options in (["--from", "start"], ["--survivors"]):
        result = execute([leakline.binary, "diff", *options, recording.path])
        assert result.status == 0
        first, second = result.out.decode().split("\n", 1)[0], result.out.decode()
        assert ("grew by" in first) == (options[0] == "--from")
        assert "exact, complete" in second
    for wrong, status in (
        (["--from", "+1s", "--to", "start"], 3),
        (["--survivors", "--alive-at", "start", "--to", "end"], 2),
        (["--by", "thread"], 2),
        (["--from", "no such mark"], 3),
    ):
        result = execute([leakline.binary, "diff", *wrong, "--json", recording.path])
        assert result.status == status, wrong
        assert json.loads(result.out)["error"]

"""What a sampled recording estimates is what the program did, within the error
that it states, as often as it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import (
    DEVIATIONS,
    FAR,
    PYTHON_PROGRAMS,
    TARGET_PYTHON,
    Json,
    Leakline,
    Programs,
    Recording,
    by_function,
    check_complete,
    deviations,
    execute,
)


def check_sampled(recording: Recording) -> Json:
    """Nothing was lost, no death came without its birth, and it says how it was
    made."""
    stats = check_complete(recording)
    assert stats["mode"] == "sampled"
    assert stats["confidence"] == 0.95
    for process in stats["processes"]:
        totals = process["totals"]
        assert totals["unknown_frees"] == 0, totals
        assert totals["implied_frees"] == 0, totals
        assert totals["malformed_events"] == 0, totals
    return stats


def check_coverage(off: list[float], least: float) -> None:
    """None is out of reach, and as many as promised are near."""
    assert max(map(abs, off)) < FAR, sorted(off)
    near = sum(abs(one) <= DEVIATIONS for one in off) / len(off)
    assert near >= least, (near, sorted(off))


def test_estimates_lie_within_their_errors(
    leakline: Leakline, programs: Programs, long: bool
) -> None:
    program = programs.program("sampled")
    off: list[float] = []
    for _ in range(30 if long else 8):
        result, recording = leakline.run(
            program, "10000", options=["--sample", "32KiB"]
        )
        assert result.status == 0
        truth = result.truth()
        check_sampled(recording)
        rows = by_function(recording.rows(), truth["sites"])
        for name, site in truth["sites"].items():
            # Resizing in place is a death and a birth to a sampler.
            for key in ("live_bytes", "live_blocks", "total_bytes"):
                off.append(deviations(rows[name], key, site[key]))
        recording.path.unlink()
    # Those of one site in one run are not independent: 48 at least are.
    check_coverage(off, 0.95 - 4 * (0.05 * 0.95 / 48) ** 0.5)


def test_blocks_far_above_the_mean_are_exact(
    leakline: Leakline, programs: Programs
) -> None:
    """Through threads, a fork and reallocs."""
    program = programs.program("sampled")
    result, recording = leakline.run(program, "4000", options=["--sample", "1KiB"])
    assert result.status == 0
    truth = result.truth()
    stats = check_sampled(recording)
    rows = by_function(recording.rows(), truth["sites"])
    large = truth["sites"]["in_large"]
    for row in rows["in_large"]:
        assert row["live_bytes_error"] == 0
        assert (row["live_bytes"], row["live_blocks"]) == (
            large["live_bytes"],
            large["live_blocks"],
        )
    # All that is left of them is of 64,000 bytes.
    resized = truth["sites"]["in_resized"]
    blocks = sum(row["live_blocks"] for row in rows["in_resized"])
    assert blocks == resized["live_blocks"]
    assert sum(row["live_bytes"] for row in rows["in_resized"]) == resized["live_bytes"]
    # The child has what it allocated, and inherited and did not free: a third
    # of the small blocks and more.
    parent, child = stats["processes"]
    kept = child["totals"]["live_bytes"] - 7 * 3_000_000
    assert child["inherited_bytes"] < kept + 3_000_000
    assert kept > large["live_bytes"] + resized["live_bytes"]
    freed = parent["totals"]["live_blocks"] - child["totals"]["live_blocks"] + 7
    smalls = truth["sites"]["in_small"]["live_blocks"] / 2
    assert abs(freed - smalls) < FAR * (21 * smalls) ** 0.5


def test_a_python_heap_is_estimated_before_it_is_torn_down(
    leakline: Leakline, long: bool
) -> None:
    program = PYTHON_PROGRAMS / "sampled.py"
    off: list[float] = []
    for _ in range(30 if long else 4):
        result, recording = leakline.run(
            TARGET_PYTHON, program, "4000", options=["--sample", "32KiB"]
        )
        assert result.status == 0, result.err.decode()
        truth = result.truth()
        check_sampled(recording)
        report = recording.report("top", "--limit", "0", "--filter", "keep")
        assert report["as_left_main"] is True
        for name, (blocks, size) in truth.items():
            rows = [row for row in report["rows"] if row["function"] == name]
            # The list that holds them is made here too, by realloc, and so are
            # the objects of the large ones.
            least = 500_000 if name == "keep" else 1_000_000
            rows = [row for row in rows if row["live_bytes"] > least]
            assert rows, report["rows"]
            off.append(deviations(rows, "live_bytes", size))
            if name == "keep":
                off.append(deviations(rows, "live_blocks", blocks))
        recording.path.unlink()
    check_coverage(off, 0.5)


ENDINGS = {
    "returns": "",
    "sys.exit": "sys.exit(3)",
    "sys.exit below": "def leave(): sys.exit(3)\nleave()",
    "an error": "def fail(): raise RuntimeError\nfail()",
    "an error that is kept": (
        "try:\n    raise RuntimeError\n"
        "except RuntimeError as error:\n    kept.append(error)\n"
        "def leave(): sys.exit(3)\nleave()"
    ),
}
KEPT = """
import sys
kept = []
def main():
    for number in range(300_000):
        kept.append(("%d" % number) * 10)
    for number in range(100_000):
        "%d" % number * 10
main()
"""


@pytest.mark.parametrize("way", ["script", "command", "module"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_leaving_main_is_seen_before_anything_dies(
    leakline: Leakline, tmp_path: Path, ending: str, way: str
) -> None:
    source = KEPT + ENDINGS[ending]
    (tmp_path / "kept_until.py").write_text(source)
    ways: dict[str, list[str]] = {
        "script": ["kept_until.py"],
        "command": ["-c", source],
        "module": ["-m", "kept_until"],
    }
    # Looked at by samples alone it would be too late.
    options = ["--sample", "256KiB", "--heap", "never"]
    result, recording = leakline.run(
        TARGET_PYTHON, *ways[way], options=options, cwd=tmp_path
    )
    assert result.status == {"returns": 0, "an error": 1}.get(ending, 3)
    check_sampled(recording)
    # Not as reports say it by themselves: from 3.13 on so much is imported to print an
    # error that the program may have gone on, as they see it.
    rows = recording.rows("--filter", "main", at="main left")
    rows = [row for row in rows if row["function"] == "main"]
    # Texts of 49 bytes (41 from 3.12 on) and ten times their number's digits.
    sizes = execute([TARGET_PYTHON, "-c", "import sys; print(sys.getsizeof(''))"])
    text = sum(int(sizes.out) + 10 * len(str(number)) for number in range(300_000))
    rows = [row for row in rows if row["live_bytes"] > text / 2]
    assert len(rows) == 1, rows
    assert abs(deviations(rows, "live_bytes", text)) < FAR


def test_what_python_reallocates_is_counted_once(
    leakline: Leakline, tmp_path: Path
) -> None:
    """Blocks that shrink into CPython's pools pass through two of its domains, and
    those that grow within them through one."""
    count, shrunk = 100_000, 100 + 33
    source = f"""
import os
kept = []
def shrink(number):
    reader, writer = os.pipe()
    for _ in range(number):
        os.write(writer, b"x" * 100)
        block = os.read(reader, 4096)
        kept.append(block)
def grow(number):
    for _ in range(number):
        kept.append([number])
        for _ in range(40):
            kept[-1].append(number)
shrink({count})
grow({count})
"""
    options = ["--sample", "4KiB", "--heap", "never"]
    (tmp_path / "reallocates.py").write_text(source)
    result, recording = leakline.run(
        TARGET_PYTHON, "reallocates.py", options=options, cwd=tmp_path
    )
    assert result.status == 0, result.err.decode()
    check_sampled(recording)
    rows = recording.rows("--filter", "reallocates.py", at="main left")

    def off(line: int, **truth: int) -> dict[str, float]:
        # Of all domains: a block that was counted twice would be of the raw one, too.
        of_line = [row for row in rows if row["line"] == line]
        return {key: deviations(of_line, key, truth[key]) for key in truth}

    found = [
        off(
            8,
            live_blocks=count,
            live_bytes=count * shrunk,
            total_bytes=count * (4096 + 33 + shrunk),
        ),
        # Lists of 41 have room for 52.
        off(14, live_blocks=count, live_bytes=count * 52 * 8),
    ]
    assert all(abs(one) < FAR for each in found for one in each.values()), found


def test_what_the_pools_hand_on_is_counted_once(
    leakline: Leakline, tmp_path: Path
) -> None:
    """Blocks that are too large for CPython's pools pass through two of its domains and
    libc's own functions."""
    count = 20_000
    source = f"""
kept, size = [], 3000
def zeroed():
    for _ in range({count}):
        kept.append(bytes(2000))
def filled():
    for _ in range({count}):
        kept.append(b"x" * size)
def grown():
    for _ in range({count} // 40):
        one = []
        kept.append(one)
        for _ in range(5000):
            one.append(None)
zeroed()
filled()
grown()
room = sum(kept[-1].__sizeof__() - [].__sizeof__() for _ in range({count} // 40))
print(room)
"""
    options = ["--sample", "16KiB", "--heap", "never"]
    (tmp_path / "hands_on.py").write_text(source)
    result, recording = leakline.run(
        TARGET_PYTHON, "hands_on.py", options=options, cwd=tmp_path
    )
    assert result.status == 0, result.err.decode()
    check_sampled(recording)
    rows = recording.rows("--filter", "hands_on.py", at="main left")
    truth = {5: count * (2000 + 33), 8: count * (3000 + 33), 14: int(result.out)}
    found = {}
    for line, amount in truth.items():
        of_line = [row for row in rows if row["line"] == line and row["live_blocks"]]
        found[line] = deviations(of_line, "live_bytes", amount)
    assert all(abs(one) < FAR for one in found.values()), found
    # Whoever is asked below gave as much.
    domains = recording.rows("--by", "domain", "--filter", "hands_on.py", at=None)
    total = {row["domain"]: row["total_bytes"] for row in domains}
    assert total["obj"] + total["mem"] > sum(truth.values())
    assert total.get("raw", 0) + total.get("native", 0) < 5_000_000, total


def test_what_the_pools_keep_of_themselves_is_seen_to_die(leakline: Leakline) -> None:
    """CPython's table of arenas: made for a block that is left out, it is resized for
    one that a hook is at work for. (So many samples that the filter denies few.)"""
    source = """
kept = []
for number in range(400_000):
    kept.append(("%d" % number) * 8)
for number in range(100_000):
    one = [number]
    for _ in range(50):
        one.append(number)
    kept.append(one)
"""
    options = ["--sample", "256", "--heap", "never"]
    result, recording = leakline.run(TARGET_PYTHON, "-c", source, options=options)
    assert result.status == 0, result.err.decode()
    # Its place was given to other blocks since.
    check_sampled(recording)


def test_python_counts_its_blocks_as_ever(leakline: Leakline) -> None:
    """Thousands of blocks are set apart, and die."""
    source = """
import sys
def work():
    kept = [("%d" % number) * 10 for number in range(200_000)]
    del kept
work()
before = sys.getallocatedblocks()
work()
print(sys.getallocatedblocks() - before)
"""
    options = ["--sample", "1KiB", "--heap", "never"]
    result, recording = leakline.run(TARGET_PYTHON, "-c", source, options=options)
    check_sampled(recording)
    assert abs(int(result.out)) < 50


@pytest.mark.parametrize("allocator", ["pymalloc", "malloc", "debug"])
def test_no_block_of_pythons_counts_twice(leakline: Leakline, allocator: str) -> None:
    """An object is one block, whatever its allocator asks of others for it."""
    found = []
    for options in ([], ["--sample", "4KiB"]):
        result, recording = leakline.run(
            TARGET_PYTHON,
            PYTHON_PROGRAMS / "kept.py",
            options=options,
            env={"PYTHONMALLOC": allocator},
        )
        assert result.status == 0, result.err.decode()
        rows = recording.rows("--by", "domain", at=None)
        found.append({row["domain"]: row for row in rows})
    exact, sampled = found
    assert exact["obj"]["live_bytes"] > 20_000_000
    for domain in ("obj", "mem", "native"):
        truth = exact[domain]["live_bytes"]
        assert abs(deviations([sampled[domain]], "live_bytes", truth)) < FAR, found
    assert "mmap" not in sampled or (
        sampled["mmap"]["live_bytes"] <= exact["mmap"]["live_bytes"]
    )
    # The pools' own tables, of which there are few.
    assert sampled["raw"]["live_bytes"] < 1_000_000


@pytest.mark.parametrize(
    "name",
    [
        "edges",
        "threads",
        "exceptions",
        "jumps",
        "coroutines",
        "thread_exit",
        "close_fds",
        "resizes",
        "deep",
        "early",
        "forks",
        "maps",
        "late_thread",
    ],
)
def test_programs_run_as_ever(
    name: str, leakline: Leakline, programs: Programs
) -> None:
    program = programs.program(name)
    bare = execute([program])
    for mean in ("256", "64KiB"):
        result, recording = leakline.run(program, options=["--sample", mean])
        assert result.status == bare.status, result.err.decode()
        assert len(result.out.splitlines()) == len(bare.out.splitlines())
        check_sampled(recording)


def test_mappings_are_exact(leakline: Leakline, programs: Programs) -> None:
    program = programs.program("maps")
    exact = leakline.run(program)[1].rows("--by", "domain")
    sampled = leakline.run(program, options=["--sample", "1GiB"])[1]
    check_sampled(sampled)
    keys = ("live_bytes", "live_blocks", "total_bytes", "total_blocks")
    of = {
        which: [[row[key] for key in keys] for row in rows if row["domain"] == "mmap"]
        for which, rows in (
            ("exact", exact),
            ("sampled", sampled.rows("--by", "domain")),
        )
    }
    assert of["sampled"] == of["exact"] != []


def test_signals_in_the_midst_of_it(leakline: Leakline, programs: Programs) -> None:
    """Handlers that allocate, threads, forks and libraries that come and go."""
    storm, plugin = programs.storm(), programs.plugin("storm", 500)
    for mean in ("256", "8KiB"):
        result, recording = leakline.run(
            storm, plugin, options=["--sample", mean], timeout=120
        )
        assert result.status == 0, result.err.decode()
        stats = recording.stats()
        assert stats["mode"] == "sampled"
        assert stats["totals"]["unknown_frees"] == 0
        rows = by_function(recording.rows(), result.truth()["sites"])
        churn = result.truth()["sites"]["in_churn"]["total_bytes"]
        assert abs(deviations(rows["in_churn"], "total_bytes", churn)) < FAR


def test_a_handler_between_any_two_instructions(
    leakline: Leakline, programs: Programs
) -> None:
    """Where one allocated at the end of a countdown, its thread sampled never again."""
    program = programs.program("flooded")
    result, recording = leakline.run(program, options=["--sample", "256"])
    assert result.status == 0, result.err.decode()
    site = result.truth()["sites"]["in_turn"]
    rows = by_function(recording.rows(), ["in_turn", "in_handler"])["in_turn"]
    assert abs(deviations(rows, "total_bytes", site["total_bytes"])) < FAR


def test_a_frees_many_blocks_that_were_not_sampled(
    leakline: Leakline, programs: Programs
) -> None:
    """Deaths are estimated by those of samples alone."""
    result, recording = leakline.run(
        programs.program("truth"), "1", options=["--sample", "4KiB"]
    )
    assert result.status == 0
    stats = check_sampled(recording)
    totals = stats["totals"]
    truth = result.truth()["sites"]
    frees = sum(site["frees"] for site in truth.values())
    # Resizing in place counts as a death here.
    frees += sum(site["resizes"] for site in truth.values())
    assert abs(totals["frees"] - frees) < FAR / DEVIATIONS * totals["frees_error"] + 200
    assert totals["frees"] < totals["allocations"]
    # Far fewer events than calls.
    assert totals["events"] < frees


def test_the_mean_follows_the_cost(leakline: Leakline, programs: Programs) -> None:
    """A program that allocates little, for some seconds, is sampled ever closer,
    and estimates are right all the same."""
    program = programs.program("slow_growth")
    result, recording = leakline.run(program, "3", options=["--sample", "auto"])
    assert result.status == 0
    stats = check_sampled(recording)
    assert stats["sample_bytes"] == 512 * 1024
    assert stats["least_sample_bytes"] <= 128 * 1024
    truth = result.truth()["sites"]
    rows = by_function(recording.rows(), truth)
    for name, site in truth.items():
        for key in ("live_bytes", "live_blocks", "total_bytes"):
            assert abs(deviations(rows[name], key, site[key])) < FAR, (name, key)


def test_reports_say_that_they_are_estimates(
    leakline: Leakline, programs: Programs
) -> None:
    program = programs.program("sampled")
    _, recording = leakline.run(program, "4000", options=["--sample", "64KiB"])
    for report in ("top", "tree", "stats", "summary", "leaks"):
        result = execute(
            [recording.leakline, report, recording.path], env={"COLUMNS": "80"}
        )
        text = result.out.decode()
        assert result.status == 0, result.err.decode()
        words = " ".join(text.split())
        assert "sampled, one in 64.0 KiB on average" in words, text
        # What to do next names the file.
        shown = text.split("\nnext:")[0].splitlines()
        assert max(map(len, shown)) <= 80, text
        if report != "leaks":
            assert "±" in text or "+/-" in text, text
    page = recording.path.with_suffix(".html")
    result = execute([recording.leakline, "export", recording.path, "-o", page])
    assert result.status == 0, result.err.decode()
    assert "estimates from a sample" in page.read_text()
    exact = leakline.run(program, "4000")[1]
    for report in ("top", "stats"):
        text = execute([exact.leakline, report, exact.path]).out.decode()
        assert "±" not in text
        assert "+/-" not in text
    assert "live_bytes_error" not in exact.rows()[0]


@pytest.mark.parametrize("mean", ["0", "12", "2GiB", "much"])
def test_means_that_are_refused(mean: str, leakline: Leakline) -> None:
    result, recording = leakline.run("true", options=["--sample", mean])
    assert result.status in (2, 125)
    assert b"--sample" in result.err
    assert not recording.path.exists()

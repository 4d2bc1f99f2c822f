"""Verdicts over real programs: what leaks is named first, with its line and
rate; what only looks like it is not called a leak."""

from __future__ import annotations

import json
import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import (
    PROGRAMS,
    PYTHON_PROGRAMS,
    SAMPLES,
    TARGET_PYTHON,
    Json,
    Leakline,
    Part,
    Recording,
    execute,
    find_leakline,
)

STEPS = PYTHON_PROGRAMS / "steps.py"
LEAKING_LINE = next(
    number
    for number, line in enumerate(STEPS.read_text().splitlines(), 1)
    if "leaked.append" in line
)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """200 steps, of which each loses 1 KiB."""
    maker = Leakline(find_leakline(), tmp_path_factory.mktemp("leaks"))
    result, recording = maker.run(TARGET_PYTHON, STEPS)
    assert result.status == 0
    return recording


def leaking(report: Json) -> list[Json]:
    return [one for one in report["suspects"] if one["verdict"] == "leaking"]


def check_the_loop(report: Json, seconds: float | None = None) -> None:
    assert report["verdict"] == "leaking"
    (leak,) = leaking(report)
    assert (leak["id"], leak["function"]) == ("L1", "leak")
    assert os.path.basename(leak["file"]) == "steps.py"
    assert leak["line"] == LEAKING_LINE
    assert leak["your_code"]["function"] == "leak"
    # The graph that `run` takes at the end tells who holds it.
    assert leak["held_by"]["path"] == "__main__.leaked[*]"
    assert leak["held_by_note"] is None
    assert leak["types"][0]["type"] == "bytearray"
    # The buffer, and the object around it.
    assert 200 * 1080 <= leak["live_bytes"] <= 200 * 1100
    low, high = leak["rate_interval"]
    assert low <= leak["rate_bytes_per_second"] <= high
    if seconds is not None:
        assert leak["rate_bytes_per_second"] * seconds == pytest.approx(
            leak["live_bytes"], rel=0.08
        )


def test_of_ten_caches_and_a_leak_the_leak_is_named(recorded: Recording) -> None:
    report = recorded.report("leaks")
    check_the_loop(report, report["to_seconds"] - report["from_seconds"])
    plateau = [one for one in report["acquitted"] if one["verdict"] == "plateau"]
    assert plateau[0]["sites"] >= 6


def test_ten_caches_are_acquitted(leakline: Leakline) -> None:
    result, recording = leakline.run(TARGET_PYTHON, STEPS, "healthy")
    assert result.status == 0
    report = recording.report("leaks")
    assert leaking(report) == []
    text = execute([recording.leakline, "leaks", recording.path]).out.decode()
    assert text.startswith("No leak found in ")
    assert re.search(r"growth above \S+ \S+/s would have shown", text.split("\n\n")[0])


def test_a_quiet_tail_is_no_plateau(leakline: Leakline) -> None:
    result, recording = leakline.run(TARGET_PYTHON, STEPS, "quiet")
    assert result.status == 0
    check_the_loop(recording.report("leaks"))


def test_a_service_s_three_behaviours_have_their_words(leakline: Leakline) -> None:
    program = PYTHON_PROGRAMS / "service.py"
    for _ in range(3):
        result, recording = leakline.run(TARGET_PYTHON, program)
        truth = result.truth()
        report = recording.report("leaks")
        # On a machine that has other things to do the service stands still for as
        # long as its burst lasts, and that is none then.
        if any(one["verdict"] == "burst" for one in report["acquitted"]):
            break
    (leak,) = leaking(report)
    assert leak["function"] == "remember"
    rate = truth["lost"] / truth["seconds"]
    assert leak["rate_bytes_per_second"] == pytest.approx(rate, rel=0.05)
    found = {one["verdict"]: one for one in report["acquitted"]}
    assert found["burst"]["largest"]["function"].startswith("export")
    assert found["burst"]["most_bytes"] >= 4000 * 500
    assert "plateau" in found


@pytest.mark.parametrize(
    ("name", "script", "function"),
    [
        ("python-cache", "cache.py", "render"),
        ("python-closures", "closures.py", "read_body"),
        ("python-cycles", "cycles.py", "Session.__init__"),
        ("python-logging", "logs.py", "Recent.emit"),
        ("python-thread-local", "scratch.py", "scratch"),
    ],
)
def test_what_a_sample_leaks_is_named(
    leakline: Leakline, name: str, script: str, function: str
) -> None:
    """Samples run for some 50 ms, which often is too short for the word
    *leaking*, and for an order; but the place is named, and not acquitted."""
    result, recording = leakline.run(TARGET_PYTHON, script, cwd=SAMPLES / name)
    assert result.status == 0
    report = recording.report("leaks")
    unclear = [one for one in report["acquitted"] if one["verdict"] == "unclear"]
    named = [*report["suspects"], *(one["largest"] for one in unclear)]
    places = [
        (one["function"].rsplit(".", 1)[-1], os.path.basename(one["file"] or ""))
        for one in named
        if one
    ]
    assert (function.rsplit(".", 1)[-1], script) in places, report


def test_a_bounded_cache_is_no_leak(leakline: Leakline) -> None:
    folder = SAMPLES / "python-bounded-cache"
    result, recording = leakline.run(TARGET_PYTHON, "bounded.py", cwd=folder)
    assert result.status == 0
    assert leaking(recording.report("leaks")) == []


SOON_FULL = """
import time
PAGES = {}
def render(page):
    PAGES[page] = bytearray(4000)
for page in range(600):
    render(page)
    time.sleep(0.001)
end = time.monotonic() + 4
while time.monotonic() < end:
    [bytes(100) for _ in range(20)]
    time.sleep(0.001)
"""


def test_a_cache_that_is_full_soon_is_no_leak(leakline: Leakline) -> None:
    """It was looked at only as long as it took new pages."""
    result, recording = leakline.run(TARGET_PYTHON, "-c", SOON_FULL)
    assert result.status == 0
    assert leaking(recording.report("leaks")) == []


def test_imports_are_no_leak(leakline: Leakline) -> None:
    imports = "import json, decimal, asyncio, email.mime.text"
    result, recording = leakline.run(TARGET_PYTHON, "-c", imports)
    assert result.status == 0
    report = recording.report("leaks")
    assert leaking(report) == []
    assert any(one["verdict"] == "start-up" for one in report["acquitted"])


def test_reports_of_all_widths_and_kinds(recorded: Recording) -> None:
    for columns in ("20", "80", "120"):
        result = execute(
            [recorded.leakline, "leaks", recorded.path], env={"COLUMNS": columns}
        )
        assert result.status == 0
        text = result.out.decode()
        assert text.startswith("LEAK:")
        assert "L1 leaking" in " ".join(text.split())
    markdown = execute([recorded.leakline, "leaks", "--markdown", recorded.path])
    assert "| L1 | leaking | " in markdown.out.decode()


def test_the_limit_is_forecast(recorded: Recording) -> None:
    report = recorded.report("leaks", "--memory-limit", "1GiB")
    limit = report["limit"]
    left = limit["bytes"] - limit["rss_bytes"]
    expected = left / report["rate_bytes_per_second"]
    assert limit["reached_in_seconds"] == pytest.approx(expected)
    soonest, latest = limit["interval"]
    assert soonest < expected < latest


LOSING = """
import os, sys, time
kept = []
def lose():
    kept.append(bytearray(4000))
if len(sys.argv) > 1:
    os.fork()
for _ in range(400):
    lose()
    time.sleep(0.005)
"""


@contextmanager
def memory_group(bytes_allowed: int) -> Iterator[Path]:
    """A control group with a limit, for `cgroup.procs`."""
    for place in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")):
        controllers = place / "cgroup.subtree_control"
        is_there = (place / "cgroup.procs").exists() and os.access(place, os.W_OK)
        if is_there and (
            not controllers.exists() or "memory" in controllers.read_text()
        ):
            break
    else:
        pytest.skip("needs a writable memory cgroup")
    group = place / f"leakline-leaks-{os.getpid()}"
    group.mkdir()
    try:
        unified = group / "memory.max"
        limit = unified if unified.exists() else group / "memory.limit_in_bytes"
        limit.write_text(str(bytes_allowed))
        yield group
    finally:
        group.rmdir()


def check_forecast(limit: Json, bytes_allowed: int, bytes_per_second: float) -> None:
    assert limit["bytes"] == bytes_allowed
    left = bytes_allowed - limit["used_bytes"]
    assert limit["reached_in_seconds"] == pytest.approx(
        left / bytes_per_second, rel=0.1
    )
    soonest, latest = limit["interval"]
    assert soonest < limit["reached_in_seconds"] < latest


def test_the_limit_of_a_tree_s_control_group_is_known(leakline: Leakline) -> None:
    allowed = 1 << 30
    program = leakline.directory / "losing.py"
    program.write_text(LOSING)
    # Who enters the group, and then becomes the program.
    enter = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
    with memory_group(allowed) as group:
        line: list[Part] = ["sh", "-c", enter, group, TARGET_PYTHON, program, "fork"]
        result, recording = leakline.run(*line)
    assert result.status == 0, result.err.decode()
    report = recording.report("leaks")
    (leak,) = leaking(report)
    assert leak["function"] == "lose"
    # Both processes lose, and the group has room for what both take.
    assert len(leak["per_process"]) == 2
    limit = report["limit"]
    assert (limit["of"], limit["pid"]) == ("control group", None)
    check_forecast(limit, allowed, report["rate_bytes_per_second"])
    # Libraries that others brought into memory count for those.
    assert leak["live_bytes"] < limit["used_bytes"] < limit["rss_bytes"] * 2, limit
    text = execute([recording.leakline, "leaks", recording.path]).out.decode()
    words = " ".join(text.split())
    assert re.search(r"limit of 1\.00 GiB reached in about \S+ .*? to ", words), text


def test_a_process_s_own_limit_is_known(leakline: Leakline) -> None:
    allowed = 4 << 30
    program = leakline.directory / "losing.py"
    program.write_text(LOSING)
    line = ["sh", "-c", f'ulimit -v {allowed >> 10} && exec "$@"', "sh"]
    result, recording = leakline.run(*line, TARGET_PYTHON, program)
    assert result.status == 0, result.err.decode()
    report = recording.report("leaks")
    limit = report["limit"]
    assert limit["of"] == "RLIMIT_AS"
    (leak,) = leaking(report)
    assert limit["pid"] == leak["per_process"][0]["pid"]
    check_forecast(limit, allowed, report["rate_bytes_per_second"])
    text = execute([recording.leakline, "leaks", recording.path]).out.decode()
    words = " ".join(text.split())
    assert "address space limit (RLIMIT_AS) of 4.00 GiB reached in about" in words
    # What the user says counts before what was recorded.
    told = recording.report("leaks", "--memory-limit", "64MiB")["limit"]
    assert (told["of"], told["bytes"]) == ("given", 64 << 20)


def test_suppressions_leave_out_and_are_counted(
    recorded: Recording, tmp_path: Path
) -> None:
    known = tmp_path / "known.txt"
    known.write_text("# ours\nleak:^leak$\n")
    report = recorded.report("leaks", "--suppressions", os.fspath(known))
    assert leaking(report) == []
    (suppressed,) = report["suppressed"]
    assert suppressed["pattern"] == "^leak$"
    assert suppressed["bytes"] >= 200 * 1080
    known.write_text("leak:a\nnonsense\n")
    result = execute(
        [recorded.leakline, "leaks", "--suppressions", known, recorded.path]
    )
    assert result.status == 3
    assert "line 2 is no suppression: `nonsense`" in result.err.decode()


def test_check_is_the_gate(
    recorded: Recording, leakline: Leakline, tmp_path: Path
) -> None:
    def check(*options: str | Path) -> tuple[int, str]:
        result = execute(
            [recorded.leakline, "check", *options, recorded.path],
            env={"GITHUB_WORKSPACE": os.fspath(PROGRAMS.parent.parent)},
        )
        return result.status, result.out.decode()

    status, text = check()
    assert status == 1
    assert text.startswith("FAILED for 1 cause: LEAK")
    xml = tmp_path / "leaks.xml"
    status, text = check("--github", "--junit", xml)
    assert status == 1
    annotation = f"::error file=tests/programs/python/steps.py,line={LEAKING_LINE},"
    assert annotation in text
    suites = ElementTree.parse(xml).getroot()
    assert suites.get("failures") == "1"
    failure = suites.find("./testsuite/testcase/failure")
    assert failure is not None
    assert "leak python/steps.py" in (failure.text or "")

    baseline = tmp_path / "leaks.json"
    assert check("--baseline", baseline)[0] == 3
    assert check("--baseline", baseline, "--write-baseline")[0] == 0
    status, text = check("--baseline", baseline)
    assert status == 0
    assert text.startswith("PASSED")
    known = json.loads(baseline.read_text())
    known["causes"][0]["rate_bytes_per_second"] /= 3
    baseline.write_text(json.dumps(known))
    assert check("--baseline", baseline)[0] == 1

    _, healthy = leakline.run(TARGET_PYTHON, STEPS, "healthy")
    passed = execute([healthy.leakline, "check", "--json", healthy.path])
    assert passed.status == 0
    assert json.loads(passed.out)["passed"] is True

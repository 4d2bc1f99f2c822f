"""What a recording counts equals what the program counted itself."""

from __future__ import annotations

import pytest

from harness import (
    Leakline,
    Programs,
    by_function,
    check_complete,
    check_sites,
    plain_name,
    sums,
)


def test_a_million_calls_in_four_threads(
    leakline: Leakline, programs: Programs, long: bool
) -> None:
    for seed in range(1, 21 if long else 3):
        result, recording = leakline.run(programs.program("truth"), str(seed))
        assert result.status == 0
        truth = result.truth()["sites"]
        assert sum(site["calls"] for site in truth.values()) == 1_000_003
        totals = check_complete(recording)["totals"]
        rows = recording.rows()
        check_sites(rows, truth)

        # Beside the program's own sites there are only blocks that were never
        # resized (thread starts and the like), so that totals must add up too.
        others = sums(by_function(rows, truth)[""])
        calls = sum(site["calls"] for site in truth.values())
        frees = sum(site["frees"] for site in truth.values())
        total_bytes = sum(site["total_bytes"] for site in truth.values())
        assert totals["allocations"] == calls + others["total_blocks"]
        freed = others["total_blocks"] - others["live_blocks"]
        assert totals["frees"] == frees + freed
        assert totals["allocated_bytes"] == total_bytes + others["total_bytes"]
        everything = sums(rows)
        assert totals["live_blocks"] == everything["live_blocks"]
        assert totals["live_bytes"] == everything["live_bytes"]
        recording.path.unlink()


@pytest.mark.parametrize(
    "name",
    [
        "edges",
        "threads",
        "signals",
        "exceptions",
        "jumps",
        "coroutines",
        "thread_exit",
        "close_fds",
        "resizes",
        "deep",
        "early",
        "stacks",
        "many_stacks",
    ],
)
def test_program(leakline: Leakline, programs: Programs, name: str) -> None:
    result, recording = leakline.run(programs.program(name))
    assert result.status == 0, result.out
    assert result.err == b""
    check_complete(recording)
    check_sites(recording.rows(), result.truth()["sites"])


def test_signals_at_any_instant(leakline: Leakline, programs: Programs) -> None:
    """A handler that interrupts a hook has its events recorded, but no stack is
    taken: the thread's own is in use."""
    result, recording = leakline.run(programs.signals_anywhere())
    assert result.status == 0
    check_complete(recording)
    rows, truth = recording.rows(), result.truth()["sites"]
    groups = by_function(rows, truth)
    check_sites(groups["in_main"], {"in_main": truth["in_main"]})
    without_stack = [
        row for row in groups[""] if row["domain"] == "native" and not row["stack"]
    ]
    found = sums(groups["in_handler"] + without_stack)
    assert found["total_blocks"] == truth["in_handler"]["births"]
    assert found["live_blocks"] == truth["in_handler"]["live_blocks"]
    assert found["live_bytes"] == truth["in_handler"]["live_bytes"]
    assert groups["in_handler"]


def test_jumps_out_of_hooks(leakline: Leakline, programs: Programs) -> None:
    """A handler that leaves a hook by siglongjmp once left its thread marked as
    inside of it: nothing that came later had a stack."""
    result, recording = leakline.run(programs.abandoned())
    assert result.status == 0
    check_complete(recording)
    truth = result.truth()["sites"]
    rows = by_function(recording.rows(), truth)["after_jump"]
    check_sites(rows, truth)


@pytest.mark.parametrize("options", [[], ["--sample", "256"]], ids=["exact", "sampled"])
def test_signals_while_a_library_goes(
    leakline: Leakline, programs: Programs, options: list[str], long: bool
) -> None:
    """The loader was interrupted in the midst of its list, or of taking the list's
    lock: who looks at it then crashes, or waits for ever."""
    plugin = programs.plugin("storm", 500)
    seconds = "20" if long else "2"
    result, recording = leakline.run(
        programs.closing(), plugin, seconds, options=options, timeout=60
    )
    assert result.status == 0, result
    assert result.truth()["handled"] > 1000
    assert recording.stats()["totals"]["lost_events"] == 0


def test_everything_at_once(leakline: Leakline, programs: Programs, long: bool) -> None:
    """Loading, forking, starting threads, signals within signals: nothing may
    wait for anything for ever, and every count is right."""
    for _ in range(20 if long else 2):
        result, recording = leakline.run(
            programs.storm(), programs.plugin("storm", 500), timeout=120
        )
        assert result.status == 0, result.out
        truth = result.truth()
        assert truth["handled"] > 100
        check_complete(recording)
        # A handler may interrupt any of them: its blocks are not theirs.
        rows = [
            row
            for row in recording.rows()
            if all(frame["function"] != "in_handler" for frame in row["stack"])
        ]
        check_sites(rows, truth["sites"])
        children = by_function(rows, ["in_child"])["in_child"]
        assert sums(children)["total_blocks"] == truth["child_blocks"]
        recording.path.unlink()


def test_every_stack_has_its_place(leakline: Leakline, programs: Programs) -> None:
    _, recording = leakline.run(programs.program("many_stacks"))
    rows = by_function(recording.rows(), ["at_the_leaf"])["at_the_leaf"]
    stacks = {tuple(frame["line"] for frame in row["stack"]) for row in rows}
    # Both threads walk all paths twice; they differ by what called `walk`.
    assert len(stacks) == 2 * 8192
    assert all(row["total_blocks"] == 2 for row in rows)


@pytest.mark.parametrize("name", ["truth", "edges", "resizes"])
def test_another_allocator_preloaded(
    leakline: Leakline, programs: Programs, name: str
) -> None:
    library = programs.reentrant()
    result, recording = leakline.run(
        programs.program(name), env={"LD_PRELOAD": str(library)}
    )
    if name == "edges":
        # It is checked against the C library's alignment and errors.
        assert result.status == 0, result.err
    check_complete(recording)
    check_sites(recording.rows(), result.truth()["sites"])


def test_an_executable_that_wraps_malloc(
    leakline: Leakline, programs: Programs
) -> None:
    """Its own functions come first, and call on through ours."""
    result, recording = leakline.run(programs.program("wraps_malloc"))
    assert result.status == 0
    check_complete(recording)
    truth = result.truth()["sites"]
    groups = by_function(recording.rows(), truth)
    for name, known in truth.items():
        said = sums(groups[name])
        assert said["total_blocks"] == known["births"]
        assert said["live_blocks"] == known["live_blocks"]
        assert said["live_bytes"] == known["live_bytes"]


def test_libraries_that_come_and_go(leakline: Leakline, programs: Programs) -> None:
    alpha, beta = programs.plugin("alpha", 1000), programs.plugin("beta", 3000)
    result, recording = leakline.run(programs.program("plugins"), alpha, beta)
    assert result.status == 0
    check_complete(recording)
    rows = recording.rows()
    check_sites(rows, result.truth()["sites"])
    for name, module in (("leak_of_alpha", "alpha"), ("leak_of_beta", "beta")):
        for row in by_function(rows, [name])[name]:
            assert module in row["module"]


def test_mappings(leakline: Leakline, programs: Programs) -> None:
    result, recording = leakline.run(programs.program("maps"))
    assert result.status == 0
    check_complete(recording)
    rows = [row for row in recording.rows() if row["domain"] == "mmap"]
    truth = result.truth()["sites"]
    live = {
        name: sums(group)["live_bytes"]
        for name, group in by_function(rows, truth).items()
        if name
    }
    assert live == {name: site["live_bytes"] for name, site in truth.items()}
    plain = sums(by_function(rows, truth)["plain_map"])
    assert plain["total_blocks"] == truth["plain_map"]["births"]
    assert plain["total_bytes"] == truth["plain_map"]["total_bytes"]
    assert plain["live_blocks"] == truth["plain_map"]["live_blocks"]


def test_peak_between_two_instants(leakline: Leakline, programs: Programs) -> None:
    result, recording = leakline.run(programs.program("peak"))
    truth = result.truth()
    rows = recording.rows()
    check_sites(rows, truth["sites"])
    groups = by_function(rows, truth["sites"])
    peaks = {
        name: sum(row["peak_bytes"] for row in group)
        for name, group in groups.items()
        if name
    }
    assert peaks == truth["peaks"]
    others = sum(row["peak_bytes"] for row in groups[""])
    totals = check_complete(recording)["totals"]
    assert totals["peak_bytes"] == truth["peak_bytes"] + others


def test_nine_hundred_frames_are_all_there(
    leakline: Leakline, programs: Programs
) -> None:
    _, recording = leakline.run(programs.program("deep"))
    (row,) = by_function(recording.rows(), ["at_the_bottom"])["at_the_bottom"]
    names = [plain_name(frame["function"]) for frame in row["stack"]]
    assert names.count("descend") == 901
    assert names[names.index("descend") + 901] == "main"


@pytest.mark.parametrize(
    ("name", "site", "strangers"),
    [
        ("coroutines", "take_in_ping", {"pong", "pong_body", "take_in_main"}),
        ("coroutines", "take_in_pong", {"ping", "ping_body", "take_in_main"}),
        ("coroutines", "take_in_main", {"ping", "ping_body", "pong", "pong_body"}),
        ("jumps", "after_jump", {"descend", "handle"}),
        ("exceptions", "after_catch", {"fall", "Holder"}),
    ],
)
def test_no_stack_keeps_frames_that_were_left(
    leakline: Leakline, programs: Programs, name: str, site: str, strangers: set[str]
) -> None:
    _, recording = leakline.run(programs.program(name))
    rows = by_function(recording.rows(), [site])[site]
    assert rows
    for row in rows:
        names = {plain_name(frame["function"]) for frame in row["stack"]}
        assert not names & strangers, row["stack"]


def test_depth_of_coroutine_and_exception_stacks(
    leakline: Leakline, programs: Programs
) -> None:
    """Each depth of the recursion has its own stack, with so many frames."""
    _, recording = leakline.run(programs.program("exceptions"))
    rows = by_function(recording.rows(), ["deep_in"])["deep_in"]
    depths = {}
    for row in rows:
        names = [plain_name(frame["function"]) for frame in row["stack"]]
        depths[names.count("fall")] = row["total_blocks"]
    # 3,000 rounds over 23 depths: 131 of the first ten, 130 of the others.
    expected = {depth: 131 if depth <= 10 else 130 for depth in range(1, 24)}
    assert depths == expected

"""The pytest plugin and the Python package, on tests whose answers are known.

The module has to be built into the .venv: `scripts/venv`, `scripts/test` do that.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence

import pytest

from harness import Leakline, Recording, execute
from suites import Suite

RUNS_LONG = 5


def test_leaking_tests_fail_and_clean_ones_pass(suite: Suite, long: bool) -> None:
    suite.copy("test_leaking.py")
    suite.copy("test_clean.py")
    for _ in range(RUNS_LONG if long else 1):
        # In one process, one session after the other for more than ten seconds.
        files = ("test_leaking.py", "test_clean.py")
        ran = suite.run("--tb=short", "--leakline-strict", *files)
        assert len(ran.failed) == 30, ran.out
        assert len(ran.passed) == 33, ran.out
        assert ran.out.count("FAILED test_leaking.py::") == 30, ran.out
        assert ran.out.count("\nE   leakline.GrowthError: ") == 30, ran.out
        # One needs NumPy.
        judged = 63 if importlib.util.find_spec("numpy") else 62
        assert f"{judged} tests judged in" in ran.out, ran.out
        assert "not judged" not in ran.out, ran.out


def test_xdist_changes_nothing(suite: Suite) -> None:
    pytest.importorskip("xdist")
    suite.copy("test_leaking.py")
    suite.copy("test_clean.py")
    chosen = "one_object or native or marked or coroutine or nothing"
    ran = suite.run("-n", "2", "-k", chosen)
    assert len(ran.failed) == 6, ran.out
    assert len(ran.passed) == 6, ran.out
    assert "leakline: 12 tests judged in" in ran.out
    assert ": 6 fine, 6 leaks" in ran.out


LEAK = """\
KEPT = []


def make_entry(key):
    return [key] * 10


def handler():
    KEPT.append(make_entry("key"))


def test_handler(no_growth):
    no_growth(handler)
"""


def test_a_failure_says_what_grows_and_who_asked_for_it(
    suite: Suite, leakline: Leakline
) -> None:
    suite.add("test_app.py", LEAK)
    ran = suite.run("test_app.py")
    assert ran.status == 1
    out = ran.out
    assert "E       leakline.GrowthError: 1 leak, " in out, out
    # A list of ten in each round: its head with the collector's, and its items.
    assert "2 blocks, 136 bytes a round in 30 of 30 rounds" in out, out
    assert "make_entry           test_app.py:5" in out, out
    assert "handler              test_app.py:9" in out, out
    # By a heap graph of the second set of rounds.
    assert "L1 make_entry   list, 2 blocks" in out, out
    assert "held by         test_app.KEPT[*]" in out, out
    assert ">    5 |     return [key] * 10" in out, out
    assert "0 events lost" in out, out
    assert "FAILED test_app.py::test_handler - leakline.GrowthError: 1 leak" in out, out
    assert "test_app.py:13: GrowthError" in out, out
    assert "leakline: 1 test judged in" in out, out
    assert suite.kept() == ["test_app.test_handler.leakline"]
    assert "Look closer: leakline .leakline/test_app.test_handler.leakline" in out, out
    kept = suite.place / ".leakline" / "test_app.test_handler.leakline"
    stats = Recording(leakline.binary, kept).stats()
    assert stats["totals"]["complete"], stats


HOLDERS = """\
import ctypes


class Session:
    def __init__(self):
        self.history = [0] * 10


class Store:
    def __init__(self):
        self.by_id = {}


STORE = Store()


def test_store(no_growth):
    def body():
        STORE.by_id[len(STORE.by_id)] = Session()

    no_growth(body)


def lose():
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(Session()))


def test_lost(no_growth):
    no_growth(lose)


def test_native(no_growth):
    library = ctypes.CDLL(BLOCKS)
    library.keep.argtypes = [ctypes.c_size_t]
    no_growth(lambda: library.keep(100))


def test_short(no_growth):
    no_growth(lambda: STORE.by_id.setdefault(object(), 1), warmup=4, rounds=8)
"""


def held_by(out: str, test: str) -> list[str]:
    """What a test's failure says of each cause."""
    section = out.split(f"_ {test} _", 1)[1].split("Look closer", 1)[0]
    lines = section.splitlines()
    return [line.split("held by", 1)[1].strip() for line in lines if "held by" in line]


def test_a_failure_names_types_and_holders(suite: Suite) -> None:
    suite.add("test_held.py", HOLDERS.replace("BLOCKS", repr(str(suite.blocks))))
    ran = suite.run("test_held.py")
    assert len(ran.failed) == 4, ran.out
    out = ran.out
    assert "test_held.Session, " in out, out
    assert "list, 2 blocks" in out, out
    assert set(held_by(out, "test_store")) == {
        "test_held.STORE.by_id[*]",
        "test_held.STORE.by_id[*].history",
    }, out
    # Which of the two it is depends on old words in memory that was freed.
    ways = ("lost reference test_held.", "C code test_held.")
    assert all(words.startswith(ways) for words in held_by(out, "test_lost")), out
    (native,) = held_by(out, "test_native")
    assert native == "not known: the heap graph has no Python object of it", out
    (short,) = held_by(out, "test_short")
    assert short == "not known: `warmup` and `rounds` leave no second set of rounds"


def test_no_verdict_depends_on_a_heap_graph(suite: Suite) -> None:
    suite.add("test_app.py", LEAK)
    suite.add(
        "conftest.py",
        "from leakline import LeaklineError, _retention\n"
        "def refused(*arguments):\n"
        "    raise LeaklineError('no heap graph was taken: there is no room')\n"
        "_retention.take_graph = refused\n",
    )
    ran = suite.run("test_app.py")
    assert len(ran.failed) == 1, ran.out
    said = "held by         not known: no heap graph was taken: there is no room"
    assert said in ran.out, ran.out
    assert "2 blocks, 136 bytes a round in 30 of 30 rounds" in ran.out, ran.out


def test_what_a_body_raises_is_its_own(suite: Suite) -> None:
    suite.add(
        "test_app.py",
        """\
import pytest

CALLS = []

def test_wrong(no_growth):
    def body():
        assert 1 == 2, "the body's own"
    no_growth(body)

def test_late(no_growth):
    def body():
        CALLS.append(1)
        assert len(CALLS) < 9, "later"
    no_growth(body)

def test_skipped(no_growth):
    no_growth(lambda: pytest.skip("not here"))

def test_then_judged(no_growth):
    no_growth(lambda: None)
""",
    )
    ran = suite.run("test_app.py")
    assert ran.failed == {"test_wrong", "test_late"}, ran.out
    assert "AssertionError: the body's own" in ran.out
    assert "AssertionError: later" in ran.out
    assert "1 skipped" in ran.out
    assert "GrowthError" not in ran.out
    assert suite.kept() == []


def test_where_nothing_can_be_judged_bodies_run_once(suite: Suite) -> None:
    suite.add(
        "test_app.py",
        """\
import pytest

CALLS = []

def test_fixture(no_growth):
    no_growth(lambda: CALLS.append(1))
    assert len(CALLS) == 1

@pytest.mark.no_growth
def test_marked():
    CALLS.append(2)

def test_after():
    assert CALLS == [1, 2]

@pytest.mark.limit_peak(1)
def test_limit():
    assert CALLS == [1, 2]
""",
    )
    ran = suite.run("test_app.py", "--leakline-off")
    assert not ran.failed, ran.out
    assert "leakline: 3 tests not judged (--leakline-off)" in ran.out
    # In a process that is recorded already there can be no second session.
    script = suite.place / "recorded.py"
    script.write_text(
        "import leakline, pytest, sys\n"
        "with leakline.record('outer.leakline'):\n"
        "    status = pytest.main(['-q', 'test_app.py', *sys.argv[1:]])\n"
        "sys.exit(status)\n"
    )
    inside = execute([sys.executable, script], cwd=suite.place)
    assert inside.status == 0, inside.out.decode()
    assert b"not judged (this process is recording already" in inside.out
    assert b"was not judged: this process is recording already" in inside.out
    strict = execute(
        [sys.executable, script, "--leakline-strict", "-k", "fixture"], cwd=suite.place
    )
    assert strict.status == 1, strict.out.decode()


def test_doubt_is_a_warning_and_strictly_a_failure(suite: Suite) -> None:
    suite.add(
        "test_app.py",
        """\
import itertools
COUNT = itertools.count()
KEPT = []

def sometimes():
    if next(COUNT) % 3 < 2:
        KEPT.append(object())

def test_sometimes(no_growth):
    no_growth(sometimes)
""",
    )
    ran = suite.run("test_app.py", "-W", "error")
    assert ran.status == 0, ran.out
    assert "1 unclear (test_sometimes)" in ran.out
    ran = suite.run("test_app.py")
    assert (
        "GrowthWarning: unclear whether test_sometimes grows: sometimes (test_app.py:7)"
        in (ran.out)
    )
    ran = suite.run("test_app.py", "--leakline-strict")
    assert ran.status == 1, ran.out
    assert "unclear, and --leakline-strict" in ran.out


def test_limit_peak(suite: Suite) -> None:
    suite.add(
        "test_app.py",
        """\
import pytest

def load():
    return bytearray(8 << 20)

@pytest.mark.limit_peak("50 MiB")
def test_below():
    load()

@pytest.mark.limit_peak("4 MiB")
def test_above():
    load()

@pytest.mark.limit_peak("4 MiB")
@pytest.mark.no_growth
def test_both():
    load()

@pytest.mark.limit_peak("many")
def test_no_size():
    pass
""",
    )
    ran = suite.run("test_app.py")
    assert ran.passed == {"test_below"}, ran.out
    assert (
        "leakline.LimitError: 8.0 MiB at once, more than the limit of 4.0 MiB"
        in ran.out
    )
    assert "8.0 MiB  load                 " in ran.out, ran.out
    assert "not a size such as `1 KiB`" in ran.out


@pytest.mark.parametrize(
    ("options", "ini", "says"),
    [
        ([], "leakline_rounds = 8", "(8 rounds, 14 warm-up)"),
        (["--leakline-rounds=7", "--leakline-warmup=3"], "", "(7 rounds, 3 warm-up)"),
        ([], "leakline_tolerance = 1 KiB", "1 test judged"),
        (["--leakline-tolerance=100"], "", "(30 rounds, 16 warm-up)"),
        (["--leakline-rounds=2"], "", "leakline: rounds are 6 to 1000: 2"),
    ],
)
def test_options_and_configuration(
    suite: Suite, options: Sequence[str], ini: str, says: str
) -> None:
    suite.add("test_app.py", LEAK)
    suite.add("pytest.ini", f"[pytest]\n{ini}\n")
    ran = suite.run("test_app.py", *options)
    assert says in ran.out, ran.out
    assert ("1 fine" in ran.out) == ("1 KiB" in ini), ran.out


def test_tests_that_are_not_judged_cost_nothing(suite: Suite) -> None:
    suite.add(
        "test_app.py",
        """\
import sys

def test_plain():
    assert "leakline._native" not in sys.modules
    with open("/proc/self/maps") as maps:
        assert "leakline_preload" not in maps.read()
""",
    )
    ran = suite.run("test_app.py")
    assert ran.status == 0, ran.out
    assert "leakline:" not in ran.out


def test_the_program_never_hears_of_the_collector(suite: Suite) -> None:
    script = suite.place / "quiet.py"
    script.write_text(
        """\
import os, signal, leakline
heard = []
signal.signal(signal.SIGCHLD, lambda *_: heard.append(1))
descriptors = sorted(os.listdir("/proc/self/fd"))
kept = []
for number in range(5):
    with leakline.record("out.leakline", force=True) as session:
        session.mark("before")
        kept += [bytes(1000) for _ in range(100)]
        session.mark("after")
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            pass
        else:
            raise SystemExit("a child is to be waited for")
    assert session.summary.lost_events == 0
    assert session.summary.live_bytes >= 100_000, session.summary
assert not heard
assert sorted(os.listdir("/proc/self/fd")) == descriptors
rows = leakline.open("out.leakline").diff("before", "after")
assert (rows[0].delta_blocks, rows[0].delta_bytes) == (100, 103_300), rows[0]
assert rows[0].file.endswith("quiet.py") and rows[0].stack[0].function
assert leakline.open("out.leakline").top(limit=1)[0].live_bytes >= 100_000
assert isinstance(leakline.open("out.leakline").leaks(), list)
try:
    leakline.mark("nobody")
except leakline.LeaklineError as error:
    assert "no session" in str(error)
else:
    raise SystemExit("a mark without a session")
"""
    )
    ended = execute([sys.executable, script], cwd=suite.place)
    assert ended.status == 0, ended.err.decode()


def test_sessions_that_are_not_stopped_end_with_the_program(
    suite: Suite, leakline: Leakline
) -> None:
    script = suite.place / "careless.py"
    script.write_text(
        "import leakline, os, sys\n"
        "leakline.start('out.leakline')\n"
        "kept = [bytes(1000) for _ in range(100)]\n"
        "if os.fork() == 0:\n"
        "    sys.exit(0)\n"
        "assert os.wait()[1] == 0\n"
    )
    ended = execute([sys.executable, script], cwd=suite.place)
    assert (ended.status, ended.err) == (0, b""), ended.err.decode()
    stats = Recording(leakline.binary, suite.place / "out.leakline").stats()
    assert stats["totals"]["complete"], stats
    assert stats["totals"]["live_bytes"] >= 100_000, stats


def test_the_package_has_the_command(suite: Suite) -> None:
    command = [sys.executable, "-m", "leakline"]
    version = execute([*command, "--version"])
    assert version.status == 0
    assert version.out.startswith(b"leakline 0."), version.out
    recorded = execute(
        [*command, "run", "-o", "out.leakline", "--", sys.executable, "-c", "exit(7)"],
        cwd=suite.place,
    )
    assert recorded.status == 7, recorded.err.decode()
    stats = execute([*command, "stats", "out.leakline"], cwd=suite.place)
    assert stats.status == 0
    assert b"complete" in stats.out
    missing = execute([*command, "stats", "none.leakline"], cwd=suite.place)
    assert missing.status == 3


LATE = """\
import ctypes, os, socket, struct, threading, time
import leakline

with leakline.record("out.leakline"):
    pass
path = next(
    line.split()[-1] for line in open("/proc/self/maps") if "libleakline" in line
)
interposer = ctypes.CDLL(path)
argument = (ctypes.c_char * 512).in_dll(interposer, "leakline_argument")


def answered(function, name):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(b"\\0" + name)
    listener.listen()

    def answer():
        connection, _ = listener.accept()
        connection.recv(100)
        time.sleep(0.4)
        full = struct.pack("<QII", int.from_bytes(b"leakline", "little"), 1, 0)
        try:
            connection.send(full)
        except OSError:
            pass

    thread = threading.Thread(target=answer)
    thread.start()
    argument.value = name + b":" + b"0" * 32
    function(None)
    thread.join()
    return argument.value.decode()


own = f"leakline-test-{os.getpid()}".encode()
print(answered(interposer.leakline_join, own + b"-1"))
print(answered(interposer.leakline_attach, own + b"-2"))
"""


def test_who_asks_for_a_session_waits_longer_than_who_is_attached_to(
    suite: Suite,
) -> None:
    suite.add("late.py", LATE)
    ran = execute([sys.executable, "late.py"], cwd=suite.place)
    assert ran.status == 0, ran.err.decode()
    said = ran.out.decode().splitlines()
    assert said == ["the session is full", "the collector did not answer"]

"""The pytest plugin's ways to judge whole suites: all tests, known growth, words for machines;
and what it does beside other plugins, fixtures and classes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from suites import Ran, Suite

ALL = """\
import asyncio, logging, sys, time, unittest
import pytest

KEPT, CALLS, ONCE, MADE = [], [], [], []

def test_leaks():
    KEPT.append(object())

def test_fine():
    assert sorted([3, 1, 2]) == [1, 2, 3]

def test_fails():
    assert 1 == 2, "its own"

def test_skips():
    pytest.skip("not here")

@pytest.mark.xfail(strict=True)
def test_expected_to_fail():
    assert 1 == 2

def test_makes_a_directory(tmp_path):
    (tmp_path / "made").mkdir()

def test_counts():
    CALLS.append(1)
    assert len(CALLS) == 1

def test_counts_records(caplog):
    logging.warning("something")
    assert len(caplog.records) == 1

def test_prints(capsys):
    print("something")
    assert capsys.readouterr().out == "something\\n"

def test_patches(monkeypatch, tmp_path):
    assert not hasattr(logging, "judged")
    monkeypatch.setattr(logging, "judged", bytearray(100), raising=False)
    monkeypatch.setenv("JUDGED", "value" * 20)
    monkeypatch.setitem(sys.modules, "judged", object())
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)

@pytest.fixture
def patched(monkeypatch):
    monkeypatch.setattr(logging, "patched", "before", raising=False)

def test_patches_what_a_fixture_patched(patched, monkeypatch):
    assert logging.patched == "before"
    monkeypatch.setattr(logging, "patched", "after")

def test_tells_of_itself(record_property):
    record_property("key", "value" * 10)

def fixture(scope):
    @pytest.fixture(scope=scope, name=scope + "_made")
    def made():
        MADE.append(scope)
        yield [scope]
        MADE.append("end of " + scope)
    return made

of_function, of_class, of_module, of_package, of_session = map(
    fixture, ("function", "class", "module", "package", "session")
)

@pytest.mark.parametrize("number", [1, 2])
def test_scopes(function_made, class_made, module_made, package_made, session_made, number):
    assert function_made == ["function"] and number

def test_each_scope_was_made_as_ever():
    assert MADE.count("function") == MADE.count("end of function") == 2
    assert [MADE.count(one) for one in ("module", "package", "session")] == [1, 1, 1]

class TestPlain:
    def setup_method(self):
        self.kept = []

    def test_method(self):
        assert not self.kept

class TestOfUnittest(unittest.TestCase):
    def test_cleans_up(self):
        self.addCleanup(list, [1] * 10)
        with self.subTest(number=1):
            self.assertEqual(1, 1)

    def test_wrong_in_a_later_subtest(self):
        with self.subTest(number=1):
            ONCE.append(1)
            self.assertEqual(len(ONCE), 1)

    def test_keeps(self):
        KEPT.append(bytearray(10))

class TestAsync(unittest.IsolatedAsyncioTestCase):
    async def test_awaits(self):
        await asyncio.sleep(0)

    async def test_awaits_and_keeps(self):
        await asyncio.sleep(0)
        KEPT.append(bytearray(20))

def test_asks_for_the_fixture(no_growth):
    no_growth(lambda: None)

@pytest.mark.limit_peak("50 MiB")
def test_within_a_limit():
    bytearray(1 << 20)

@pytest.mark.limit_peak("1 MiB")
def test_above_a_limit():
    bytearray(8 << 20)

def test_slow():
    time.sleep(1.1)
"""

FINE = {
    "test_fine",
    "test_prints",
    "test_patches",
    "test_patches_what_a_fixture_patched",
    "test_tells_of_itself",
    "test_scopes[1]",
    "test_scopes[2]",
    "test_each_scope_was_made_as_ever",
    "test_method",
    "test_cleans_up",
    "test_awaits",
    "test_asks_for_the_fixture",
    "test_within_a_limit",
}
LEAKS = {"test_leaks", "test_keeps", "test_awaits_and_keeps", "test_above_a_limit"}
ONCE_ONLY = {
    "test_makes_a_directory",
    "test_counts",
    "test_counts_records",
    "test_wrong_in_a_later_subtest",
}


# Enough where nothing is in doubt.
FEW = ["--leakline-rounds=6"]


def judged(suite: Suite, *options: str, **given: Any) -> tuple[Ran, dict[str, Any]]:
    """A run, and what it writes of each test by the test's name."""
    ran = suite.run("--leakline-json", "judged.json", *FEW, *options, **given)
    path = suite.place / "judged.json"
    told = json.loads(path.read_text())
    path.unlink()
    assert (told["schema"], told["version"]) == ("leakline.pytest", 1)
    return ran, {test["id"].rsplit("::", 1)[-1]: test for test in told["tests"]}


def named(tests: dict[str, Any], verdict: str) -> set[str]:
    return {name for name, test in tests.items() if test["verdict"] == verdict}


@pytest.mark.parametrize("options", [[], ["-n", "2"]])
def test_every_test_is_judged_and_means_what_it_meant(
    suite: Suite, options: list[str]
) -> None:
    suite.add("test_app.py", ALL)
    # Fixtures of wider scopes are counted: all in one process, whatever there is beside it.
    dist = [*options, "--dist=loadfile"] if options else []
    ran, tests = judged(suite, "--leakline-all", *dist)
    assert named(tests, "fine") == FINE, ran.out
    assert named(tests, "leak") == LEAKS, ran.out
    assert named(tests, "not judged") == {*ONCE_ONLY, "test_slow"}, ran.out
    assert named(tests, "unclear") == set(), ran.out
    assert ran.failed == {"test_fails", *LEAKS}, ran.out
    assert "AssertionError: its own" in ran.out
    assert "1 skipped, 1 xfailed" in ran.out
    assert "4: not repeatable" in ran.out, ran.out
    assert "1: too slow to be called again" in ran.out, ran.out
    said = (
        "test_makes_a_directory was not judged: body is not repeatable: it passed, and in "
        "round 2 raised FileExistsError"
    )
    assert said in ran.out, ran.out


def test_a_key_judges_all_tests_and_an_option_none(suite: Suite) -> None:
    suite.add("pytest.ini", "[pytest]\nleakline_all = true\n")
    suite.add("test_app.py", "KEPT = []\ndef test_it():\n    KEPT.append([1])\n")
    ran = suite.run()
    assert ran.failed == {"test_it"}, ran.out
    assert "leakline: every test is judged, in rounds of up to 10 s a test" in ran.out
    # Where the test is: all other frames are pytest's and the plugin's.
    assert ">   def test_it():\nE   leakline.GrowthError: 1 leak, " in ran.out, ran.out
    assert "test_app.py:2: GrowthError" in ran.out
    ran = suite.run("--leakline-off")
    assert ran.passed == {"test_it"}, ran.out
    assert "leakline:" not in ran.out


REPEATED = """\
import pytest

CALLS = []

@pytest.mark.no_growth
def test_marked(tmp_path):
    (tmp_path / "made").mkdir()

@pytest.mark.no_growth
def test_fails_at_once():
    assert 1 == 2, "its own"

@pytest.mark.no_growth
def test_skips_later():
    CALLS.append(1)
    if len(CALLS) == 3:
        pytest.skip("seen enough")

def test_called(no_growth, tmp_path):
    no_growth((tmp_path / "made").mkdir)
"""


def test_a_body_that_cannot_be_repeated_is_told_what_to_do(suite: Suite) -> None:
    suite.add("test_app.py", REPEATED)
    ran, tests = judged(suite)
    assert ran.failed == {"test_marked", "test_fails_at_once", "test_called"}, ran.out
    said = (
        "leakline.NotRepeatableError: body is not repeatable: it passed, and in round 2 raised "
        "FileExistsError"
    )
    assert said in ran.out, ran.out
    assert "use the fixture: no_growth(...) of what can be called again" in ran.out
    # With what was raised, and where.
    assert "direct cause of the following exception" in ran.out
    assert '>       (tmp_path / "made").mkdir()' in ran.out.replace("    >", ">")
    assert ran.out.count("NotRepeatableError: body") == 1 + ran.out.count(
        "FAILED test_app.py::test_marked - leakline.NotRepeatableError: body"
    ), ran.out
    assert "AssertionError: its own" in ran.out
    assert "1 skipped" in ran.out
    assert tests == {}, tests


KNOWN = """\
KEPT = []

def make(count):
    return bytes(count)

def keep(count):
    KEPT.append(make(count))

def test_known(no_growth):
    no_growth(lambda: keep(SIZE))

def test_other(no_growth):
    no_growth(lambda: OTHER)
"""


def test_known_growth_is_told_and_fails_nothing(suite: Suite) -> None:
    def write(size: int, other: str) -> None:
        text = KNOWN.replace("SIZE", str(size)).replace("OTHER", other)
        suite.add("test_app.py", text)

    baseline = suite.place / ".leakline-baseline.json"
    write(1000, "None")
    ran, tests = judged(suite, "--leakline-update-baseline")
    assert ran.status == 0, ran.out
    assert named(tests, "known") == {"test_known"}, ran.out
    assert "leakline: 1 cause of growth in .leakline-baseline.json now" in ran.out
    (known,) = json.loads(baseline.read_text())["causes"]
    assert known["test"] == "test_app.py::test_known"
    assert (known["function"], known["blocks_per_round"]) == ("make", 1.0), known
    assert known["file"] == "test_app.py"
    assert 1000 < known["bytes_per_round"] < 1100
    assert suite.kept() == []

    # The file is found by itself. Lines may move, and there may be somewhat more of it.
    write(1300, "None  # \n\n\n")
    ran, tests = judged(suite)
    assert ran.status == 0, ran.out
    assert "1 fine, 1 known" in ran.out, ran.out
    assert (
        "leakline: known: test_app.py::test_known: make (test_app.py:4), 1.3 KiB"
        in (ran.out)
    )
    (cause,) = tests["test_known"]["causes"]
    assert cause["is_known"]
    assert cause["types"] in ([], ["bytes"])

    # What became worse fails, and what is new.
    write(2000, "keep(10)")
    ran, tests = judged(suite, "-n", "2")
    assert ran.failed == {"test_known", "test_other"}, ran.out
    assert "Of make the baseline knows 1" in ran.out, ran.out
    assert "it became worse" in ran.out, ran.out
    # Written anew by the process that has all of it.
    ran = suite.run("-n", "2", "--leakline-update-baseline")
    assert ran.status == 0, ran.out
    assert len(json.loads(baseline.read_text())["causes"]) == 2

    # What is gone is said of tests that ran, and forgotten when asked.
    write(0, "keep(10)")
    ran = suite.run("-k", "test_other")
    assert ran.status == 0, ran.out
    assert "grows no more" not in ran.out
    write(0, "None")
    ran = suite.run("-k", "test_other")
    gone = "leakline: test_app.py::test_other: make ("
    assert gone in ran.out, ran.out
    assert "grows no more, but the baseline has it" in ran.out
    ran = suite.run("-k", "test_other", "--leakline-update-baseline")
    assert (
        "1 cause of growth in .leakline-baseline.json now, 1 of tests that were not"
        in (ran.out)
    ), ran.out


def test_baselines_elsewhere_and_other_files(suite: Suite) -> None:
    suite.add("test_app.py", KNOWN.replace("SIZE", "10").replace("OTHER", "None"))
    option = "--leakline-baseline=ci/known.json"
    ran = suite.run(option)
    assert ran.status == 4, ran.out
    assert "hint: `--leakline-update-baseline` makes it" in ran.out, ran.out
    assert suite.run(option, "--leakline-update-baseline").status == 0
    assert not (suite.place / ".leakline-baseline.json").exists()
    suite.add("pytest.ini", "[pytest]\nleakline_baseline = ci/known.json\n")
    ran = suite.run()
    assert "1 known" in ran.out, ran.out
    # One of `leakline check` has other units.
    of_check = {"schema": "leakline.baseline", "version": 1, "causes": []}
    later = {"schema": "leakline.pytest.baseline", "version": 9, "causes": []}
    for text, says in (
        (json.dumps(of_check), "it is no baseline of leakline's for pytest"),
        ("nonsense", "it is no baseline of leakline's for pytest"),
        (json.dumps(later), "it is of version 9; this leakline reads up to 1"),
    ):
        suite.add("ci/known.json", text)
        ran = suite.run()
        assert (ran.status, says in ran.out) == (4, True), ran.out


ANNOTATED = """\
import itertools
import pytest
from app import keep

COUNT = itertools.count()
KEPT = []

@pytest.mark.parametrize("text", ["50 %, so: a::b"])
def test_leaks(no_growth, text):
    no_growth(lambda: keep(10))

def test_known(no_growth):
    no_growth(lambda: keep(20))

def sometimes():
    if next(COUNT) % 3 < 2:
        KEPT.append(object())

def test_sometimes(no_growth):
    no_growth(sometimes)

@pytest.mark.limit_peak("1 MiB")
def test_above_its_limit():
    bytearray(4 << 20)
"""


def test_annotations_for_github(suite: Suite) -> None:
    suite.add("test_app.py", ANNOTATED)
    (suite.place / "a,b").mkdir()
    text = "KEPT = []\ndef keep(count):\n    KEPT.append(bytes(count))\n"
    suite.add("a,b/app.py", text)
    suite.add("pytest.ini", "[pytest]\npythonpath = a,b\n")
    suite.run("-k", "known", "--leakline-update-baseline")
    github = {"GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": str(suite.place)}
    ran = suite.run(env=github)
    lines = [line for line in ran.out.splitlines() if line.startswith("::")]
    error, notice, warning, limit = lines
    assert error.startswith(
        "::error file=a%2Cb/app.py,line=3,title=memory leak::keep keeps "
    ), error
    assert "of each round of test_app.py::test_leaks[50 %25, so: a::b]" in error, error
    assert "held by app.KEPT[*]" in error, error
    assert notice.startswith("::notice file=a%2Cb/app.py,line=3,title=known memory"), (
        notice
    )
    assert warning.startswith("::warning file=test_app.py,line=17,title=perhaps"), (
        warning
    )
    assert limit.startswith("::error file=test_app.py,line=22,title=memory above"), (
        limit
    )
    assert "4.0 MiB at once, more than the limit of 1.0 MiB" in limit
    ran = suite.run("--leakline-strict", "-k", "sometimes", env=github)
    assert "::error file=test_app.py,line=17,title=perhaps a memory leak::" in ran.out
    assert "::error" not in suite.run("-k", "limit").out


ASYNC = """\
import asyncio
import pytest

KEPT, LOOPS = [], set()

@pytest.fixture
async def made():
    await asyncio.sleep(0)
    yield [1]
    await asyncio.sleep(0)

MARK
async def test_leaks(made):
    await asyncio.sleep(0)
    KEPT.append(bytearray(made[0]))

MARK
async def test_fine(made):
    LOOPS.add(id(asyncio.get_running_loop()))
    await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))
    assert len(LOOPS) == 1, "a loop for all rounds"

MARK
@pytest.mark.no_growth
async def test_marked(made):
    await asyncio.sleep(0)
    KEPT.append([made])

@pytest.mark.limit_peak("1 MiB")
MARK
async def test_above_its_limit():
    await asyncio.sleep(0)
    bytearray(4 << 20)

async def body():
    await asyncio.sleep(0)

def test_called(no_growth):
    no_growth(body)
"""


@pytest.mark.parametrize(
    ("plugin", "mark"),
    [("pytest_asyncio", "@pytest.mark.asyncio"), ("anyio", "@pytest.mark.anyio")],
)
def test_plugins_for_asyncio_run_each_round(
    suite: Suite, plugin: str, mark: str
) -> None:
    pytest.importorskip(plugin)
    text = ASYNC.replace("MARK", mark)
    if plugin == "pytest_asyncio":
        text = text.replace(
            "@pytest.fixture", "import pytest_asyncio\n@pytest_asyncio.fixture"
        )
        options = ["-p", "no:anyio"]
        suite.needs_asyncio = True
    else:
        text += "\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"
        options = []
    suite.add("test_app.py", text)
    ran, tests = judged(suite, "--leakline-all", *options)
    assert ran.failed == {"test_leaks", "test_marked", "test_above_its_limit"}, ran.out
    assert named(tests, "leak") == ran.failed, ran.out
    assert named(tests, "fine") == {"test_fine", "test_called"}, ran.out
    assert named(tests, "not judged") == set(), ran.out


def test_nobody_runs_async_tests(suite: Suite) -> None:
    suite.add(
        "test_app.py",
        "import pytest\n@pytest.mark.no_growth\nasync def test_it():\n    pass\n",
    )
    ran = suite.run("-p", "no:anyio")
    assert ran.failed == {"test_it"}, ran.out
    assert "async def functions are not natively supported" in ran.out


MOCKED = """\
import os.path

def test_mocks(mocker):
    mock = mocker.patch("os.path.exists", return_value=True)
    assert os.path.exists("nowhere")
    assert mock.call_count == 1
"""


def test_mocks_end_with_their_round(suite: Suite) -> None:
    pytest.importorskip("pytest_mock")
    suite.add("test_app.py", MOCKED)
    ran, tests = judged(suite, "--leakline-all")
    assert named(tests, "fine") == {"test_mocks"}, ran.out


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        (["-p", "leakline"], {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}),
        (["-p", "leakline.pytest_plugin"], {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}),
        (["-p", "leakline"], {}),
        (["-p", "no:logging", "-p", "no:capture"], {}),
        (["-s", "-p", "no:warnings", "-p", "no:junitxml", "-o", "addopts="], {}),
    ],
)
def test_however_plugins_are_loaded(
    suite: Suite, options: list[str], environment: dict[str, str]
) -> None:
    suite.add("test_app.py", KNOWN.replace("SIZE", "10").replace("OTHER", "None"))
    if "no:junitxml" in options:
        suite.is_reported = False
    ran = suite.run(*options, env=environment)
    assert "1 fine, 1 leak" in ran.out, ran.out
    assert ran.status == 1


def test_without_the_plugin(suite: Suite) -> None:
    suite.add(
        "test_app.py",
        "import pytest\n"
        "def test_plain():\n    pass\n"
        "@pytest.mark.no_growth\n"
        "def test_marked():\n    pass\n"
        "def test_asks(no_growth):\n    pass\n",
    )
    ran = suite.run("-p", "no:leakline")
    assert ran.passed == {"test_plain", "test_marked"}, ran.out
    assert "fixture 'no_growth' not found" in ran.out
    assert "leakline:" not in ran.out

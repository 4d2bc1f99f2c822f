"""Tests that nothing grows, of unittest alone."""

from __future__ import annotations

import sys
from pathlib import Path

from harness import Result, execute

CASES = """\
import asyncio, unittest
from leakline.unittest import NoGrowth, no_growth

KEPT, CALLS, SET_UP = [], [], []

class TestAsserts(NoGrowth, unittest.TestCase):
    def test_leaks(self):
        self.assertNoGrowth(lambda: KEPT.append(object()))

    def test_fine(self):
        self.assertNoGrowth(lambda: sorted([3, 1, 2]))

    def test_tolerated(self):
        self.assertNoGrowth(lambda: KEPT.append(object()), tolerance="1 KiB")

    def test_coroutine(self):
        async def body():
            await asyncio.sleep(0)
            KEPT.append(object())
        self.assertNoGrowth(body)

    def test_its_own(self):
        with self.assertRaisesRegex(ValueError, "its own"):
            self.assertNoGrowth(lambda: int("its own"))

class TestDecorated(NoGrowth):
    def setUp(self):
        SET_UP.append(1)

    @no_growth()
    def test_round_leaks(self):
        KEPT.append(bytearray(100))

    @no_growth(rounds=8)
    def test_round_fine(self):
        CALLS.append(0)
        CALLS.pop()
        self.addCleanup(list, [1] * 10)

    @no_growth()
    def test_once_only(self):
        with self.subTest(number=1):
            CALLS.append(1)
            self.assertEqual(len(CALLS), 1)

    @no_growth()
    def test_skipped(self):
        self.skipTest("not here")

    def test_is_not_judged(self):
        KEPT.append(object())

    def test_zz_set_up_was_called_once_a_test(self):
        self.assertEqual(len(SET_UP), 6)

class TestEach(NoGrowth, unittest.IsolatedAsyncioTestCase):
    judge_every_test = True
    growth_options = {"warmup": 3, "directory": "kept"}

    async def test_each_leaks(self):
        await asyncio.sleep(0)
        KEPT.append(bytearray(10))

    async def test_each_fine(self):
        await asyncio.sleep(0)

    def test_each_plain(self):
        KEPT.clear()

if __name__ == "__main__":
    unittest.main()
"""

WRONG = {"test_leaks", "test_coroutine", "test_round_leaks", "test_each_leaks"}


def run(place: Path, *command: str, **environment: str) -> Result:
    (place / "test_cases.py").write_text(CASES)
    env = {"LEAKLINE_OFF": "", "GITHUB_ACTIONS": "", **environment}
    return execute([sys.executable, "-m", *command], cwd=place, env=env, timeout=120)


def test_unittest_alone(tmp_path: Path) -> None:
    ran = run(tmp_path, "unittest", "-v")
    out = ran.err.decode()
    assert ran.status == 1, out
    failed = {line.split()[1] for line in out.splitlines() if line.startswith("FAIL: ")}
    assert failed == {*WRONG, "test_once_only"}, out
    assert "\nERROR: " not in out, out
    assert "skipped=1" in out, out
    assert out.count("leakline.GrowthError: 1 leak, ") == 4, out
    assert "made in         " in out, out
    assert "held by         test_cases.KEPT[*]" in out, out
    assert "leakline.NotRepeatableError: body is not repeatable: it passed" in out, out
    assert "AssertionError: 2 != 1" in out, out
    kept = sorted(path.name for path in tmp_path.glob(".leakline/*.leakline"))
    assert kept == [
        "TestAsserts.test_coroutine.leakline",
        "TestAsserts.test_leaks.leakline",
        "TestDecorated.test_round_leaks.leakline",
    ]
    assert [path.name for path in tmp_path.glob("kept/*.leakline")] == [
        "TestEach.test_each_leaks.leakline"
    ]
    assert "Look closer: leakline .leakline/TestAsserts.test_leaks.leakline" in out


def test_switched_off(tmp_path: Path) -> None:
    ran = run(tmp_path, "unittest", LEAKLINE_OFF="1")
    assert ran.status == 0, ran.err.decode()
    assert not (tmp_path / ".leakline").exists()


def test_where_this_process_cannot_be_recorded(tmp_path: Path) -> None:
    (tmp_path / "recorded.py").write_text(
        "import leakline, unittest\n"
        "with leakline.record('outer.leakline'):\n"
        "    unittest.main('test_cases', exit=False)\n"
    )
    ran = run(tmp_path, "recorded")
    out = ran.err.decode()
    assert "GrowthWarning: test_leaks was not judged: this process is recording" in out
    assert "OK (skipped=1)" in out, out


def test_the_mixin_under_pytest(tmp_path: Path) -> None:
    ran = run(tmp_path, "pytest", "-q", "-p", "no:cacheprovider", "--leakline-all")
    out = ran.out.decode()
    failed = {
        line.split(" - ")[0].rsplit("::", 1)[1]
        for line in out.splitlines()
        if line.startswith("FAILED ")
    }
    # One that has neither decorator nor attribute is judged as all others.
    assert failed == {*WRONG, "test_once_only", "test_is_not_judged"}, out

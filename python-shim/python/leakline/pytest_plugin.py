"""The pytest plugin: the fixture and the marker ``no_growth``, the marker ``limit_peak``.

Tests that use neither cost nothing but the looks at their markers: the extension
module is loaded, and a collector started, with the first test that is judged.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
import warnings
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import pytest

from leakline import _failure, _rounds, _session
from leakline._words import GrowthError, GrowthWarning, LimitError

FINE, LEAK, UNCLEAR, NOT_JUDGED = "fine", "leak", "unclear", "not judged"
_SERIOUS = (LEAK, UNCLEAR, NOT_JUDGED, FINE)


@dataclass
class _Verdict:
    word: str = FINE
    seconds: float = 0.0
    reason: str = ""
    calls: int = 0

    def add(self, word: str, seconds: float, reason: str = "") -> None:
        """Of several in a test, the most serious counts."""
        self.seconds += seconds
        if _SERIOUS.index(word) < _SERIOUS.index(self.word):
            self.word = word
        self.reason = self.reason or reason


_VERDICT: pytest.StashKey[_Verdict] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options, and their keys in a configuration file."""
    group = parser.getgroup("leakline", "memory growth (leakline)")
    options = [
        ("rounds", "N", "rounds that count, 6 or more [10, and 30 more in doubt]"),
        ("warmup", "N", "rounds before that do not count [4]"),
        ("max-time", "SECONDS", "start no further round of a test after this [10]"),
        ("tolerance", "BYTES", "what may be left of a round, e.g. `1 KiB` [0]"),
        ("dir", "DIR", "where recordings of failures are kept [.leakline]"),
    ]
    for name, metavar, text in options:
        key = "leakline_" + name.replace("-", "_")
        group.addoption(f"--leakline-{name}", dest=key, metavar=metavar, help=text)
        parser.addini(key, text, default="")
    text = "fail tests that stay unclear, and those that cannot be judged"
    group.addoption(
        "--leakline-strict",
        dest="leakline_strict",
        action="store_true",
        default=None,
        help=text,
    )
    parser.addini("leakline_strict", text, type="bool", default=False)
    group.addoption(
        "--leakline-off",
        dest="leakline_off",
        action="store_true",
        help="judge nothing: each body runs once",
    )


def _option(config: pytest.Config, name: str) -> Any:
    value = config.getoption(name)
    return config.getini(name) if value is None else value


def _usual_plan(config: pytest.Config) -> _rounds.Plan:
    try:
        given: dict[str, Any] = {}
        for name, kind in (("rounds", int), ("warmup", int), ("max_time", float)):
            value = _option(config, f"leakline_{name}")
            if value != "":
                given[name] = kind(value)
        given["tolerance"] = _option(config, "leakline_tolerance") or None
        return _rounds.with_options(_rounds.Plan(), given)
    except ValueError as error:
        raise pytest.UsageError(f"leakline: {error}") from error


def pytest_configure(config: pytest.Config) -> None:
    """Markers, and a look at the options before any test runs."""
    config.addinivalue_line(
        "markers",
        "no_growth(*, warmup, rounds, tolerance, max_time): call the test in rounds, and "
        "fail it where it keeps memory of each",
    )
    config.addinivalue_line(
        "markers", "limit_peak(size): fail the test where it takes more memory at once"
    )
    _usual_plan(config)
    config.pluginmanager.register(_Tally(), "leakline-tally")


def _why_not(config: pytest.Config) -> str | None:
    if config.getoption("leakline_off"):
        return "--leakline-off"
    return _session.why_not()


class NoGrowth:
    """What the fixture ``no_growth`` gives: call it with what is to be judged."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item

    def __call__(
        self,
        body: Callable[[], object],
        *,
        warmup: int | None = None,
        rounds: int | None = None,
        tolerance: int | str | None = None,
        max_time: float | None = None,
    ) -> None:
        """Call `body` in rounds; fail where it keeps memory of each.

        :param warmup: rounds before those that count.
        :param rounds: rounds that count, 6 or more.
        :param tolerance: what may be left of a round, in bytes or as ``"1 KiB"``.
        :param max_time: seconds after which no further round begins.
        :raises GrowthError: where it grows.
        """
        __tracebackhide__ = True
        given = {
            "warmup": warmup,
            "rounds": rounds,
            "tolerance": tolerance,
            "max_time": max_time,
        }
        _judge(self._item, body, given)


@pytest.fixture
def no_growth(request: pytest.FixtureRequest) -> NoGrowth:
    """Call what is to be judged: ``no_growth(lambda: client.get("/"))``."""
    return NoGrowth(request.node)


def _judge(
    item: pytest.Item, body: Callable[[], object], given: dict[str, Any]
) -> int | None:
    """Judges a body; gives the most it took at once, where that is known."""
    __tracebackhide__ = True
    plan = _rounds.with_options(_usual_plan(item.config), given)
    verdict = item.stash.setdefault(_VERDICT, _Verdict())
    reason = _why_not(item.config)
    is_strict = bool(_option(item.config, "leakline_strict"))
    began = time.monotonic()
    judgement = None
    if reason is None:
        try:
            judgement = _rounds.judge(body, plan)
        except _session.LeaklineError as error:
            reason = str(error)
            if not is_strict:
                _warn(item, f"{item.name} was not judged: {reason}")
    if judgement is None:
        verdict.add(NOT_JUDGED, time.monotonic() - began, str(reason))
        if is_strict:
            pytest.fail(f"leakline: not judged: {reason}", pytrace=False)
        _once(body)
        return None
    verdict.calls += judgement.calls
    try:
        _conclude(item, judgement, verdict, time.monotonic() - began, is_strict)
    finally:
        if judgement.recording is not None and os.path.exists(judgement.recording):
            os.unlink(judgement.recording)
    return judgement.peak_bytes


def _conclude(
    item: pytest.Item,
    judgement: _rounds.Judgement,
    verdict: _Verdict,
    seconds: float,
    is_strict: bool,
) -> None:
    __tracebackhide__ = True
    root = str(item.config.rootpath)
    test_file = str(item.path)
    if judgement.leaks:
        verdict.add(LEAK, seconds)
        found = _failure.causes(judgement.leaks, test_file)
        recording = _keep(item, judgement)
        raise GrowthError(_failure.message(judgement, found, root, recording))
    if not judgement.unsure:
        verdict.add(FINE, seconds)
        return
    verdict.add(UNCLEAR, seconds)
    found = _failure.causes(judgement.unsure, test_file)
    if is_strict:
        recording = _keep(item, judgement)
        text = _failure.message(judgement, found, root, recording)
        raise GrowthError("unclear, and --leakline-strict: perhaps " + text)
    cause = found[0]
    where = cause.made_in or cause.test
    text = (
        f"unclear whether {item.name} grows: {cause.name} "
        f"({_failure.place(where, root) if where else 'place unknown'}) kept something of "
        f"{cause.rounds_kept} of {judgement.rounds} rounds; more rounds or more time decide"
    )
    _warn(item, text)


def _warn(item: pytest.Item, text: str) -> None:
    # A filter may make errors of warnings: that is not what --leakline-strict is.
    with contextlib.suppress(GrowthWarning):
        warnings.warn_explicit(text, GrowthWarning, str(item.path), 0)


def _once(body: Callable[[], object]) -> None:
    import inspect

    if inspect.iscoroutinefunction(body):
        import asyncio

        asyncio.run(body())
    else:
        body()


def _keep(item: pytest.Item, judgement: _rounds.Judgement) -> str | None:
    """Moves the recording to where the user finds it; gives its path, as seen from
    the root directory."""
    if judgement.recording is None:
        return None
    directory = Path(
        item.config.rootpath, _option(item.config, "leakline_dir") or ".leakline"
    )
    name = re.sub(r"[^A-Za-z0-9_.\-\[\]]+", "_", f"{item.path.stem}.{item.name}")[:120]
    kept = directory / f"{name}.leakline"
    try:
        if not directory.is_dir():
            directory.mkdir(parents=True, exist_ok=True)
            (directory / ".gitignore").write_text("# Made by leakline.\n*\n")
        shutil.move(judgement.recording, kept)
    except OSError as error:
        return f"(not kept: {error})"
    try:
        return str(kept.relative_to(item.config.rootpath))
    except ValueError:
        return str(kept)


def _rounds_of(item: Any, marker: pytest.Mark, function: Callable[..., object]) -> Any:
    """A test's function that calls `function` in rounds."""
    import functools
    import inspect

    if marker.args:
        raise pytest.UsageError("leakline: no_growth takes keywords only")
    if inspect.iscoroutinefunction(function):
        raise pytest.UsageError(
            f"leakline: {item.name} is async and nothing here runs it in rounds; "
            "call the fixture: no_growth(body)"
        )

    @functools.wraps(function)
    def rounds(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        peak = _judge(item, lambda: function(*args, **kwargs), dict(marker.kwargs))
        limit = item.get_closest_marker("limit_peak")
        if limit is not None and peak is not None:
            _check_peak(item, limit, peak, None)

    return rounds


def _limited(item: Any, marker: pytest.Mark, function: Callable[..., object]) -> Any:
    """A test's function that is recorded, and held to its limit."""
    import functools
    import tempfile

    @functools.wraps(function)
    def limited(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        verdict = item.stash.setdefault(_VERDICT, _Verdict())
        reason = _why_not(item.config)
        began = time.monotonic()
        session = None
        descriptor, path = tempfile.mkstemp(prefix="leakline-", suffix=".leakline")
        os.close(descriptor)
        try:
            if reason is None:
                try:
                    session = _session.start(path, force=True)
                except _session.LeaklineError as error:
                    reason = str(error)
            if session is None:
                verdict.add(NOT_JUDGED, 0.0, str(reason))
                return function(*args, **kwargs)
            try:
                result = function(*args, **kwargs)
            finally:
                summary = session.stop()
            try:
                _check_peak(item, marker, summary.peak_bytes, path)
            except LimitError:
                verdict.add(LEAK, time.monotonic() - began)
                raise
            verdict.add(FINE, time.monotonic() - began)
            return result
        finally:
            if os.path.exists(path):
                os.unlink(path)

    return limited


def _limit(marker: pytest.Mark) -> int:
    if len(marker.args) != 1 or marker.kwargs:
        raise pytest.UsageError(
            'leakline: limit_peak takes a size: limit_peak("50 MiB")'
        )
    try:
        return _rounds.parse_bytes(marker.args[0])
    except (TypeError, ValueError) as error:
        raise pytest.UsageError(f"leakline: limit_peak: {error}") from error


def _check_peak(
    item: pytest.Item, marker: pytest.Mark, peak: int, path: str | None
) -> None:
    __tracebackhide__ = True
    limit = _limit(marker)
    if peak <= limit:
        return
    lines = [
        f"{_failure.size(peak)} at once, more than the limit of {_failure.size(limit)}"
    ]
    if path is not None:
        from leakline._recording import open as open_recording

        lines.append("")
        for row in open_recording(path).top(at="peak", sort="peak", limit=5):
            where = f"{row.file}:{row.line}" if row.file else row.module
            lines.append(
                f"   {_failure.size(row.peak_bytes):>12}  {row.function:<20} {where}"
            )
        judgement = _rounds.Judgement(recording=path)
        lines += ["", f"Look closer: leakline {_keep(item, judgement)}"]
    raise LimitError("\n".join(lines))


def _wrapped(item: Any, function: Callable[..., object]) -> Any:
    """What to call in place of a test's function, or None."""
    marker = item.get_closest_marker("no_growth")
    if marker is not None:
        return _rounds_of(item, marker, function)
    marker = item.get_closest_marker("limit_peak")
    if marker is not None:
        _limit(marker)
        return _limited(item, marker, function)
    return None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Puts rounds in place of a marked function; plugins for asyncio have made it an
    ordinary one by now."""
    function = pyfuncitem.obj
    wrapped = _wrapped(pyfuncitem, function)
    if wrapped is None:
        return (yield)
    pyfuncitem.obj = wrapped
    try:
        return (yield)
    finally:
        pyfuncitem.obj = function


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """As above for methods of `unittest.TestCase`, which unittest calls itself: set-up
    and tear-down are around all rounds."""
    from _pytest.unittest import TestCaseFunction

    if not isinstance(item, TestCaseFunction):
        return (yield)
    function = item.obj
    wrapped = _wrapped(item, function)
    if wrapped is None:
        return (yield)
    item.obj = wrapped
    try:
        return (yield)
    finally:
        item.obj = function


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Puts the verdict into the report, which also travels from xdist's workers."""
    report = yield
    verdict = item.stash.get(_VERDICT, None)
    if call.when == "call" and verdict is not None:
        report.__dict__["leakline"] = [verdict.word, verdict.seconds, verdict.reason]
        # These are in JUnit's XML, and in what other plugins make of a report.
        told = [
            ("leakline_verdict", verdict.word),
            ("leakline_seconds", f"{verdict.seconds:.3f}"),
            ("leakline_calls", str(verdict.calls)),
        ]
        if verdict.reason:
            told.append(("leakline_reason", verdict.reason))
        item.user_properties += told
        report.user_properties += told
    return report


class _Tally:
    """Counts verdicts for the line at the end."""

    def __init__(self) -> None:
        self._tests: list[tuple[str, str, float, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Takes a verdict from a report."""
        told = report.__dict__.get("leakline")
        if told:
            name = report.nodeid.rsplit("::", 1)[-1]
            self._tests.append((name, *told))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Says what was judged."""
        text = self.line()
        if text:
            terminalreporter.write_line(text)

    def line(self) -> str:
        """The line, empty where nothing was judged."""
        judged = [test for test in self._tests if test[1] != NOT_JUDGED]
        others = [test for test in self._tests if test[1] == NOT_JUDGED]
        words = []
        if judged:
            seconds = sum(test[2] for test in judged)
            counts = []
            for word in (FINE, LEAK, UNCLEAR):
                names = [test[0] for test in judged if test[1] == word]
                if names or word == FINE:
                    plural = "s" if word == LEAK and len(names) != 1 else ""
                    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
                    named = f" ({shown})" if word == UNCLEAR else ""
                    counts.append(f"{len(names)} {word}{plural}{named}")
            tests = "1 test" if len(judged) == 1 else f"{len(judged)} tests"
            words.append(f"{tests} judged in {seconds:.1f} s: {', '.join(counts)}")
        if others:
            tests = "1 test" if len(others) == 1 else f"{len(others)} tests"
            words.append(f"{tests} not judged ({others[0][3]})")
        return "leakline: " + "; ".join(words) if words else ""

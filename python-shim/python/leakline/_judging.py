"""What the pytest plugin does once a test is to be judged."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import re
import time
import unittest
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Callable, NoReturn

import pytest

from leakline import _bodies, _ci, _failure, _rounds, _session
from leakline._words import (
    GrowthError,
    GrowthWarning,
    LimitError,
    NotRepeatableError,
)
from leakline.pytest_plugin import (
    IN_ROUND,
    USUAL_BASELINE,
    VERDICT,
    judges_all,
    option,
)

FINE, KNOWN, LEAK, UNCLEAR, NOT_JUDGED = (
    "fine",
    "known",
    "leak",
    "unclear",
    "not judged",
)
_SERIOUS = (LEAK, UNCLEAR, NOT_JUDGED, KNOWN, FINE)

# What ends a test in any round as it would in the first.
_ENDS_ALL = (KeyboardInterrupt, pytest.exit.Exception)
_ENDS_MARKED = (
    *_ENDS_ALL,
    pytest.skip.Exception,
    pytest.xfail.Exception,
    unittest.SkipTest,
)


@dataclass
class Verdict:
    """What is said of a test."""

    word: str = FINE
    seconds: float = 0.0
    reason: str = ""
    calls: int = 0
    causes: list[_ci.Told] = field(default_factory=list)
    is_given: bool = False
    """Not where the body raised before there was one."""

    def add(self, word: str, seconds: float, reason: str = "") -> None:
        """Of several in a test, the most serious counts."""
        self.is_given = True
        self.seconds += seconds
        if _SERIOUS.index(word) < _SERIOUS.index(self.word):
            self.word = word
        self.reason = self.reason or reason


_OURS = (GrowthError, LimitError, NotRepeatableError)

_INSTEAD = "use the fixture: no_growth(...) of what can be called again"

_BASELINE: pytest.StashKey[_ci.Baseline] = pytest.StashKey()


def usual_plan(config: pytest.Config) -> _rounds.Plan:
    """The plan of tests that say nothing of it."""
    try:
        given: dict[str, Any] = {}
        for name, kind in (("rounds", int), ("warmup", int), ("max_time", float)):
            value = option(config, f"leakline_{name}")
            if value != "":
                given[name] = kind(value)
        given["tolerance"] = option(config, "leakline_tolerance") or None
        return _rounds.with_options(_rounds.Plan(), given)
    except ValueError as error:
        raise pytest.UsageError(f"leakline: {error}") from error


def _file(config: pytest.Config, name: str, usual: str = "") -> Path | None:
    """An option's file: from where pytest was called, a key's from the root directory."""
    given = config.getoption(name)
    if given:
        return Path(config.invocation_params.dir, given)
    named = config.getini(name) or usual
    return Path(config.rootpath, named) if named else None


def prepare(config: pytest.Config) -> None:
    """Looks at the options before any test runs."""
    usual_plan(config)
    _baseline(config)


def _baseline(config: pytest.Config) -> _ci.Baseline:
    """What is known; read once."""
    if _BASELINE not in config.stash:
        config.stash[_BASELINE] = _read_baseline(config)
    return config.stash[_BASELINE]


def _read_baseline(config: pytest.Config) -> _ci.Baseline:
    root = str(config.rootpath)
    path = _file(config, "leakline_baseline")
    if config.getoption("leakline_off"):
        return _ci.Baseline(root)
    is_updated = config.getoption("leakline_update_baseline")
    if path is None:
        path = Path(config.rootpath, USUAL_BASELINE)
        if not path.exists():
            return _ci.Baseline(root)
    elif is_updated and not path.exists():
        return _ci.Baseline(root)
    try:
        return _ci.Baseline.read(str(path), root)
    except OSError as error:
        raise pytest.UsageError(
            f"leakline: cannot read `{path}`: {error.strerror} "
            "(hint: `--leakline-update-baseline` makes it)"
        ) from error
    except ValueError as error:
        raise pytest.UsageError(
            f"leakline: cannot use `{path}` as a baseline: {error}"
        ) from error


def _why_not(config: pytest.Config) -> str | None:
    if config.getoption("leakline_off"):
        return "--leakline-off"
    return _session.why_not()


IS_CALLED, IS_MARKED, IS_ONE_OF_ALL = "called", "marked", "all"
"""Who asks for a judgement: the fixture's caller, a marker, ``--leakline-all``."""


def judge_called(
    item: pytest.Item, body: Callable[[], object], given: dict[str, Any]
) -> None:
    """Judges what is given to the fixture."""
    __tracebackhide__ = True
    _judge(item, _bodies.Body(body, _undo(item)), given, IS_CALLED)


def _judge(
    item: pytest.Item, body: _bodies.Body, given: dict[str, Any], asked: str
) -> int | None:
    """Judges a body; gives the most it took at once, where that is known."""
    __tracebackhide__ = True
    plan = _rounds.with_options(usual_plan(item.config), given)
    verdict = item.stash.setdefault(VERDICT, Verdict())
    reason = _why_not(item.config)
    is_strict = bool(option(item.config, "leakline_strict"))
    began = time.monotonic()
    judgement = None
    if reason is None:
        try:
            judgement = _rounds.judge(body.round, plan, called=body.calls)
        except BaseException as error:
            seconds = time.monotonic() - began
            is_own, body.raised = error is body.raised, None
            if is_own:
                if asked == IS_CALLED or body.calls == 0:
                    raise
                if asked == IS_MARKED:
                    if isinstance(error, _ENDS_MARKED):
                        raise
                    raise NotRepeatableError(
                        _bodies.not_repeatable(error, body, _INSTEAD)
                    ) from error
                if isinstance(error, _ENDS_ALL):
                    raise
                verdict.add(NOT_JUDGED, seconds, "not repeatable")
                _warn(
                    item,
                    f"{item.name} was not judged: {_bodies.not_repeatable(error, body, _INSTEAD)}",
                )
                return None
            if not isinstance(error, _session.LeaklineError):
                raise
            reason = str(error)
            if not is_strict:
                _warn(item, f"{item.name} was not judged: {reason}")
    if judgement is None:
        verdict.add(NOT_JUDGED, time.monotonic() - began, str(reason))
        if is_strict:
            pytest.fail(f"leakline: not judged: {reason}", pytrace=False)
        if body.calls == 0:
            body.once()
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
    verdict: Verdict,
    seconds: float,
    is_strict: bool,
) -> None:
    __tracebackhide__ = True
    root = str(item.config.rootpath)
    test_file = str(item.path)
    baseline = _baseline(item.config)
    file, line, _ = item.reportinfo()
    otherwise = (str(file), (line or 0) + 1)

    def told(cause: _failure.Cause, is_sure: bool, is_known: bool) -> None:
        verdict.causes.append(
            _ci.Told.of(
                cause,
                is_sure=is_sure,
                is_known=is_known,
                root=_ci.workspace(),
                otherwise=otherwise,
            )
        )

    known: list[_failure.Cause] = []
    new: list[_failure.Cause] = []
    notes: list[str] = []
    for cause in _failure.causes(judgement.leaks, test_file):
        is_known = item.config.getoption("leakline_update_baseline") or baseline.knows(
            item.nodeid, cause
        )
        (known if is_known else new).append(cause)
        told(cause, True, is_known)
        before = None if is_known else baseline.find(item.nodeid, cause)
        if before is not None:
            notes.append(
                f"Of {cause.name} the baseline knows {_failure.size(before.bytes_per_round)} "
                "a round: it became worse."
            )
    if known:
        together = sum(cause.bytes for cause in known)
        notes.append(
            f"Known by the baseline: {_failure.size(together)} a round more, of "
            f"{', '.join(cause.name for cause in known)}."
        )
    if new:
        verdict.add(LEAK, seconds)
        recording = _keep(item, judgement)
        raise GrowthError(_failure.message(judgement, new, root, recording, notes))
    # What a baseline knows to grow may be unclear now and then.
    unsure = [
        cause
        for cause in _failure.causes(judgement.unsure, test_file)
        if baseline.find(item.nodeid, cause) is None
    ]
    if not unsure:
        verdict.add(KNOWN if known else FINE, seconds)
        return
    verdict.add(UNCLEAR, seconds)
    for cause in unsure:
        told(cause, False, False)
    if is_strict:
        recording = _keep(item, judgement)
        text = _failure.message(judgement, unsure, root, recording, notes)
        raise GrowthError("unclear, and --leakline-strict: perhaps " + text)
    _warn(item, _failure.unclear(item.name, judgement, unsure, root))


def _warn(item: pytest.Item, text: str) -> None:
    # A filter may make errors of warnings: that is not what --leakline-strict is.
    with contextlib.suppress(GrowthWarning):
        warnings.warn_explicit(text, GrowthWarning, str(item.path), 0)


def _keep(item: pytest.Item, judgement: _rounds.Judgement) -> str | None:
    """Moves the recording to where the user finds it; gives its path, as seen from
    the root directory."""
    if judgement.recording is None:
        return None
    directory = option(item.config, "leakline_dir") or ".leakline"
    name = f"{item.path.stem}.{item.name}"
    return _bodies.keep(judgement.recording, directory, name, str(item.config.rootpath))


def case_of(item: Any) -> Any:
    """The instance of `unittest.TestCase` that a test is a method of, or None."""
    from _pytest.unittest import TestCaseFunction

    return item.instance if isinstance(item, TestCaseFunction) else None


def _undo(item: Any) -> list[_bodies.Undo]:
    """What to take back after each round of what the test's body gives to pytest or
    unittest, to be undone at its end."""
    arguments = getattr(item, "funcargs", None) or {}
    found = [_bodies.of_list(item.user_properties)]
    for name, of in (
        ("monkeypatch", _bodies.of_monkeypatch),
        ("mocker", _bodies.of_mocker),
    ):
        undo = of(arguments[name]) if name in arguments else None
        if undo is not None:
            found.append(undo)
    case = case_of(item)
    undo = None if case is None else _bodies.of_test_case(case)
    if undo is not None:
        found.append(undo)
    return found


def _body_of(item: Any, function: Callable[[], object]) -> _bodies.Body:
    undo = _undo(item)
    case = case_of(item)
    if case is not None:
        undo.append(_bodies.raise_in_subtests(case))
    return _bodies.Body(function, undo)


def _by_pytest(item: Any, function: Callable[..., object]) -> Callable[..., object]:
    """What calls a test's function: where that is async, the plugin that runs such."""
    import inspect

    if not inspect.iscoroutinefunction(function):
        return function

    def call(*args: object, **kwargs: object) -> None:
        outer, item.obj = item.obj, function
        item.stash[IN_ROUND] = True
        try:
            item.ihook.pytest_pyfunc_call(pyfuncitem=item)
        finally:
            item.obj = outer
            item.stash[IN_ROUND] = False

    return call


def _raise_at(function: Callable[..., object], error: AssertionError) -> NoReturn:
    """Raises a failure as if the test's first line had: there it is shown, where else
    all frames were this plugin's and pytest's."""
    import inspect
    import linecache

    __tracebackhide__ = True

    def fail() -> None:
        __tracebackhide__ = True
        raise error.with_traceback(None)

    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is not None and code.co_name.isidentifier():
        first = at = code.co_firstlineno
        # Below its decorators.
        while re.match(r"\s*(@|#|\)|$)", linecache.getline(code.co_filename, at)):
            at += 1
            if at > first + 50:
                at = first
                break
        # On two lines: of a part of one pytest would show which part.
        lines = ["\n" * (first - 1), f"def {code.co_name}():"]
        lines += ["\n" * (at - first), " leakline_fails(\n)\n"]
        names: dict[str, Any] = {"leakline_fails": fail}
        exec(compile("".join(lines), code.co_filename, "exec"), names)
        names[code.co_name]()
    raise error


def _rounds_of(item: Any, marker: pytest.Mark, function: Callable[..., object]) -> Any:
    """A test's function that calls `function` in rounds."""
    import functools

    if marker.args:
        raise pytest.UsageError("leakline: no_growth takes keywords only")
    call = _by_pytest(item, function)

    @functools.wraps(function)
    def rounds(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        body = _body_of(item, lambda: call(*args, **kwargs))
        limit = item.get_closest_marker("limit_peak")
        try:
            peak = _judge(item, body, dict(marker.kwargs), IS_MARKED)
            if limit is not None and peak is not None:
                _check_peak(item, limit, peak, None)
            return
        except _OURS as error:
            ours = error
        if isinstance(ours, LimitError):
            item.stash[VERDICT].add(LEAK, 0.0, _bodies.first_line(ours))
        _raise_at(item.obj, ours)

    return rounds


def _one_of_all(item: Any, function: Callable[..., object]) -> Any:
    """A test's function that calls `function` once, as ever, and then in rounds: what
    the test says of itself does not change."""
    import functools

    call = _by_pytest(item, function)
    limit = item.get_closest_marker("limit_peak")

    @functools.wraps(function)
    def judged(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        body = _body_of(item, lambda: call(*args, **kwargs))
        once = body.once if limit is None else _limited(item, limit, body.once)
        began = time.monotonic()
        result = once()
        seconds = time.monotonic() - began
        verdict = item.stash.setdefault(VERDICT, Verdict())
        if getattr(case_of(item), "has_judged", False):
            # By `leakline.unittest`.
            return result
        if "subtests" in getattr(item, "fixturenames", ()):
            # These report what is wrong, and go on.
            verdict.add(NOT_JUDGED, 0.0, "subtests")
        elif seconds * _rounds.FEWEST_CALLS > usual_plan(item.config).max_time:
            verdict.add(NOT_JUDGED, 0.0, "too slow to be called again")
        else:
            try:
                _judge(item, body, {}, IS_ONE_OF_ALL)
                return result
            except GrowthError as error:
                ours = error
            _raise_at(item.obj, ours)
        return result

    return judged


def _limited(item: Any, marker: pytest.Mark, function: Callable[..., object]) -> Any:
    """A test's function that is recorded, and held to its limit."""
    import functools
    import tempfile

    @functools.wraps(function)
    def limited(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        verdict = item.stash.setdefault(VERDICT, Verdict())
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
            except LimitError as error:
                verdict.add(LEAK, time.monotonic() - began, _bodies.first_line(error))
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


def _judges_itself(item: Any) -> bool:
    """Whether the test asks for the fixture, or is of `leakline.unittest`."""
    return (
        "no_growth" in getattr(item, "fixturenames", ())
        or hasattr(item.obj, "__leakline__")
        or bool(getattr(item.cls, "judge_every_test", False))
    )


def wrapped(item: Any, function: Callable[..., object]) -> Any:
    """What to call in place of a test's function, or None."""
    marker = item.get_closest_marker("no_growth")
    if marker is not None:
        return _rounds_of(item, marker, function)
    if judges_all(item.config) and not _judges_itself(item):
        return _one_of_all(item, function)
    marker = item.get_closest_marker("limit_peak")
    if marker is not None:
        _limit(marker)
        return _limited(item, marker, _by_pytest(item, function))
    return None


def tell(
    item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport
) -> None:
    """Puts a verdict into the report, which also travels from xdist's workers."""
    verdict = item.stash[VERDICT]
    if not verdict.is_given:
        return
    if call.when == "teardown":
        # The test may be run again.
        del item.stash[VERDICT]
    if call.when != "call":
        return
    file, line, _ = item.reportinfo()
    report.__dict__["leakline"] = {
        "verdict": verdict.word,
        "seconds": verdict.seconds,
        "calls": verdict.calls,
        "reason": verdict.reason,
        "at": (str(file), (line or 0) + 1),
        "causes": [asdict(told) for told in verdict.causes],
    }
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


@dataclass
class _Test:
    """What was said of a test."""

    id: str
    verdict: str
    seconds: float
    calls: int
    reason: str
    at: tuple[str, int]
    has_failed: bool
    causes: list[_ci.Told]

    @property
    def name(self) -> str:
        return self.id.rsplit("::", 1)[-1]


class Tally:
    """Puts verdicts together: the lines at the end, and files for machines."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._tests: list[_Test] = []
        self._notes: list[str] = []

    def add(self, report: pytest.TestReport) -> None:
        """Takes a verdict from a report."""
        told = dict(report.__dict__["leakline"])
        causes = [
            _ci.Told(**{**cause, "at": tuple(cause["at"])})
            for cause in told.pop("causes")
        ]
        at = tuple(told.pop("at"))
        test = _Test(
            report.nodeid, **told, at=at, has_failed=report.failed, causes=causes
        )
        self._tests.append(test)

    def write(self) -> None:
        """Writes the files, where this is not one of xdist's workers."""
        if hasattr(self._config, "workerinput"):
            return
        try:
            self._write_baseline()
            self._write_json()
        except OSError as error:
            self._notes.append(f"cannot write `{error.filename}`: {error.strerror}")

    def _write_baseline(self) -> None:
        if not self._config.getoption("leakline_update_baseline"):
            self._notes += self._gone()
            return
        path = _file(self._config, "leakline_baseline", USUAL_BASELINE)
        root = str(self._config.rootpath)
        # A verdict that stayed open says nothing of what was known.
        judged = {
            test.id for test in self._tests if test.verdict in (FINE, KNOWN, LEAK)
        }
        kept = [one for one in _baseline(self._config) if one.test not in judged]
        found = [
            _ci.Known.of(test.id, told, root)
            for test in self._tests
            if test.id in judged
            for told in test.causes
            if told.is_sure
        ]
        baseline = _ci.Baseline(root, [*kept, *found])
        baseline.write(str(path))
        others = f", {len(kept)} of tests that were not judged now" if kept else ""
        causes = "1 cause" if len(baseline) == 1 else f"{len(baseline)} causes"
        self._notes.append(f"{causes} of growth in {self._shown(path)} now{others}")

    def _gone(self) -> list[str]:
        """What the baseline knows and did not happen, in tests of which that is clear."""
        root = str(self._config.rootpath)
        judged = {
            test.id for test in self._tests if test.verdict in (FINE, KNOWN, LEAK)
        }
        happened = {
            _ci.Known.of(test.id, told, root).key()
            for test in self._tests
            for told in test.causes
        }
        return [
            f"{known.test}: {known.function or '[unknown]'} ({known.file}) grows no more, "
            "but the baseline has it: --leakline-update-baseline"
            for known in _baseline(self._config)
            if known.test in judged and known.key() not in happened
        ]

    def _write_json(self) -> None:
        path = _file(self._config, "leakline_json")
        if path is None:
            return
        baseline = _file(self._config, "leakline_baseline", USUAL_BASELINE)
        is_there = baseline is not None and baseline.exists()
        told = {
            "schema": "leakline.pytest",
            "version": 1,
            "root": str(self._config.rootpath),
            "baseline": str(baseline) if is_there else None,
            "tests": [asdict(test) for test in self._tests],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(told) + "\n", encoding="utf-8")

    def _shown(self, path: Path | None) -> str:
        try:
            return str(Path(str(path)).relative_to(self._config.rootpath))
        except ValueError:
            return str(path)

    def show(self, terminalreporter: Any) -> None:
        """Says what was judged."""
        root = str(self._config.rootpath)
        for test in self._tests:
            for told in test.causes:
                if told.is_sure and told.is_known:
                    terminalreporter.write_line(
                        f"leakline: known: {test.id}: {told.place(root)}, "
                        f"{_failure.size(told.bytes_per_round)} a round"
                    )
        for note in self._notes:
            terminalreporter.write_line(f"leakline: {note}")
        text = self.line()
        if text:
            terminalreporter.write_line(text)
        if os.environ.get("GITHUB_ACTIONS") == "true":
            for line in self.annotations():
                terminalreporter.write_line(line)

    def annotations(self) -> list[str]:
        """For GitHub: an error for each cause that fails a test, a notice for each that is
        known, a warning for each that is unclear."""
        lines = []
        for test in self._tests:
            for told in test.causes:
                text = (
                    f"{told.function or '[unknown]'} keeps "
                    f"{_failure.size(told.bytes_per_round)} "
                    f"({', '.join([*told.types, _failure.blocks(told.blocks_per_round)])}) "
                    f"of each round of {test.id}"
                )
                if told.held_by:
                    text += f", held by {told.held_by}"
                kind, title = "notice", "known memory leak"
                if not told.is_sure:
                    kind = "error" if test.has_failed else "warning"
                    title = "perhaps a memory leak"
                elif not told.is_known:
                    kind, title = "error", "memory leak"
                lines.append(_ci.annotation(kind, title, text, told.at))
            if test.verdict == LEAK and not test.causes:
                text = f"{test.id} {test.reason}"
                lines.append(
                    _ci.annotation("error", "memory above its limit", text, test.at)
                )
        return lines

    def line(self) -> str:
        """The line, empty where nothing was judged."""
        judged = [test for test in self._tests if test.verdict != NOT_JUDGED]
        others = [test for test in self._tests if test.verdict == NOT_JUDGED]
        words = []
        if judged:
            seconds = sum(test.seconds for test in judged)
            counts = []
            for word in (FINE, KNOWN, LEAK, UNCLEAR):
                names = [test.name for test in judged if test.verdict == word]
                if names or word == FINE:
                    plural = "s" if word == LEAK and len(names) != 1 else ""
                    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
                    named = f" ({shown})" if word == UNCLEAR else ""
                    counts.append(f"{len(names)} {word}{plural}{named}")
            words.append(
                f"{_tests(len(judged))} judged in {seconds:.1f} s: {', '.join(counts)}"
            )
        if others:
            reasons = collections.Counter(test.reason for test in others)
            if len(reasons) == 1:
                said = others[0].reason
            else:
                said = "; ".join(f"{n}: {why}" for why, n in reasons.most_common())
            words.append(f"{_tests(len(others))} not judged ({said})")
        return "leakline: " + "; ".join(words) if words else ""


def _tests(count: int) -> str:
    return "1 test" if count == 1 else f"{count} tests"

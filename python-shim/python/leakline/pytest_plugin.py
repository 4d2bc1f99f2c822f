"""The pytest plugin: the fixture and the marker ``no_growth``, the marker ``limit_peak``.

Tests that use neither cost nothing but the looks at their markers: what judges tests, the
extension module and a collector are loaded with the first test that is judged.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Callable

import pytest

if TYPE_CHECKING:
    from leakline import _judging

USUAL_BASELINE = ".leakline-baseline.json"

VERDICT: pytest.StashKey[_judging.Verdict] = pytest.StashKey()
IN_ROUND: pytest.StashKey[bool] = pytest.StashKey()
"""Whether a test's function is being called in a round."""

_KEYS = ("rounds", "warmup", "max_time", "tolerance", "baseline", "json", "all")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options, and their keys in a configuration file."""
    group = parser.getgroup("leakline", "memory growth (leakline)")
    options = [
        ("rounds", "N", "rounds that count, 6 or more [10, and 30 more in doubt]"),
        ("warmup", "N", "rounds before that do not count [4]"),
        ("max-time", "SECONDS", "start no further round of a test after this [10]"),
        ("tolerance", "BYTES", "what may be left of a round, e.g. `1 KiB` [0]"),
        ("dir", "DIR", "where recordings of failures are kept [.leakline]"),
        (
            "baseline",
            "FILE",
            "do not fail for growth that this file knows, unless it became worse "
            f"[{USUAL_BASELINE}, where it is there]",
        ),
        ("json", "FILE", "write what was judged as JSON"),
    ]
    for name, metavar, text in options:
        key = "leakline_" + name.replace("-", "_")
        group.addoption(f"--leakline-{name}", dest=key, metavar=metavar, help=text)
        parser.addini(key, text, default="")
    flags = [
        ("all", "judge every test, as if it were marked no_growth"),
        ("strict", "fail tests that stay unclear, and those that cannot be judged"),
    ]
    for name, text in flags:
        group.addoption(
            f"--leakline-{name}",
            dest=f"leakline_{name}",
            action="store_true",
            default=None,
            help=text,
        )
        parser.addini(f"leakline_{name}", text, type="bool", default=False)
    group.addoption(
        "--leakline-update-baseline",
        dest="leakline_update_baseline",
        action="store_true",
        help="write what grows to the baseline's file, and do not fail",
    )
    group.addoption(
        "--leakline-off",
        dest="leakline_off",
        action="store_true",
        help="judge nothing: each body runs once",
    )


def option(config: pytest.Config, name: str) -> Any:
    """An option, or its key in a configuration file."""
    value = config.getoption(name)
    return config.getini(name) if value is None else value


def judges_all(config: pytest.Config) -> bool:
    """Whether every test is."""
    return bool(option(config, "leakline_all")) and not config.getoption("leakline_off")


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
    tally = _Tally(config)
    if _is_asked(config):
        from leakline import _judging

        _judging.prepare(config)
        tally.begin()
    config.pluginmanager.register(tally, "leakline-tally")


def _is_asked(config: pytest.Config) -> bool:
    """Whether options are to be looked at before any test is judged."""
    return (
        bool(config.getoption("leakline_update_baseline"))
        or any(option(config, f"leakline_{name}") for name in _KEYS)
        or os.path.exists(os.path.join(config.rootpath, USUAL_BASELINE))
    )


def pytest_report_header(config: pytest.Config) -> str | None:
    """Says so where every test is judged."""
    if not judges_all(config):
        return None
    from leakline import _judging

    plan = _judging.usual_plan(config)
    return (
        f"leakline: every test is judged, in rounds of up to {plan.max_time:g} s a test"
    )


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
        from leakline import _judging

        _judging.judge_called(self._item, body, given)


@pytest.fixture
def no_growth(request: pytest.FixtureRequest) -> NoGrowth:
    """Call what is to be judged: ``no_growth(lambda: client.get("/"))``."""
    return NoGrowth(request.node)


def _is_judged(item: pytest.Item) -> bool:
    return (
        item.get_closest_marker("no_growth") is not None
        or item.get_closest_marker("limit_peak") is not None
        or judges_all(item.config)
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Puts rounds in place of a marked function. Some plugins for asyncio have made it an
    ordinary one by now; others are called for each round."""
    function = pyfuncitem.obj
    wrapped = None
    if _is_judged(pyfuncitem) and not pyfuncitem.stash.get(IN_ROUND, False):
        from leakline import _judging

        wrapped = _judging.wrapped(pyfuncitem, function)
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
    if not isinstance(item, pytest.Function) or not _is_judged(item):
        return (yield)
    import inspect

    from leakline import _judging

    case: Any = _judging.case_of(item)
    if case is None:
        return (yield)
    function = item.obj
    if inspect.iscoroutinefunction(function) and hasattr(case, "_callTestMethod"):
        # It needs the loop that the class runs, from outside of it.
        wrapped = _judging.wrapped(item, case._callTestMethod)
        if wrapped is None:
            return (yield)
        case._callTestMethod = wrapped
        try:
            return (yield)
        finally:
            del case._callTestMethod
    wrapped = _judging.wrapped(item, function)
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
    """Puts the verdict into the report."""
    report = yield
    if VERDICT in item.stash:
        from leakline import _judging

        _judging.tell(item, call, report)
    return report


class _Tally:
    """Has what was judged told at the end, where anything was."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._tally: _judging.Tally | None = None

    def begin(self) -> _judging.Tally:
        """The tally, from now on."""
        if self._tally is None:
            from leakline import _judging

            self._tally = _judging.Tally(self._config)
        return self._tally

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Takes a verdict, in xdist's controller of its workers' tests, too."""
        if "leakline" in report.__dict__:
            self.begin().add(report)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self) -> Generator[None, None, None]:
        """Writes files, before the lines at the end are written."""
        if self._tally is not None:
            self._tally.write()
        return (yield)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Says what was judged."""
        if self._tally is not None:
            self._tally.show(terminalreporter)

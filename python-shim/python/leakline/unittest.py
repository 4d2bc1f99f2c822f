"""Tests that nothing grows, for those who use unittest alone::

    from leakline.unittest import NoGrowth, no_growth

    class TestHandler(NoGrowth, unittest.TestCase):
        def test_handler(self):
            self.assertNoGrowth(lambda: self.client.get("/"))

        @no_growth(warmup=10)
        def test_parse(self):  # the test's body is the round
            parse(BLOB)

Under pytest these work as well; its own fixture and marker say more at the end.
"""

from __future__ import annotations

import functools
import os
import unittest
import warnings
from collections.abc import Mapping
from typing import Any, Callable, TypeVar

from leakline import _bodies, _failure, _rounds, _session
from leakline._words import GrowthError, GrowthWarning, NotRepeatableError

__all__ = ["NoGrowth", "no_growth"]

_F = TypeVar("_F", bound=Callable[..., Any])

_INSTEAD = "use assertNoGrowth(...) of what can be called again"
_ENDS = (KeyboardInterrupt, unittest.SkipTest)


def no_growth(
    *,
    warmup: int | None = None,
    rounds: int | None = None,
    tolerance: int | str | None = None,
    max_time: float | None = None,
) -> Callable[[_F], _F]:
    """Has a test of a `NoGrowth` class called in rounds, and fail where it keeps memory of
    each. ``setUp`` and ``tearDown`` are around all rounds; arguments are those of
    `NoGrowth.assertNoGrowth`."""
    given = {
        "warmup": warmup,
        "rounds": rounds,
        "tolerance": tolerance,
        "max_time": max_time,
    }

    def mark(function: _F) -> _F:
        function.__leakline__ = given  # type: ignore[attr-defined]
        return function

    return mark


class NoGrowth(unittest.TestCase):
    """A test case that can say that nothing grows."""

    judge_every_test: bool = False
    """Whether each test of the class is called in rounds, as if it had the decorator."""

    growth_options: Mapping[str, int | float | str] = {}
    """For all tests of the class: ``warmup``, ``rounds``, ``tolerance``, ``max_time`` as of
    `assertNoGrowth`; ``strict``: fail what stays unclear or cannot be judged; ``directory``:
    where recordings of failures are kept, from here (``.leakline``)."""

    has_judged: bool = False
    """Whether anything of the test has been judged."""

    def assertNoGrowth(
        self,
        body: Callable[[], object],
        *,
        warmup: int | None = None,
        rounds: int | None = None,
        tolerance: int | str | None = None,
        max_time: float | None = None,
    ) -> None:
        """Call `body` in rounds; fail where it keeps memory of each.

        What is not judged, since this process cannot be recorded or ``$LEAKLINE_OFF`` is set,
        is called once, with a `leakline.GrowthWarning` in the first case.

        :param warmup: rounds before those that count.
        :param rounds: rounds that count, 6 or more.
        :param tolerance: what may be left of a round, in bytes or as ``"1 KiB"``.
        :param max_time: seconds after which no further round begins.
        :raises GrowthError: where it grows.
        """
        given = {
            "warmup": warmup,
            "rounds": rounds,
            "tolerance": tolerance,
            "max_time": max_time,
        }
        undo = _bodies.of_test_case(self)
        self._judge(_bodies.Body(body, [undo] if undo else []), given)

    def _callTestMethod(self, method: Callable[[], object]) -> None:
        given = getattr(method, "__leakline__", None)
        if given is None and not self.judge_every_test:
            super()._callTestMethod(method)  # type: ignore[misc]
            return
        # Around unittest's own: where the test is a coroutine function, that runs it.
        call: Callable[..., object] = super()._callTestMethod  # type: ignore[misc]
        undo = [_bodies.raise_in_subtests(self)]
        clean = _bodies.of_test_case(self)
        body = _bodies.Body(
            functools.partial(call, method), [clean, *undo] if clean else undo
        )
        try:
            self._judge(body, given or {})
        except BaseException as error:
            is_own, body.raised = error is body.raised, None
            if not is_own or body.calls == 0 or isinstance(error, _ENDS):
                raise
            raise NotRepeatableError(
                _bodies.not_repeatable(error, body, _INSTEAD)
            ) from error

    def _judge(self, body: _bodies.Body, given: Mapping[str, Any]) -> None:
        options: dict[str, Any] = dict(self.growth_options)
        is_strict = bool(options.pop("strict", False))
        directory = str(options.pop("directory", ".leakline"))
        plan = _rounds.with_options(_rounds.Plan(), options)
        plan = _rounds.with_options(plan, dict(given))
        self.has_judged = True
        if os.environ.get("LEAKLINE_OFF"):
            body.once()
            return
        try:
            judgement = _rounds.judge(body.round, plan)
        except _session.LeaklineError as error:
            if error is body.raised:
                raise
            if is_strict:
                raise AssertionError(f"not judged: {error}") from error
            self._warn(f"{self._testMethodName} was not judged: {error}")
            if body.calls == 0:
                body.once()
            return
        try:
            self._conclude(judgement, is_strict, directory)
        finally:
            if judgement.recording is not None and os.path.exists(judgement.recording):
                os.unlink(judgement.recording)

    def _conclude(
        self, judgement: _rounds.Judgement, is_strict: bool, directory: str
    ) -> None:
        if not (judgement.leaks or judgement.unsure):
            return
        root = os.getcwd()
        found = _failure.causes(judgement.leaks or judgement.unsure, self._file())
        if not judgement.leaks and not is_strict:
            name = self._testMethodName
            self._warn(_failure.unclear(name, judgement, found, root))
            return
        recording = None
        if judgement.recording is not None:
            name = f"{type(self).__name__}.{self._testMethodName}"
            recording = _bodies.keep(judgement.recording, directory, name, root)
        text = _failure.message(judgement, found, root, recording)
        raise GrowthError(text if judgement.leaks else f"unclear: perhaps {text}")

    def _file(self) -> str:
        import inspect

        return os.path.abspath(inspect.getfile(type(self)))

    def _warn(self, text: str) -> None:
        warnings.warn_explicit(text, GrowthWarning, self._file(), 0)

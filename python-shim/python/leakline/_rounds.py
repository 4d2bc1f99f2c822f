"""Growth by rounds: the same work, done again and again under record.

After each round stands a mark in the recording; a block belongs to the round it was
born in, and what is alive of it at the end tells (`leakline_analysis::rounds` has
the rule). Between rounds the garbage collector runs, for two reasons: a cycle that
nobody has collected yet is no leak, and it empties the interpreter's free lists, so
that an object of this round does not lie in a block of an earlier one. The cache of
type attributes is emptied too: it holds some thousand names that were looked up, each
by a reference, and fills by one a round where a body makes up new ones.

In each round this module keeps an object and a native block of its own. Where they
are not found in the recording nothing else would have been: no judgement then.
"""

from __future__ import annotations

import gc
import inspect
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Callable

from leakline import _retention, _session

if TYPE_CHECKING:
    from leakline import _native

LEAST_WARMUP = 2
FEWEST = 6
MOST = 30
USUAL_WARMUP = 4
USUAL = 10
FEWEST_CALLS = USUAL_WARMUP + FEWEST + 1
"""With the round whose survivors do not count."""
USUAL_SECONDS = 10.0
GRAPH_SECONDS = 10.0
"""How long a heap graph may take: a second is that of two million objects."""

_clear_caches: Callable[[], object] = getattr(
    sys, "_clear_internal_caches", getattr(sys, "_clear_type_cache", lambda: None)
)

_UNITS = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
_UNITS.update(
    {"kb": 1000, "mb": 1000**2, "gb": 1000**3, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
)


def parse_bytes(text: str | float) -> int:
    """A size as users write it: 4096, "4096", "1 KiB", "1.5MiB"."""
    if isinstance(text, (int, float)):
        if text < 0:
            raise ValueError(f"a size is not negative: {text}")
        return int(text)
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = _UNITS.get(found[2].lower()) if found else None
    if found is None or unit is None:
        raise ValueError(f"not a size such as `1 KiB` or `50 MiB`: {text!r}")
    return int(float(found[1]) * unit)


@dataclass(frozen=True)
class Plan:
    """How often to call a body, and what to let pass."""

    warmup: int | None = None
    """Rounds that do not count; None: 4, and others after them where those do not
    suffice."""
    rounds: int | None = None
    """Rounds that count; None: 10, and another 30 where those leave a doubt."""
    tolerance: int = 0
    """Bytes that may be left of a round, all sites together."""
    max_time: float = USUAL_SECONDS
    """Seconds after which no further round begins, once there were enough."""

    def checked(self) -> Plan:
        """Itself, or a `ValueError` that says what is wrong."""
        if self.warmup is not None and self.warmup < 0:
            raise ValueError(f"warmup is not negative: {self.warmup}")
        if self.rounds is not None and not FEWEST <= self.rounds <= 1000:
            raise ValueError(f"rounds are {FEWEST} to 1000: {self.rounds}")
        if not self.max_time > 0:
            raise ValueError(f"max_time is more than 0 seconds: {self.max_time}")
        return self


@dataclass(frozen=True)
class Frame:
    """A frame of a stack that grew."""

    function: str
    file: str
    line: int
    module: str
    is_python: bool
    is_shown: bool
    is_own: bool


@dataclass(frozen=True)
class Stack:
    """A stack of which something is left of each round, or perhaps."""

    grows: bool
    bytes_per_round: float
    blocks_per_round: float
    rounds_kept: int
    made_in: int | None
    frames: tuple[Frame, ...]
    held: Held | None = None
    """None where there is no heap graph, or nothing of the stack in it."""


@dataclass(frozen=True)
class Held:
    """Who holds the objects of a stack, by a heap graph."""

    types: tuple[tuple[str, int], ...]
    """Their types, and how many of each, those with most bytes first."""
    path: str | None
    """What holds most of them; None: nothing, they are in cycles."""
    paths: int
    """How many paths there are."""
    others: tuple[tuple[str, int], ...]
    """What else refers to them, and to how many."""


@dataclass
class Judgement:
    """What the rounds of a body say."""

    rounds: int = 0
    """That counted."""
    warmup: int = 0
    leaks: list[Stack] = field(default_factory=list)
    unsure: list[Stack] = field(default_factory=list)
    tolerated: float = 0.0
    """Bytes a round that grew and may."""
    settled: int = 0
    """Places that kept something, and no more."""
    lost_events: int = 0
    peak_bytes: int = 0
    no_graph: str | None = None
    """Why nobody looked who holds what grows; None where somebody did."""
    recording: str | None = None
    """Of the rounds that decided; whoever asked for the judgement removes it."""

    @property
    def calls(self) -> int:
        """How often the body was called: the last round does not count."""
        return self.warmup + self.rounds + 1


class Calm:
    """Keeps the test runner's own notes of what a body does from growing.

    pytest keeps each record that is logged during a test, and each warning: one a
    round, which is no leak of the body's. Those of the first round stay.
    """

    def __init__(self) -> None:
        self._logs: list[tuple[Any, int, int]] = []
        self._is_first = True

    def __call__(self) -> None:
        import logging

        if self._is_first:
            self._is_first = False
            for handler in logging.getLogger().handlers:
                records = getattr(handler, "records", None)
                stream: Any = getattr(handler, "stream", None)
                if isinstance(records, list) and hasattr(stream, "truncate"):
                    self._logs.append((handler, len(records), stream.tell()))
            return
        for handler, length, end in self._logs:
            del handler.records[length:]
            handler.stream.seek(end)
            handler.stream.truncate()


@contextmanager
def _warnings_once(state: dict[str, bool]) -> Iterator[None]:
    """Shows warnings while `state["first"]`, and none later; counts as one filter
    for all rounds, since changing filters makes every module forget what it warned
    of, and keep it anew."""
    import warnings

    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(*args: Any, **kwargs: Any) -> None:
            if state["first"]:
                shown(*args, **kwargs)

        warnings.showwarning = show
        yield


def judge(body: Callable[[], object], plan: Plan, *, called: int = 0) -> Judgement:
    """Call `body` in rounds, recorded, until it is clear whether it grows.

    Calls that have been made already, `called`, are part of the warm-up.
    What `body` raises is passed on. A first set of rounds that finds nothing
    decides. If it finds growth, or a doubt, a second one has to find it too: caches
    have had time to fill by then. What there is no time for stays unsure.
    """
    began = time.monotonic()
    plan = plan.checked()
    warmup = USUAL_WARMUP if plan.warmup is None else plan.warmup
    warmup = max(0, warmup - called)
    rounds = plan.rounds or USUAL
    calm = Calm()
    state = {"first": called == 0}
    runner = None
    if inspect.iscoroutinefunction(body):
        import asyncio

        loop = asyncio.new_event_loop()
        coroutine = body

        def run() -> None:
            loop.run_until_complete(coroutine())

        runner, body = loop, run
    try:
        with _warnings_once(state):
            first = _pass(
                body, plan, warmup, rounds, began + plan.max_time, calm, state
            )
            first.warmup += called
            if not (first.leaks or first.unsure):
                return first
            if plan.warmup is not None and plan.rounds is not None:
                first.no_graph = "`warmup` and `rounds` leave no second set of rounds"
                return first
            took = time.monotonic() - began
            each = took / max(1, first.warmup + first.rounds + 1)
            more = MOST if plan.rounds is None else plan.rounds
            left = plan.max_time - took
            if left < each * (FEWEST + LEAST_WARMUP):
                first.no_graph = "there was no time for a second set of rounds"
                return first
            deadline = began + plan.max_time
            second = _pass(body, plan, 1, more, deadline, calm, state, with_graph=True)
            if first.recording is not None:
                os.unlink(first.recording)
            second.warmup += first.warmup + first.rounds + 1
            second.peak_bytes = max(second.peak_bytes, first.peak_bytes)
            return second
    finally:
        if runner is not None:
            runner.close()


def _pass(
    body: Callable[[], object],
    plan: Plan,
    warmup: int,
    rounds: int,
    deadline: float,
    calm: Calm,
    state: dict[str, bool],
    *,
    with_graph: bool = False,
) -> Judgement:
    descriptor, path = tempfile.mkstemp(prefix="leakline-", suffix=".leakline")
    os.close(descriptor)
    is_done = False
    try:
        session = _session.start(path, force=True)
        try:
            own = _rounds(session, body, warmup, rounds, deadline, calm, state)
            # Of what there was doubt of already, and before anything is torn down.
            no_graph = _take_graph(path) if with_graph else ""
        finally:
            summary = session.stop()
        judgement = _read(path, plan, len(own))
        judgement.warmup = warmup
        if with_graph and (no_graph is not None or judgement.no_graph is None):
            judgement.no_graph = no_graph
        judgement.lost_events = summary.lost_events
        if summary.lost_events and not judgement.leaks:
            raise _session.LeaklineError(f"{summary.lost_events} events were lost")
        judgement.peak_bytes = summary.peak_bytes
        judgement.recording = path
        is_done = True
        return judgement
    finally:
        if not is_done:
            os.unlink(path)


def _rounds(
    session: _session.Session,
    body: Callable[[], object],
    warmup: int,
    rounds: int,
    deadline: float,
    calm: Calm,
    state: dict[str, bool],
) -> list[object]:
    """Gives what it kept, one object a round: to be alive when the session ends."""
    recorder = session.recorder
    end_round = recorder.end_round
    own: list[object] = []
    for _ in range(warmup):
        body()
        calm()
        state["first"] = False
    # One more than counts: what keeps the last one of something keeps one of it.
    # Between the end of a round and the next call nothing is made: a block that went
    # into a free list there would look as if the body's were ours.
    for number in range(rounds + 2):
        if number > 0:
            body()
            calm()
            state["first"] = False
            _keep_an_object(own)
            _keep_a_block(recorder)
        is_last = number > FEWEST + 1 and time.monotonic() >= deadline
        _clear_caches()
        gc.collect()
        if not end_round():
            raise _session.LeaklineError("a round was not recorded")
        if is_last:
            break
    return own


def _take_graph(path: str) -> str | None:
    """Has a heap graph taken; gives why there is none. No verdict depends on it."""
    try:
        _retention.take_graph(path, "after the rounds", GRAPH_SECONDS)
    except (_session.LeaklineError, OSError, ValueError) as error:
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    return None


def _keep_an_object(own: list[object]) -> None:
    own.append(object())


def _keep_a_block(recorder: _native.Recorder) -> None:
    recorder.keep_a_block()


def _is_here(frame: Frame) -> bool:
    # By its last part: what is before it a recording may have to write otherwise.
    here = os.path.basename(_is_here.__code__.co_filename)
    return os.path.basename(frame.file) == here


def _held(told: dict[str, Any] | None) -> Held | None:
    if told is None or not told["has_path"]:
        return None
    return Held(
        types=tuple((name, count) for name, count in told["types"]),
        path=told["path"],
        paths=told["paths"],
        others=tuple((words, count) for words, count in told["others"]),
    )


def _read(path: str, plan: Plan, rounds: int) -> Judgement:
    answer = json.loads(_session.native().rounds(path))
    if answer["rounds"] != rounds:
        raise _session.LeaklineError(
            f"of {rounds} rounds {answer['rounds']} were recorded"
        )
    judgement = Judgement(rounds=rounds - 1, settled=answer["settled"])
    if not answer["has_graph"]:
        judgement.no_graph = "there is no heap graph in the recording"
    unseen = {
        _keep_an_object.__name__: "Python's allocations were not recorded",
        _keep_a_block.__name__: "native allocations were not recorded",
    }
    for told in answer["stacks"]:
        frames = tuple(Frame(**frame) for frame in told["frames"])
        own = next((frame for frame in frames if frame.is_python), None)
        if own is not None and _is_here(own) and own.function in unseen:
            if told["grows"] and told["rounds_kept"] == rounds - 1:
                del unseen[own.function]
            continue
        stack = Stack(
            grows=told["grows"],
            bytes_per_round=told["bytes_per_round"],
            blocks_per_round=told["blocks_per_round"],
            rounds_kept=told["rounds_kept"],
            made_in=told["made_in"],
            frames=frames,
            held=_held(told.get("held")),
        )
        (judgement.leaks if stack.grows else judgement.unsure).append(stack)
    for why in unseen.values():
        raise _session.LeaklineError(why)
    together = sum(stack.bytes_per_round for stack in judgement.leaks)
    perhaps = together + sum(stack.bytes_per_round for stack in judgement.unsure)
    if together <= plan.tolerance and plan.tolerance > 0:
        judgement.leaks.clear()
        judgement.tolerated = together
    if perhaps <= plan.tolerance and plan.tolerance > 0:
        judgement.unsure.clear()
        judgement.tolerated = perhaps
    return judgement


def with_options(plan: Plan, given: dict[str, Any]) -> Plan:
    """A plan with what a marker or the fixture's caller gives."""
    known = {"warmup", "rounds", "tolerance", "max_time"}
    unknown = sorted(set(given) - known)
    if unknown:
        raise TypeError(
            f"no_growth does not know `{unknown[0]}`; it has {sorted(known)}"
        )
    values = {key: value for key, value in given.items() if value is not None}
    if "tolerance" in values:
        values["tolerance"] = parse_bytes(values["tolerance"])
    return replace(plan, **values).checked()

"""tracemalloc's interface over leakline's recording: change the import, and no more.

::

    import leakline.tracemalloc as tracemalloc

    tracemalloc.start(25)
    before = tracemalloc.take_snapshot()
    work()
    for statistic in tracemalloc.take_snapshot().compare_to(before, "lineno")[:10]:
        print(statistic)

`start` begins a session of this process (as `leakline.start` does, with Python's
allocators alone), and a snapshot is a mark in it: taking one costs microseconds, however
much lives. What lived then is read by another process when a snapshot is first asked.

Where this process cannot be recorded (another system than Linux, for one), or where the
standard library's tracemalloc traces already, all of this is that module's: `backend` says
which it is. What differs in a session is told in docs/python.md.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import tempfile
import threading
import tracemalloc as _standard
import weakref
from collections.abc import Iterable
from tracemalloc import (
    DomainFilter,
    Filter,
    Frame,
    Statistic,
    StatisticDiff,
    Trace,
    Traceback,
)
from typing import Any, Union

from leakline import _session

__all__ = [
    "DomainFilter",
    "Filter",
    "Frame",
    "Snapshot",
    "Statistic",
    "StatisticDiff",
    "Trace",
    "Traceback",
    "backend",
    "clear_traces",
    "get_object_traceback",
    "get_traceback_limit",
    "get_traced_memory",
    "get_tracemalloc_memory",
    "is_tracing",
    "reset_peak",
    "start",
    "stop",
    "take_snapshot",
]

_Frames = tuple[tuple[str, int], ...]
"""File and line, the most recent call first."""
_RawTrace = tuple[int, int, _Frames, Union[int, None]]
"""Domain, bytes, frames, and how many frames there were."""
_Site = tuple[int, int, int, _Frames, Union[int, None]]
"""Domain, bytes, blocks, frames, and how many frames there were."""

_UNKNOWN: _Frames = (("<unknown>", 0),)


class _Tracer:
    """A session that stands behind this module."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self.peak_since = "start"
        self.pid = os.getpid()
        descriptor, self.path = tempfile.mkstemp(prefix="leakline-", suffix=".leakline")
        os.close(descriptor)
        # With the tracer and the last snapshot that is to be read from it.
        weakref.finalize(self, _remove, self.path, self.pid)
        self.session = _session.start(self.path, force=True, native=False)

    def mark(self, what: str) -> str:
        """Marks this instant; gives its name."""
        name = self.next_name(what)
        self.session.mark(name)
        return name

    def next_name(self, what: str) -> str:
        """A name for a mark or a heap graph."""
        self.taken += 1
        return f"tracemalloc {what} {self.taken}"

    def ask(self, *options: str) -> dict[str, Any]:
        command = [*_session.helper(), "__traces", self.path, *options]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode != 0:
            raise _session.LeaklineError(done.stderr.decode(errors="replace").strip())
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


def _remove(path: str, pid: int) -> None:
    # A forked child has this too, and runs it at its end.
    if os.getpid() == pid and os.path.exists(path):
        os.unlink(path)


_tracer: _Tracer | None = None
_lock = threading.Lock()


def _forget() -> None:
    """In a forked child: the session is its parent's."""
    global _tracer, _lock
    _tracer, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def backend() -> str | None:
    """What traces: ``"leakline"``, ``"tracemalloc"`` (the standard library's), or None."""
    if _tracer is not None:
        return "leakline"
    return "tracemalloc" if _standard.is_tracing() else None


def start(nframe: int = 1) -> None:
    """Begin to trace, with at most `nframe` frames of each stack in what is reported."""
    global _tracer
    if not 1 <= nframe <= 65535:
        raise ValueError("the number of frames must be in range [1; 65535]")
    with _lock:
        if _tracer is not None or _standard.is_tracing():
            return
        if _session.why_not() is None:
            try:
                _tracer = _Tracer(nframe)
                return
            except _session.LeaklineError:
                # Recorded already, under a limit, ...: traced all the same.
                pass
        _standard.start(nframe)


def stop() -> None:
    """Stop tracing. Snapshots that were taken stay."""
    global _tracer
    with _lock:
        tracer, _tracer = _tracer, None
    if tracer is not None:
        tracer.session.stop()
    else:
        _standard.stop()


def is_tracing() -> bool:
    """Whether memory is traced."""
    return _tracer is not None or _standard.is_tracing()


def clear_traces() -> None:
    """Forget all blocks up to now: a session ends, another one begins."""
    tracer = _tracer
    if tracer is None:
        _standard.clear_traces()
        return
    stop()
    start(tracer.limit)


def get_traceback_limit() -> int:
    """Most frames of a stack."""
    tracer = _tracer
    return _standard.get_traceback_limit() if tracer is None else tracer.limit


def get_traced_memory() -> tuple[int, int]:
    """Bytes that live, and the most that lived at once. In a session some 0.1 s."""
    tracer = _tracer
    if tracer is None:
        return _standard.get_traced_memory()
    answer = tracer.ask("--at", "end", "--peak-since", tracer.peak_since)
    return answer["live_bytes"], answer["peak_bytes"]


def reset_peak() -> None:
    """Have `get_traced_memory` give the most since now."""
    tracer = _tracer
    if tracer is None:
        _standard.reset_peak()
    else:
        tracer.peak_since = tracer.mark("peak")


def get_tracemalloc_memory() -> int:
    """Bytes that tracing takes in this process. In a session 0: its tables are in another
    process, and the rings that events pass through are no allocation."""
    return 0 if _tracer is not None else _standard.get_tracemalloc_memory()


def get_object_traceback(obj: object) -> Traceback | None:
    """Where an object was made.

    In a session this takes a heap graph: tens of milliseconds and more, where the standard
    library's takes a microsecond. `leakline.allocations_at` asks for many objects at once.
    """
    tracer = _tracer
    if tracer is None:
        return _standard.get_object_traceback(obj)
    from leakline._retention import _origins

    answer = _origins(tracer.path, tracer.next_name("object"), [obj])
    told = answer["objects"][0]
    if told is None or told["stack"] is None:
        return None
    frames = [answer["frames"][at] for at in told["stack"]]
    stack = [
        (frame["file"], frame["line"]) for frame in frames if frame["kind"] == "python"
    ]
    if not stack:
        return None
    return Traceback(tuple(stack[: tracer.limit]), len(stack))


def take_snapshot() -> _standard.Snapshot:
    """What lives now, by where it was made."""
    tracer = _tracer
    if tracer is None:
        return _standard.take_snapshot()
    return Snapshot._at(tracer, tracer.mark("snapshot"))


class Snapshot(_standard.Snapshot):
    """As `tracemalloc.Snapshot`; each is compared to the other.

    Of a session's snapshot, bytes and blocks are known by stack: in `traces`, which is made
    when asked for, the blocks of a stack have the same size.
    """

    traceback_limit: int

    def __init__(self, traces: Iterable[_RawTrace], traceback_limit: int) -> None:
        self.traceback_limit = traceback_limit
        self._raw: list[_RawTrace] | None = list(traces)
        self._known: list[_Site] | None = None
        self._from: tuple[_Tracer, str] | None = None

    @classmethod
    def _at(cls, tracer: _Tracer, mark: str) -> Snapshot:
        made = cls((), tracer.limit)
        made._raw, made._from = None, (tracer, mark)
        return made

    @classmethod
    def _of(cls, sites: list[_Site], limit: int) -> Snapshot:
        made = cls((), limit)
        made._raw, made._known = None, sites
        return made

    def _sites(self) -> list[_Site]:
        if self._known is None:
            if self._from is not None:
                tracer, mark = self._from
                self._known = _read(tracer, mark)
                # The recording need not be kept for it.
                self._from = None
            else:
                self._known = [
                    (domain, size, 1, frames, total)
                    for domain, size, frames, total in self._raw or ()
                ]
        return self._known

    @property
    def traces(self) -> Any:  # type: ignore[override]
        """The blocks, as the standard library's snapshots have them."""
        return _standard.Snapshot(self._traces(), self.traceback_limit).traces

    def _traces(self) -> list[_RawTrace]:
        if self._raw is None:
            self._raw = [trace for site in self._sites() for trace in _blocks(site)]
        return self._raw

    def dump(self, filename: Any) -> None:
        """Write a file that `tracemalloc.Snapshot.load` and ``leakline import`` read."""
        _standard.Snapshot(self._traces(), self.traceback_limit).dump(filename)

    @staticmethod
    def load(filename: Any) -> Snapshot:
        """Read what `dump` writes; what else a pickle asks for is refused, not run.

        :raises pickle.UnpicklingError: where the file is no dump.
        """
        with open(filename, "rb") as file:
            return _loaded(file)

    def filter_traces(self, filters: Any) -> Snapshot:
        """A snapshot of those traces alone that match."""
        if not isinstance(filters, Iterable):
            raise TypeError(
                f"filters must be a list of filters, not {type(filters).__name__}"
            )
        filters = list(filters)
        including = [one for one in filters if one.inclusive]
        excluding = [one for one in filters if not one.inclusive]

        def is_kept(site: _Site) -> bool:
            trace = (site[0], site[1], site[3], site[4])
            if including and not any(one._match(trace) for one in including):
                return False
            return all(one._match(trace) for one in excluding)

        return Snapshot._of(
            [site for site in self._sites() if is_kept(site)], self.traceback_limit
        )

    def _group_by(self, key_type: str, cumulative: bool) -> dict[Traceback, Statistic]:
        """As the standard library's, which `statistics` and `compare_to` call."""
        if key_type not in ("traceback", "filename", "lineno"):
            raise ValueError(f"unknown key_type: {key_type!r}")
        if cumulative and key_type == "traceback":
            raise ValueError(
                f"cumulative mode cannot by used with key type {key_type!r}"
            )
        sums: dict[_Frames, list[int]] = {}
        for _, size, count, frames, _ in self._sites():
            for key in _keys(frames, key_type, cumulative):
                held = sums.setdefault(key, [0, 0])
                held[0] += size
                held[1] += count
        return {
            traceback: Statistic(traceback, size, count)
            for traceback, (size, count) in (
                (Traceback(key), held) for key, held in sums.items()
            )
        }


def _keys(frames: _Frames, key_type: str, cumulative: bool) -> list[_Frames]:
    if key_type == "traceback":
        return [frames]
    # As the standard library: a line that is in a stack twice counts twice.
    some = frames if cumulative else frames[:1]
    if key_type == "lineno":
        return [(frame,) for frame in some]
    return [((file, 0),) for file, _ in some]


def _blocks(site: _Site) -> list[_RawTrace]:
    """A site's blocks, of one size but for the last ones, so that they sum up."""
    domain, size, count, frames, total = site
    each, larger = divmod(size, max(count, 1))
    return [
        (domain, each + (number < larger), frames, total) for number in range(count)
    ]


def _read(tracer: _Tracer, mark: str) -> list[_Site]:
    answer = tracer.ask("--at", mark, "--frames", str(tracer.limit))
    frames: list[tuple[str, int]] = [(file, line) for file, line in answer["frames"]]
    return [
        (0, size, count, tuple(frames[at] for at in stack) or _UNKNOWN, total or 1)
        for count, size, stack, total in answer["stacks"]
    ]


class _Object:
    """Stands for an object of a dump: a state, and nothing to run."""


class _DumpedSnapshot(_Object):
    traces: Any
    traceback_limit: Any


class _DumpedTraces(_Object):
    _traces: Any


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # New ones each time: a pickle may write to what it names.
        if (module, name) == ("tracemalloc", "Snapshot"):
            return type("Snapshot", (_DumpedSnapshot,), {})
        if (module, name) == ("tracemalloc", "_Traces"):
            return type("_Traces", (_DumpedTraces,), {})
        raise pickle.UnpicklingError(
            f"refused: the dump names {module}.{name}, which is no part of a "
            "tracemalloc snapshot"
        )


def _loaded(file: Any) -> Snapshot:
    try:
        dumped = _Unpickler(file).load()
        traces, limit = dumped.traces._traces, dumped.traceback_limit
        kept = [_checked(trace) for trace in traces]
        if not isinstance(limit, int):
            raise TypeError
    except (AttributeError, TypeError, ValueError, EOFError, IndexError) as error:
        raise pickle.UnpicklingError(
            "the file is no dump of a tracemalloc snapshot"
        ) from error
    return Snapshot(kept, limit)


def _checked(trace: Any) -> _RawTrace:
    # Before 3.9 there was no number of frames.
    domain, size, frames, *total = trace
    if type(domain) is not int or type(size) is not int or len(total) > 1:
        raise TypeError
    checked = tuple((file, line) for file, line in frames)
    if not checked or not all(
        type(file) is str and type(line) is int for file, line in checked
    ):
        raise TypeError
    return domain, size, checked, total[0] if total else None

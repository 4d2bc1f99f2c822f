"""Snapshots: what lives at an instant, by leakline's own recording or by tracemalloc."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from leakline import _session
from leakline._recording import Frame, Recording, Row, Rows

LEAKLINE, TRACEMALLOC = "leakline", "tracemalloc"

_NUMPY = 389047
"""The domain in which NumPy tells tracemalloc of its arrays."""

_GROUPS = ("site", "line", "file")


class Diff(Rows):
    """What changed between two snapshots: rows, the largest change first."""

    def __init__(self, rows: Iterable[Row]) -> None:
        super().__init__(sorted(rows, key=lambda row: -abs(row.delta_bytes)))

    def growing(self) -> Rows:
        """Rows that have more bytes than before, the largest growth first."""
        return Rows(row for row in self if row.delta_bytes > 0)

    def shrinking(self) -> Rows:
        """Rows that have fewer bytes than before."""
        return Rows(row for row in self if row.delta_bytes < 0)

    def __repr__(self) -> str:
        total = sum(row.delta_bytes for row in self)
        return f"<Diff of {len(self)} rows, {total:+,} bytes>"


class Snapshot:
    """What lives at an instant; made by `snapshot`."""

    def __init__(
        self,
        name: str | None,
        path: Path | None,
        traces: tracemalloc.Snapshot | None,
    ) -> None:
        self.name = name
        """The mark in the session's recording; None without a session."""
        self.path = path
        """That recording."""
        self.traces = traces
        """What tracemalloc had, in all its domains; None where it did not trace."""
        self._taken = time.time()

    @property
    def sources(self) -> tuple[str, ...]:
        """Who knows of this instant: ``leakline``, ``tracemalloc``, or both."""
        known = (self.path is not None, self.traces is not None)
        return tuple(
            name for name, is_known in zip((LEAKLINE, TRACEMALLOC), known) if is_known
        )

    def top(
        self, *, by: str = "site", source: str | None = None, limit: int | None = None
    ) -> Rows:
        """What lives, the largest first.

        :param by: ``site`` (a stack in a domain), ``line`` or ``file``.
        :param source: ``leakline`` or ``tracemalloc``, where both know.
        :param limit: most rows; None: all.
        """
        if self._source(by, source) == LEAKLINE:
            path, name = self._mark()
            options = ["--by", by, "--at", name, "--limit", str(limit or 0)]
            return Recording(path)._rows("top", options)
        rows = [
            _row(key, held, held) for key, held in _grouped(self.traces, by).items()
        ]
        rows.sort(key=lambda row: -row.live_bytes)
        return Rows(rows[:limit])

    def diff(
        self, before: Snapshot, *, by: str = "site", source: str | None = None
    ) -> Diff:
        """What changed since an earlier snapshot: arguments as of `top`."""
        chosen = self._source(by, source)
        if source is None and chosen not in before.sources:
            # Of two that both know something, what both know.
            chosen = next(
                (one for one in self.sources if one in before.sources), chosen
            )
        before._source(by, chosen)
        if chosen == LEAKLINE:
            (path, name), (other, earlier) = self._mark(), before._mark()
            if other != path:
                raise _session.LeaklineError(
                    "the snapshots are of two sessions: `leakline diff FILE FILE2` compares these"
                )
            options = ["--from", earlier, "--to", name, "--by", by, "--limit", "0"]
            return Diff(Recording(path)._rows("diff", options))
        old, new = _grouped(before.traces, by), _grouped(self.traces, by)
        rows = []
        for key in {**old, **new}:
            was, now = old.get(key, (0, 0)), new.get(key, (0, 0))
            if was != now:
                rows.append(_row(key, now, (now[0] - was[0], now[1] - was[1])))
        return Diff(rows)

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        earlier: Iterable[Snapshot] = (),
        force: bool = False,
    ) -> Recording:
        """Write what tracemalloc had as a recording, as ``leakline import`` does.

        :param earlier: snapshots to be instants of it, too, before this one: what changed
            between them is in its reports, and in the terminal UI.
        :param force: replace the file where it exists.
        """
        file = Path(path).absolute()
        snapshots = [*earlier, self]
        with tempfile.TemporaryDirectory(prefix="leakline-") as directory:
            dumps: list[str] = []
            for number, snapshot in enumerate(snapshots, 1):
                if snapshot.traces is None:
                    raise _session.LeaklineError(
                        f"there is nothing of tracemalloc's to save of {snapshot!r}; the "
                        f"session's recording is {snapshot.path}"
                    )
                usual = "snapshot" if len(snapshots) == 1 else f"snapshot {number}"
                # An instant has the name of its file, and its time.
                name = (snapshot.name or usual).replace("/", "_")
                place = Path(directory, str(number))
                place.mkdir()
                dumps.append(str(place / f"{name}.dump"))
                snapshot.traces.dump(dumps[-1])
                os.utime(dumps[-1], (snapshot._taken, snapshot._taken))
            command = [*_session.helper(), "import", "tracemalloc", *dumps]
            command += ["-o", str(file), *(["--force"] if force else [])]
            done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode != 0:
            raise _session.LeaklineError(done.stderr.decode(errors="replace").strip())
        return Recording(file)

    def _mark(self) -> tuple[Path, str]:
        if self.path is None or self.name is None:
            raise _session.LeaklineError(f"{self!r} is of no session")
        return self.path, self.name

    def _source(self, by: str, source: str | None) -> str:
        if by not in _GROUPS:
            raise ValueError(f"`by` is one of {', '.join(_GROUPS)}")
        if source is None:
            return self.sources[0]
        if source not in self.sources:
            raise _session.LeaklineError(
                f"of {self!r} {source} knows nothing: it was not tracing then"
            )
        return source

    def __repr__(self) -> str:
        name = "" if self.name is None else f" {self.name!r}"
        return f"<Snapshot{name} of {' and '.join(self.sources)}>"


def snapshot(name: str | None = None) -> Snapshot:
    """What lives now::

        before = leakline.snapshot()
        work()
        for row in leakline.snapshot().diff(before).growing():
            print(row)

    In a session it is a mark in the recording, under `name`, and is read when it is asked.
    Where the standard library's tracemalloc traces, its traces are taken; where both are at
    work, both. They do not know the same: tracemalloc has no native memory, a session none
    of the blocks from before it began.

    :raises LeaklineError: where neither is at work.
    """
    session = _session.current()
    is_traced = tracemalloc.is_tracing()
    if session is None and not is_traced:
        raise _session.LeaklineError(
            "nothing is recorded: begin with leakline.start(FILE), or tracemalloc.start()"
        )
    if session is not None:
        name = name or session.next_name()
        session.mark(name)
    traces = tracemalloc.take_snapshot() if is_traced else None
    return Snapshot(name, None if session is None else session.path, traces)


_Key = tuple[str, tuple[tuple[str, int], ...]]
"""A domain, and frames, the most recent call first."""
_Held = tuple[int, int]
"""Bytes and blocks."""


def _grouped(traces: Any, by: str) -> dict[_Key, _Held]:
    held: dict[_Key, _Held] = {}
    for domain, size, frames, *_ in traces.traces._traces:
        if by == "site":
            key = (_domain(domain), frames)
        elif by == "line":
            key = ("", frames[:1])
        else:
            key = ("", ((frames[0][0], 0),))
        before = held.get(key, (0, 0))
        held[key] = (before[0] + size, before[1] + 1)
    return held


def _domain(number: int) -> str:
    if number == 0:
        return "python"
    return "numpy" if number == _NUMPY else "foreign"


def _row(key: _Key, now: _Held, change: _Held) -> Row:
    domain, frames = key
    stack = tuple(
        Frame(_function(file, line), file, line, module="", kind="python")
        for file, line in frames
    )
    return Row(
        function=stack[0].function,
        file=stack[0].file,
        line=stack[0].line,
        module="",
        domain=domain,
        live_bytes=now[0],
        live_blocks=now[1],
        total_bytes=0,
        total_blocks=0,
        peak_bytes=0,
        temporary_blocks=0,
        delta_bytes=change[0],
        delta_blocks=change[1],
        stack=stack,
    )


def _function(file: str, line: int) -> str:
    """tracemalloc knows no functions: by file and line, as in an import."""
    base = file.rsplit("/", 1)[-1]
    return f"{base}:{line}" if line else base

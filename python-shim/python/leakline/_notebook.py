"""``%load_ext leakline``, and ``%%leakline`` over a cell: what the cell left behind.

IPython is looked for when the extension is loaded, and not before.
"""

from __future__ import annotations

import gc
import html
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from IPython.core.magic import Magics, cell_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring

from leakline import _retention, _session
from leakline._recording import Frame, Recording, Row, Rows, _row
from leakline._words import size

MOST_HELD = 5
"""Rows whose holders are looked for: each takes a process that reads the heap graph."""


@dataclass(frozen=True, repr=False)
class CellGrowth:
    """What a cell made that lives after it; shown by ``%%leakline``."""

    rows: Rows
    """By site, the largest first: what the cell and what it called made."""
    held: tuple[_retention.HeldPath | None, ...]
    """By row, what keeps most of it; None: not looked for, or not known."""
    others_bytes: int
    """What else changed meanwhile: mostly what IPython itself keeps, as its history."""
    lost_events: int
    """Events that were lost; 0 where these rows are exact."""
    recording: Path | None
    """Where more can be asked: with ``-o FILE``, or in a session that goes on."""
    no_graph: str | None
    """Why nobody looked for holders."""

    @property
    def bytes(self) -> int:
        """All rows together."""
        return sum(row.delta_bytes for row in self.rows)

    def _heading(self) -> str:
        if not self.rows:
            return "The cell left nothing behind."
        blocks = sum(row.delta_blocks for row in self.rows)
        return f"The cell left {size(self.bytes)} in {blocks:,} blocks."

    def _notes(self) -> list[str]:
        notes = []
        if self.others_bytes > 0:
            notes.append(
                f"Not counted: {size(self.others_bytes)} of IPython's own, or too small."
            )
        if self.lost_events:
            notes.append(f"{self.lost_events:,} events were lost.")
        if self.no_graph is not None:
            notes.append(f"Holders are not known: {self.no_graph}.")
        if self.recording is not None:
            notes.append(f"Look closer: leakline {self.recording}")
        return notes

    def _table(self) -> list[tuple[str, str, str, str, str]]:
        return [
            (
                size(row.delta_bytes),
                f"{row.delta_blocks:,}",
                row.function,
                _place(row),
                _held_by(held),
            )
            for row, held in zip(self.rows, self.held)
        ]

    def __repr__(self) -> str:
        lines = [self._heading()]
        for grew, blocks, function, place, held in self._table():
            lines.append(f"{grew:>11} {blocks:>7}  {function}  {place}")
            if held:
                lines.append(f"{'':21}held by {held}")
        return "\n".join(lines + self._notes())

    def _repr_html_(self) -> str:
        cells = html.escape
        head = "".join(
            f"<th style='text-align:left'>{word}</th>"
            for word in ("grew", "blocks", "made in", "", "held by")
        )
        rows = "".join(
            "<tr>"
            + "".join(f"<td style='text-align:left'>{cells(cell)}</td>" for cell in row)
            + "</tr>"
            for row in self._table()
        )
        table = f"<table><tr>{head}</tr>{rows}</table>" if self.rows else ""
        notes = "".join(
            f"<div><small>{cells(note)}</small></div>" for note in self._notes()
        )
        return f"<div><b>{cells(self._heading())}</b></div>{table}{notes}"


def _place(row: Row) -> str:
    return (
        f"{_short(row.file)}:{row.line}" if row.file else row.module.rsplit("/", 1)[-1]
    )


def _short(file: str) -> str:
    """A cell by its own name, other files by their last two parts."""
    if "ipykernel" in file or file.startswith("<"):
        return file.rsplit("/", 1)[-1]
    return "/".join(file.rsplit("/", 2)[-2:])


def _held_by(held: _retention.HeldPath | None) -> str:
    if held is None:
        return ""
    return held.words if held.remedy is None else f"{held.words} -> {held.remedy}"


def _is_of_cell(frames: tuple[Frame, ...]) -> bool:
    """Whether a stack is the cell's: not what IPython, or this module, does around it."""
    own = [frame for frame in frames if frame.kind == "python"]
    for at, frame in enumerate(own):
        if frame.file == __file__:
            return False
        if frame.function.endswith("run_code") and "/IPython/" in frame.file:
            # What showing a result takes is not the cell's.
            within = own[:at]
            return bool(within) and not any(
                "/IPython/core/displayhook" in frame.file for frame in within
            )
    # Another thread's, if it is none of IPython's.
    return not any("/IPython/" in frame.file for frame in own)


def _by_line(rows: list[Row]) -> list[Row]:
    """Sites of a line together, the largest first."""
    sums: dict[tuple[str, str, int, str], Row] = {}
    for row in rows:
        key = (row.function, row.file, row.line, "" if row.file else row.module)
        known = sums.get(key)
        if known is not None:
            row = replace(
                known if known.delta_bytes >= row.delta_bytes else row,
                **{name: getattr(known, name) + getattr(row, name) for name in _SUMS},
            )
        sums[key] = row
    return sorted(sums.values(), key=lambda row: -row.delta_bytes)


_SUMS = (
    "live_bytes",
    "live_blocks",
    "total_bytes",
    "total_blocks",
    "temporary_blocks",
    "delta_bytes",
    "delta_blocks",
)


@magics_class
class LeaklineMagics(Magics):
    """The magic ``%%leakline``."""

    @magic_arguments()
    @argument("-o", "--output", help="keep the recording in this file")
    @argument("-n", "--limit", type=int, default=10, help="most rows [10]")
    @argument("--no-held", action="store_true", help="take no heap graph")
    @cell_magic
    def leakline(self, line: str, cell: str) -> CellGrowth | None:
        """Run a cell under record, and show what it left behind and who holds it."""
        asked = parse_argstring(self.leakline, line)
        session = _session.current()
        if session is not None:
            # Its own recording has these instants too.
            return self._between(session, cell, asked, is_own=False)
        with tempfile.TemporaryDirectory(prefix="leakline-") as directory:
            kept = asked.output
            path = Path(kept) if kept else Path(directory, "cell.leakline")
            session = _session.start(path, force=True)
            try:
                return self._between(session, cell, asked, is_own=True)
            finally:
                session.stop()

    def _between(
        self, session: _session.Session, cell: str, asked: Any, *, is_own: bool
    ) -> CellGrowth | None:
        begin, end = session.next_name(), session.next_name()
        gc.collect()
        session.mark(begin)
        done = self.shell.run_cell(cell)
        # What waits for the collector of cycles is not kept.
        gc.collect()
        session.mark(end)
        if not done.success:
            # IPython has shown why.
            return None
        graph, no_graph = None, None
        if not asked.no_held:
            try:
                graph = session.next_name()
                _retention.take_graph(session.path, graph)
            except _session.LeaklineError as error:
                graph, no_graph = None, str(error)
        lost = 0
        if is_own:
            lost = session.stop().lost_events
        recording = Recording(session.path)
        # The largest changes; of small ones only the sum, which is less than it costs to
        # have all stacks of what an import makes.
        options = ["--from", begin, "--to", end, "--limit", "500"]
        report = recording.report("diff", *options)
        grown = [row for row in map(_row, report["rows"]) if row.delta_bytes > 0]
        rows = _by_line([row for row in grown if _is_of_cell(row.stack)])
        others = report["sum"]["delta_bytes"] - sum(row.delta_bytes for row in rows)
        rows = rows[: max(asked.limit, 0)]
        return CellGrowth(
            rows=Rows(rows),
            held=_holders(session.path, graph, rows),
            others_bytes=others,
            lost_events=lost,
            recording=session.path if asked.output or not is_own else None,
            no_graph=no_graph,
        )


def _holders(
    path: Path, graph: str | None, rows: list[Row]
) -> tuple[_retention.HeldPath | None, ...]:
    """What keeps most of what each place made: of the first rows."""

    def of(row: Row) -> _retention.HeldPath | None:
        place = _python_place(row)
        if graph is None or place is None:
            return None
        try:
            answer = _retention._Asked(path, graph)(place, "--paths", "1")
        except _session.LeaklineError:
            # Nothing of it that the graph has: blocks without a Python object.
            return None
        groups = answer.get("groups") or [{}]
        paths = groups[0].get("paths") or []
        return _retention._path(paths[0]) if paths else None

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(of, rows[:MOST_HELD]))
    return tuple(found + [None] * (len(rows) - len(found)))


def _python_place(row: Row) -> str | None:
    frame = next((frame for frame in row.stack if frame.kind == "python"), None)
    if frame is None or not frame.file:
        return None
    return f"{frame.file}:{frame.line}"


def load(shell: Any) -> None:
    """Register the magic."""
    shell.register_magics(LeaklineMagics)

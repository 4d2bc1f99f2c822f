"""Recordings, read: rows of the command's reports."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from leakline._session import LeaklineError, helper


@dataclass(frozen=True)
class Frame:
    """A frame of a stack."""

    function: str
    file: str
    line: int
    module: str
    kind: str
    """``python``, ``native`` or ``inlined``."""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.file else self.module
        return f"{self.function} ({place})"


@dataclass(frozen=True)
class Row:
    """A site in a report: a stack that allocated. Keys as docs/json.md has them."""

    function: str
    file: str
    line: int
    module: str
    domain: str
    """``native``, ``raw``, ``mem``, ``obj`` or ``mmap``."""
    live_bytes: int
    live_blocks: int
    total_bytes: int
    total_blocks: int
    peak_bytes: int
    temporary_blocks: int
    delta_bytes: int
    """Of a diff; 0 else."""
    delta_blocks: int
    stack: tuple[Frame, ...]
    """Innermost first."""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.file else self.module
        name = "" if place.endswith(self.function) else f"  {self.function}"
        if self.delta_bytes or self.delta_blocks:
            figures = f"{self.delta_bytes:+,} bytes  {self.delta_blocks:+,} blocks"
        else:
            figures = f"{self.live_bytes:,} bytes  {self.live_blocks:,} blocks"
        return f"{figures}{name}  {place}"


class Rows:
    """Rows of a report: a sequence of `Row`, which is an Arrow table too::

        pandas.DataFrame.from_arrow(rows)
        polars.DataFrame(rows)
        pyarrow.table(rows)

    Columns are the fields of `Row`; the stack is a text.
    """

    # No list, and no `Sequence` by name: of these pyarrow and polars look at the elements.

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._rows = list(rows)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> Row: ...
    @overload
    def __getitem__(self, at: slice) -> Rows: ...
    def __getitem__(self, at: int | slice) -> Row | Rows:
        return Rows(self._rows[at]) if isinstance(at, slice) else self._rows[at]

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Rows):
            return self._rows == other._rows
        return self._rows == other if isinstance(other, list) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)} rows>"

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
        """For the Arrow PyCapsule interface; a schema that is asked for is not looked at."""
        from leakline._arrow import stream

        return stream(self)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> int:
    return int(value) if isinstance(value, (int, float)) else 0


def _row(row: dict[str, Any]) -> Row:
    stack = tuple(
        Frame(
            function=_text(frame.get("function")),
            file=_text(frame.get("file")),
            line=_number(frame.get("line")),
            module=_text(frame.get("module")),
            kind=_text(frame.get("kind")),
        )
        for frame in row.get("stack") or ()
    )
    texts = {
        key: _text(row.get(key)) for key in ("function", "file", "module", "domain")
    }
    numbers = {
        key: _number(row.get(key))
        for key in (
            "line",
            "live_bytes",
            "live_blocks",
            "total_bytes",
            "total_blocks",
            "peak_bytes",
            "temporary_blocks",
            "delta_bytes",
            "delta_blocks",
        )
    }
    return Row(**texts, **numbers, stack=stack)  # type: ignore[arg-type]


class Recording:
    """A recording; made by `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def report(self, command: str, *options: str) -> dict[str, Any]:
        """What ``leakline COMMAND FILE --json`` says, as docs/json.md has it."""
        arguments = [*helper(), command, str(self.path), "--json", *options]
        done = subprocess.run(arguments, capture_output=True, check=False)
        if done.returncode != 0:
            raise LeaklineError(done.stderr.decode(errors="replace").strip())
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def top(
        self,
        *,
        at: str | None = None,
        sort: str | None = None,
        limit: int | None = None,
        filter: str | None = None,
    ) -> Rows:
        """Sites, largest first; arguments as the options of ``leakline top``."""
        return self._rows("top", _options(at=at, sort=sort, limit=limit, filter=filter))

    def diff(
        self,
        start: str = "start",
        end: str = "end",
        *,
        limit: int | None = None,
        filter: str | None = None,
    ) -> Rows:
        """What changed between two instants: marks' names, ``start``, ``end``, ``peak``."""
        options = ["--from", start, "--to", end, *_options(limit=limit, filter=filter)]
        return self._rows("diff", options)

    def leaks(self) -> list[dict[str, Any]]:
        """What leaks, most serious first: the ``suspects`` of ``leakline leaks``."""
        suspects: list[dict[str, Any]] = self.report("leaks")["suspects"]
        return suspects

    def stats(self) -> dict[str, Any]:
        """Totals."""
        return self.report("stats")

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
        """For the Arrow PyCapsule interface: sites as `top` has them, the largest first.

        After so many that their stacks have some 100,000 frames, a row ``[rest]`` has the sums
        of all others: of a large program all stacks of all sites are gigabytes.
        """
        report = self.report("top")
        rows = [_row(row) for row in report["rows"]]
        rest = report["rest"]
        if rest is not None:
            named = {"function": f"[rest: {rest['rows']} sites]", "domain": ""}
            rows.append(_row({**rest, **named}))
        return Rows(rows).__arrow_c_stream__(requested_schema)

    def _rows(self, command: str, options: list[str]) -> Rows:
        return Rows(_row(row) for row in self.report(command, *options)["rows"])


def _options(**given: str | int | None) -> list[str]:
    return [
        word
        for key, value in given.items()
        if value is not None
        for word in (f"--{key}", str(value))
    ]


def open(path: str | os.PathLike[str]) -> Recording:
    """Open a recording."""
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no recording at {file}")
    return Recording(file.absolute())

"""Rows as an Arrow stream: what pandas, polars, DuckDB and pyarrow read by themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from leakline import _session

if TYPE_CHECKING:
    from leakline._recording import Row


def stream(rows: Iterable[Row]) -> Any:
    """A capsule ``arrow_array_stream`` with a column for each field of a row.

    A stack is a text there, the innermost frame first: ``function (file:line); ...``.
    """
    from leakline._recording import Frame, Row

    kept = list(rows)
    columns: list[tuple[str, list[Any], bool]] = []
    for field in dataclasses.fields(Row):
        values = [getattr(row, field.name) for row in kept]
        if field.name == "stack":
            values = ["; ".join(map(Frame.__str__, stack)) for stack in values]
        # Annotations are texts in this package.
        columns.append((field.name, values, field.type != "int"))
    return _session.native().arrow_stream(columns)

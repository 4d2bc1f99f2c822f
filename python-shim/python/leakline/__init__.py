"""leakline: finds where memory grows, why it stays, and whether it is a leak.

Record a block of a running program::

    import leakline

    with leakline.record("out.leakline") as session:
        work()
        session.mark("warm")
        more_work()
    for row in leakline.open("out.leakline").top(limit=5):
        print(row.function, row.live_bytes)

In tests, the fixture ``no_growth`` and the markers ``no_growth`` and
``limit_peak`` come with the package: see docs/python.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leakline._recording import Frame, Recording, Row, Rows, open
    from leakline._retention import (
        Allocation,
        HeldPath,
        Holder,
        Ledger,
        LedgerLine,
        Retained,
        Step,
        Why,
        allocated_at,
        allocations_at,
        ledger,
        top_retained,
        why,
    )
    from leakline._session import (
        LeaklineError,
        Session,
        Summary,
        Unsupported,
        mark,
        record,
        start,
        stop,
        why_not,
    )
    from leakline._snapshot import Diff, Snapshot, snapshot
    from leakline._words import (
        GrowthError,
        GrowthWarning,
        LimitError,
        NotRepeatableError,
    )

__all__ = [
    "Allocation",
    "Diff",
    "Frame",
    "GrowthError",
    "GrowthWarning",
    "HeldPath",
    "Holder",
    "LeaklineError",
    "Ledger",
    "LedgerLine",
    "LimitError",
    "NotRepeatableError",
    "Recording",
    "Retained",
    "Row",
    "Rows",
    "Session",
    "Snapshot",
    "Step",
    "Summary",
    "Unsupported",
    "Why",
    "allocated_at",
    "allocations_at",
    "ledger",
    "mark",
    "open",
    "record",
    "snapshot",
    "start",
    "stop",
    "top_retained",
    "why",
    "why_not",
]

_HOMES = {
    "_recording": ("Frame", "Recording", "Row", "Rows", "open"),
    "_retention": (
        "Allocation",
        "HeldPath",
        "Holder",
        "Ledger",
        "LedgerLine",
        "Retained",
        "Step",
        "Why",
        "allocated_at",
        "allocations_at",
        "ledger",
        "top_retained",
        "why",
    ),
    "_session": (
        "LeaklineError",
        "Session",
        "Summary",
        "Unsupported",
        "mark",
        "record",
        "start",
        "stop",
        "why_not",
    ),
    "_snapshot": ("Diff", "Snapshot", "snapshot"),
    "_words": ("GrowthError", "GrowthWarning", "LimitError", "NotRepeatableError"),
}


def __getattr__(name: str) -> Any:
    """Loads all of it: pytest has this package in every process, most of which ask for
    nothing; and what is loaded later would be in the recordings of who asks."""
    import importlib

    if name not in __all__ and name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for home, names in _HOMES.items():
        module = importlib.import_module(f"{__name__}.{home}")
        globals()[home] = module
        globals().update((one, getattr(module, one)) for one in names)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load_ipython_extension(shell: object) -> None:
    """What ``%load_ext leakline`` calls: there is ``%%leakline`` then."""
    from leakline._notebook import load

    load(shell)

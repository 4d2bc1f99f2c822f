"""Errors and warnings of judged tests, and sizes in words."""

from __future__ import annotations


class GrowthError(AssertionError):
    """A test keeps memory of each round."""


class LimitError(AssertionError):
    """A test took more memory at once than its limit."""


class NotRepeatableError(AssertionError):
    """A test that is called in rounds passed once, and raised in a later round."""


class GrowthWarning(UserWarning):
    """A test may keep memory of each round, or was not judged: the message says why."""


# Failures are headed by the name under which users import them.
for _error in (GrowthError, LimitError, NotRepeatableError, GrowthWarning):
    _error.__module__ = "leakline"


def size(count: float) -> str:
    """Bytes in words."""
    if count < 1024:
        rounded = round(count, 1)
        whole = int(rounded) if rounded == int(rounded) else rounded
        return "1 byte" if whole == 1 else f"{whole} bytes"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024 or unit == "GiB":
            break
    return f"{count:.1f} {unit}"

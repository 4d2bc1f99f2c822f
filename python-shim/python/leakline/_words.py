"""Errors and warnings of judged tests."""

from __future__ import annotations


class GrowthError(AssertionError):
    """A test keeps memory of each round."""


class LimitError(AssertionError):
    """A test took more memory at once than its limit."""


class GrowthWarning(UserWarning):
    """A test may keep memory of each round: it could not be decided in time."""


# Failures are headed by the name under which users import them.
for _error in (GrowthError, LimitError, GrowthWarning):
    _error.__module__ = "leakline"

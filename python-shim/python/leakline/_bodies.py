"""Bodies as they are called in rounds: counted, and with what they patched taken back.

A test's body is written to run once. What it hands to its framework to be undone at the
test's end (patches, clean-ups, properties of the report) would pile up with each round
and look like a leak of its own, so it is undone after each round.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from typing import Any, Callable

Undo = Callable[[], None]


class Body:
    """A body, how often it passed, and what it raised itself."""

    def __init__(self, function: Callable[..., object], undo: Sequence[Undo]) -> None:
        self._function = function
        self._undo = undo
        self.calls = 0
        """Calls that passed."""
        self.raised: BaseException | None = None
        """What the last call raised."""

    @property
    def round(self) -> Callable[[], object]:
        """What to call: a coroutine function where the body is one."""
        return self._awaited if self.is_coroutine else self._called

    @property
    def is_coroutine(self) -> bool:
        """Whether the body is a coroutine function."""
        return inspect.iscoroutinefunction(self._function)

    def once(self) -> object:
        """Calls it, in an event loop where it needs one."""
        if self.is_coroutine:
            import asyncio

            return asyncio.run(self._awaited())
        return self._called()

    def _called(self) -> object:
        __tracebackhide__ = True
        try:
            result = self._function()
            self._passed()
        except BaseException as error:
            self.raised = error
            raise
        return result

    async def _awaited(self) -> object:
        __tracebackhide__ = True
        function: Any = self._function
        try:
            result: object = await function()
            self._passed()
        except BaseException as error:
            self.raised = error
            raise
        return result

    def _passed(self) -> None:
        for undo in self._undo:
            undo()
        self.calls += 1


def not_repeatable(error: BaseException, body: Body, call: str) -> str:
    """What to say of a body that passed, and then raised; `call` is what to do."""
    text = first_line(error)
    return (
        f"body is not repeatable: it passed, and in round {body.calls + 1} raised "
        f"{type(error).__name__}{f': {text}' if text else ''}; {call}"
    )


def first_line(error: BaseException) -> str:
    """The first line of what an exception says."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else ""


def of_monkeypatch(patch: Any) -> Undo | None:
    """Takes back what is patched by pytest's ``monkeypatch`` from now on; None where
    that keeps it in another way than is known."""
    try:
        attributes, items = patch._setattr, patch._setitem
        before = len(attributes), len(items)
        kept_path, kept_directory = patch._savesyspath, patch._cwd
    except (AttributeError, TypeError):
        return None

    def undo() -> None:
        # pytest's own way, of the rest alone.
        patch._setattr, patch._setitem = attributes[before[0] :], items[before[1] :]
        if kept_path is not None:
            patch._savesyspath = None
        if kept_directory is not None:
            patch._cwd = None
        try:
            patch.undo()
        finally:
            del attributes[before[0] :], items[before[1] :]
            patch._setattr, patch._setitem = attributes, items
            patch._savesyspath, patch._cwd = kept_path, kept_directory

    return undo


def of_mocker(mocker: Any) -> Undo | None:
    """The same for pytest-mock's ``mocker``."""
    try:
        cache = mocker._mock_cache
        kept = cache.cache
        before = len(kept)
    except (AttributeError, TypeError):
        return None

    def undo() -> None:
        cache.cache = kept[before:]
        try:
            mocker.stopall()
        finally:
            del kept[before:]
            cache.cache = kept

    return undo


def of_list(kept: list[Any]) -> Undo:
    """Forgets what is appended after the first round."""
    known: list[int] = []

    def undo() -> None:
        if not known:
            known.append(len(kept))
        del kept[known[0] :]

    return undo


def of_test_case(case: Any) -> Undo | None:
    """Runs the clean-ups that a test of unittest adds from now on."""
    kept = getattr(case, "_cleanups", None)
    if not isinstance(kept, list) or not hasattr(case, "_callCleanup"):
        return None
    before = len(kept)

    def undo() -> None:
        while len(kept) > before:
            function, args, kwargs = kept.pop()
            # Of a class with a loop of its own it may be a coroutine function.
            case._callCleanup(function, *args, **kwargs)

    return undo


def raise_in_subtests(case: Any) -> Undo:
    """From the second round on, has what is wrong in a ``subTest`` raised as anywhere
    else: unittest would report it, and go on."""

    def undo() -> None:
        case.subTest = _plain_subtest

    return undo


@contextlib.contextmanager
def _plain_subtest(message: object = None, **parameters: object) -> Iterator[None]:
    yield


def keep(recording: str, directory: str, name: str, root: str) -> str:
    """Moves the recording of a failure to where users find it; gives its path, as seen
    from `root`, or why it is not kept."""
    name = re.sub(r"[^A-Za-z0-9_.\-\[\]]+", "_", name)[:120]
    kept = os.path.join(root, directory, f"{name}.leakline")
    try:
        if not os.path.isdir(os.path.dirname(kept)):
            os.makedirs(os.path.dirname(kept), exist_ok=True)
            ignored = os.path.join(os.path.dirname(kept), ".gitignore")
            with open(ignored, "w", encoding="utf-8") as file:
                file.write("# Made by leakline.\n*\n")
        shutil.move(recording, kept)
    except OSError as error:
        return f"(not kept: {error})"
    inside = os.path.relpath(kept, root)
    return kept if inside.startswith(os.pardir) else inside

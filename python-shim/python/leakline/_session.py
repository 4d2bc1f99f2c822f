"""Sessions: this process records itself, from one call to another."""

from __future__ import annotations

import atexit
import functools
import inspect
import itertools
import os
import shutil
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, TypeVar

if TYPE_CHECKING:
    from leakline import _native

_F = TypeVar("_F", bound=Callable[..., Any])


class LeaklineError(RuntimeError):
    """leakline cannot do what it was asked; the message says why."""


class Unsupported(LeaklineError):
    """There is no interposer for this platform, or not for this interpreter."""


@dataclass(frozen=True)
class Summary:
    """What a session has recorded."""

    path: Path
    """The recording."""
    allocations: int
    """Blocks allocated."""
    lost_events: int
    """Events that were lost; 0 in a complete recording."""
    peak_bytes: int
    """Most bytes that blocks of this session had at once."""
    live_bytes: int
    """Bytes of blocks of this session that are alive at its end."""
    live_blocks: int
    """How many blocks these are."""


def why_not() -> str | None:
    """Why this process cannot be recorded, or None where it can be."""
    import platform

    if not sys.platform.startswith("linux") or platform.machine() not in (
        "x86_64",
        "AMD64",
    ):
        return f"needs Linux on x86-64, this is {platform.system()} on {platform.machine()}"
    if platform.python_implementation() != "CPython":
        return f"needs CPython, this is {platform.python_implementation()}"
    if "t" in sys.abiflags:
        return "needs CPython with the GIL, this is a free-threaded build"
    # Not platform.libc_ver(): that reads the whole executable.
    if "CS_GNU_LIBC_VERSION" not in os.confstr_names or not _glibc():
        return "needs glibc"
    try:
        from leakline import _native  # noqa: F401
    except ImportError as error:
        return f"the extension module cannot be loaded: {error}"
    return None


def _glibc() -> str | None:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION")
    except (OSError, ValueError):
        return None


def native() -> Any:
    """The extension module; `Unsupported` where there is none."""
    reason = why_not()
    if reason is not None:
        raise Unsupported(f"leakline cannot record this process: {reason}")
    from leakline import _native

    return _native


# The collector is this very module in a process of its own. The interpreter there
# needs nothing but it, and is told to look at no variable, directory or site.
_BECOME = (
    "import sys; sys.path.insert(0, sys.argv[1]); import _native; del sys.path[0]; "
    "sys.exit(_native.main([], ['leakline', *sys.argv[2:]]))"
)


def helper() -> list[str]:
    """The command that becomes ``leakline`` with the arguments that follow it.

    ``$LEAKLINE`` names another than that of the package.
    """
    named = os.environ.get("LEAKLINE")
    if named:
        return [str(Path(named).resolve())]
    if sys.executable:
        return [
            sys.executable,
            "-I",
            "-S",
            "-c",
            _BECOME,
            str(Path(__file__).resolve().parent),
        ]
    # An interpreter inside of another program does not know where it is.
    found = shutil.which("leakline")
    if found is None:
        raise LeaklineError(
            "leakline cannot start its collector: this interpreter has no executable, "
            "and there is no `leakline` on PATH (name one in $LEAKLINE)"
        )
    return [found]


class Session:
    """A session under way; made by `start` or `record`."""

    def __init__(self, path: Path, recorder: _native.Recorder) -> None:
        self.path = path
        self.recorder = recorder
        self._pid = os.getpid()
        self._numbers = itertools.count(1)
        self.summary: Summary | None = None
        """What was recorded, once the session is over."""

    def next_name(self) -> str:
        """A name for a snapshot that has none."""
        return f"snapshot {next(self._numbers)}"

    def mark(self, name: str) -> None:
        """Mark this instant by a name, to compare with: ``--from NAME``."""
        if not name:
            raise ValueError("a mark needs a name")
        if not self.recorder.mark(name):
            raise LeaklineError("the mark was not recorded: the session is over")

    def stop(self) -> Summary:
        """Leave, and wait until the recording is whole."""
        global _current
        if self.summary is not None:
            return self.summary
        if os.getpid() != self._pid:
            raise LeaklineError(
                "the session is that of the process that forked this one"
            )
        try:
            facts = self.recorder.stop()
        except Exception as error:
            raise LeaklineError(str(error)) from error
        finally:
            with _lock:
                if _current is self:
                    _current = None
            atexit.unregister(self._at_exit)
        counts = {key: value for key, value in facts.items() if isinstance(value, int)}
        self.summary = Summary(
            path=self.path,
            allocations=counts["allocations"],
            lost_events=counts["lost_events"],
            peak_bytes=counts["peak_bytes"],
            live_bytes=counts["live_bytes"],
            live_blocks=counts["live_blocks"],
        )
        if facts["write_error"]:
            raise LeaklineError(
                f"not all was written to {self.path}: {facts['write_error']}"
            )
        return self.summary

    def _at_exit(self) -> None:
        """Ends it with the program; in a forked child there is nothing to end."""
        if os.getpid() == self._pid:
            self.stop()


_lock = threading.Lock()
_current: Session | None = None


def _forget() -> None:
    """In a forked child: the session is its parent's, and so may be the lock."""
    global _current, _lock
    _current, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def start(
    path: str | os.PathLike[str],
    *,
    force: bool = False,
    native: bool = True,
    python: bool = True,
    sources: bool = True,
) -> Session:
    """Begin to record this process to `path`, until `stop`.

    Every allocation of all threads is recorded, exactly. Children that the process
    forks are not.

    :param force: replace the file where it exists.
    :param native: record malloc and mmap, with native stacks.
    :param python: record Python's allocators, with Python stacks.
    :param sources: keep the source lines that frames point to in the recording.
    :raises Unsupported: where there is no interposer for this platform.
    :raises LeaklineError: where the process cannot be recorded.
    """
    global _current
    if not (native or python):
        raise ValueError("nothing to record: `native` and `python` are both off")
    module = _module()
    with _lock:
        if _current is not None:
            raise LeaklineError(
                f"this process is recording already, to {_current.path}"
            )
        file = Path(path).absolute()
        try:
            recorder = module.Recorder(
                file,
                helper(),
                force=force,
                native=native,
                python=python,
                sources=sources,
            )
        except module.Error as error:
            raise LeaklineError(str(error)) from error
        session = Session(file, recorder)
        _current = session
    # Python's allocators are hooked by the first thread that asks libc for memory
    # with the GIL held: now, not when the program happens to.
    for _ in range(4):
        bytearray(1 << 16)
    atexit.register(session._at_exit)
    return session


def _module() -> Any:
    return native()


def current() -> Session | None:
    """The session under way."""
    return _current


def stop() -> Summary:
    """End the session under way; gives what it has recorded."""
    session = _current
    if session is None:
        raise LeaklineError("no session is under way")
    return session.stop()


def mark(name: str) -> None:
    """Mark this instant in the session under way."""
    session = _current
    if session is None:
        raise LeaklineError("no session is under way")
    session.mark(name)


class record:
    """Record a block, or each call of a function::

        with leakline.record("out.leakline") as session: ...

        @leakline.record("out.leakline", force=True)
        def work(): ...

    Of a coroutine function, until it returns. Arguments are those of `start`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        force: bool = False,
        native: bool = True,
        python: bool = True,
        sources: bool = True,
    ) -> None:
        self._start = functools.partial(
            start, path, force=force, native=native, python=python, sources=sources
        )
        self._session: Session | None = None

    def __enter__(self) -> Session:
        self._session = self._start()
        return self._session

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.stop()

    def __call__(self, function: _F) -> _F:
        if inspect.iscoroutinefunction(function):
            # The call makes no more than a coroutine.
            @functools.wraps(function)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                session = self._start()
                try:
                    return await function(*args, **kwargs)
                finally:
                    session.stop()

            return awaited  # type: ignore[return-value]

        @functools.wraps(function)
        def recorded(*args: Any, **kwargs: Any) -> Any:
            session = self._start()
            try:
                return function(*args, **kwargs)
            finally:
                session.stop()

        return recorded  # type: ignore[return-value]

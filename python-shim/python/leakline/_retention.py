"""Who keeps what in this process, and what its memory is made of."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import tracemalloc
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from leakline import _session
from leakline._recording import Frame
from leakline._words import size

_PATIENCE = 60.0
"""Seconds until a heap graph has to be there."""


@dataclass(frozen=True)
class Step:
    """Objects on a path that the same reference leads to."""

    edge: str
    """The reference: ``.history``, ``[*]``, ``module app``."""
    type: str
    """Of most of them; empty of a root that is no object."""
    count: int
    bytes: int
    """Their own."""
    retained_bytes: int
    """What would be free without them."""
    made_in: str
    """Where most of them were made; empty where not known."""


@dataclass(frozen=True)
class HeldPath:
    """A way from a root of the program to objects."""

    words: str
    """The path in a line: ``app.cache.SESSIONS[*].history``."""
    count: int
    """Objects at its end."""
    retained_bytes: int
    """What would be free without them."""
    steps: tuple[Step, ...]
    """Root first."""

    @property
    def remedy(self) -> str | None:
        """What lets go, where that is known: of notebooks, of kept exceptions, of caches."""
        return _remedy(self.words, [step.type for step in self.steps])

    def __str__(self) -> str:
        return self.words


@dataclass(frozen=True)
class Holder:
    """An object that refers to the one in question."""

    words: str
    """The reference, from a root: ``app.cache.SESSIONS[int]``."""
    type: str
    address: int

    @property
    def remedy(self) -> str | None:
        """What lets go, where that is known."""
        return _remedy(self.words, [self.type])


@dataclass(frozen=True, repr=False)
class Why:
    """What keeps an object; made by `why`."""

    type: str
    address: int
    bytes: int
    """Its own."""
    retained_bytes: int
    """What would be free without it."""
    references: int | None
    """Its reference count; None where it is immortal."""
    unexplained_references: int
    """References that no object of the graph has: C code's, or a stack's."""
    holders: tuple[Holder, ...]
    """Objects that refer to it, some ten at most."""
    total_holders: int
    paths: tuple[HeldPath, ...]
    """From roots to it, the shortest of each."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def __repr__(self) -> str:
        count = "immortal" if self.references is None else _counted(self.references)
        lines = [
            f"{self.type} at {self.address:#x}: {size(self.bytes)}, "
            f"{size(self.retained_bytes)} retained, {count}"
        ]
        told = [(holder.words, holder.remedy) for holder in self.holders]
        if not told:
            told = [(path.words, path.remedy) for path in self.paths]
        for at, (words, remedy) in enumerate(told):
            lines.append(f"{'held by' if at == 0 else 'and by':<8} {words}")
            if remedy is not None:
                lines.append(f"{'':<8} -> {remedy}")
        if self.total_holders > len(self.holders):
            lines.append(f"and {self.total_holders - len(self.holders)} more")
        if self.unexplained_references > 0:
            lines.append(f"and by C code: {_counted(self.unexplained_references)}")
        if not told and self.unexplained_references <= 0:
            lines.append("held by nothing that the graph has")
        return "\n".join(lines)


@dataclass(frozen=True)
class Retained:
    """A place where memory gathers; made by `top_retained`."""

    words: str
    """What holds it: ``app.cache.SESSIONS[*]``."""
    type: str
    """Of what holds it."""
    count: int
    bytes: int
    """Their own."""
    retained_bytes: int
    """What would be free without them."""
    native_bytes: int
    """Of these, in native blocks that only they point to."""
    path: HeldPath | None

    @property
    def remedy(self) -> str | None:
        """What lets go, where that is known."""
        return None if self.path is None else self.path.remedy

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        remedy = "" if self.remedy is None else f" -> {self.remedy}"
        return f"{size(self.retained_bytes)} by {self.words} ({self.type}){remedy}"


@dataclass(frozen=True)
class LedgerLine:
    """A kind of resident memory."""

    name: str
    """``python_live``, ``malloc_free``, ...: docs/json.md has all."""
    title: str
    bytes: int
    note: str


@dataclass(frozen=True, repr=False)
class Ledger:
    """What this process's resident memory is made of; made by `ledger`."""

    rss_bytes: int
    """The sum of all lines."""
    lines: tuple[LedgerLine, ...]
    live_bytes: int
    """Objects and blocks that are in use."""
    free_bytes: int
    """Free, but not given back."""
    verdict: str
    """``live``, ``held``, ``other`` or ``not_known``."""
    words: str
    """The verdict in a sentence."""
    remedy: str | None
    """What would return memory; None where nothing would return much."""

    def __getitem__(self, name: str) -> int:
        """Bytes of a line, by its name."""
        for line in self.lines:
            if line.name == name:
                return line.bytes
        raise KeyError(name)

    def rows(self) -> list[LedgerLine]:
        """The lines that have something, as they are shown."""
        return [line for line in self.lines if line.bytes > 0]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def __repr__(self) -> str:
        lines = [f"RSS {size(self.rss_bytes)}: {self.words}"]
        width = max((len(line.title) for line in self.rows()), default=0)
        for line in self.rows():
            share = 100 * line.bytes / max(self.rss_bytes, 1)
            text = f"{line.title:<{width}} {size(line.bytes):>12} {share:5.1f} %"
            lines.append(f"{text}  {line.note}".rstrip())
        if self.remedy is not None:
            lines.append(self.remedy)
        return "\n".join(lines)


def why(obj: object, *, paths: int = 3) -> Why:
    """What keeps an object of this process alive::

        >>> leakline.why(app.cache.SESSIONS[7])
        app.Session at 0x...: ... bytes, ... retained, ...
        held by  app.cache.SESSIONS[int]

    A heap graph is taken: the process stands still for as long as a fork of it takes, and
    the copy tells of its objects. That is by the session under way, or one for the call.

    :param paths: most paths.
    :raises LeaklineError: where no graph can be taken, or the object is in none: CPython's
        collector does not know of a text that only C code has, for one.
    """
    shown = _in_notebook(obj)
    # It has to live on, but what it is held by is not to be this call.
    kept = _session.native().Kept(obj)
    del obj
    address: int = kept.address()
    with _graph() as ask:
        try:
            # One more: this call's own may be among them.
            answer = ask(hex(address), "--paths", str(max(paths, 1) + 1))
        except _session.LeaklineError as error:
            raise _session.LeaklineError(
                f"{error}: CPython's collector does not know the object, and nothing that it "
                "knows refers to it"
            ) from error
    told, groups = answer["object"], answer["groups"]
    group = groups[0] if groups else {}
    own = hex(id(kept))
    others = [holder for holder in told["holders"] if holder["address"] != own]
    is_seen = len(others) < len(told["holders"])
    holders = [_holder(holder) for holder in others]
    if shown is not None:
        holders = [
            Holder(shown, one.type, one.address) if _is_of_out(one.words) else one
            for one in holders
        ]
    # Less the one by which it is kept here.
    references, unexplained = told["references"], told["unexplained_references"] or 0
    unexplained = max(unexplained - (not is_seen), 0)
    found = tuple(
        _path(path)
        for path in group.get("paths", ())
        if all(step.get("address") != own for step in path["steps"])
    )[: max(paths, 1)]
    if not unexplained:
        found = tuple(path for path in found if not path.words.startswith("C code"))
    return Why(
        type=told["type"],
        address=address,
        bytes=told["bytes"],
        retained_bytes=group.get("retained_bytes", told["bytes"]),
        references=None if references is None else references - 1,
        unexplained_references=unexplained,
        holders=tuple(holders),
        total_holders=told["total_holders"] - is_seen,
        paths=found,
    )


@dataclass(frozen=True)
class Allocation:
    """Where an object was made; made by `allocated_at`."""

    type: str
    bytes: int
    """The object's own, the collector's header included."""
    domain: str
    """``obj``, ``mem``, ``raw`` or ``native``; ``python`` where tracemalloc tells."""
    stack: tuple[Frame, ...]
    """Python's frames and native ones in one stack, the innermost first."""
    is_of_block: bool
    """The object may have been made later than its block: CPython keeps freed objects of
    this type and makes new ones of them. The stack is that of the first one in the block."""

    @property
    def python(self) -> tuple[Frame, ...]:
        """Python's frames alone."""
        return tuple(frame for frame in self.stack if frame.kind == "python")

    @property
    def native(self) -> tuple[Frame, ...]:
        """Native frames alone."""
        return tuple(frame for frame in self.stack if frame.kind != "python")

    def __str__(self) -> str:
        place = next(iter(self.python or self.stack), None)
        where = "an unknown place" if place is None else str(place)
        note = " (or its block was)" if self.is_of_block else ""
        return f"{self.type}, {size(self.bytes)}, made in {where}{note}"


_REUSED: tuple[type, ...] = (
    tuple,
    list,
    dict,
    float,
    slice,
    types.MethodType,
)
"""Types of whose freed objects CPython makes new ones, in one version or the other."""


def _is_reused(kind: type) -> bool:
    if kind in _REUSED:
        return True
    if sys.version_info >= (3, 14) and kind in (
        int,
        type(iter(())),
        range,
        type(iter(range(0))),
    ):
        return True
    return kind.__module__ == "builtins" and kind.__name__ in (
        "async_generator_asend",
        "async_generator_wrapped_value",
        "Context",
    )


def allocated_at(obj: object) -> Allocation | None:
    """Where an object was made, by the session under way::

        >>> print(leakline.allocated_at(app.cache.SESSIONS[7]))
        app.Session, ... bytes, made in login (...app/views.py:5)

    None where it was made before the session began. A heap graph is taken for the answer, as
    `why` does. Without a session tracemalloc is asked, if it traces: then there are no native
    frames.

    :raises LeaklineError: where nothing is recorded, or no graph can be taken.
    """
    return allocations_at([obj])[0]


def allocations_at(objects: Iterable[object]) -> list[Allocation | None]:
    """Where each of some objects was made: as `allocated_at`, by one heap graph for all."""
    # A list, so that the collector's walk comes to each of them by it.
    kept = list(objects)
    session = _session.current()
    if session is None:
        if tracemalloc.is_tracing():
            return [_traced(obj) for obj in kept]
        raise _session.LeaklineError(
            "nothing is recorded: begin with leakline.start(FILE), or tracemalloc.start()"
        )
    answer = _origins(session.path, session.next_name(), kept)
    frames = [Frame(**frame) for frame in answer["frames"]]
    found: list[Allocation | None] = []
    for obj, told in zip(kept, answer["objects"]):
        if told is None or told["stack"] is None:
            found.append(None)
            continue
        found.append(
            Allocation(
                type=told["type"],
                bytes=told["bytes"],
                domain=told["domain"],
                stack=tuple(frames[at] for at in told["stack"]),
                is_of_block=_is_reused(type(obj)),
            )
        )
    return found


def _origins(
    path: str | os.PathLike[str], name: str, kept: list[object]
) -> dict[str, Any]:
    """Where objects were made, by a heap graph that is taken of them now."""
    take_graph(path, name)
    addresses = "".join(f"{id(obj):x}\n" for obj in kept)
    command = [*_session.helper(), "__origins", str(path), "--graph", name]
    done = subprocess.run(
        command, input=addresses.encode(), capture_output=True, check=False
    )
    if done.returncode != 0:
        raise _session.LeaklineError(_failure(done.stdout, done.stderr))
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _traced(obj: object) -> Allocation | None:
    traceback = tracemalloc.get_object_traceback(obj)
    if traceback is None:
        return None
    # The most recent call is the last one there.
    stack = tuple(
        Frame("", frame.filename, frame.lineno, module="", kind="python")
        for frame in reversed(traceback)
    )
    kind = type(obj)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return Allocation(
        type=f"{module}{kind.__qualname__}",
        bytes=sys.getsizeof(obj),
        domain="python",
        stack=stack,
        is_of_block=_is_reused(kind),
    )


def top_retained(n: int = 5) -> list[Retained]:
    """Where most memory of this process gathers, the largest first::

        >>> for place in leakline.top_retained(1):
        ...     print(place)
        12.2 MiB by app.cache.PAGES[*] (dict)

    A place is an object under which memory spreads over many: what to look at, when memory
    is not free after `del`. Takes a heap graph, as `why` does.
    """
    with _graph() as ask:
        answer = ask("--paths", str(max(n, 1)))
    return [_retained(group) for group in answer["groups"][:n]]


def ledger() -> Ledger:
    """What the resident memory of this process is made of, in lines that sum to it::

        >>> leakline.ledger()
        RSS ... MiB: ...
        live Python objects ...

    Nothing has to be recorded for it.

    :raises Unsupported: where there is no extension module for this platform.
    :raises LeaklineError: where memory cannot be looked into.
    """
    module = _session.native()
    try:
        told = json.loads(module.ledger())
    except module.Error as error:
        raise _session.LeaklineError(str(error)) from error
    return Ledger(
        rss_bytes=told["rss_bytes"],
        lines=tuple(
            LedgerLine(line["name"], line["title"], line["bytes"], line["note"] or "")
            for line in told["lines"]
        ),
        live_bytes=told["live_bytes"],
        free_bytes=told["free_bytes"],
        verdict=told["verdict"],
        words=told["words"],
        remedy=told["remedy"],
    )


class _Asked:
    """A heap graph to ask."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name

    def __call__(self, *options: str) -> dict[str, Any]:
        command = [*_session.helper(), "why", str(self._path), *options]
        command += ["--graph", self._name, "--json"]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode != 0:
            raise _session.LeaklineError(_failure(done.stdout, done.stderr))
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


def _failure(out: bytes, error: bytes) -> str:
    """Why a command failed, which it says in JSON, or else on stderr."""
    with contextlib.suppress(ValueError, LookupError, TypeError):
        return str(json.loads(out)["error"])
    return error.decode(errors="replace").strip()


@contextlib.contextmanager
def _graph() -> Iterator[_Asked]:
    """A heap graph of this moment, by the session under way or one for it alone."""
    session = _session.current()
    if session is not None:
        name = session.next_name()
        take_graph(session.path, name)
        yield _Asked(session.path, name)
        return
    with tempfile.TemporaryDirectory(prefix="leakline-") as directory:
        path = Path(directory, "why.leakline")
        session = _session.start(path, native=False, sources=False)
        try:
            take_graph(path, "why")
        finally:
            session.stop()
        yield _Asked(path, "why")


def take_graph(
    path: str | os.PathLike[str], name: str, patience: float = _PATIENCE
) -> None:
    """Has a heap graph of this process taken, in the recording that is made of it.

    Whoever of its threads comes by takes it, so this one comes by until it is there.

    :raises LeaklineError: where none can be taken, or not in time.
    """
    module = _session.native()
    deadline = time.monotonic() + patience
    try:
        graph = module.HeapGraph(path, name)
        while not graph.is_there():
            if time.monotonic() > deadline:
                raise _session.LeaklineError(
                    f"no heap graph was taken within {patience:.0f} s"
                )
            bytearray(1 << 16)
            time.sleep(0.002)
    except module.Error as error:
        raise _session.LeaklineError(str(error)) from error


def _step(step: Mapping[str, Any]) -> Step:
    return Step(
        edge=step["edge"],
        type=step["type"] or "",
        count=step["count"],
        bytes=step["bytes"],
        retained_bytes=step["retained_bytes"],
        made_in=_place(step["made_in"]),
    )


def _counted(references: int) -> str:
    return "1 reference" if references == 1 else f"{references:,} references"


def _place(made_in: Any) -> str:
    if not isinstance(made_in, dict):
        return made_in or ""
    file, line = made_in.get("file") or "", made_in.get("line")
    return f"{file}:{line}" if file and line else file


def _path(path: Mapping[str, Any]) -> HeldPath:
    return HeldPath(
        words=path["words"],
        count=path["count"],
        retained_bytes=path["retained_bytes"],
        steps=tuple(_step(step) for step in path["steps"]),
    )


def _holder(holder: Mapping[str, Any]) -> Holder:
    edge, path = holder["edge"], holder["path"] or ""
    # A name in a namespace: `app.__dict__["obj"]` is `app.obj`.
    name = re.fullmatch(r'\["(\w+)"\]', edge)
    if path.endswith(".__dict__") and name is not None:
        words = f"{path[: -len('.__dict__')]}.{name[1]}"
    else:
        # `[int]`, `.history`; or the variable of a frame.
        words = f"{path}{'' if edge[:1] in ('.', '[') else ': '}{edge}"
    return Holder(words, holder["type"], int(holder["address"], 16))


def _retained(group: Mapping[str, Any]) -> Retained:
    paths = [_path(path) for path in group["paths"]]
    path = paths[0] if paths else None
    return Retained(
        words="nothing: in cycles that gc.collect() frees"
        if path is None
        else path.words,
        type=group["type"],
        count=group["count"],
        bytes=group["bytes"],
        retained_bytes=group["retained_bytes"],
        native_bytes=group["native_bytes"],
        path=path,
    )


_OUT = re.compile(r"^__main__\.(Out|_oh)\[")
_SHOWN = re.compile(r"^__main__\.(_+|_\d+)\b")
_LAST = re.compile(r"^sys\.last_(value|traceback|exc|type)\b")


def _is_of_out(words: str) -> bool:
    return _OUT.search(words) is not None


def _in_notebook(obj: object) -> str | None:
    """Its place in a notebook's results."""
    out = getattr(sys.modules.get("__main__"), "Out", None)
    if not isinstance(out, dict):
        return None
    for number, shown in list(out.items()):
        if shown is obj:
            return f"__main__.Out[{number}]"
    return None


def _remedy(words: str, types: list[str]) -> str | None:
    shown = _SHOWN.match(words)
    if _is_of_out(words):
        number = re.search(r"\[(\d+)\]", words)
        which = f"del Out[{number[1]}]" if number else "del Out[N]"
        return f"a notebook keeps what a cell showed: `{which}`, or `%reset -f out`"
    if shown is not None:
        return (
            f"a notebook keeps what a cell showed: `del {shown[1]}`, or `%reset -f out`"
        )
    if _LAST.match(words):
        return (
            "the last exception is kept, with the variables of its frames: "
            "`sys.last_value = sys.last_traceback = sys.last_exc = None`"
        )
    if "functools._lru_cache_wrapper" in types:
        return "a cache: `.cache_clear()`, or a smaller `maxsize`"
    return None

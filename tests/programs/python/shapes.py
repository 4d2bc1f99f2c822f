"""Each class below is kept by one thing that Python programs keep objects by."""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import functools
import logging
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator


class Thing:
    def __init__(self) -> None:
        self.payload = bytearray(500)


class InModule(Thing): ...


class InClosure(Thing): ...


class InDefault(Thing): ...


class InClass(Thing): ...


class InSlot(Thing): ...


class InCache(Thing): ...


class InCycle(Thing): ...


class InCallback(Thing): ...


class InHandler(Thing): ...


class InLocal(Thing): ...


class InTraceback(Thing): ...


class InTask(Thing): ...


class InGenerator(Thing): ...


class InContext(Thing): ...


class InPartial(Thing): ...


class AtExit(Thing): ...


class OnSignal(Thing): ...


class InThread(Thing): ...


class InMethod(Thing):
    def method(self) -> None: ...


CACHE = {"only": InModule()}


class Parent:
    def __init__(self) -> None:
        self.child = Child(self)


class Child:
    def __init__(self, parent: Parent) -> None:
        self.parent = parent
        self.held = InCycle()


PARENT = Parent()


def make_closure() -> Callable[[], object]:
    ignored, held = 1, InClosure()
    return lambda: (held, ignored)


CLOSURE = make_closure()


def with_default(kept: InDefault = InDefault()) -> None: ...  # noqa: B008


class Registry:
    known = [InClass()]


class Slotted:
    __slots__ = ("first", "second")

    def __init__(self) -> None:
        self.first = None
        self.second = InSlot()


SLOTTED = Slotted()


@functools.lru_cache(maxsize=8)
def cached(_: int) -> InCache:
    return InCache()


cached(1)


class Target: ...


TARGET = Target()


def make_callback() -> Callable[[object], None]:
    held = InCallback()
    return lambda _: print(held)


REFERENCE = weakref.ref(TARGET, make_callback())


class Handler(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records = [InHandler()]


logging.getLogger("app.jobs").addHandler(Handler())
LOCAL = threading.local()
LOCAL.value = InLocal()


def fail() -> None:
    held = InTraceback()
    raise ValueError(str(bool(held)))


try:
    fail()
except ValueError as error:
    LAST = error


async def wait_for(event: asyncio.Event) -> None:
    held = InTask()
    await event.wait()
    print(held)


LOOP = asyncio.new_event_loop()


async def start() -> asyncio.Task[None]:
    task = asyncio.get_running_loop().create_task(wait_for(asyncio.Event()))
    await asyncio.sleep(0)
    return task


TASK = LOOP.run_until_complete(start())


def generate() -> Iterator[int]:
    held = InGenerator()
    yield 1
    print(held)


GENERATOR = generate()
next(GENERATOR)
VARIABLE: contextvars.ContextVar[InContext] = contextvars.ContextVar("request")
CONTEXT = contextvars.copy_context()
CONTEXT.run(VARIABLE.set, InContext())
PARTIAL = functools.partial(print, InPartial())


def make_exit() -> Callable[[], object]:
    held = AtExit()
    return lambda: held


atexit.register(make_exit())


def make_handler() -> Callable[[int, object], None]:
    held = OnSignal()
    return lambda _, __: print(held)


signal.signal(signal.SIGUSR1, make_handler())
METHOD = InMethod().method


def run(ready: threading.Event, over: threading.Event) -> None:
    waiting = InThread()
    ready.set()
    over.wait()
    print(waiting)


READY, OVER = threading.Event(), threading.Event()
threading.Thread(target=run, args=(READY, OVER), daemon=True).start()
READY.wait()
sys.stdout.flush()

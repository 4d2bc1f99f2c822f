"""Is busy or waits, in the way that is named, until a signal or for 20 seconds."""

import asyncio
import contextlib
import os
import select
import signal
import sys
import threading
import time

NAMES = set(globals()) | {"NAMES", "end", "stop", "turns", "wait", "work"}
end = time.monotonic() + 20


def stop(*_: object) -> None:
    global end
    end = 0.0
    if sys.argv[1] in ("sleep", "select"):
        raise InterruptedError


def work() -> None:
    while time.monotonic() < end:
        {number: [str(number)] * 3 for number in range(200)}


async def turns() -> None:
    while time.monotonic() < end:
        await asyncio.sleep(0.005)


def wait(way: str) -> None:
    threads = []
    if way in ("threads", "join"):
        threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    if way in ("busy", "threads"):
        work()
    elif way == "sleep":
        time.sleep(end - time.monotonic())
    elif way == "select":
        select.select([os.pipe()[0]], [], [], end - time.monotonic())
    elif way == "asyncio":
        asyncio.run(turns())
    for thread in threads:
        thread.join()


signal.signal(signal.SIGUSR1, stop)
print("ready", flush=True)
with contextlib.suppress(InterruptedError):
    wait(sys.argv[1])
# Whoever came by has left nothing.
print("good" if set(globals()) == NAMES else set(globals()) - NAMES)

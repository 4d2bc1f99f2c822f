"""Generators, asyncio tasks and threads that take turns, each keeping blocks
of its own: no stack may show another's frames."""

import asyncio
import os
import threading

head, tail = b"h" * 800, b"t"
kept = []


def keep_in_generator():
    kept.append(head + tail)


def keep_in_task():
    kept.append(head + tail)


def keep_in_thread():
    kept.append(head + tail)


def generator():
    while True:
        keep_in_generator()
        yield


async def task():
    for _ in range(100):
        keep_in_task()
        await asyncio.sleep(0)


async def all_tasks():
    turns = [generator() for _ in range(5)]
    await asyncio.gather(*(task() for _ in range(10)))
    for _ in range(100):
        for turn in turns:
            next(turn)


def work():
    for _ in range(100):
        keep_in_thread()


for _ in range(10):
    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
asyncio.run(all_tasks())
os.write(
    1,
    b'{"keep_in_generator": {"blocks": 500, "callers": ["generator", "all_tasks"]},'
    b' "keep_in_task": {"blocks": 1000, "callers": ["task"]},'
    b' "keep_in_thread": {"blocks": 5000, "callers": ["work"]}}\n',
)
os._exit(0)

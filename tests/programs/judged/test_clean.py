"""Bodies that keep nothing, or that stop: every test here has to pass."""

from __future__ import annotations

import concurrent.futures
import ctypes
import decimal
import functools
import gc
import importlib
import json
import logging
import os
import random
import re
import sys
import threading
import unittest
import warnings

import pytest

blocks = ctypes.CDLL(os.environ["BLOCKS"])
blocks.keep.argtypes = [ctypes.c_size_t]
blocks.use.argtypes = [ctypes.c_size_t]


def test_nothing(no_growth):
    no_growth(lambda: None)


def test_much_that_dies(no_growth):
    no_growth(lambda: json.loads(json.dumps([{"key": [n] * 5} for n in range(200)])))


def test_native_blocks_that_are_freed(no_growth):
    def body():
        for size in range(16, 400, 16):
            blocks.use(size)

    no_growth(body)


def test_cache_of_few_keys(no_growth):
    @functools.lru_cache(maxsize=128)
    def answer(question):
        return [question]

    no_growth(lambda: [answer(n) for n in range(40)])


def test_cache_that_is_full(no_growth):
    numbers = iter(range(10**9))

    @functools.lru_cache(maxsize=8)
    def answer(question):
        return [question]

    no_growth(lambda: answer(next(numbers) + 10**6))


def test_cache_that_fills_by_chance(no_growth):
    """Ten keys, one a round: some come late."""
    chance = random.Random(7)
    known = {}

    def body():
        known.setdefault(chance.randrange(10), []).clear()

    no_growth(body)


def test_regular_expressions(no_growth):
    no_growth(lambda: [re.compile(f"a{n}b+") for n in range(20)])


def test_interned_strings(no_growth):
    no_growth(lambda: [sys.intern(f"name_{n}") for n in range(50)])


def test_a_lazy_import(no_growth):
    def body():
        for name in ("colorsys", "chunk_that_is_not", "sched", "this_neither"):
            try:
                importlib.import_module(name)
            except ImportError:
                pass

    no_growth(body)


def test_logging(no_growth):
    log = logging.getLogger("judged")

    def body():
        log.warning("something %d of %s", 12345678, object())

    no_growth(body)


def test_logging_with_caplog(no_growth, caplog):
    caplog.set_level(logging.DEBUG)
    no_growth(lambda: logging.getLogger("other").debug("details of %s", object()))


def test_print(no_growth):
    no_growth(lambda: print("something", object()))


def test_print_with_capsys(no_growth, capsys):
    no_growth(lambda: print("something", object()))


def test_warnings(no_growth):
    no_growth(lambda: warnings.warn("old", DeprecationWarning, stacklevel=1))


def test_thread_pool(no_growth):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        no_growth(lambda: list(pool.map(str, range(1000, 1050))))


def test_threads_that_end(no_growth):
    def body():
        threads = [threading.Thread(target=dict) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    no_growth(body)


def test_an_exception_that_is_expected(no_growth):
    def body():
        with pytest.raises(ValueError, match="no number"):
            raise ValueError("no number")

    no_growth(body)


def test_the_last_one_is_kept(no_growth):
    last = {}

    def body():
        last["value"] = [object() for _ in range(10)]

    no_growth(body)


class Node:
    def __init__(self):
        self.me = self


def test_cycles_that_are_garbage(no_growth):
    no_growth(lambda: [Node() for _ in range(50)] and None)


def test_cycles_without_a_collector(no_growth):
    gc.disable()
    try:
        no_growth(lambda: [Node() for _ in range(50)] and None)
    finally:
        gc.enable()


def test_a_queue_of_bounded_length(no_growth):
    from collections import deque

    queue = deque(maxlen=6)
    no_growth(lambda: queue.append(object()))


def test_decimals_and_classes(no_growth):
    def body():
        kind = type("Kind", (), {"method": lambda self: decimal.Decimal("1.25") ** 20})
        return kind().method()

    no_growth(body)


def test_arenas_that_come_and_go(no_growth):
    """Some hundred arenas of small objects a round."""
    no_growth(lambda: [[n] for n in range(20_000)] and None, rounds=8)


def test_numpy_buffers(no_growth):
    """NumPy keeps small buffers for itself, a few of each size."""
    numpy = pytest.importorskip("numpy")

    def body():
        for size in (1, 7, 100, 1000, 100_000):
            array = numpy.ones(size)
            (array + array.reshape(1, -1)).sum()

    no_growth(body)


async def nothing_in_a_coroutine():
    import asyncio

    await asyncio.sleep(0)


def test_a_coroutine(no_growth):
    no_growth(nothing_in_a_coroutine)


def test_tolerance(no_growth):
    kept = []
    no_growth(lambda: kept.append(object()), tolerance="1 KiB")


def test_warmup_that_is_given(no_growth):
    calls = iter(range(10**9))
    kept = []

    def body():
        if next(calls) < 40:
            kept.append(object())

    no_growth(body, warmup=40)


def test_names_that_are_made_up(no_growth):
    """Python's cache of attributes keeps some thousand names that were looked up."""
    numbers = iter(range(10**9))
    no_growth(lambda: getattr(Node, f"name_{next(numbers)}", None))


@pytest.mark.no_growth
def test_marked(tmp_path):
    (tmp_path / "file").write_text("text" * 100)


@pytest.mark.no_growth(warmup=2, rounds=6)
@pytest.mark.parametrize("size", [10, 1000])
def test_marked_with_parameters(size):
    bytes(size)


class TestCase(unittest.TestCase):
    def setUp(self):
        self.rows = []

    @pytest.mark.no_growth
    def test_of_unittest(self):
        self.rows = [object() for _ in range(10)]
        assert self.rows


@pytest.mark.limit_peak("4 MiB")
def test_within_its_limit():
    bytearray(1 << 20)

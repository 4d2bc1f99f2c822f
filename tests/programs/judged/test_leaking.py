"""Bodies that keep memory of each round: every test here has to fail.

The plugin under test says so; `test_pytest_plugin.py` counts.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import gc
import itertools
import logging
import mmap
import os
import sys
import threading
import types
import unittest
import weakref

import pytest

blocks = ctypes.CDLL(os.environ["BLOCKS"])
blocks.keep.argtypes = [ctypes.c_size_t]

KEPT: list[object] = []
BY_KEY: dict[object, object] = {}


def one_object():
    KEPT.append(object())


def test_one_object(no_growth):
    no_growth(one_object)


def test_one_native_block(no_growth):
    no_growth(lambda: blocks.keep(16))


def test_a_dict_entry(no_growth):
    def body():
        BY_KEY[object()] = "value"

    no_growth(body)


def test_a_tuple_among_many_that_die(no_growth):
    """Free lists hold tuples of these sizes: the kept one is made of a used block."""

    def body():
        pairs = [(number, str(number)) for number in range(300)]
        KEPT.append(pairs[150])

    no_growth(body)


def test_a_float_among_many_that_die(no_growth):
    def body():
        values = [number * 1.5 for number in range(50)]
        KEPT.append(values[7])

    no_growth(body)


def test_a_closure(no_growth):
    def body():
        state = []

        def callback():
            return state

        KEPT.append(callback)

    no_growth(body)


def test_an_unbounded_cache(no_growth):
    calls = iter(range(10**9))

    @functools.lru_cache(maxsize=None)
    def answer(question):
        return [question]

    no_growth(lambda: answer(next(calls) + 10**6))


class Node:
    def __init__(self):
        self.me = self


def test_a_cycle_that_is_held(no_growth):
    def body():
        KEPT.append(Node())

    no_growth(body)


def test_a_weak_reference_with_callback(no_growth):
    target = Node()

    def body():
        KEPT.append(weakref.ref(target, lambda _: None))

    no_growth(body)


def test_an_exception_with_its_frames(no_growth):
    def body():
        try:
            raise ValueError("kept")
        except ValueError as error:
            KEPT.append(error)

    no_growth(body)


def test_in_another_thread(no_growth):
    def body():
        thread = threading.Thread(target=one_object)
        thread.start()
        thread.join()

    no_growth(body)


def test_a_large_block(no_growth):
    no_growth(lambda: KEPT.append(bytearray(100_000)))


def test_mapped_memory(no_growth):
    no_growth(lambda: KEPT.append(mmap.mmap(-1, 8192)))


def test_a_cycle_that_the_collector_may_not_touch(no_growth):
    def body():
        Node()
        gc.freeze()

    try:
        no_growth(body)
    finally:
        gc.unfreeze()


def test_a_lost_reference(no_growth):
    def body():
        lost = object()
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(lost))

    no_growth(body)


@pytest.mark.no_growth
def test_marked():
    one_object()


@pytest.mark.no_growth(rounds=8)
@pytest.mark.parametrize("size", [10, 1000])
def test_marked_with_parameters(size, tmp_path):
    KEPT.append(bytes(size) + str(tmp_path).encode())


class TestCase(unittest.TestCase):
    def setUp(self):
        self.size = 40

    @pytest.mark.no_growth
    def test_of_unittest(self):
        KEPT.append(bytearray(self.size))


async def keep_in_a_coroutine():
    KEPT.append(object())


def test_a_coroutine(no_growth):
    no_growth(keep_in_a_coroutine)


def test_a_log_handler_each_time(no_growth):
    log = logging.getLogger("judged.leaking")
    try:
        no_growth(lambda: log.addHandler(logging.NullHandler()))
    finally:
        log.handlers.clear()


def test_what_is_called_at_exit(no_growth):
    def call():
        pass

    try:
        no_growth(lambda: atexit.register(call, [1, 2, 3]))
    finally:
        atexit.unregister(call)


class Answers:
    @functools.lru_cache(maxsize=None)  # noqa: B019
    def of(self, question):
        return [question]


def test_a_cached_method_keeps_each_instance(no_growth):
    try:
        no_growth(lambda: Answers().of(1))
    finally:
        Answers.of.cache_clear()


def test_finalizers_of_what_lives_on(no_growth):
    class Lives:
        pass

    lives = Lives()
    no_growth(lambda: weakref.finalize(lives, str, "a text"))


def test_modules_that_are_made_up(no_growth):
    numbers = itertools.count()

    def body():
        name = f"judged_{next(numbers)}"
        sys.modules[name] = types.ModuleType(name)

    try:
        no_growth(body)
    finally:
        for name in [name for name in sys.modules if name.startswith("judged_")]:
            del sys.modules[name]


def test_interned_names_that_are_kept(no_growth):
    numbers = itertools.count()
    kept = []
    no_growth(lambda: kept.append(sys.intern(f"judged_name_{next(numbers)}")))


def test_generators_that_are_never_finished(no_growth):
    kept = []

    def body():
        generator = (number for number in [1, 2, 3])
        next(generator)
        kept.append(generator)

    no_growth(body)


def test_variables_of_the_environment(no_growth):
    numbers = itertools.count()
    before = dict(os.environ)

    def body():
        os.environ[f"JUDGED_{next(numbers)}"] = "a value"

    try:
        no_growth(body)
    finally:
        os.environ.clear()
        os.environ.update(before)


def test_exceptions_that_pytest_caught(no_growth):
    kept = []

    def body():
        with pytest.raises(ValueError, match="no number") as caught:
            raise ValueError("no number")
        kept.append(caught)

    no_growth(body)


def test_a_slice_of_a_large_buffer(no_growth):
    kept = []
    no_growth(lambda: kept.append(memoryview(bytearray(100_000))[:10]))

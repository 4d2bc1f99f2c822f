"""Holds objects under keys of many kinds, and ends. Its keys are in no constant: those
would be names in the code."""

from __future__ import annotations

import sys
from typing import Any


def made(text: str) -> str:
    """Equal, and not interned."""
    return "".join(list(text))


class Session:
    def __init__(self) -> None:
        self.history = [bytearray(1000) for _ in range(20)]


class Sole:
    """Of each kind of key there is one, in a dict of its own."""


KINDS: list[tuple[str, Any]] = [
    ("Ascii", made("user-") + "42"),
    ("Latin", made("caf") + "\xe9"),
    ("Wide", made("ключ-") + "日本"),
    ("Astral", made("smile-") + "\U0001f600"),
    ("Escape", made("\x1b[31m") + "red\n\u202e"),
    ("Most", made("m" * 60) + "z" * 4),
    ("Long", made("l" * 60) + "z" * 9),
    ("Int", int("12345678901")),
    ("Negative", -int("7")),
    ("Zero", int("0")),
    ("Largest", int(str(2**64 - 1))),
    ("Huge", int(str(2**64))),
    ("Bytes", bytes([107, 101, 121, 255])),
    ("LongBytes", bytes([98] * 40)),
    ("Nothing", None),
    ("Yes", True),
    ("Half", float("2.5")),
    ("Pair", (made("in-") + "pair", 1)),
]


class Held:
    """Has them as attributes."""


HELD = Held()
for name, key in KINDS:
    setattr(HELD, sys.intern(name), {key: type(name, (Sole,), {})()})

SESSIONS = {made("user-") + str(number): Session() for number in range(200)}
MANY = {made("many-") + str(number): [number] for number in range(5000)}
# What is no key is never told.
VALUE = made("not-a-") + "key"
LIST = [made("in-a-") + "list", {made("in-a-") + "set"}]
del name, key

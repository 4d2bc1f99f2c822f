"""Puts a seccomp filter upon itself and becomes another program.

    filtered.py forks|nothing PROGRAM ARGUMENT...

`forks`: who forks is killed; threads may be started. `nothing`: all is allowed.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, FILTER = 22, 38, 2
ALLOW, KILL = 0x7FFF0000, 0x80000000
CLONE, FORK, CLONE_THREAD = 56, 57, 0x10000
LOAD, EQUAL, HAS_BITS, END = 0x20, 0x15, 0x45, 0x06
NUMBER, FIRST_ARGUMENT = 0, 16

steps = [(END, 0, 0, ALLOW)]
if sys.argv[1] == "forks":
    steps = [
        (LOAD, 0, 0, NUMBER),
        (EQUAL, 4, 0, FORK),
        (EQUAL, 0, 2, CLONE),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (HAS_BITS, 0, 1, CLONE_THREAD),
        (END, 0, 0, ALLOW),
        (END, 0, 0, KILL),
    ]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *s) for s in steps))
program = ctypes.create_string_buffer(
    struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(code))
)
prctl = ctypes.CDLL(None, use_errno=True).prctl
assert prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
assert prctl(PR_SET_SECCOMP, FILTER, program, 0, 0) == 0, ctypes.get_errno()
os.execv(sys.argv[2], sys.argv[2:])

"""A worker that is attached to: commands come as lines on stdin, one answer each.

work N     makes N objects of each of the kinds below, and says their lines
grow N     makes N lists, item by item and nothing else that is large, and says their bytes
aside N    makes N texts, and nothing else, by a second thread, which stays
trace on, trace off
           has tracemalloc begin, or end
drop       lets go of what was made
fork       forks a child that takes commands in its place, from the same stdin
pid        says who answers
allocators says what gives CPython blocks of each domain, and arenas, and what takes
            code objects back
"""

import ctypes
import json
import os
import queue
import sys
import threading
import time
import tracemalloc

kept = []


def lists(count):
    for number in range(count):
        kept.append([number, None])  # line: lists


def texts(count):
    for number in range(count):
        kept.append("%d %s" % (number, "x" * 600))  # line: texts


def freed(count):
    for number in range(count):
        bytearray(1000)  # line: freed


class Allocator(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("ctx", "a", "b", "c", "d")]


def allocators():
    found = []
    for domain in range(3):
        table = Allocator()
        ctypes.pythonapi.PyMem_GetAllocator(domain, ctypes.byref(table))
        found.append([getattr(table, name) for name, _ in table._fields_])
    table = Allocator()
    ctypes.pythonapi.PyObject_GetArenaAllocator(ctypes.byref(table))
    found.append([table.ctx, table.a, table.b])
    # Behind two words, the size and two more: its `tp_dealloc`.
    code = ctypes.c_void_p.from_address(id(type(main.__code__)) + 48)
    found.append([code.value])
    return found


def work(count):
    for kind in (lists, texts, freed):
        kind(count)


def grow(count):
    for _ in range(count):
        one = []
        kept.append(one)
        for _ in range(5000):
            one.append(None)  # line: grown
    return sum(one.__sizeof__() - [].__sizeof__() for one in kept[-count:])


LONG = "x" * 100


def slices(count):
    for _ in count:
        LONG[1:40]  # line: slices


def serve(asked, done):
    while True:
        slices(asked.get())
        done.put(None)


def main():
    lines = {}
    asked, done = queue.SimpleQueue(), queue.SimpleQueue()
    second = threading.Thread(target=serve, args=(asked, done), daemon=True)
    with open(__file__) as source:
        for at, line in enumerate(source, 1):
            if "# line: " in line and "enumerate" not in line:
                lines[line.split("# line: ")[1].strip()] = at
    print("ready", flush=True)
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == "work":
            work(int(arguments[0]))
            print(json.dumps({"pid": os.getpid(), "lines": lines}), flush=True)
        elif command == "grow":
            room = grow(int(arguments[0]))
            print(json.dumps({"room": room, "lines": lines}), flush=True)
        elif command == "aside":
            if not second.is_alive():
                second.start()
            asked.put([None] * int(arguments[0]))
            done.get()
            print(json.dumps({"pid": os.getpid(), "lines": lines}), flush=True)
        elif command == "trace":
            (tracemalloc.start if arguments[0] == "on" else tracemalloc.stop)()
            print("{}", flush=True)
        elif command == "allocators":
            print(json.dumps({"found": allocators()}), flush=True)
        elif command == "drop":
            kept.clear()
            # For a while: what goes on is looked at now and then only.
            for _ in range(50):
                time.sleep(0.002)
                "%d" % 1000 * 300
            print("{}", flush=True)
        elif command == "fork":
            child = os.fork()
            if child:
                _, status = os.waitpid(child, 0)
                sys.exit(os.waitstatus_to_exitcode(status))
            print(json.dumps({"pid": os.getpid()}), flush=True)
        elif command == "pid":
            print(json.dumps({"pid": os.getpid()}), flush=True)


main()

"""A worker with as many objects as are asked for, that notes its longest gap.

    graph.py OBJECTS BYTES LIBRARY [REST]

So many objects, of so many bytes each by and large: sessions in a dict of a module,
each with a dict, a list, a text and a number. Then it loops, with so many seconds of
rest after each turn, and answers on lines:

    reset       longest gaps from here on, and turns
    gap         the three of them, since: microseconds by the clock, by the thread's
                processor time (what others of the machine do is not in it), turns
    fork        a bare fork (of LIBRARY, made of fork.c)
    tool NAME   runs objgraph, guppy3 or pympler in a thread; says seconds
"""

import ctypes
import sys
import threading
import time

objects, size = int(sys.argv[1]), int(sys.argv[2])
# With the GIL held: what another thread does meanwhile is no matter of the fork.
library = ctypes.PyDLL(sys.argv[3])
rest = float(sys.argv[4]) if sys.argv[4:] else 0.0


class Session:
    def __init__(self, number):
        self.number = number
        self.user = {"number": number}
        self.name = f"user {number}".ljust(room)
        self.history = [number] * 4


# What a session has without its name: 500 bytes. Six objects, less where two dicts
# share keys.
room = max(16, size * 5 - 500)
SESSIONS = {number: Session(number) for number in range(objects // 5)}


def objgraph_tool():
    import objgraph

    objgraph.show_most_common_types(file=sys.stderr)
    chain = objgraph.find_backref_chain(
        SESSIONS[len(SESSIONS) // 2].history, objgraph.is_proper_module
    )
    print([type(one).__name__ for one in chain], file=sys.stderr)


def guppy3_tool():
    from guppy import hpy

    hp = hpy()
    print(hp.heap(), file=sys.stderr)
    one = hp.iso(SESSIONS[len(SESSIONS) // 2].history)
    print(one.shpaths, file=sys.stderr)
    print(hp.iso(SESSIONS).domisize, file=sys.stderr)


def pympler_tool():
    from pympler import muppy, summary

    for line in summary.format_(summary.summarize(muppy.get_objects())):
        print(line, file=sys.stderr)


TOOLS = {"objgraph": objgraph_tool, "guppy3": guppy3_tool, "pympler": pympler_tool}
longest, busiest, turns = 0.0, 0.0, 0
wants_fork = threading.Event()


def commands():
    global longest, busiest, turns
    print("ready", flush=True)
    for line in sys.stdin:
        words = line.split()
        answer = "done"
        if words[0] == "reset":
            longest, busiest, turns = 0.0, 0.0, 0
        elif words[0] == "gap":
            answer = f"{int(longest * 1e6)} {int(busiest * 1e6)} {turns}"
        elif words[0] == "fork":
            wants_fork.set()
            while wants_fork.is_set():
                time.sleep(0.001)
        elif words[0] == "tool":
            began = time.perf_counter()
            TOOLS[words[1]]()
            answer = f"{time.perf_counter() - began:.3f}"
        print(answer, flush=True)


listener = threading.Thread(target=commands)
listener.start()
last, last_used = time.perf_counter(), time.thread_time()
child = 0
while listener.is_alive():
    if wants_fork.is_set():
        child = library.bare_fork()
    # Work as of a service: it changes what it has, and makes and drops objects.
    turns += 1
    one = SESSIONS[turns * 7919 % len(SESSIONS)]
    one.user = {"number": turns}
    kept = [str(turn) for turn in range(20)]
    now, used = time.perf_counter(), time.thread_time()
    longest, last = max(longest, now - last), now
    busiest, last_used = max(busiest, used - last_used), used
    if child:
        library.wait_for(child)
        child = 0
        wants_fork.clear()
        last, last_used = time.perf_counter(), time.thread_time()
    if rest:
        # Who wakes late was kept from work.
        last = time.perf_counter() + rest
        time.sleep(rest)
        last_used = time.thread_time()

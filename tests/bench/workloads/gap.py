"""As gap.c, in Python: the worker is the main thread, and allocates objects.

gap.py THREADS MIB
"""

import sys
import threading
import time

threads, mebibytes = int(sys.argv[1]), int(sys.argv[2])
resident = [bytearray(b"x") * (1 << 20) for _ in range(mebibytes)]
longest = 0.0
for _ in range(threads):
    threading.Thread(target=threading.Event().wait, daemon=True).start()


def commands() -> None:
    global longest
    print("ready", flush=True)
    for line in sys.stdin:
        gap, longest = longest, 0.0
        print(int(gap * 1e6) if line == "gap\n" else 0, flush=True)


listener = threading.Thread(target=commands)
listener.start()
last = time.perf_counter()
turn = 0
while listener.is_alive():
    turn += 1
    kept = [str(turn), (turn, last), {"turn": turn}]
    now = time.perf_counter()
    gap, last = now - last, now
    if gap > longest:
        longest = gap

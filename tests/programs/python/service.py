"""A service in small: each request loses 200 bytes, a cache fills and then
evicts, and an export takes much memory for a moment. Prints what it lost."""

from __future__ import annotations

import json
import random
import sys
import time
from collections import OrderedDict

SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 6.0
BOUND = 300

history: list[bytes] = []
cache: OrderedDict[int, bytes] = OrderedDict()


def remember(request: int) -> None:
    history.append(bytes(167))  # 200 bytes with its header


def render(key: int) -> bytes:
    if key in cache:
        cache.move_to_end(key)
        return cache[key]
    page = bytes(2000) + str(key).encode()
    cache[key] = page
    if len(cache) > BOUND:
        cache.popitem(last=False)
    return page


def export() -> int:
    rows = [bytes(500) for _ in range(4000)]
    time.sleep(0.1)
    return len(rows)


def main() -> None:
    randomness = random.Random(1)
    started = time.monotonic()
    requests = exported = 0
    while (now := time.monotonic() - started) < SECONDS:
        requests += 1
        remember(requests)
        render(int(randomness.paretovariate(0.5)) % 2000)
        if exported < 2 and now > SECONDS * (0.3 + 0.3 * exported):
            exported += 1
            export()
        time.sleep(0.002)
    lost = len(history) * sys.getsizeof(history[0])
    print(json.dumps({"lost": lost, "requests": requests, "seconds": now}))


main()

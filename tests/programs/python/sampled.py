"""A heap to be estimated: what it keeps, and churn. Says what is kept."""

import json
import sys


def keep(kept: list[bytes], count: int) -> None:
    for _ in range(count):
        kept.append(bytes(1000))


def keep_large(kept: list[bytearray], count: int) -> None:
    for _ in range(count):
        kept.append(bytearray(400_000))


def churn(count: int) -> None:
    for number in range(count):
        [str(number), (number,)]


def main() -> None:
    count = int(sys.argv[1])
    small: list[bytes] = []
    large: list[bytearray] = []
    globals().update(small=small, large=large)
    keep(small, count)
    churn(count * 10)
    keep_large(large, 20)
    churn(count * 10)
    del small[::2]
    truth = {
        "keep": [len(small), sum(map(sys.getsizeof, small))],
        "keep_large": [len(large), sum(len(one) + 1 for one in large)],
    }
    print(json.dumps(truth))


main()

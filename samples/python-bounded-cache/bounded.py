"""A cache with a bound: it grows, then stops. Not a leak."""

from functools import lru_cache

TEMPLATE = b"<p>" * 1000


def render(number):
    return TEMPLATE + b"%05d" % number


@lru_cache(maxsize=256)
def page(number):
    return render(number)


def main():
    print("served", sum(len(page(visitor)) for visitor in range(5000)), "bytes")


main()

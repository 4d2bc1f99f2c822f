"""Serves pages from a cache that nobody ever empties."""

TEMPLATE = b"<p>" * 1000
PAGES = {}


def render(path):
    return TEMPLATE + path.encode()


def page(path):
    if path not in PAGES:
        PAGES[path] = render(path)
    return PAGES[path]


def main():
    served = 0
    for visitor in range(5000):
        served += len(page("/item/%05d" % visitor))
    print("served", served, "bytes")


main()

"""Subscribes a callback for each request; each callback keeps its request."""

listeners = []


def on_shutdown(callback):
    listeners.append(callback)


def read_body(number):
    return b"%08d" % number + b"x" * number


def handle(number):
    body = read_body(10000 + number)
    on_shutdown(lambda: print("unfinished:", body[:8]))
    return len(body)


def main():
    handled = sum(handle(number) for number in range(400))
    print("handled", handled, "bytes, callbacks:", len(listeners))


main()

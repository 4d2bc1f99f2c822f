"""Adds a handler to the same logger in every request. Each message goes to all
handlers so far: memory grows with the square of the requests."""

import logging

log = logging.getLogger("requests")
log.setLevel(logging.INFO)
log.propagate = False


class Recent(logging.Handler):
    """Keeps what it was given, to be shown on an error page."""

    def __init__(self, name):
        super().__init__()
        self.prefix = name + ": "
        self.lines = []

    def emit(self, record):
        line = self.prefix + record.getMessage()
        self.lines.append(line)


def handle(number):
    log.addHandler(Recent("request %03d" % number))
    log.info("a message of forty characters, as it is.")


def main():
    for number in range(200):
        handle(number)
    print("handlers:", len(log.handlers))


main()

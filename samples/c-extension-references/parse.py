"""Calls an extension module that loses references."""

import os
import sys

sys.path.insert(0, os.environ.get("SAMPLES_BUILD", "../../target/samples"))
from tokens import tokenize  # noqa: E402


def parse(number):
    return len(tokenize("record %04d holds six small tokens" % number))


def main():
    print("tokens:", sum(parse(number) for number in range(1000)))


main()

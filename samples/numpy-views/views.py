"""Keeps ten numbers of each frame: a view, which keeps the whole frame."""

import numpy


def load_frame(number):
    return numpy.full(100_000, float(number))


def first_ten(number):
    return load_frame(number)[:10]


def main():
    kept = []
    for number in range(50):
        kept.append(first_ten(number))
    print("sum", sum(view.sum() for view in kept))
    return kept


kept = main()

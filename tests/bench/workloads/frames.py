"""Groups and joins tables (pandas where installed, else NumPy alone):
frames.py ROUNDS."""

import sys

import numpy

try:
    import pandas
except ImportError:
    pandas = None

generator = numpy.random.default_rng(7)
keys = generator.integers(0, 500, 20000)
values = generator.random(20000)
for _ in range(int(sys.argv[1])):
    order = numpy.argsort(keys, kind="stable")
    sums = numpy.add.reduceat(values[order], numpy.arange(0, 20000, 40))
    if pandas is not None:
        table = pandas.DataFrame(
            {"key": keys, "value": values, "name": keys.astype(str)}
        )
        grouped = table.groupby("key")["value"].agg(["sum", "mean", "max"])
        joined = table.merge(grouped, left_on="key", right_index=True)

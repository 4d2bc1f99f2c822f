"""Functions that come and go: later ones stand where earlier ones stood.

Each made function keeps one bytes object of a size of its own, and is dropped
before the next is made. No block may be told with another function's name.
"""

import os

kept = []
head = b"h" * 1000
COUNT = 1000

for number in range(1, COUNT + 1):
    names = {"head": head, "tail": b"t" * number}
    source = "def made_%d():\n    return head + tail\n" % number
    exec(compile(source, "<made>", "exec"), names)
    kept.append(names["made_%d" % number]())
    del names

os.write(1, b'{"count": %d, "first_bytes": 1034}\n' % COUNT)
os._exit(0)

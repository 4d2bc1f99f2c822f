"""What Python programs allocate, a kind a line, for the counting allocator.

Everything is deterministic, and what `kept` holds is live at the end. Imports
are counted.py's business, which also gives `run_in_thread`.
"""

kept = []


class Plain:
    def __init__(self, number):
        self.number = number
        self.text = "text %d" % number


class Slotted:
    __slots__ = ("left", "right")

    def __init__(self, left, right):
        self.left = left
        self.right = right


def bytes_of(size):
    return bytes(size)


def strings(count):
    found = []
    for i in range(count):
        found.append("row " + str(i) + "é" * (i % 40))
    return found


def growing_list(count):
    rows = []
    for i in range(count):
        rows.append(i)
    return rows


def growing_dict(count):
    table = {}
    for i in range(count):
        table[i * 7919] = str(i)
    return table


def growing_set(count):
    return {"key %d" % i for i in range(count)}


def big_numbers(count):
    number = 1
    for i in range(1, count):
        number *= i
    return number


def growing_bytearray(count):
    buffer = bytearray()
    for i in range(count):
        buffer += b"0123456789" * (i % 7)
    return buffer


def adders(count):
    def make(step):
        return lambda value: value + step

    return [make(i * 1000) for i in range(count)]


def numbers(count):
    for i in range(count):
        yield i * 1.5 + 1000.0


def descend(depth):
    if depth == 0:
        return [bytes(3000)]
    below = descend(depth - 1)
    below.append(bytes(600 + depth))
    return below


def failures(count):
    caught = []
    for i in range(count):
        try:
            raise ValueError("number %d" % i)
        except ValueError as error:
            caught.append(error)
    return caught


def cycles(count):
    for i in range(count):
        knot = [bytes(100)]
        knot.append(knot)


def generated(count):
    functions = []
    for i in range(count):
        names = {}
        source = "def made_%d(size):\n    return bytes(size + %d)\n" % (i, i)
        exec(compile(source, "<made %d>" % i, "exec"), names)
        functions.append(names["made_%d" % i](1000))
    return functions


def in_thread(count):
    for _ in range(count):
        kept.append(bytes(2048))


def churn(count):
    total = 0
    for i in range(count):
        row = {"id": i, "name": "name %d" % i, "values": [i, i + 1, i + 2]}
        total += len(row["name"]) + sum(row["values"])
    return total


for _ in range(50):
    kept.append(bytes_of(100))
    kept.append(bytes_of(1000))
    kept.append(bytes_of(100000))
kept.append(strings(500))
kept.append(growing_list(20000))
kept.append(growing_dict(3000))
kept.append(growing_set(2000))
kept.append(big_numbers(1500))
kept.append(growing_bytearray(2000))
kept.append(adders(300))
kept.append(list(numbers(2000)))
kept.append(descend(200))
kept.append(failures(100))
cycles(3000)
kept.append(generated(200))
kept.append([Plain(i) for i in range(1000)])
kept.append([Slotted(i, str(i)) for i in range(1000)])
kept.append(churn(20000))
for _ in range(4):
    run_in_thread(in_thread, 200)
del kept[1]

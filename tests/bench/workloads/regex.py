"""Compiles and runs regular expressions: regex.py ROUNDS."""

import re
import sys

TEXT = " ".join(
    "user%d@example%d.org visited /path/%d?q=%d on 2024-01-%02d" % (i, i, i, i, i % 28)
    for i in range(300)
)
for turn in range(int(sys.argv[1])):
    re.purge()
    pattern = re.compile(r"(?P<user>[\w.]+)@(?P<host>[\w.]+) visited (?P<path>/\S*)")
    found = [match.groupdict() for match in pattern.finditer(TEXT)]
    re.sub(r"\d+", lambda match: str(int(match.group()) + turn), TEXT)

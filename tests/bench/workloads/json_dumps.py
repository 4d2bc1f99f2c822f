"""Encodes and decodes nested records: json_dumps.py ROUNDS."""

import json
import sys

RECORD = {
    "id": 123456,
    "name": "a name with some length",
    "tags": ["alpha", "beta", "gamma"] * 5,
    "nested": {
        "key %d" % i: [i, i * 1.5, None, True, "text %d" % i] for i in range(20)
    },
}
for _ in range(int(sys.argv[1])):
    text = json.dumps([RECORD] * 5)
    json.loads(text)

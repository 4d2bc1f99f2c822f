"""Counts and sorts words, with dictionaries, strings and tuples:
words.py WORDS."""

import sys

counts = {}
lines = []
for i in range(int(sys.argv[1]) // 10):
    line = " ".join("word%d" % (i * k % 5003) for k in range(10))
    lines.append(line)
    for word in line.split():
        counts[word] = counts.get(word, 0) + 1
ranking = sorted(((count, word) for word, count in counts.items()), reverse=True)
text = "\n".join(line.upper() for line in lines)

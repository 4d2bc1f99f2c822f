"""Fills and asks a database in memory: sqlite.py ROWS."""

import sqlite3
import sys

rows = int(sys.argv[1])
database = sqlite3.connect(":memory:")
database.execute("create table visits (id integer primary key, who text, what text)")
database.executemany(
    "insert into visits (who, what) values (?, ?)",
    (("user %d" % (i % 1000), "page %d" % i) for i in range(rows)),
)
database.execute("create index who on visits (who)")
for i in range(rows // 100):
    query = "select id, what from visits where who = ? order by what desc limit 20"
    database.execute(query, ("user %d" % (i % 1000),)).fetchall()

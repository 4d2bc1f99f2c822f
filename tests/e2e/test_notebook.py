"""``%load_ext leakline`` and ``%%leakline``, in IPython's own shell without a terminal."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import execute

pytest.importorskip("IPython")

SHELL = """\
import json, sys
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

shell = InteractiveShell.instance()
# A notebook's names are those of __main__.
shell.run_line_magic("load_ext", "leakline")


def shown(cell):
    with capture_output():
        done = shell.run_cell(cell, store_history=True)
    return done.success, shell.user_ns["_"]


def told(one):
    return {
        "text": repr(one),
        "html": one._repr_html_(),
        "rows": [[row.function, row.line, row.delta_bytes, row.delta_blocks] for row in one.rows],
        "held": [held.words if held else None for held in one.held],
        "remedies": [held.remedy if held else None for held in one.held],
        "recording": str(one.recording) if one.recording else None,
        "lost": one.lost_events,
    }
"""


def answer(place: Path, cells: str) -> Any:
    script = place / "shell.py"
    script.write_text(SHELL + cells)
    ended = execute([sys.executable, script], cwd=place, env={"IPYTHONDIR": str(place)})
    assert ended.status == 0, ended.err.decode()
    return json.loads(ended.out.decode().splitlines()[-1])


def test_a_cell_says_what_it_left_and_who_holds_it(tmp_path: Path) -> None:
    kept, nothing = answer(
        tmp_path,
        '''
cell = """%%leakline
CACHE = {}
def fill(count):
    for key in range(count):
        CACHE[key] = [key] * 100
fill(1000)
sum(range(100))
"""
_, kept = shown(cell)
_, nothing = shown("%%leakline\\nx = [object() for _ in range(10)]; del x")
print(json.dumps([told(kept), told(nothing)]))
''',
    )
    function, line, grown, blocks = kept["rows"][0]
    assert (function, line) == ("fill", 4), kept
    # Lists of a hundred: a head each, if it is not from the free list, and their items.
    assert 856_000 <= grown <= 900_000, kept
    assert 1900 <= blocks <= 2010, kept
    assert kept["held"][0] == "__main__.CACHE[*]", kept
    assert kept["lost"] == 0
    assert kept["recording"] is None
    assert "fill" in kept["html"], kept
    assert "<table>" in kept["html"], kept
    assert "&lt;ipython-input" in kept["html"], kept
    assert "held by __main__.CACHE[*]" in kept["text"], kept
    assert not any(row[2] > 1000 for row in nothing["rows"]), nothing


def test_what_the_notebook_keeps_has_its_remedy(tmp_path: Path) -> None:
    shown, in_session = answer(
        tmp_path,
        """
import leakline
_, first = shown("%%leakline -o cell.leakline\\n[object() for _ in range(5000)]")
first = told(first)
with leakline.record("outer.leakline"):
    _, second = shown("%%leakline --no-held\\nKEPT = [object() for _ in range(5000)]")
    second = told(second)
print(json.dumps([first, second]))
""",
    )
    assert shown["rows"][0][3] >= 5000, shown
    assert shown["held"][0].startswith("__main__._"), shown
    assert "%reset -f out" in shown["remedies"][0], shown
    assert shown["recording"] == str(tmp_path / "cell.leakline")
    assert (tmp_path / "cell.leakline").stat().st_size > 0
    # A session that is under way has the cell too, and goes on.
    assert in_session["rows"][0][3] >= 5000, in_session
    assert in_session["held"][0] is None
    assert in_session["recording"] == str(tmp_path / "outer.leakline")


def test_a_cell_that_fails_leaves_no_session(tmp_path: Path) -> None:
    found = answer(
        tmp_path,
        """
import leakline
success, _ = shown("%%leakline\\n1 / 0")
again, one = shown("%%leakline\\nNAMES = ['name %d' % n for n in range(2000)]")
print(json.dumps({"again": again, "rows": told(one)["rows"][:1]}))
""",
    )
    assert found["again"]
    assert found["rows"][0][3] >= 2000, found

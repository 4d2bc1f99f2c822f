"""`leakline.why`, `top_retained` and `ledger`: of the very process that asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import ROOT, TARGET_PYTHON, Json, execute

SHIM = ROOT / "python-shim" / "python"

HEAD = """\
import json, sys
import leakline

class Session:
    def __init__(self, number):
        self.history = [bytes(20_000)]
        self.number = number

def told(why):
    return {**why.to_dict(), "shown": repr(why)}

"""


def answer(tmp_path: Path, code: str) -> Json:
    program = tmp_path / "program.py"
    program.write_text(HEAD + code.lstrip("\n"))
    result = execute(
        [TARGET_PYTHON, program], env={"PYTHONPATH": str(SHIM)}, cwd=tmp_path
    )
    assert result.status == 0, result.err.decode()
    return result.truth()


IN_A_SESSION = "with leakline.record('out.leakline', force=True):\n    found = ask()\n"


@pytest.mark.parametrize("is_recorded", [False, True], ids=["alone", "in a session"])
def test_why_names_every_holder(tmp_path: Path, is_recorded: bool) -> None:
    found = answer(
        tmp_path,
        """
SESSIONS = {number: Session(number) for number in range(100)}
FIRST = SESSIONS[7]
class Store:
    def __init__(self):
        self.kept = [FIRST]
STORE = Store()
def ask():
    def within():
        local = Session(1)
        return leakline.why(local)
    return {"three": told(leakline.why(FIRST)), "local": told(within())}
"""
        + (IN_A_SESSION if is_recorded else "found = ask()\n")
        + "print(json.dumps(found))\n",
    )
    three = found["three"]
    assert three["type"] == "__main__.Session"
    assert {holder["words"] for holder in three["holders"]} == {
        "__main__.FIRST",
        "__main__.SESSIONS[int]",
        "__main__.STORE.kept[0]",
    }
    # Before 3.11 the caller's stack holds an argument, too.
    assert three["references"] in (3, 4)
    assert three["total_holders"] == 3
    assert 20_000 < three["retained_bytes"] < 21_000
    assert "held by  __main__." in three["shown"]
    local = found["local"]
    (path,) = local["paths"]
    assert path["words"].startswith("frame ")
    assert "within" in path["words"]
    assert path["words"].endswith(" local")
    if is_recorded:
        # Which line made it is known then.
        steps = local["paths"][0]["steps"]
        assert steps[-1]["made_in"].startswith(str(tmp_path / "program.py"))


def test_what_a_notebook_or_an_exception_keeps_has_a_remedy(tmp_path: Path) -> None:
    found = answer(
        tmp_path,
        """
made = [Session(number) for number in range(3)]
Out = {3: "text", 12: made[0]}
_12 = made[1]
def fail():
    local = made.pop()
    raise ValueError(local.number)
try:
    fail()
except ValueError as error:
    sys.last_value = error
    sys.last_traceback = error.__traceback__
error = None
shown = [leakline.why(made[0]), leakline.why(made[1]),
         leakline.why(sys.last_traceback.tb_next.tb_frame.f_locals["local"])]
print(json.dumps([
    {"words": [h.words for h in why.holders],
     "remedies": [one.remedy for one in (*why.holders, *why.paths) if one.remedy]}
    for why in shown
]))
""".replace("print(json.dumps([", "print(json.dumps({'all': [").replace(
            "\n]))", "\n]}))"
        ),
    )["all"]
    out, underscore, last = found
    assert "__main__.Out[12]" in out["words"]
    assert "del Out[12]" in out["remedies"][0]
    assert "__main__._12" in underscore["words"]
    assert "del _12" in underscore["remedies"][0]
    assert any("sys.last_value = " in remedy for remedy in last["remedies"]), last


def test_top_retained_finds_where_memory_gathers(tmp_path: Path) -> None:
    found = answer(
        tmp_path,
        """
class Cache:
    def __init__(self):
        self.entries = {number: Session(number) for number in range(500)}
CACHE = Cache()
SMALL = [Session(number) for number in range(20)]
print(json.dumps({"places": [
    {"words": place.words, "retained": place.retained_bytes, "shown": str(place)}
    for place in leakline.top_retained(2)
]}))
""",
    )["places"]
    assert found[0]["words"].startswith("__main__.CACHE.entries")
    assert 10_000_000 < found[0]["retained"] < 10_600_000
    assert found[0]["shown"].startswith("9.")
    assert len(found) <= 2


def test_the_ledger_sums_to_the_resident_memory(tmp_path: Path) -> None:
    found = answer(
        tmp_path,
        """
kept = [bytes(100) for _ in range(200_000)]
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * 4096
before = leakline.ledger()
rss = resident()
del kept[::2]
freed = leakline.ledger()
print(json.dumps({
    "sum": sum(line.bytes for line in before.lines) - before.rss_bytes,
    "off": abs(before.rss_bytes - rss),
    "python": [before["python_live"], freed["python_live"], freed["python_free"]],
    "shown": repr(freed), "dict": freed.to_dict()["verdict"],
    "rows": [line.name for line in freed.rows()],
}))
""",
    )
    assert found["sum"] == 0
    assert found["off"] < 8 << 20
    live, left, free = found["python"]
    # 133 bytes each, in pymalloc's classes of 16.
    assert 200_000 * 133 < live < 200_000 * 200
    assert abs((live - left) - 100_000 * 144) < 2 << 20
    assert free > 10 << 20
    assert found["shown"].startswith("RSS ")
    assert "python_free" in found["rows"]


def test_what_nothing_holds_is_said(tmp_path: Path) -> None:
    """An object that only the call has: it lives on while it is asked about."""
    found = answer(
        tmp_path,
        """
leakline.start("out.leakline")
why = leakline.why(Session(len(sys.argv)))
text = None
try:
    text = leakline.why(str(len(sys.argv)) * 40).type
except leakline.LeaklineError as error:
    said = str(error)
    text = "str" if "nothing that it knows refers to it" in said else said
leakline.stop()
print(json.dumps({**told(why), "text": text}))
""",
    )
    assert found["type"] == "__main__.Session"
    assert found["holders"] == []
    # Before 3.11 and from 3.13 on the caller's stack may hold an argument, too.
    assert found["references"] in (0, 1)
    assert found["text"] == "str"

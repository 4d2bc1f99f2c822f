"""`leakline why`: who holds what, in the ways in which programs hold objects."""

from __future__ import annotations

import os
import re

import pytest

from harness import (
    PYTHON_PROGRAMS,
    TARGET_PYTHON,
    Json,
    Leakline,
    Part,
    Recording,
    execute,
    find_leakline,
)

COUNT = 200


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    maker = Leakline(find_leakline(), tmp_path_factory.mktemp("why"))
    result, recording = maker.run(TARGET_PYTHON, PYTHON_PROGRAMS / "holders.py")
    assert result.status == 0
    return recording


def path(recorded: Recording, question: str) -> Json:
    (group,) = recorded.report("why", question)["groups"]
    found: Json = group["paths"][0]
    return found


@pytest.mark.parametrize(
    ("question", "words", "count"),
    [
        ("Session", "__main__.SESSIONS[*]", COUNT),
        ("Pool", "__main__.Pool.everyone[*]", COUNT),
        ("__main__.Node", "__main__.HEAD.next...", COUNT - 1),
        ("Page", "__main__.render (ref)[*]", COUNT),
        ("render", "__main__.render (ref)[*]", COUNT),
    ],
)
def test_a_path_is_what_the_source_says(
    recorded: Recording, question: str, words: str, count: int
) -> None:
    found = path(recorded, question)
    assert (found["words"], found["count"]) == (words, count)
    assert found["steps"][0]["edge"] == "module __main__"


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    maker = Leakline(find_leakline(), tmp_path_factory.mktemp("shapes"))
    result, recording = maker.run(TARGET_PYTHON, PYTHON_PROGRAMS / "shapes.py")
    assert result.status == 0
    return recording


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("InModule", r'__main__\.CACHE\["only"\]'),
        ("InClosure", r"__main__\.CLOSURE closure held"),
        ("InDefault", r"__main__\.with_default\.__defaults__\[\*\]"),
        ("InClass", r"__main__\.Registry\.known\[\*\]"),
        ("InSlot", r"__main__\.SLOTTED\.second"),
        ("InCache", r"__main__\.cached \(ref\)"),
        ("InCycle", r"__main__\.PARENT\.child\.held"),
        ("InCallback", r"__main__\.REFERENCE\.__callback__ closure held"),
        (
            "InHandler",
            r"[\w.]+\.manager\.loggerDict\[\*\]\.handlers\[\*\]\.records\[\*\]",
        ),
        ("InLocal", r'__main__\.LOCAL .*\["value"\]'),
        # Frames are objects before 3.11, generators' and coroutines' too.
        ("InTraceback", r"__main__\.LAST\.__traceback__( \(ref\))?\.tb_frame held"),
        ("InTask", r"__main__\.TASK \(ref\).* held"),
        ("InGenerator", r"__main__\.GENERATOR(\.gi_frame)? held"),
        ("InContext", r"__main__\.CONTEXT( \(ref\))+"),
        ("InPartial", r"__main__\.PARTIAL\.args\[\*\]"),
        # Lists of C's: who has them is not known.
        ("AtExit", r"(C code (function|list\[\*\]\[\*\])|atexit \(ref\)) closure held"),
        ("OnSignal", r"C code function closure held"),
        ("InMethod", r"__main__\.METHOD\.__self__"),
        ("InThread", r"frame run( \(ref\))? waiting"),
    ],
)
def test_what_programs_keep_objects_by(
    shapes: Recording, what: str, words: str
) -> None:
    found = path(shapes, what)
    assert re.fullmatch(words, found["words"]), found["words"]
    assert found["count"] == 1
    assert found["others"] == []


def test_a_dict_holds_what_its_values_hold(recorded: Recording) -> None:
    found = path(recorded, "Session")
    (cache, session) = found["steps"][1:]
    assert (cache["edge"], cache["keys"]) == (".SESSIONS", "str")
    assert session["made_in"]["file"].endswith("holders.py")
    # Each has a list with a bytearray of 1,000 bytes.
    assert COUNT * 1100 < cache["retained_bytes"] < COUNT * 1700
    assert [step["edge"] for step in found["holds"]] == [".history"]


def test_a_second_holder_is_named(recorded: Recording) -> None:
    found = path(recorded, "Job")
    assert found["words"] == "__main__.JOBS[*]"
    assert found["others"] == [{"path": "__main__.BY_NAME", "count": COUNT}]


def test_cycles_are_garbage(recorded: Recording) -> None:
    report = recorded.report("why", "Twin")
    assert report["garbage_objects"] >= 2 * COUNT
    assert report["groups"][0]["count"] == 2 * COUNT
    assert report["groups"][0]["paths"][0]["steps"][0]["edge"] == "nothing"


def test_memory_gathers_in_the_dict(recorded: Recording) -> None:
    report = recorded.report("why")
    first = report["groups"][0]["paths"][0]
    assert first["words"] == "__main__.SESSIONS[*]"
    assert report["whole"]


def test_an_object_is_found_by_its_address(recorded: Recording) -> None:
    cache = path(recorded, "Session")["steps"][1]
    found = recorded.report("why", cache["address"])["object"]
    assert found["type"] == "dict"
    assert "SESSIONS" in [holder["edge"].strip('[]"') for holder in found["holders"]]


def test_an_object_is_found_by_its_name(recorded: Recording) -> None:
    cache = path(recorded, "Session")["steps"][1]
    for name in ("__main__.SESSIONS", "SESSIONS"):
        found = recorded.report("why", name)["object"]
        assert (found["type"], found["address"]) == ("dict", cache["address"])
    # By the namespace of a class.
    found = recorded.report("why", "Pool.everyone")["object"]
    assert found["type"] == "set"
    line: list[Part] = [recorded.leakline, "why", recorded.path]
    asked = execute([*line, "__main__.NOBODY"])
    assert asked.status == 3
    assert b"names like `app.cache.SESSIONS`" in asked.err


def test_without_a_graph_it_says_how_to_take_one(leakline: Leakline) -> None:
    result, recording = leakline.run(
        TARGET_PYTHON, "-c", "", options=["--heap", "never"]
    )
    assert result.status == 0
    asked = execute([recording.leakline, "why", recording.path])
    assert asked.status == 3
    assert b"--heap" in asked.err


NOTEBOOK = """\
import sys

class Page:
    def __init__(self):
        self.text = bytearray(1000)

Out = {number: Page() for number in range(200)}

def fail():
    kept = [bytearray(5000) for _ in range(100)]
    raise ValueError(len(kept))

try:
    fail()
except ValueError as error:
    sys.last_value = error
    sys.last_traceback = error.__traceback__
"""


def test_what_a_notebook_keeps_by_itself_has_a_remedy(leakline: Leakline) -> None:
    result, recording = leakline.run(TARGET_PYTHON, "-c", NOTEBOOK)
    assert result.status == 0
    found = path(recording, "Page")
    assert found["words"].startswith("__main__.Out["), found
    assert "%reset -f out" in found["remedy"], found
    assert "sys.last_value = " in path(recording, "traceback")["remedy"]
    text = execute([leakline.binary, "why", recording.path, "Page"]).out.decode()
    assert "\nHeld by the notebook, which keeps what its cells showed" in text, text
    assert "only holder" not in text, text


def peak(recorded: Recording, *words: str) -> int:
    """Most memory that `why` had, in KiB."""
    pid = os.fork()
    if pid == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        line = [str(recorded.leakline), "why", str(recorded.path), *words]
        os.execv(line[0], line)
    _, status, usage = os.wait4(pid, 0)
    assert status == 0
    return usage.ru_maxrss


def test_a_comparison_takes_no_more_memory_than_a_graph(leakline: Leakline) -> None:
    program = (
        "import subprocess, sys, os\n"
        "KEPT = [[] for _ in range(400_000)]\n"
        "asked = [sys.argv[1], 'snapshot', '--heap', str(os.getpid()), 'early']\n"
        "asked = subprocess.Popen(asked, stdout=subprocess.DEVNULL)\n"
        "while asked.poll() is None: [str(n) for n in range(1000)]\n"
        "assert asked.returncode == 0\n"
        "KEPT += [[] for _ in range(1000)]\n"
    )
    line = (TARGET_PYTHON, "-c", program, find_leakline())
    result, recorded = leakline.run(*line, options=("--sample", "1MiB"))
    assert result.status == 0, result.err
    found = path(recorded, "list")
    assert (found["words"], found["count"]) == ("__main__.KEPT[*]", 401_000)
    assert found["steps"][-1]["grown_count"] == 1000, found["steps"][-1]
    alone = peak(recorded, "list", "--graph", "early")
    # Its own graph has a few more objects.
    assert peak(recorded, "list") < 1.15 * alone

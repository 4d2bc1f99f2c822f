"""Lost references, cycles that the collector cannot see, and garbage: told apart, and
by name."""

from __future__ import annotations

import re
import shutil

import pytest

from harness import (
    PYTHON_PROGRAMS,
    TARGET_PYTHON,
    Json,
    Leakline,
    Part,
    Programs,
    Recording,
    execute,
    find_leakline,
)

COUNT = 600


class Maker:
    def __init__(self, leakline: Leakline, programs: Programs) -> None:
        self.leakline = leakline
        self.directory = programs.extension("losing")
        self.made: dict[tuple[str, ...], Recording] = {}

    def __call__(self, *words: str) -> Recording:
        if words not in self.made:
            command: list[Part] = [PYTHON_PROGRAMS / "loses.py", *words]
            result, recording = self.leakline.run(
                "env", f"PYTHONPATH={self.directory}", TARGET_PYTHON, *command
            )
            assert result.status == 0, result.err.decode()
            self.made[words] = recording
        return self.made[words]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, programs: Programs) -> Maker:
    leakline = Leakline(find_leakline(), tmp_path_factory.mktemp("references"))
    return Maker(leakline, programs)


def lost(report: Json) -> dict[str, Json]:
    """What was lost, by the function that made it."""
    return {
        one["made_in"]["function"]: one
        for one in report["lost_references"]
        if one["held_objects"] == 0
    }


@pytest.mark.parametrize(
    ("function", "type_name"),
    [
        ("make_bytes", "bytes"),
        ("make_str", "str"),
        ("make_int", "int"),
        ("make_list", "list"),
        ("fail_late", "dict"),
    ],
)
def test_a_lost_reference_is_named(
    recorded: Maker, function: str, type_name: str
) -> None:
    report = recorded("lose").report("why")
    found = lost(report)[function]
    assert found["type"] == type_name
    assert found["made_in"]["file"].endswith("losing.c")
    # Free lists give some of the first containers, which then have no site of their own.
    assert COUNT * 0.9 <= found["objects"] <= COUNT
    assert found["objects"] == found["references"]
    assert 0.97 < found["lost_per_call"] <= 1.0


def test_references_to_what_others_hold(recorded: Maker) -> None:
    report = recorded("lose").report("why")
    (found,) = [one for one in report["lost_references"] if one["held_objects"] == 1]
    assert found["type"] == "list"
    assert COUNT - 16 <= found["references"] <= COUNT
    counts, words = found["address_references"], found["address_found"]
    # Another list may have had that block before.
    assert found["references"] - 2 <= counts - words <= found["references"]
    # The object itself says so, too.
    about = recorded("lose").report("why", found["address"])
    assert about["object"]["lost_references"] == counts - words
    assert about["groups"][0]["paths"][0]["words"] == "__main__.SHARED"


def test_what_an_import_loses_once_is_its_own(
    leakline: Leakline, programs: Programs
) -> None:
    """As NumPy does with its docstrings: a call for each line of a module. What a loop
    in a module loses is lost as anywhere."""
    directory = leakline.directory
    for name, function in (("lines", "make_bytes"), ("loop", "make_str")):
        lines = ["import losing", "def lose(n):", f"    losing.{function}(n)"]
        if name == "lines":
            lines += [f"lose({number})" for number in range(40)]
        else:
            lines += ["for number in range(40):", "    lose(number)"]
        (directory / f"{name}.py").write_text("\n".join(lines) + "\n")
    path = f"PYTHONPATH={programs.extension('losing')}:{directory}"
    result, recording = leakline.run(
        "env", path, TARGET_PYTHON, "-c", "import lines, loop"
    )
    assert result.status == 0, result.err.decode()
    report = recording.report("why")
    found = {one["made_in"]["function"] for one in report["lost_references"]}
    assert "make_str" in found
    assert "make_bytes" not in found


def test_causes_are_called_what_they_are(recorded: Maker) -> None:
    recording = recorded("lose")
    suspects = {
        one["made_in"]["function"]: one
        for one in recording.report("leaks")["suspects"]
        if one["made_in"]
    }
    for function in ("make_bytes", "make_str", "make_int", "make_list", "fail_late"):
        cause = suspects[function]
        assert cause["verdict"] == "lost reference"
        assert cause["held_by"]["path"] == "nothing: the references to them were lost"
        words = "; ".join(cause["evidence"])
        expected = rf"reference lost: refcount 1, no holder found; \d\.\d\d lost a call in {function} "
        assert re.search(expected, words), words
    # `why` knows it by the same name.
    about = recording.report("why", suspects["make_str"]["id"])
    assert [one["type"] for one in about["lost_references"]] == ["str"]
    assert about["groups"][0]["paths"][0]["steps"][0]["edge"] == "lost reference"
    assert check(recording) == 1


def check(recording: Recording) -> int:
    result = execute([recording.leakline, "check", recording.path])
    assert result.status in (0, 1), result.err.decode()
    return result.status


def test_a_cycle_through_a_class_without_traverse(recorded: Maker) -> None:
    recording = recorded("hide")
    report = recording.report("why")
    (found,) = report["hidden_cycles"]
    assert found["class"] == "losing.Handle"
    assert found["class_objects"] == COUNT
    assert {"__main__.Owner", "losing.Handle"} <= {
        one["type"] for one in found["types"]
    }
    assert report["lost_references"] == []
    suspects = recording.report("leaks")["suspects"]
    assert "cycle" in [one["verdict"] for one in suspects]
    evidence = [words for one in suspects for words in one["evidence"]]
    assert any(
        "cycle through losing.Handle (native type without tp_traverse): gc cannot see it"
        in words
        for words in evidence
    )
    assert check(recording) == 1


@pytest.mark.skipif(not shutil.which("cargo"), reason="needs cargo")
def test_a_cycle_through_a_class_of_pyo3(
    leakline: Leakline, programs: Programs
) -> None:
    """One without `__traverse__`, as most are written."""
    directory = programs.rust_extension()
    program = f"""if True:
        import sys
        sys.path.insert(0, {str(directory)!r})
        import keeping
        class Owner:
            def __init__(self, number):
                self.number = number
                self.keeper = keeping.Keeper(self)
        kept = [keeping.Keeper([number]) for number in range(50)]
        for number in range({COUNT}):
            assert Owner(number).keeper.held.number == number
    """
    result, recording = leakline.run(TARGET_PYTHON, "-c", program)
    assert result.status == 0, result.err.decode()
    report = recording.report("why")
    (found,) = report["hidden_cycles"]
    assert found["class"] == "keeping.Keeper"
    # Those of the list are in no cycle.
    assert found["class_objects"] == COUNT
    assert {"__main__.Owner", "keeping.Keeper"} <= {
        one["type"] for one in found["types"]
    }
    assert report["lost_references"] == []
    evidence = [
        words
        for one in recording.report("leaks")["suspects"]
        for words in one["evidence"]
    ]
    assert any(
        "cycle through keeping.Keeper (native type without tp_traverse)" in words
        for words in evidence
    ), evidence


def test_garbage_is_told_from_both(recorded: Maker) -> None:
    with_gc = recorded("litter").report("why")
    assert with_gc["gc_enabled"] is True
    without = recorded("litter", "no-gc").report("why")
    assert without["gc_enabled"] is False
    assert without["collectable_objects"] >= 2 * COUNT
    assert with_gc["collectable_objects"] < without["collectable_objects"]
    for report in (with_gc, without):
        assert report["lost_references"] == report["hidden_cycles"] == []
        assert report["frozen_garbage_objects"] == 0
    recording = recorded("litter", "no-gc")
    text = execute([recording.leakline, "why", recording.path]).out.decode()
    assert "gc is switched off: gc.enable()" in " ".join(text.split())
    frozen = recorded("litter", "no-gc", "freeze").report("why")
    assert frozen["collectable_objects"] >= 2 * COUNT
    assert frozen["frozen_garbage_objects"] >= 2 * COUNT


def test_what_c_code_has_is_not_lost(recorded: Maker) -> None:
    """Static variables and arrays, C structures, containers that only C has; and a
    standard library at work."""
    recording = recorded("work")
    report = recording.report("why")
    assert report["lost_references"] == []
    assert report["hidden_cycles"] == []
    # Some objects that it held were found only in its memory.
    kept = recording.report("why", "keep")["groups"][0]
    assert {one["type"] for one in kept["types"]} >= {"str", "bytes"}
    assert {path["steps"][0]["edge"] for path in kept["paths"]} <= {"C code"}


def test_two_graphs_tell_growth_from_what_stood_still(
    leakline: Leakline, programs: Programs
) -> None:
    directory = programs.extension("losing")
    program = f"""if True:
        import subprocess, sys
        sys.path.insert(0, {str(directory)!r})
        import losing
        def once():
            for number in range(100):
                losing.make_bytes(number)
        def all_along():
            for number in range(100):
                losing.make_str(number)
        def snapshot(name):
            command = [{str(leakline.binary)!r}, "snapshot", "--heap", str(PID), name]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        import os, threading
        PID = os.getpid()
        once()
        all_along()
        thread = threading.Thread(target=snapshot, args=("first",))
        thread.start()
        while thread.is_alive():
            for number in range(1000):
                [str(number)]
        all_along()
    """
    result, recording = leakline.run(TARGET_PYTHON, "-c", program)
    assert result.status == 0, result.err.decode()
    report = recording.report("why")
    assert report["compared_with"] is not None
    found = {one["type"]: one for one in report["lost_references"]}
    assert set(found) == {"str"}
    # Memory that was freed has old words, which speak for some of them.
    assert 60 <= found["str"]["grown_references"] <= 140
    assert found["str"]["grown_references"] < found["str"]["references"] <= 200
    assert report["passed_over_references"] >= 60


def test_what_is_held_for_good_is_lost_only_if_it_grows(
    leakline: Leakline, programs: Programs
) -> None:
    """As NumPy holds the texts of its functions' descriptions: one reference more to each
    text than is known of. In a sample nothing says where they were made."""
    directory = programs.extension("losing")
    program = f"""if True:
        import os, subprocess, sys, threading
        sys.path.insert(0, {str(directory)!r})
        import losing
        # No list that was freed has their addresses.
        kept = [None] * 600
        for number in range(600):
            kept[number] = f"text {{number}}"
        def hold(first, end):
            for number in range(first, end):
                losing.hold_once_more(kept[number])
        def snapshot(name):
            command = [{str(leakline.binary)!r}, "snapshot", "--heap", str(os.getpid()), name]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        def graph(name):
            thread = threading.Thread(target=snapshot, args=(name,))
            thread.start()
            while thread.is_alive():
                for number in range(1000):
                    [str(number) * 50]
        hold(0, 300)
        if "grow" in sys.argv or "stand" in sys.argv:
            graph("first")
        if "grow" in sys.argv:
            hold(300, 600)
    """
    for way, references in (("alone", 0), ("stand", 0), ("grow", 300)):
        command: list[Part] = [TARGET_PYTHON, "-c", program, way]
        result, recording = leakline.run(*command, options=["--sample", "1MiB"])
        assert result.status == 0, result.err.decode()
        report = recording.report("why")
        texts = [one for one in report["lost_references"] if one["type"] == "str"]
        grown = sum(one["grown_references"] for one in texts)
        assert references * 0.9 <= grown <= references * 1.1, (way, texts)
        assert len(texts) == bool(references), (way, texts)
        # They are counted all the same.
        assert report["passed_over_references"] >= (0 if references else 250), way
        verdicts = [one["verdict"] for one in recording.report("leaks")["suspects"]]
        assert references or "lost reference" not in verdicts, (way, verdicts)

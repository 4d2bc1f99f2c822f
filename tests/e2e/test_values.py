"""`--values`: keys of dicts in heap graphs, and nothing of them without it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

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
    wait_for,
)
from terminal import Terminal, needs_tmux

PROGRAM = PYTHON_PROGRAMS / "keyed.py"


def made(directory: Path, *options: str) -> Recording:
    maker = Leakline(find_leakline(), directory)
    result, recording = maker.run(TARGET_PYTHON, PROGRAM, options=options)
    assert result.status == 0, result.err
    return recording


@pytest.fixture(scope="module")
def with_values(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return made(tmp_path_factory.mktemp("with"), "--values")


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return made(tmp_path_factory.mktemp("without"))


def path(recorded: Recording, question: str) -> Json:
    (group,) = recorded.report("why", question)["groups"]
    found: Json = group["paths"][0]
    return found


def text(recorded: Recording, *question: str) -> bytes:
    shown = execute([recorded.leakline, "why", recorded.path, *question])
    assert shown.status == 0, shown.err
    return shown.out


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Ascii", "'user-42'"),
        ("Latin", "'caf\xe9'"),
        ("Wide", "'ключ-日本'"),
        ("Astral", "'smile-\U0001f600'"),
        ("Escape", r"'\x1b[31mred\n\u202e'"),
        ("Most", f"'{'m' * 60}zzzz'"),
        ("Long", f"'{'l' * 60}zzzz'..."),
        ("Int", "12345678901"),
        ("Negative", "-7"),
        ("Zero", "0"),
        ("Largest", str(2**64 - 1)),
        ("Huge", None),
        ("Bytes", r"b'key\xff'"),
        ("LongBytes", f"b'{'b' * 32}'..."),
        ("Nothing", "None"),
        ("Yes", "True"),
        ("Half", "2.5"),
        ("Pair", None),
    ],
)
def test_a_key_is_shown_as_it_is(
    with_values: Recording, name: str, key: str | None
) -> None:
    found = path(with_values, f"__main__.{name}")
    assert found["words"] == f"__main__.HELD.{name}[{key or '*'}]"
    assert (found["steps"][-1]["edge"], found["steps"][-1]["key"]) == ("[*]", key)


def test_without_it_there_are_types_only(without: Recording) -> None:
    report = without.report("why", "__main__.Ascii")
    assert not report["has_values"]
    assert report["keys_left_out"] == 0
    found = path(without, "__main__.Ascii")
    assert found["words"] == "__main__.HELD.Ascii[*]"
    assert found["steps"][-2]["keys"] == "str"
    assert [step["key"] for step in found["steps"]] == [None] * len(found["steps"])


def test_many_are_one_step_with_an_example(with_values: Recording) -> None:
    found = path(with_values, "__main__.Session")
    assert (found["words"], found["count"]) == ("__main__.SESSIONS[*]", 200)
    step = found["steps"][-1]
    assert step["edge"] == "[*]"
    assert re.fullmatch(r"'user-\d+'", step["key"])
    assert f"[*] e.g. {step['key']}".encode() in text(with_values, "Session")
    # It is that of the object whose address is given.
    one = with_values.report("why", step["address"])
    (holder,) = one["object"]["holders"]
    assert holder["edge"] == f"[{step['key']}]"
    words = one["groups"][0]["paths"][0]["words"]
    assert words.startswith(f"__main__.SESSIONS[{step['key']}]")


def test_of_a_dict_of_many_some_are_told_and_the_rest_counted(
    with_values: Recording,
) -> None:
    report = with_values.report("why", "list")
    assert report["has_values"]
    assert report["keys_left_out"] == 3000
    assert b"not recorded: 3,000 keys of dicts" in text(with_values)


def test_no_key_acts_on_a_terminal(with_values: Recording) -> None:
    commands: list[list[Part]] = [
        ["why", with_values.path],
        ["why", with_values.path, "__main__.Escape"],
        ["why", with_values.path, "__main__.Escape", "--json"],
        ["leaks", with_values.path],
        ["top", with_values.path],
    ]
    for command in commands:
        shown = execute([with_values.leakline, *command])
        assert b"\x1b" not in shown.out
        assert "\u202e".encode() not in shown.out
    assert rb"['\x1b[31mred\n\u202e']" in text(with_values, "__main__.Escape")


@needs_tmux
def test_the_terminal_ui_shows_them(terminal: Terminal, with_values: Recording) -> None:
    terminal.command(with_values.leakline, with_values.path)
    terminal.shows("live in")
    terminal.press("7")
    terminal.shows("__main__.SESSIONS[*]", "[*] e.g. 'user-")
    terminal.type(":why __main__.Escape")
    terminal.press("Enter")
    terminal.shows(r"__main__.HELD.Escape['\x1b[31mred\n\u202e']")
    terminal.press("q")
    terminal.shows("status 0")


def test_what_is_no_key_is_never_told(with_values: Recording) -> None:
    shown = b""
    for question in ("str", "set", "list"):
        asked = execute(
            [with_values.leakline, "why", with_values.path, question, "--json"]
        )
        shown += asked.out
    for secret in (b"not-a-", b"in-a-", b"in-pair"):
        assert secret not in shown


def test_exports_have_no_keys(with_values: Recording, tmp_path: Path) -> None:
    for format in ("html", "speedscope", "collapsed", "pprof"):
        for options in ([], ["--redact"]):
            out = tmp_path / f"{format}{len(options)}"
            command: list[Part] = ["export", "--format", format, "-o", out, *options]
            result = execute([with_values.leakline, *command, with_values.path])
            assert result.status == 0, result.err
            for secret in (b"user-42", b"smile-", b"12345678901"):
                assert secret not in out.read_bytes(), (format, options)


WAITS = """\
import sys, time
key = "".join(list("user-")) + "42"
HELD = {key: [bytearray(1000) for _ in range(100)]}
print("ready", flush=True)
while True:
    kept = [object() for _ in range(1000)]
    time.sleep(0.01)
"""


def test_one_snapshot_may_have_them_and_others_not(leakline: Leakline) -> None:
    options = ["--heap", "never"]
    with leakline.started(TARGET_PYTHON, "-c", WAITS, options=options) as (
        process,
        recording,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        for name, more in (("one", []), ("two", ["--values"]), ("three", [])):
            command: list[Part] = ["snapshot", recording.path, name, "--heap", *more]
            taken = execute([recording.leakline, *command])
            assert taken.status == 0, taken.err
        values = [
            recording.report("why", "bytearray", "--graph", name)
            for name in ("one", "two", "three")
        ]
    assert [report["has_values"] for report in values] == [False, True, False]
    words = [report["groups"][0]["paths"][0]["words"] for report in values]
    plain, keyed = "__main__.HELD[*][*]", "__main__.HELD['user-42'][*]"
    assert words == [plain, keyed, plain]


def test_values_need_a_heap_graph(leakline: Leakline) -> None:
    result = execute([leakline.binary, "snapshot", "1", "a", "--values"])
    assert result.status == 2
    assert b"--heap" in result.err


def test_an_attached_process_tells_them(leakline: Leakline) -> None:
    process = subprocess.Popen(
        [os.fspath(TARGET_PYTHON), "-c", WAITS], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        path_of = leakline.directory / "attached.leakline"
        command = ["attach", str(process.pid), "--values", "--duration", "3s"]
        result = execute([leakline.binary, *command, "-o", path_of])
        assert result.status == 0, result.err
        recording = Recording(leakline.binary, path_of)
        wait_for("the recording", path_of.exists)
        report = recording.report("why", "bytearray")
        assert report["has_values"]
        words = report["groups"][0]["paths"][0]["words"]
        assert words == "__main__.HELD['user-42'][*]"
    finally:
        process.kill()
        process.communicate()

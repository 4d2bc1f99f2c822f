"""The terminal UI in a real terminal: from a recording to the guilty line by
keys alone, and the terminal as it was afterwards."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from harness import (
    PYTHON_PROGRAMS,
    SAMPLES,
    TARGET_PYTHON,
    Leakline,
    Recording,
    execute,
    find_leakline,
    wait_for,
)
from terminal import Terminal, needs_tmux


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """A recording of the sample whose cache grows: line 8 makes what stays."""
    leakline = Leakline(find_leakline(), tmp_path_factory.mktemp("cache"))
    program = SAMPLES / "python-cache" / "cache.py"
    result, recording = leakline.run(TARGET_PYTHON, program)
    assert result.status == 0
    return recording


LINE = "return TEMPLATE + path.encode()"


@needs_tmux
def test_from_a_recording_to_the_guilty_line(
    terminal: Terminal, leakline: Leakline, cache: Recording
) -> None:
    terminal.command(leakline.binary, cache.path)
    screen = terminal.shows("live in", "made in", "render")
    assert "exact" in screen
    assert "lost 0" in screen
    terminal.press("2")
    terminal.shows("sites")
    terminal.type("/cache.py")
    terminal.shows("with cache.py")
    terminal.press("Enter")
    terminal.press("Enter")
    terminal.shows("stack of", "render python-cache/cache.py:8", "page")
    terminal.press("Enter")
    screen = terminal.shows("cache.py", LINE)
    guilty = next(line for line in screen.splitlines() if line.startswith(">"))
    assert LINE in guilty
    assert "14.5 MiB" in guilty
    for digit, text in {
        "3": "render",
        "4": "called from main inwards",
        "5": "live memory grew by",
        "8": "threads of",
        "9": "since here",
        "1": "live bytes",
    }.items():
        terminal.press(digit)
        terminal.shows(text)
    terminal.press("?")
    terminal.shows("the instant that every screen shows")
    terminal.press("q", "q")
    terminal.shows("status 0")
    terminal.is_as_it_was()


@needs_tmux
def test_what_leaks_is_said_first(terminal: Terminal, leakline: Leakline) -> None:
    result, recording = leakline.run(TARGET_PYTHON, PYTHON_PROGRAMS / "steps.py")
    assert result.status == 0
    terminal.command(leakline.binary, recording.path)
    terminal.shows("LEAK  1 cause", "L1 leaking", "held by", "not known")
    terminal.press("q")
    terminal.shows("status 0")


@needs_tmux
def test_who_holds_what(terminal: Terminal, leakline: Leakline) -> None:
    result, recording = leakline.run(TARGET_PYTHON, PYTHON_PROGRAMS / "holders.py")
    assert result.status == 0
    terminal.command(leakline.binary, recording.path)
    terminal.shows("live in")
    terminal.press("7")
    screen = terminal.shows("graph 1, `main left`", "__main__.SESSIONS[*]")
    assert re.search(r"└─ SESSIONS  dict, keys \[str\] +1 +\d", screen)
    assert re.search(r"└─ \[\*\]  __main__.Session +200 +\d", screen)
    # From a site to what holds what it made, and back.
    terminal.press("2")
    terminal.shows("sites")
    terminal.type("/Session.__init__")
    terminal.shows("with Session.__init__")
    terminal.press("Enter")
    terminal.press("w")
    terminal.shows("Session.__init__", "objects, retaining", "__main__.SESSIONS[*]")
    terminal.press("Escape")
    terminal.shows("with Session.__init__")
    terminal.type(":why Job")
    terminal.press("Enter")
    terminal.shows("Job: 200 objects, retaining", "__main__.BY_NAME (200)")
    terminal.press("q")
    terminal.shows("status 0")


@needs_tmux
@pytest.mark.parametrize("terminal", [(20, 5)], indirect=True)
def test_a_tiny_terminal(
    terminal: Terminal, leakline: Leakline, cache: Recording
) -> None:
    terminal.command(leakline.binary, "tui", cache.path)
    terminal.shows("MiB live", "render", "-cache/cache.py:8")
    terminal.press("s")
    screen = terminal.shows("/cache.py:8", "return")
    assert any(line.startswith("> 14.5 MiB") for line in screen.splitlines())
    for digit in "123456789":
        terminal.press(digit)
    terminal.tmux("resize-window", "-x", "1", "-y", "1")
    terminal.tmux("resize-window", "-x", "300", "-y", "80")
    terminal.press("1")
    terminal.shows("live bytes", "render")
    terminal.press("q")
    terminal.shows("status 0")
    terminal.is_as_it_was()


GROWS = """
import sys, time
KEPT = []
def keep():
    KEPT.append(bytes(1 << 20))
for _ in range(1000):
    keep()
    time.sleep(0.05)
"""


@needs_tmux
def test_a_recording_that_goes_on_is_followed(
    terminal: Terminal, leakline: Leakline, tmp_path: Path
) -> None:
    program = tmp_path / "grows.py"
    program.write_text(GROWS)
    with leakline.started(TARGET_PYTHON, program) as (_, recording):
        wait_for(
            "the recording",
            lambda: recording.path.exists() and recording.path.stat().st_size > 9000,
        )
        terminal.command(leakline.binary, recording.path)
        terminal.shows("LIVE", "now,")

        def live() -> float:
            number = re.search(r"([\d.]+) MiB live", terminal.screen())
            return float(number[1]) if number else 0.0

        first = wait_for("megabytes", live)
        wait_for("more of them", lambda: live() > first + 2)
        # An earlier instant stays.
        terminal.press("^")
        terminal.shows("at the start")
        terminal.press("q")
        terminal.shows("status 0")


@needs_tmux
@pytest.mark.parametrize("signal", ["TERM", "HUP", "INT"])
def test_the_terminal_is_given_back_before_a_death_by_signal(
    terminal: Terminal, leakline: Leakline, cache: Recording, signal: str
) -> None:
    terminal.command(leakline.binary, cache.path)
    terminal.shows("render")
    pid = terminal.pid(cache)
    execute(["kill", f"-{signal}", str(pid)])
    if signal != "INT":
        status = {"TERM": 143, "HUP": 129}[signal]
        terminal.shows(f"status {status}")
    terminal.is_as_it_was()


@needs_tmux
@pytest.mark.parametrize("how", ["key", "signal"])
def test_it_stops_and_goes_on(
    terminal: Terminal, leakline: Leakline, cache: Recording, how: str
) -> None:
    terminal.type(shlex.join([str(leakline.binary), str(cache.path)]))
    terminal.press("Enter")
    terminal.shows("render")
    if how == "key":
        terminal.press("C-z")
    else:
        execute(["kill", "-TSTP", str(terminal.pid(cache))])
    terminal.shows("Stopped")
    terminal.is_as_it_was()
    terminal.type("fg")
    terminal.press("Enter")
    terminal.shows("live bytes", "render")
    terminal.press("2")
    terminal.shows("sites")
    terminal.press("C-c")
    terminal.is_as_it_was()


@needs_tmux
def test_export_and_copy(
    terminal: Terminal, leakline: Leakline, cache: Recording, tmp_path: Path
) -> None:
    terminal.tmux("set-option", "-g", "set-clipboard", "on")
    terminal.command(leakline.binary, cache.path)
    terminal.shows("render")
    terminal.press("e")
    terminal.shows("written to leakline-overview-1.txt")
    text = (tmp_path / "leakline-overview-1.txt").read_text()
    assert "render python-cache/cache.py:8" in text
    terminal.press("y")
    terminal.shows("copied")
    copied = wait_for("the copy", lambda: terminal.tmux("show-buffer"))
    assert copied.startswith("render ")
    assert "cache.py:8" in copied
    terminal.press("q")


def test_without_a_terminal_it_says_what_to_do(
    leakline: Leakline, cache: Recording
) -> None:
    for arguments in (["tui", cache.path], [cache.path]):
        result = execute([leakline.binary, *arguments])
        assert result.status == 3
        assert result.out == b""
        error = result.err.decode()
        assert "is not a terminal" in error
        assert f"hint: `leakline summary {cache.path}`" in error


def test_files_that_are_no_recordings_give_the_errors_of_all_commands(
    leakline: Leakline, tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign.leakline"
    foreign.write_text("no recording at all, whatever its name may say")
    empty = tmp_path / "empty.leakline"
    empty.touch()
    for file in (tmp_path / "missing.leakline", foreign, empty, tmp_path):
        mine = execute([leakline.binary, file])
        other = execute([leakline.binary, "summary", file])
        assert mine.status == other.status == 3
        assert mine.err == other.err
    # A word that is no command is no file either.
    assert execute([leakline.binary, "sumary"]).status == 2


@needs_tmux
def test_it_ends_when_its_terminal_goes_away(
    terminal: Terminal, leakline: Leakline, cache: Recording
) -> None:
    """It read the end of the lost terminal for ever, with a whole CPU."""
    terminal.command(leakline.binary, cache.path)
    terminal.shows("render")
    pid = terminal.pid(cache)
    terminal.close()
    wait_for("its end", lambda: not Path(f"/proc/{pid}").exists())

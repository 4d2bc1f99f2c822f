"""A terminal to test in: tmux, with a shell."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from harness import Recording, execute, wait_for

needs_tmux = pytest.mark.skipif(
    shutil.which("tmux") is None, reason="tmux is not installed: no terminal to test in"
)


class Terminal:
    """A tmux of its own, with a shell in it."""

    def __init__(self, directory: Path, columns: int, rows: int) -> None:
        self.socket = directory / "tmux"
        self.directory = directory
        # No status line, no configuration, and a shell that says little.
        shell = "env -i PATH=/usr/bin:/bin TERM=screen-256color PS1='shell> ' HOME=/ bash --norc"
        size = ["-x", str(columns), "-y", str(rows)]
        self.tmux("new-session", "-d", *size, "-c", os.fspath(directory), shell)
        self.tmux("set-option", "-g", "status", "off")
        self.tmux("resize-window", *size)
        self.shows("shell>")

    def tmux(self, *arguments: str) -> str:
        command = ["tmux", "-S", os.fspath(self.socket), "-f", "/dev/null", *arguments]
        result = execute(command)
        assert result.status == 0, (arguments, result.err.decode())
        return result.out.decode()

    def press(self, *keys: str) -> None:
        """Keys by tmux's names: `Enter`, `C-c`, `j`."""
        self.tmux("send-keys", *keys)

    def type(self, text: str) -> None:
        self.tmux("send-keys", "-l", text)

    def screen(self) -> str:
        return self.tmux("capture-pane", "-p")

    def shows(self, *texts: str) -> str:
        """Waits until all are on the screen."""
        deadline = time.monotonic() + 20
        while True:
            screen = self.screen()
            if all(text in screen for text in texts):
                return screen
            assert time.monotonic() < deadline, f"no {texts} in:\n{screen}"
            time.sleep(0.02)

    def command(self, *command: object) -> None:
        self.type(shlex.join(str(part) for part in command) + "; echo status $?")
        self.press("Enter")

    def is_as_it_was(self) -> None:
        """The shell is there, with its echo and its cursor, and no mouse."""
        self.type("echo he''re")
        self.press("Enter")
        screen = self.shows("here")
        assert "echo he''re" in screen
        flags = "#{alternate_on}#{mouse_any_flag}#{cursor_flag}"
        assert self.tmux("display-message", "-p", flags).strip() == "001"

    def pid(self, recording: Recording) -> int:
        """The terminal UI's process."""

        def found() -> int | None:
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit():
                    try:
                        command = (entry / "cmdline").read_bytes().split(b"\0")
                    except OSError:
                        continue
                    named = os.fsencode(recording.path) in command
                    if named and command[0].endswith(b"/leakline"):
                        return int(entry.name)
            return None

        pid: int = wait_for("the terminal UI", found)
        return pid

    def close(self) -> None:
        command = ["tmux", "-S", os.fspath(self.socket), "kill-server"]
        subprocess.run(command, check=False, capture_output=True)

"""Suites of tests that are run by pytest or unittest, and what these say of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness import PROGRAMS, execute

SUITE = PROGRAMS / "judged"


@dataclass
class Ran:
    """What a run of pytest said."""

    out: str
    status: int
    failed: set[str]
    passed: set[str]


class Suite:
    """Tests in a directory of their own."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.blocks = place / "blocks.so"
        source = SUITE / "blocks.c"
        compiler = ["cc", "-O1", "-g", "-shared", "-fPIC"]
        subprocess.run([*compiler, "-o", self.blocks, source], check=True)
        (place / "pytest.ini").write_text("[pytest]\n")
        self.is_reported = True
        """Whether pytest can write JUnit's XML."""
        self.needs_asyncio = False
        """Whether pytest-asyncio is to run tests."""

    def add(self, name: str, text: str) -> None:
        (self.place / name).write_text(text)

    def copy(self, name: str) -> None:
        shutil.copy(SUITE / name, self.place)

    def run(self, *options: str, env: Mapping[str, str] | None = None) -> Ran:
        results = self.place / "results.xml"
        report = [f"--junitxml={results}"] if self.is_reported else []
        pytest_command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
        if not self.needs_asyncio:
            # It warns of a default; -W error may be what is tested.
            pytest_command += ["-p", "no:asyncio"]
        ended = execute(
            [*pytest_command, *report, *options],
            # What is run here is not what GitHub runs.
            env={
                "BLOCKS": str(self.blocks),
                "COLUMNS": "100",
                "GITHUB_ACTIONS": "",
                **(env or {}),
            },
            cwd=self.place,
            timeout=300,
        )
        ran = Ran(ended.out.decode() + ended.err.decode(), ended.status, set(), set())
        if results.exists():
            for case in ElementTree.parse(results).iter("testcase"):
                name = case.get("name") or ""
                is_wrong = (
                    case.find("failure") is not None or case.find("error") is not None
                )
                (ran.failed if is_wrong else ran.passed).add(name)
            results.unlink()
        return ran

    def kept(self) -> list[str]:
        return sorted(
            path.name for path in (self.place / ".leakline").glob("*.leakline")
        )

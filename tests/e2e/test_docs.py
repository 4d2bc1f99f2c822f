"""What the documentation tells users to copy is in order."""

from __future__ import annotations

import re
import shlex
import subprocess
from typing import Any

import pytest

from harness import ROOT, Leakline

yaml: Any = pytest.importorskip("yaml")

CI = ROOT / "docs" / "ci"


def commands(found: Any) -> list[str]:
    """All shell lines of a pipeline."""
    if isinstance(found, str):
        return found.splitlines()
    if isinstance(found, dict):
        found = list(found.values())
    return [line for one in found for line in commands(one)] if found else []


@pytest.mark.parametrize("name", ["github.yml", "gitlab.yml"])
def test_pipelines_are_valid_and_their_options_exist(
    name: str, leakline: Leakline
) -> None:
    pipeline = yaml.safe_load((CI / name).read_text())
    if name == "github.yml":
        # YAML reads the key `on` as true.
        assert set(pipeline) >= {True, "jobs"}
        steps = pipeline["jobs"]["memory"]["steps"]
        assert all(("uses" in step) != ("run" in step) for step in steps)
        lines = commands([step["run"] for step in steps if "run" in step])
    else:
        assert pipeline["memory"]["artifacts"]["reports"]["junit"]
        lines = commands(
            [pipeline["memory"][key] for key in ("before_script", "script")]
        )
    used = [shlex.split(line) for line in lines if line.startswith("leakline ")]
    assert {words[1] for words in used} == {"run", "check"}
    for words in used:
        help_text = subprocess.run(
            [leakline.binary, words[1], "--help"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        own = words[: words.index("--")] if "--" in words else words
        options = [word for word in own if re.fullmatch(r"--?[a-z][a-z-]*", word)]
        assert options
        for option in options:
            assert re.search(rf"(^|[\s,]){option}\b", help_text), (option, help_text)

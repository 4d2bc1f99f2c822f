"""Every sample gives the answer that its expected.json promises."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from harness import SAMPLES, TARGET_PYTHON, Leakline, Part, execute, plain_name, sums

NAMES = sorted(path.parent.name for path in SAMPLES.glob("*/expected.json"))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("samples")
    result = execute(
        ["make", "-C", SAMPLES, f"BUILD={directory}", f"PYTHON={TARGET_PYTHON}"],
        timeout=120,
    )
    assert result.status == 0, result.err.decode()
    return directory


def matches(frame: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether a row or frame is the wanted one; files by their last part."""
    for key, value in wanted.items():
        found = frame.get(key)
        if key == "function":
            # Up to 3.10 a code object does not know its class.
            if plain_name(found or "") not in (value, value.rsplit(".", 1)[-1]):
                return False
        elif key == "function_contains":
            if value not in frame["function"]:
                return False
        elif key == "file":
            if os.path.basename(found or "") != value:
                return False
        elif found != value:
            return False
    return True


def holds(found: int, wanted: int | dict[str, int]) -> bool:
    if isinstance(wanted, int):
        return found == wanted
    return wanted.get("min", 0) <= found <= wanted.get("max", found)


@pytest.mark.parametrize("name", NAMES)
def test_sample(leakline: Leakline, built: Path, name: str) -> None:
    expected = json.loads((SAMPLES / name / "expected.json").read_text())
    for module in expected.get("requires", []):
        if execute([TARGET_PYTHON, "-c", f"import {module}"]).status != 0:
            pytest.skip(f"{module} is not installed")
    places = {"python": TARGET_PYTHON, "build": os.fspath(built)}
    command = [part.format_map(places) for part in expected["command"]]
    env = {"SAMPLES_BUILD": os.fspath(built)}
    bare = execute(command, cwd=SAMPLES / name, env=env)
    assert bare.status == 0, bare.err.decode()
    assert bare.out.decode() == expected["stdout"]
    assert bare.seconds < 10
    result, recording = leakline.run(*command, cwd=SAMPLES / name, env=env)
    assert (result.status, result.out) == (0, bare.out)

    for check in expected["checks"]:
        chosen = [f"--filter={check['filter']}"] if "filter" in check else []
        rows = [
            row
            for row in recording.rows(*chosen, at=check.get("at"))
            if matches(row, check["match"])
            and all(
                any(matches(frame, wanted) for frame in row["stack"])
                for wanted in check.get("through", [])
            )
        ]
        assert rows, f"no row matches {check['match']}"
        found = sums(rows)
        for counter, wanted in check.items():
            if counter in found:
                assert holds(found[counter], wanted), (check, found)
        if "processes" in check:
            stats = recording.stats()
            assert len(stats["processes"]) == check["processes"]


def test_there_are_samples_and_all_are_described() -> None:
    assert len(NAMES) >= 11
    for name in NAMES:
        readme = (SAMPLES / name / "README.md").read_text()
        assert "leakline run" in readme
        assert "leakline top" in readme


def test_flame_draws_the_guilty_line(leakline: Leakline, tmp_path: Path) -> None:
    _, recording = leakline.run(TARGET_PYTHON, SAMPLES / "python-cache" / "cache.py")
    picture = tmp_path / "flame.svg"
    draw: list[Part] = [leakline.binary, "flame", "-o", picture, recording.path]
    assert execute(draw).status == 0
    names = "{http://www.w3.org/2000/svg}"
    root = ElementTree.parse(picture).getroot()
    widths = {
        (box.findtext(f"{names}title") or "").split("\n")[0]: float(
            box.attrib["data-w"]
        )
        for box in root.iter(f"{names}g")
        if "data-w" in box.attrib
    }
    guilty = next(
        width for name, width in widths.items() if name == "render cache.py:8"
    )
    assert guilty > 0.5
    # What is there is not overwritten unless asked to.
    again = execute(draw)
    assert again.status == 3
    assert b"File exists" in again.err
    assert execute([*draw, "-f"]).status == 0
    piped = execute([leakline.binary, "flame", recording.path])
    assert piped.out == picture.read_bytes()
    full = execute([leakline.binary, "flame", "-o", "/dev/full", "-f", recording.path])
    assert full.status == 3
    assert b"No space left" in full.err

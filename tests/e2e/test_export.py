"""What `leakline export` writes, read by what knows nothing of leakline."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union

import pytest

from harness import (
    SAMPLES,
    TARGET_PYTHON,
    Leakline,
    Part,
    Recording,
    Result,
    execute,
    find_leakline,
)

GUILTY = "render"
SAMPLE = SAMPLES / "python-cache" / "cache.py"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    leakline = Leakline(find_leakline(), tmp_path_factory.mktemp("export"))
    _, recording = leakline.run(TARGET_PYTHON, SAMPLE)
    return recording


def export(recording: Recording, *arguments: Part) -> Result:
    return execute([recording.leakline, "export", *arguments, recording.path])


def written(recording: Recording, format: str, *arguments: Part) -> bytes:
    result = export(recording, "--format", format, "-o", "-", *arguments)
    assert result.status == 0, result.err.decode()
    return result.out


def live(recording: Recording, *arguments: str) -> int:
    return int(recording.report("top", *arguments)["sum"]["live_bytes"])


# A decoder of protobuf's wire format.

Field = Union[int, bytes]


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def fields(data: bytes) -> Iterator[tuple[int, Field]]:
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        if tag & 7 == 0:
            value, at = varint(data, at)
            yield tag >> 3, value
        else:
            assert tag & 7 == 2
            length, at = varint(data, at)
            assert at + length <= len(data)
            yield tag >> 3, data[at : at + length]
            at += length


def numbers(data: Field) -> list[int]:
    assert isinstance(data, bytes)
    at, found = 0, []
    while at < len(data):
        value, at = varint(data, at)
        found.append(value - (1 << 64) if value >= 1 << 63 else value)
    return found


def message(data: Field) -> dict[int, list[Field]]:
    assert isinstance(data, bytes)
    found: dict[int, list[Field]] = {}
    for number, value in fields(data):
        found.setdefault(number, []).append(value)
    return found


class Profile:
    """A pprof profile, by the field numbers of profile.proto."""

    def __init__(self, packed: bytes) -> None:
        whole = message(gzip.decompress(packed))
        self.texts = [bytes(text).decode() for text in whole[6]]
        assert self.texts[0] == ""
        self.types = [self.text(message(one)[1][0]) for one in whole[1]]
        self.default = self.text(whole[14][0])
        self.mappings = {self.id(one): message(one) for one in whole.get(3, [])}
        self.locations = {self.id(one): message(one) for one in whole[4]}
        self.functions = {self.id(one): message(one) for one in whole[5]}
        self.samples = []
        for one in whole[2]:
            sample = message(one)
            values = numbers(sample[2][0])
            assert len(values) == len(self.types)
            self.samples.append((numbers(sample[1][0]), values))

    @staticmethod
    def id(one: Field) -> int:
        number = message(one)[1][0]
        assert isinstance(number, int)
        assert number > 0
        return number

    def text(self, number: Field) -> str:
        assert isinstance(number, int)
        return self.texts[number]

    def stack(self, locations: list[int]) -> list[tuple[str, int]]:
        """Functions and lines, the innermost first."""
        found = []
        for location in locations:
            for packed in self.locations[location][4]:
                line = message(packed)
                function = self.functions[line[1][0]]  # type: ignore[index]
                number = line.get(2, [0])[0]
                assert isinstance(number, int)
                found.append((self.text(function[2][0]), number))
        return found

    def sum(self, name: str) -> int:
        at = self.types.index(name)
        return sum(values[at] for _, values in self.samples)


def test_pprof_has_the_sums_of_top(recording: Recording) -> None:
    profile = Profile(written(recording, "pprof"))
    assert profile.types == [
        "alloc_objects",
        "alloc_space",
        "inuse_objects",
        "inuse_space",
    ]
    assert profile.default == "inuse_space"
    total = recording.report("top")["sum"]
    assert profile.sum("inuse_space") == total["live_bytes"] > 0
    assert profile.sum("inuse_objects") == total["live_blocks"] > 0
    assert profile.sum("alloc_space") == total["total_bytes"] > 0
    assert profile.sum("alloc_objects") == total["total_blocks"] > 0
    # Every number that is named is there.
    for locations, _ in profile.samples:
        assert locations
        assert profile.stack(locations)
    for location in profile.locations.values():
        mapping = location.get(2, [0])[0]
        assert mapping == 0 or mapping in profile.mappings
    # The guilty line holds most of it, and is called by the module.
    space = profile.types.index("inuse_space")
    locations, values = max(profile.samples, key=lambda sample: sample[1][space])
    stack = profile.stack(locations)
    assert (GUILTY, 8) in stack
    assert stack.index((GUILTY, 8)) < [name for name, _ in stack].index("<module>")
    assert values[space] > profile.sum("inuse_space") / 2
    build_ids = [
        profile.text(mapping[6][0])
        for mapping in profile.mappings.values()
        if 6 in mapping
    ]
    assert all(re.fullmatch("[0-9a-f]*", build_id) for build_id in build_ids)


def test_pprof_between_two_instants_is_the_change(recording: Recording) -> None:
    options = ("--from", "start", "--to", "end")
    profile = Profile(written(recording, "pprof", *options))
    total = recording.report("top", *options)["sum"]
    assert profile.sum("inuse_space") == total["delta_bytes"]
    peak = Profile(written(recording, "pprof", "--sort", "peak"))
    assert peak.default == "peak_space"
    assert peak.sum("peak_space") == recording.report("top")["sum"]["peak_bytes"]


def test_collapsed_has_the_sum_of_top(recording: Recording) -> None:
    lines = written(recording, "collapsed").decode().splitlines()
    stacks = dict(line.rsplit(" ", 1) for line in lines)
    assert sum(int(line.rsplit(" ", 1)[1]) for line in lines) == live(recording)
    guilty = max(stacks, key=lambda stack: int(stacks[stack]))
    frames = guilty.split(";")
    assert f"{GUILTY} " in guilty
    assert frames[0].startswith("<module> ")
    # What is left out is summed up.
    few = written(recording, "collapsed", "--limit", "2").decode().splitlines()
    assert len(few) == 3
    assert few[-1].startswith("[rest] ")
    assert sum(int(line.rsplit(" ", 1)[1]) for line in few) == live(recording)
    # Of two instants, both.
    two = written(recording, "collapsed", "--from", "start", "--to", "end")
    for line in two.decode().splitlines():
        assert re.fullmatch(r".* \d+ \d+", line)
    found = written(recording, "collapsed", "--filter", GUILTY).decode()
    assert 0 < len(found.splitlines()) < len(lines)


def test_speedscope_has_the_sum_of_top(recording: Recording) -> None:
    file = json.loads(written(recording, "speedscope"))
    assert file["$schema"].endswith("file-format-schema.json")
    (profile,) = file["profiles"]
    frames = file["shared"]["frames"]
    assert profile["type"] == "sampled"
    assert profile["unit"] == "bytes"
    assert len(profile["samples"]) == len(profile["weights"])
    assert sum(profile["weights"]) == profile["endValue"] == live(recording)
    weight, heaviest = max(zip(profile["weights"], profile["samples"]))
    names = [frames[frame]["name"] for frame in heaviest]
    assert names[0] == "<module>"
    assert GUILTY in names
    assert weight > live(recording) / 2
    change = json.loads(written(recording, "speedscope", "--from", "start"))
    grew, shrank, _ = change["profiles"]
    total = recording.report("top", "--from", "start")["sum"]
    assert sum(grew["weights"]) - sum(shrank["weights"]) == total["delta_bytes"]


def data_of(page: bytes) -> Any:
    start = page.index(b'id="data">') + len(b'id="data">')
    return json.loads(page[start : page.index(b"</script>", start)])


def at(series: list[int], state: int) -> int:
    """Bytes of a series at a state."""
    place = held = 0
    for step, value in zip(series[::3], series[1::3]):
        place += step
        if place <= state:
            held = value
    return held


def test_the_page_has_the_sums_of_top(recording: Recording) -> None:
    page = written(recording, "html")
    data = data_of(page)
    states = {state.get("name"): place for place, state in enumerate(data["states"])}
    for name, place, arguments in [
        ("usual", data["to"], ()),
        ("end", states["end"], ("--at", "end")),
        ("peak", states["high-water mark"], ("--at", "peak")),
    ]:
        held = sum(at(site["series"], place) for site in data["sites"])
        assert held + at(data["rest"], place) == live(recording, *arguments), name
    site = max(data["sites"], key=lambda site: at(site["series"], data["to"]))
    assert data["texts"][data["frames"][site["made"]][0]] == GUILTY
    # Nothing is loaded from anywhere.
    text = page.decode()
    assert not re.search(r"(src|href)\s*=|url\(|@import|fetch\(|XMLHttp", text)
    assert text.count("</script>") == 2


EVIL = "</script><script>document.title='broken'</script><img src=x onerror=alert(1)>"


def test_no_name_breaks_out_of_the_page(leakline: Leakline, tmp_path: Path) -> None:
    script = tmp_path / "evil.py"
    script.write_text(
        "code = compile('def f(n): return [str(n + i) * 9 for i in range(n)]',\n"
        f"    {EVIL!r}, 'exec')\n"
        "space = {}\n"
        "exec(code, space)\n"
        f"f = space['f']; f.__code__ = f.__code__.replace(co_name={EVIL!r})\n"
        "kept = f(20000)\n"
    )
    _, recording = leakline.run(TARGET_PYTHON, script)
    page = written(recording, "html").decode()
    assert page.count("</script>") == 2
    assert "<img" not in page
    texts = data_of(page.encode())["texts"]
    assert any("document.title" in text for text in texts)
    if CHROMIUM is not None:
        path = tmp_path / "page.html"
        path.write_text(page)
        dom = shown(path, tmp_path)
        assert "<title>broken" not in dom
        assert "<img" not in dom
        assert "&lt;/script&gt;" in dom


def shown(page: Path, tmp_path: Path, view: str = "") -> str:
    """The page as it is when its script has run."""
    assert CHROMIUM is not None
    result = execute(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-dev-shm-usage",
            "--virtual-time-budget=5000",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            f"{page.as_uri()}#{view}",
        ],
        timeout=120,
    )
    assert result.status == 0, result.err.decode()
    return result.out.decode()


@needs_browser
def test_a_browser_shows_the_page(recording: Recording, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert export(recording, "-o", page).status == 0
    dom = shown(page, tmp_path)
    rows = re.findall(r'<tr class="site">.*?</tr>', dom)
    assert rows
    assert GUILTY in rows[0]
    assert re.search(
        r'class="own[^>]*aria-label="render cache.py:8|'
        r'class="own[^>]*aria-label="render [^"]*/cache.py:8',
        dom,
    )
    data = data_of(page.read_bytes())
    change = shown(page, tmp_path, f"a=0&b={data['to']}&show=change&find={GUILTY}")
    row = re.findall(r'<tr class="site">.*?</tr>', change)[0]
    assert re.search(r'class="figure grew">\+[0-9.]+ [KM]iB<', row)
    assert "Live memory grew by" in change
    assert re.search(r'class="[^"]*found', change)
    back = shown(page, tmp_path, f"a={data['to']}&b=0&show=change&order=up")
    assert re.search(r'class="figure shrank">-[0-9.]+ [KM]iB<', back)
    none = shown(page, tmp_path, "filter=nothing+is+named+so")
    assert "0 sites" in none


def press(page: Path, script: str, tmp_path: Path) -> str:
    """The page after a user did something."""
    used = tmp_path / "used.html"
    text = page.read_text().replace("</body>", f"<script>{script}</script></body>")
    used.write_text(text)
    dom = shown(used, tmp_path)
    assert "data-problem" not in dom
    return dom


@needs_browser
def test_the_page_answers_a_user(recording: Recording, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert export(recording, "-o", page).status == 0
    helpers = """
      onerror = problem => { document.body.dataset.problem = problem; };
      const $ = id => document.getElementById(id);
      const key = key => document.activeElement.dispatchEvent(
        new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
    """

    def after(script: str) -> str:
        return press(page, helpers + script, tmp_path)

    # A's slider turns the state into a change; B at the start: all shrank.
    dom = after(
        """$("a").value = $("a").max; $("a").dispatchEvent(new Event("input"));
           $("b").value = 0; $("b").dispatchEvent(new Event("input"));"""
    )
    assert "Live memory fell by" in dom
    assert 'class="figure shrank"' in dom
    # A column's head sorts.
    dom = after("""$("sort-total").click();""")
    assert re.search(r'aria-sort="descending"[^>]*><button[^>]*id="sort-total"', dom)
    # A row opens to its stack.
    dom = after("""document.querySelector("tr.site td button").click();""")
    stack = re.findall(r'<ol class="stack">.*?</ol>', dom)
    assert len(stack) == 1
    assert f"{GUILTY}  " in stack[0]
    # Keys move in the flame; Enter zooms: what is above is set aside.
    dom = after(
        """document.querySelector("#flame [tabindex='0']").focus();
           key("ArrowDown"); key("Enter");"""
    )
    assert len(re.findall(r'class="[^"]*above', dom)) == 1
    dom = after(
        """document.querySelector("#flame [tabindex='0']").focus();
           key("ArrowDown"); key("Enter"); key("Escape");"""
    )
    assert not re.search(r'class="[^"]*above', dom)
    dom = after(
        f"""$("filter").value = "{GUILTY}";
            $("filter").dispatchEvent(new Event("input"));"""
    )
    rows = re.findall(r'<tr class="site">.*?</tr>', dom)
    assert rows
    assert all(GUILTY in row for row in rows)


def test_redaction_leaves_no_path(leakline: Leakline, tmp_path: Path) -> None:
    directory = tmp_path / "secretplace"
    directory.mkdir()
    script = directory / "secretname.py"
    script.write_text(
        "import threading\n"
        "def load(): return [str(i) * 9 for i in range(20000)]\n"
        "kept = []\n"
        "thread = threading.Thread(target=lambda: kept.append(load()), name='secretlabel')\n"
        "thread.start(); thread.join()\n"
    )
    _, recording = leakline.run(TARGET_PYTHON, script)
    told = (b"secret", os.fsencode(tmp_path), b"python3", b".so.")
    for format in ("html", "speedscope", "collapsed", "pprof"):
        plain = written(recording, format)
        redacted = written(recording, format, "--redact")
        if format == "pprof":
            plain, redacted = gzip.decompress(plain), gzip.decompress(redacted)
        if format == "html":
            # The rest of the page is ours.
            texts = json.dumps(data_of(redacted)).encode()
            redacted = texts + redacted[: redacted.index(b"<style>")]
        assert b"secretname.py" in plain
        for secret in told:
            assert secret not in redacted.replace(b"python3/file", b""), (
                format,
                secret,
            )
        assert b"load" in redacted
    # What is left out can be asked for, and figures stay.
    lines = written(recording, "collapsed", "--redact").decode().splitlines()
    assert sum(int(line.rsplit(" ", 1)[1]) for line in lines) == live(recording)
    found = written(recording, "collapsed", "--redact", "--filter", "secretname.py")
    assert b"load file" in found


def test_files_are_written_as_asked(recording: Recording, tmp_path: Path) -> None:
    for name in ("x.html", "x.speedscope.json", "x.pb.gz", "x.collapsed"):
        path = tmp_path / name
        first = export(recording, "-o", path)
        assert first.status == 0
        assert b"wrote" in first.err
        assert first.out == b""
        before = path.read_bytes()
        again = export(recording, "-o", path)
        assert again.status == 3
        assert b"File exists" in again.err
        assert b"-f replaces it" in again.err
        assert path.read_bytes() == before
        assert export(recording, "-o", path, "-f").status == 0
    # In a pipe it is the page.
    assert export(recording).out.startswith(b"<!DOCTYPE html>")
    wrong = export(recording, "-o", tmp_path / "x.txt")
    assert wrong.status == 2
    assert b"says no format" in wrong.err
    assert not (tmp_path / "x.txt").exists()
    full = export(recording, "--format", "pprof", "-o", "/dev/full", "-f")
    assert full.status == 3
    assert b"No space left" in full.err
    told = export(recording, "--json", "-o", tmp_path / "y.pb.gz")
    assert json.loads(told.out)["format"] == "pprof"
    assert json.loads(export(recording, "--json", "-o", "-").out)["hint"]

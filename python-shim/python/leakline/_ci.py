"""What machines want to know of judged tests: what growth is known already, a report
as JSON, and GitHub's annotations. Words and rules are those of ``leakline check``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from leakline._failure import Cause, place
from leakline._rounds import Frame

_SCHEMA = "leakline.pytest.baseline"
_VERSION = 1
_WORSE = 1.5
"""As many times the known bytes a round are no longer what is known."""


@dataclass(frozen=True)
class Told:
    """A cause in plain values: they travel from xdist's workers."""

    function: str
    file: str
    line: int
    bytes_per_round: float
    blocks_per_round: float
    rounds_kept: int
    types: list[str]
    held_by: str | None
    is_sure: bool
    """Whether it grows; else it may."""
    is_known: bool
    """Whether the baseline has it, and no less of it."""
    at: tuple[str, int]
    """File and line where a reader should look: nearest to where it is made, of what is
    below the root directory."""

    @staticmethod
    def of(
        cause: Cause,
        *,
        is_sure: bool,
        is_known: bool,
        root: str,
        otherwise: tuple[str, int],
    ) -> Told:
        """`otherwise` is where the test is."""
        made_in = cause.made_in
        seen = [made_in, *cause.through(), cause.test]
        at = next(
            (
                (frame.file, frame.line)
                for frame in seen
                if frame is not None and _below(frame.file, root) is not None
            ),
            otherwise,
        )
        return Told(
            function=made_in.function if made_in else "",
            file=(made_in.file or made_in.module) if made_in else "",
            line=made_in.line if made_in else 0,
            bytes_per_round=round(cause.bytes, 1),
            blocks_per_round=round(cause.blocks, 1),
            rounds_kept=cause.rounds_kept,
            types=cause.types,
            held_by=cause.held.path if cause.held else None,
            is_sure=is_sure,
            is_known=is_known,
            at=at,
        )

    def place(self, root: str) -> str:
        """Function and place, for a line of text."""
        frame = Frame(self.function, self.file, self.line, self.file, True, True, True)
        return f"{self.function or '[unknown]'} ({place(frame, root) or '?'})"


@dataclass(frozen=True)
class Known:
    """A cause by its meaning: lines move."""

    test: str
    function: str
    file: str
    """As seen from the root directory, or the last two parts of the path of what lies
    elsewhere."""
    bytes_per_round: float
    blocks_per_round: float

    @staticmethod
    def of(test: str, told: Told, root: str) -> Known:
        """What is to be remembered of a cause."""
        return Known(
            test,
            told.function,
            _file(told.file, root),
            told.bytes_per_round,
            told.blocks_per_round,
        )

    def key(self) -> tuple[str, str, str]:
        """What it is known by."""
        return self.test, self.function, self.file


class Baseline:
    """Growth that is known, and does not fail tests."""

    def __init__(self, root: str, causes: Iterable[Known] = ()) -> None:
        self._root = root
        self._causes: dict[tuple[str, str, str], Known] = {}
        for known in causes:
            before = self._causes.get(known.key())
            if before is not None:
                known = Known(
                    *known.key(),
                    before.bytes_per_round + known.bytes_per_round,
                    before.blocks_per_round + known.blocks_per_round,
                )
            self._causes[known.key()] = known

    def __iter__(self) -> Iterator[Known]:
        return iter(self._causes.values())

    def __len__(self) -> int:
        return len(self._causes)

    @staticmethod
    def read(path: str, root: str) -> Baseline:
        """Reads a file; a `ValueError` says why it is none of these."""
        with open(path, encoding="utf-8") as file:
            text = file.read()
        try:
            told = json.loads(text)
            if told["schema"] != _SCHEMA:
                raise ValueError
            version = int(told["version"])
            causes = told["causes"] if version <= _VERSION else []
            known = [
                Known(
                    str(one["test"]),
                    str(one["function"]),
                    str(one["file"]),
                    float(one["bytes_per_round"]),
                    float(one["blocks_per_round"]),
                )
                for one in causes
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError("it is no baseline of leakline's for pytest") from error
        if version > _VERSION:
            raise ValueError(
                f"it is of version {version}; this leakline reads up to {_VERSION}"
            )
        return Baseline(root, known)

    def write(self, path: str) -> None:
        """Writes it, to be committed: in an order that does not change."""
        causes = [asdict(self._causes[key]) for key in sorted(self._causes)]
        told = {"schema": _SCHEMA, "version": _VERSION, "causes": causes}
        directory = os.path.dirname(os.path.abspath(path))
        os.makedirs(directory, exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(json.dumps(told, indent=2) + "\n")

    def find(self, test: str, cause: Cause) -> Known | None:
        """What is known of a cause, however much it is."""
        made_in = cause.made_in
        function = made_in.function if made_in else ""
        file = (made_in.file or made_in.module) if made_in else ""
        return self._causes.get((test, function, _file(file, self._root)))

    def knows(self, test: str, cause: Cause) -> bool:
        """Whether it is in here, and no worse than it was: half as much again at most."""
        known = self.find(test, cause)
        return known is not None and cause.bytes <= known.bytes_per_round * _WORSE


def _file(path: str, root: str) -> str:
    return _below(path, os.path.realpath(root)) or "/".join(path.split("/")[-2:])


def _below(file: str, root: str) -> str | None:
    inside = os.path.relpath(os.path.realpath(file), root) if file else os.pardir
    if inside.split(os.sep, 1)[0] == os.pardir or "site-packages" in inside:
        return None
    return inside


def workspace() -> str:
    """Where GitHub has the sources, or else here."""
    return os.path.realpath(os.environ.get("GITHUB_WORKSPACE") or os.getcwd())


def annotation(kind: str, title: str, text: str, at: tuple[str, int]) -> str:
    """A workflow command: `kind` is ``error``, ``warning`` or ``notice``."""
    file, line = at
    inside = _below(file, workspace()) or file
    properties = f"file={_property(inside)},"
    if line > 0:
        properties += f"line={line},"
    return f"::{kind} {properties}title={_property(title)}::{_data(text)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")

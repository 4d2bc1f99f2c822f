"""What a failed test says: which places grow, by how much, and who called them."""

from __future__ import annotations

import linecache
import os
from collections.abc import Sequence

from leakline._rounds import Frame, Judgement, Stack
from leakline._words import size as size

MOST_CAUSES = 3
MOST_FRAMES = 12
MOST_TYPES = 3
MOST_HOLDERS = 2
_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def blocks(count: float) -> str:
    """Blocks in words."""
    rounded = round(count, 1)
    whole = int(rounded) if rounded == int(rounded) else rounded
    return "1 block" if whole == 1 else f"{whole} blocks"


def place(frame: Frame, root: str) -> str:
    """Where a frame is."""
    if not frame.file:
        return os.path.basename(frame.module)
    file = frame.file
    if file.startswith(root + os.sep):
        file = file[len(root) + 1 :]
    return f"{file}:{frame.line}" if frame.line else file


class Cause:
    """Stacks that grow together: made in one function, for one of the test's."""

    def __init__(self, stacks: Sequence[Stack], test_file: str) -> None:
        self.stacks = sorted(stacks, key=lambda stack: -stack.bytes_per_round)
        self.bytes = sum(stack.bytes_per_round for stack in stacks)
        self.blocks = sum(stack.blocks_per_round for stack in stacks)
        self.rounds_kept = max(stack.rounds_kept for stack in stacks)
        self.frames = _outside(self.stacks[0].frames)
        self.made_in = _made_in(self.stacks[0])
        self.test = _of_test(self.frames, test_file)
        held = [stack.held for stack in self.stacks if stack.held is not None]
        self.held = held[0] if held else None
        types: dict[str, int] = {}
        for one in held:
            for name, count in one.types:
                types[name] = types.get(name, 0) + count
        self.types = list(types)

    @property
    def name(self) -> str:
        """What it is called in one word."""
        return self.made_in.function if self.made_in else "[unknown]"

    def through(self) -> list[Frame]:
        """The frames between where it was made and the test."""
        between = []
        is_inside = False
        for frame in self.frames:
            if frame is self.test:
                break
            if is_inside and frame.is_shown:
                between.append(frame)
            is_inside = is_inside or frame is self.made_in
        return between


def _outside(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    """Without what called the test: this package, and what called that."""
    for at, frame in enumerate(frames):
        if frame.is_python and frame.file.startswith(_HERE):
            return frames[:at] or frames
    return frames


def _made_in(stack: Stack) -> Frame | None:
    if stack.made_in is not None and stack.made_in < len(stack.frames):
        return stack.frames[stack.made_in]
    return stack.frames[0] if stack.frames else None


def _of_test(frames: tuple[Frame, ...], test_file: str) -> Frame | None:
    mine = [frame for frame in frames if frame.is_python and frame.file == test_file]
    if mine:
        return mine[-1]
    return next((frame for frame in frames if frame.is_python and frame.is_own), None)


def causes(stacks: Sequence[Stack], test_file: str) -> list[Cause]:
    """Stacks put together, those that hold most first."""
    grouped: dict[tuple[object, ...], list[Stack]] = {}
    for stack in stacks:
        made_in = _made_in(stack)
        test = _of_test(_outside(stack.frames), test_file)
        key = (
            made_in and (made_in.function, made_in.file),
            test and (test.function, test.file),
        )
        grouped.setdefault(key, []).append(stack)
    found = [Cause(group, test_file) for group in grouped.values()]
    return sorted(found, key=lambda cause: (-cause.bytes, cause.name))


def message(
    judgement: Judgement,
    found: list[Cause],
    root: str,
    recording: str | None,
    notes: Sequence[str] = (),
) -> str:
    """The text of a `GrowthError`."""
    together = sum(cause.bytes for cause in found)
    leaks = "1 leak" if len(found) == 1 else f"{len(found)} leaks"
    lines = [
        f"{leaks}, {size(together)} a round "
        f"({judgement.rounds} rounds, {judgement.warmup} warm-up)"
    ]
    for number, cause in enumerate(found[:MOST_CAUSES], 1):
        lines += ["", *_cause(number, cause, judgement, root)]
    if len(found) > MOST_CAUSES:
        lines += ["", f"and {len(found) - MOST_CAUSES} more in the recording"]
    settled = judgement.settled
    places = "1 place" if settled == 1 else f"{settled} places"
    lines.append("")
    lines.append(
        f"Not counted: {places} that kept something for a while, as caches do. "
        f"{judgement.lost_events} events lost."
    )
    if judgement.lost_events:
        lines.append("What was lost may be frees: with them it might be no leak.")
    lines += notes
    if recording is not None:
        lines.append(f"Look closer: leakline {recording}")
    return "\n".join(lines)


def unclear(name: str, judgement: Judgement, found: list[Cause], root: str) -> str:
    """The text of a warning: it may grow."""
    cause = found[0]
    where = cause.made_in or cause.test
    return (
        f"unclear whether {name} grows: {cause.name} "
        f"({place(where, root) if where else 'place unknown'}) kept something of "
        f"{cause.rounds_kept} of {judgement.rounds} rounds; more rounds or more time decide"
    )


def _cause(number: int, cause: Cause, judgement: Judgement, root: str) -> list[str]:
    types = ", ".join(cause.types[:MOST_TYPES])
    if len(cause.types) > MOST_TYPES:
        types += f" and {len(cause.types) - MOST_TYPES} more types"
    lines = [
        f"L{number} {cause.name}   {types}{', ' if types else ''}{blocks(cause.blocks)}, "
        f"{size(cause.bytes)} a round in {cause.rounds_kept} of {judgement.rounds} rounds"
    ]

    def frame_line(word: str, frame: Frame) -> str:
        return f"   {word:<15} {frame.function:<20} {place(frame, root)}"

    if cause.made_in is not None:
        lines.append(frame_line("made in", cause.made_in))
    between = cause.through()
    for at, frame in enumerate(between[:MOST_FRAMES]):
        lines.append(frame_line("through" if at == 0 else "", frame))
    if len(between) > MOST_FRAMES:
        lines.append(f"   {'':<15} and {len(between) - MOST_FRAMES} more")
    if cause.test is not None:
        if cause.test is not cause.made_in:
            lines.append(frame_line("your test", cause.test))
    else:
        lines.append(
            "   your test       not on its stack: another thread's, or native code's"
        )
    lines += [
        f"   {'held by' if at == 0 else '':<15} {words}"
        for at, words in enumerate(_held_by(cause, judgement))
    ]
    shown = (
        cause.made_in if cause.made_in and _has_source(cause.made_in) else cause.test
    )
    if shown is not None and _has_source(shown):
        lines += ["", *_source(shown, root)]
    return lines


def _held_by(cause: Cause, judgement: Judgement) -> list[str]:
    held = cause.held
    if held is None:
        if judgement.no_graph is not None:
            return [f"not known: {judgement.no_graph}"]
        return ["not known: the heap graph has no Python object of it"]
    if held.path is None:
        words = ["nothing: in cycles that gc.collect() did not free"]
    else:
        words = [held.path]
    if held.paths > 1:
        more = held.paths - 1
        words[0] += f", and {'1 more path' if more == 1 else f'{more} more paths'}"
    return words + [f"and by {other}" for other, _ in held.others[:MOST_HOLDERS]]


def _has_source(frame: Frame) -> bool:
    return bool(frame.line and linecache.getline(frame.file, frame.line))


def _source(frame: Frame, root: str) -> list[str]:
    lines = [f"   {place(frame, root).rsplit(':', 1)[0]}"]
    for line in range(max(1, frame.line - 1), frame.line + 2):
        text = linecache.getline(frame.file, line).rstrip()
        if text or line == frame.line:
            pointer = ">" if line == frame.line else " "
            lines.append(f"{pointer} {line:4} | {text}"[:100])
    return lines

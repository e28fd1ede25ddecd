# SPDX-License-Identifier: GPL-2.0-or-later
"""What was taken: one record a figure, kept as JSON (docs/evidence/speed.json)."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from patchlab.errors import UsageError

FORMAT = "patchlab-speed/1"


class Row(msgspec.Struct, frozen=True):
    """One number of a figure: the median of all the times that it was taken."""

    what: str
    unit: str  # "s", "×", "%", "steps"
    values: tuple[float, ...] = ()
    aim: float | None = None  # None: shown, and held to nothing
    at_least: bool = False  # the aim is a floor; else it is a ceiling
    note: str = ""
    missing: str = ""  # why there are no values

    @property
    def value(self) -> float | None:
        return statistics.median(self.values) if self.values else None

    @property
    def holds(self) -> bool | None:
        """Whether the aim is met; None without an aim or a value."""
        if self.aim is None or self.value is None:
            return None
        return self.value >= self.aim if self.at_least else self.value <= self.aim


class Bar(msgspec.Struct, frozen=True):
    """A piece of time of a timeline, in seconds since its start. Lane 0 is the command."""

    lane: int
    kind: str  # decides the colour: picture.KINDS
    label: str
    begin: float
    end: float


class Found(msgspec.Struct, frozen=True):
    """What a figure found; its timeline, where it has one."""

    rows: tuple[Row, ...]
    timeline: tuple[Bar, ...] = ()


class Taken(msgspec.Struct, frozen=True):
    """A figure, as it was taken once, and what the host was like just before."""

    figure: str
    found: Found
    unmeasured: str  # why nothing could be taken; else ""
    when: str  # ISO 8601, UTC
    seconds: float
    commit: str
    host: Mapping[str, str]
    load: tuple[float, float, float]  # averages over 1, 5 and 15 minutes
    busy: float  # share of all cores that was in use in the second before
    quick: bool


def load(file: Path) -> dict[str, Taken]:
    """Figure -> how it was taken last; nothing before the first time. Raises UsageError."""
    if not file.is_file():
        return {}
    try:
        document = msgspec.json.decode(file.read_bytes())
        taken = msgspec.convert(document["taken"], list[Taken])
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        raise UsageError(
            f"{file}: {error}", hint="remove it: make bench takes all again"
        ) from error
    return {one.figure: one for one in taken}


def store(file: Path, taken: Iterable[Taken]) -> None:
    document = {"format": FORMAT, "taken": list(taken)}
    write(file, msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")


def write(file: Path, text: str) -> None:
    """The whole text or the old one, also when the lab is killed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_name(f".{file.name}.new")
    half.write_text(text, encoding="utf-8")
    half.replace(file)


def number(value: float) -> str:
    """Three figures that mean something: 0.031, 1.83, 21.4, 1236."""
    size = abs(value)
    if size < 1:
        return f"{value:.2g}"
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def shown(row: Row) -> str:
    """The median and, of several, their number and extremes; or why there is nothing."""
    if row.value is None:
        return f"not measured: {row.missing}"
    if len(row.values) == 1:
        return f"{number(row.value)} {row.unit}"
    low, high = number(min(row.values)), number(max(row.values))
    return f"{number(row.value)} {row.unit} ({len(row.values)}: {low} to {high})"


def aim(row: Row) -> str:
    if row.aim is None:
        return ""
    return f"{'at least' if row.at_least else 'at most'} {row.aim:g} {row.unit}"


def word(row: Row) -> str:
    """holds, falls short by how much, or nothing where nothing was aimed at."""
    if row.holds is None:
        return "not measured" if row.value is None else ""
    if row.holds:
        return "holds"
    assert row.aim is not None and row.value is not None
    if not row.aim:
        return "falls short"
    return f"falls short, {100 * abs(row.value / row.aim - 1):.0f} % off"

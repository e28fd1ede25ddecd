# SPDX-License-Identifier: GPL-2.0-or-later
"""Counted windows -> instructions a unit, function by function. Pure.

A window is what counter.c wrote between two marks: how often each address was executed.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from patchlab.errors import LostInstrument
from patchlab.explain.symbols import Symbols, stable

NS = 2  # of the guest's clock, an instruction: -icount shift=1
KERNEL = 1 << 63  # addresses from here on are the kernel's
ELSEWHERE = "kernel, no symbol"
USER = "user space: "
_NUMBER = struct.Struct("<Q")
_ENTRY = struct.Struct("<QQ")
_OVERFLOWN = 2**64 - 1

# What a call of the function is one of. These are the kernel's own names, Linux 6.1 to 6.12.
EVENTS: Mapping[str, str] = {
    "FUSE requests answered": "fuse_request_end",
    "page faults": "exc_page_fault",
    "system calls": "do_syscall_64",
    "context switches": "__switch_to_asm",
    "timer interrupts": "sysvec_apic_timer_interrupt",
}

Counts = Mapping[int, int]  # address -> how often the instruction there was executed


@dataclass(frozen=True, slots=True)
class Region:
    """A piece of user space that may be executed."""

    start: int
    end: int
    file: str


@dataclass(frozen=True, slots=True)
class Window:
    """What the guest says of a window."""

    ns: int  # between the marks, by the guest's clock
    idle: bool  # the guest slept
    faults: int  # page faults of the whole guest, minor ones included
    major: int  # those that waited for a device


@dataclass(frozen=True, slots=True)
class Trace:
    """One boot of one arm. ``windows`` and ``counts`` go together; the first one is empty."""

    windows: tuple[Window, ...]
    counts: tuple[Counts, ...]
    skipped: int  # the empty one and the warm-up
    units: int  # of work in a window
    regions: tuple[Region, ...]


@dataclass(frozen=True, slots=True)
class Tally:
    """Of one place, a unit of work."""

    instructions: float
    calls: float  # executions of the first instruction; 0 in user space


@dataclass(frozen=True, slots=True)
class Profile:
    """What a unit of the metric executed in one arm."""

    places: Mapping[str, Tally]
    clock: float  # instructions a unit by the guest's clock, in the same windows
    events: Mapping[str, float]  # a unit
    windows: int  # that the metric's statistic picked
    of: int

    @property
    def total(self) -> float:
        return sum(tally.instructions for tally in self.places.values())


def parse(data: bytes) -> tuple[Counts, ...]:
    """The windows in a file of counter.c. LostInstrument when it is cut or overflown."""
    windows = []
    at = 0
    while at < len(data):
        entries = _NUMBER.unpack_from(data, at)[0] if at + _NUMBER.size <= len(data) else 0
        if entries == _OVERFLOWN:
            raise LostInstrument("the guest executed more distinct instructions than are counted")
        at += _NUMBER.size
        end = at + entries * _ENTRY.size
        if end > len(data):
            raise LostInstrument("the counts of instructions are cut off")
        windows.append(dict(_ENTRY.iter_unpack(data[at:end])))
        at = end
    return tuple(windows)


def profile(trace: Trace, symbols: Symbols, statistic: str) -> Profile:
    """A unit of the windows that ``statistic`` (median or minimum) picks.

    The instructions of the marks themselves, as the empty window has them, are taken off.
    LostInstrument when no window is usable.
    """
    usable = [n for n in range(trace.skipped, len(trace.windows)) if not trace.windows[n].idle]
    if not usable or len(trace.counts) != len(trace.windows):
        raise LostInstrument(
            f"no window was counted: {len(trace.counts)} on the host, "
            f"{len(trace.windows)} in the guest, {len(usable)} without sleep"
        )
    picked = pick([trace.windows[n].ns for n in usable], statistic)
    chosen = [usable[n] for n in picked]
    share = 1 / (len(chosen) * trace.units)
    sums: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for number in chosen:
        for place, (instructions, calls) in _places(trace.counts[number], symbols, trace).items():
            sums[place][0] += instructions * share
            sums[place][1] += calls * share
    for place, own in _marks(trace, symbols).items():
        sums[place][0] -= own / trace.units
    places = {place: Tally(*both) for place, both in sums.items()}
    seen = [trace.windows[n] for n in chosen]
    events = {label: places[name].calls for label, name in EVENTS.items() if name in places}
    events["page faults by /proc/vmstat"] = sum(w.faults for w in seen) * share
    events["of them major"] = sum(w.major for w in seen) * share
    clock = sum(w.ns for w in seen) * share / NS
    return Profile(places, clock, events, len(chosen), len(trace.windows) - trace.skipped)


def pick(values: Sequence[float], statistic: str) -> list[int]:
    """Which values the statistic is made of: the smallest, or the one or two in the middle."""
    order = sorted(range(len(values)), key=values.__getitem__)
    if statistic == "minimum":
        return order[:1]
    return order[(len(order) - 1) // 2 : len(order) // 2 + 1]


def _places(counts: Counts, symbols: Symbols, trace: Trace) -> dict[str, tuple[int, int]]:
    """Place -> instructions, calls."""
    found: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    starts = [region.start for region in trace.regions]
    for address, count in counts.items():
        if address < KERNEL:
            found[_file(address, trace.regions, starts)][0] += count
            continue
        symbol = symbols.function(address)
        tally = found[stable(symbol.name) if symbol else ELSEWHERE]
        tally[0] += count
        if symbol and symbol.address == address:
            tally[1] += count
    return {place: (both[0], both[1]) for place, both in found.items()}


def _file(address: int, regions: Sequence[Region], starts: Sequence[int]) -> str:
    at = bisect_right(starts, address) - 1
    if at >= 0 and address < regions[at].end:
        return USER + (PurePosixPath(regions[at].file).name or regions[at].file)
    return USER + "other"


def _marks(trace: Trace, symbols: Symbols) -> dict[str, float]:
    """What the marks add to user space in every window, beyond what the clock sees."""
    empty = _places(trace.counts[0], symbols, trace)
    user = {place: both[0] for place, both in empty.items() if place.startswith(USER)}
    kernel = sum(both[0] for both in empty.values()) - sum(user.values())
    seen = trace.windows[0].ns / NS - kernel
    executed = sum(user.values())
    share = (executed - seen) / executed if executed > seen else 0.0
    return {place: count * share for place, count in user.items()}


@dataclass(frozen=True, slots=True)
class Row:
    """One place in both arms; instructions and calls a unit."""

    place: str
    before: Tally
    after: Tally

    @property
    def difference(self) -> float:
        return self.after.instructions - self.before.instructions


_NOTHING = Tally(0.0, 0.0)


def rows(before: Profile, after: Profile) -> tuple[Row, ...]:
    """Every place, the largest difference first."""
    names = before.places.keys() | after.places.keys()
    both = (
        Row(name, before.places.get(name, _NOTHING), after.places.get(name, _NOTHING))
        for name in names
    )
    return tuple(sorted(both, key=lambda row: (-abs(row.difference), row.place)))


def together(several: Iterable[Row], place: str) -> Row:
    """Their sum, as one row."""
    kept = tuple(several)
    sums = (
        Tally(sum(t.instructions for t in side), sum(t.calls for t in side))
        for side in ([row.before for row in kept], [row.after for row in kept])
    )
    return Row(place, *sums)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Could the guest work while we waited? A deadline that ran out proves nothing if QEMU was stopped.

A thread looks at QEMU twice a second: whether somebody stopped it (proc(5), state T), how long
it ran and how long it was ready to run and got no CPU (Documentation/scheduler/sched-stats.rst),
and whether the whole host slept. CLOCK_BOOTTIME goes on while a host is suspended and
CLOCK_MONOTONIC does not (clock_gettime(2)). A clock that is set moves neither of them.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_PROC = Path("/proc")
_PERIOD = 0.5  # seconds between two looks
_KEPT = 20_000  # looks: nearly three hours
_BRIEF = 5.0  # seconds: too short to say that QEMU did not get to run
_STARVED = 0.75  # of the time: no deadline is meant for a quarter of a CPU
_STOPPED = frozenset("Tt")  # by a signal, by a debugger
_SETTLING = 10  # looks
_PAUSE = 1.0  # seconds of one stop or sleep that may have cost the guest its deadline


@dataclass(frozen=True, slots=True)
class Look:
    """QEMU and the host at one moment. Clocks in seconds.

    ``ran`` and ``queued`` are in nanoseconds, None where the kernel does not count them: what all
    threads ran, and how long the one that had to wait most for a CPU has waited.
    """

    monotonic: float
    boottime: float
    state: str  # of proc(5): R, S, D, T …; "" when there is no such process
    ran: int | None = None
    queued: int | None = None


def blame(looks: Sequence[Look]) -> str:
    """Why a guest had no fair chance between the first look and the last, or ``""``.

    A stop counts from the look that saw it to the next one, so it is known to half a second.
    """
    if len(looks) < 2:
        return ""
    pairs = list(itertools.pairwise(looks))
    whole = looks[-1].monotonic - looks[0].monotonic
    slept = sum(_asleep(one, two) for one, two in pairs)
    if slept >= _PAUSE:
        return f"the host was suspended for {slept:.0f} s"
    stopped = sum(two.monotonic - one.monotonic for one, two in pairs if one.state in _STOPPED)
    if stopped >= _PAUSE:
        return f"QEMU was stopped for {stopped:.0f} of {whole:.0f} s"
    return "" if whole < _BRIEF else _starved(looks, whole)


def _starved(looks: Sequence[Look], whole: float) -> str:
    if _rise(looks[0].ran, looks[-1].ran) == 0:
        return f"QEMU got no CPU time for {whole:.0f} s (state {looks[-1].state or 'gone'})"
    queued = (_rise(looks[0].queued, looks[-1].queued) or 0) / 1e9
    if queued >= _STARVED * whole:
        return f"the host was too busy: QEMU waited for a CPU for {queued:.0f} of {whole:.0f} s"
    return ""


def _rise(first: int | None, last: int | None) -> int | None:
    return None if first is None or last is None else last - first


def _asleep(one: Look, two: Look) -> float:
    return (two.boottime - one.boottime) - (two.monotonic - one.monotonic)


class Vigil:
    """Watches one QEMU from its start to its end. A context manager."""

    def __init__(self, box: int) -> None:
        """``box`` is the process that was started; QEMU is the last one below it."""
        self._box, self._qemu = box, box
        self._looks: deque[Look] = deque(maxlen=_KEPT)
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="vigil", daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def blame(self, waited: float) -> str:
        """What the guest was kept from work by in the last ``waited`` seconds, or ``""``."""
        self._look()
        with self._lock:
            looks = list(self._looks)
        since = looks[-1].monotonic - waited
        return blame([one for one in looks if one.monotonic >= since])

    def _watch(self) -> None:
        while not self._done.wait(_PERIOD):
            self._look()

    def _look(self) -> None:
        with self._lock:
            if len(self._looks) < _SETTLING:  # the box takes a moment to start it
                self._qemu = family(self._box)[-1]
            self._looks.append(
                Look(
                    time.monotonic(),
                    time.clock_gettime(time.CLOCK_BOOTTIME),
                    state(self._qemu),
                    *cpu_time(self._qemu),
                )
            )


def state(pid: int) -> str:
    """The state letter of a process, ``""`` when there is none."""
    try:
        # The name, in parentheses, may hold anything.
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def cpu_time(pid: int) -> tuple[int, int] | tuple[None, None]:
    """``ran`` and ``queued`` of a process, as in Look."""
    try:
        tasks = list((_PROC / str(pid) / "task").iterdir())
        counts = [(task / "schedstat").read_text().split() for task in tasks]
        return sum(int(count[0]) for count in counts), max(int(count[1]) for count in counts)
    except (OSError, ValueError, IndexError):
        return None, None


def family(pid: int) -> tuple[int, ...]:
    """``pid`` and all processes below it, parents first."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            children.setdefault(_parent(int(entry.name)), []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return tuple(found)


def _parent(pid: int) -> int:
    try:
        return int((_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0

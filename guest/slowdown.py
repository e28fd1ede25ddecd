# SPDX-License-Identifier: GPL-2.0-or-later
"""A slowdown of known size in every window, for runner.py calibrate.

``lab.slow=WHERE:SHARE`` on the kernel's command line asks for it. ``kernel`` sets the turns of
a kernel with patches/calibration/spin, and counts what that added; ``agent`` runs an empty
loop in the window, and times it. SHARE is of the window's own length as it is without, found in
the rounds before the first sample; 0 does all but the slowing down, so that the two arms that
are compared differ in nothing else.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from itertools import repeat
from pathlib import Path

from guest.words import Bench, Skipped

_OPTION = re.compile(r"(?:^| )lab\.slow=(kernel|agent):(\d+(?:\.\d+)?)(?: |$)")
_CMDLINE = Path("/proc/cmdline")
_SPIN = Path("/sys/module/lab_spin/parameters")
# Of lab_spin(): a turn is dec and jnz. Under icount an instruction is 2 ns (shift=1).
_TURN = 2
NS = 2
_TRIAL = 20_000  # turns of the agent's loop, to time one


def asked(cmdline: str) -> tuple[str, float] | None:
    """Where, and which share of the window; None when nothing is to be slowed down."""
    found = _OPTION.search(cmdline)
    return (found[1], float(found[2])) if found else None


def applied(bench: Bench, rounds: int, quiet: int) -> tuple[Bench, list[float] | None]:
    """``bench`` with the slowdown that this boot asks for, from round ``quiet`` on.

    Second, what it added to each round, per unit: instructions in the kernel, nanoseconds in
    the agent. None, and ``bench`` itself, in a boot that asks for none. Raises Skipped when
    this kernel has no lab_spin, or the window no path through it.
    """
    wanted = asked(_CMDLINE.read_text())
    return slowed(bench, rounds, quiet, wanted) if wanted else (bench, None)


def slowed(
    bench: Bench, rounds: int, quiet: int, wanted: tuple[str, float]
) -> tuple[Bench, list[float]]:
    """``applied()`` where the boot asks for ``wanted``."""
    kind = _Kernel if wanted[0] == "kernel" else _Agent
    slow = kind(bench, rounds, quiet, wanted[1])
    return Bench(slow.window, bench.units, slow.before, slow.after), slow.added


class _Slow:
    """What the two have in common: the length of the window before it is made longer."""

    def __init__(self, bench: Bench, rounds: int, quiet: int, share: float) -> None:
        if quiet < 1:
            raise Skipped("a slowdown needs a warm-up round, to know the window's length")
        self.bench, self.quiet, self.share = bench, quiet, share
        self.added = [0.0] * rounds
        self.lengths: list[int] = []  # of the quiet windows, ns
        self.turn = -1
        self.turns = 0

    def before(self) -> None:
        self.bench.before()
        self.turn += 1
        if self.turn >= self.quiet:
            # The first windows fault in what the later ones have.
            self.turns = self.choose(min(self.lengths))

    def choose(self, length: int) -> int:
        """How many turns the next window gets; ``length`` is that of a quiet one, in ns."""
        raise NotImplementedError

    def after(self) -> None:
        self.bench.after()


class _Kernel(_Slow):
    def __init__(self, bench: Bench, rounds: int, quiet: int, share: float) -> None:
        super().__init__(bench, rounds, quiet, share)
        if not _SPIN.is_dir():
            raise Skipped("this kernel has no lab_spin: patches/calibration/spin is not in it")
        self.passes = os.open(_SPIN / "passes", os.O_RDONLY)
        self.last = 0  # passes of the last window
        self.set(0)
        # The first time, a fault of our own may come between.
        self.beside = min(self.own() for _ in range(3))

    def set(self, turns: int) -> None:
        (_SPIN / "turns").write_text(str(turns))

    def own(self) -> int:
        """Passes between two readings that are not the window's."""
        first = self.read()
        for _ in range(2):  # sampling reads the idle clock before and after the window
            os.pread(self.passes, 1, 0)
        return self.read() - first

    def read(self) -> int:
        return int(os.pread(self.passes, 32, 0))

    def choose(self, length: int) -> int:
        """By the last window's passes: early ones fault in memory that later ones have."""
        if self.last < 1:
            raise Skipped("no system call and no fault in its window: there is no kernel path")
        turns = round(self.share * length / (NS * _TURN * self.last))
        self.set(turns)
        return turns

    def before(self) -> None:
        super().before()
        self.start = self.read()

    def window(self) -> None:
        start = time.perf_counter_ns()
        self.bench.window()
        if self.turn < self.quiet:
            self.lengths.append(time.perf_counter_ns() - start)

    def after(self) -> None:
        self.last = self.read() - self.start - self.beside
        self.added[self.turn] = _TURN * self.turns * self.last / self.bench.units
        if self.turn + 1 == len(self.added):
            self.set(0)
            os.close(self.passes)
        super().after()


class _Agent(_Slow):
    def __init__(self, bench: Bench, rounds: int, quiet: int, share: float) -> None:
        super().__init__(bench, rounds, quiet, share)
        start = time.perf_counter_ns()
        deque(repeat(None, _TRIAL), maxlen=0)
        self.cost = (time.perf_counter_ns() - start) / _TRIAL  # ns a turn

    def choose(self, length: int) -> int:
        return round(self.share * length / self.cost)

    def window(self) -> None:
        start = time.perf_counter_ns()
        self.bench.window()
        middle = time.perf_counter_ns()
        deque(repeat(None, self.turns), maxlen=0)
        if self.turn < self.quiet:
            self.lengths.append(middle - start)
        self.added[self.turn] = (time.perf_counter_ns() - middle) / self.bench.units

# SPDX-License-Identifier: GPL-2.0-or-later
"""Takes the samples of a metric."""

from __future__ import annotations

import gc
import os
import time
from collections import deque
from typing import Any

from guest import slowdown
from guest.words import Context, Metric

SPIN = 100_000  # turns: about one tick of a 250 Hz kernel under icount
HEAP = 1 << 20  # bytes
EXTRA = 4


class IdleClock:
    """Ticks that the CPUs slept, from /proc/stat: idle and iowait, summed over the CPUs."""

    def __init__(self) -> None:
        self._file = os.open("/proc/stat", os.O_RDONLY)

    def read(self) -> int:
        first = os.pread(self._file, 256, 0).split(b"\n", 1)[0].split()
        return int(first[4]) + int(first[5])

    def close(self) -> None:
        os.close(self._file)


def sample(metric: Metric, context: Context, samples: int, warmup: int) -> list[dict[str, Any]]:
    """``warmup`` and then ``samples`` values, in ns a unit; and what a slowdown added to each.

    Boots under icount repeat each other to the instruction. So that they are replicates, the
    seed moves the heap, the phase of the timer tick and the number of turns before the first.
    """
    random = context.random
    padding = bytearray(random.randrange(HEAP))
    extra = random.randrange(EXTRA)
    spin = random.randrange(SPIN)
    rounds = extra + warmup + samples
    values, slept = [0.0] * rounds, [False] * rounds
    idle = IdleClock()
    with metric.bench(context, rounds) as made:
        bench, added = slowdown.applied(made, rounds, extra + warmup)
        settle()
        deque(range(spin), maxlen=0)
        clock, window, before, after = time.perf_counter_ns, bench.window, bench.before, bench.after
        for turn in range(rounds):
            before()
            ticks = idle.read()
            start = clock()
            window()
            end = clock()
            slept[turn] = idle.read() > ticks
            after()
            values[turn] = (end - start) / bench.units
    gc.enable()
    idle.close()
    del padding
    taken: list[dict[str, Any]] = [
        {"index": turn, "value": value, "warmup": turn < warmup, "idle": lay}
        for turn, (value, lay) in enumerate(zip(values[extra:], slept[extra:], strict=True))
    ]
    for one, more in zip(taken, (added or [])[extra:], strict=False):
        one["added"] = more
    return taken


def settle() -> None:
    gc.collect()
    gc.freeze()
    gc.disable()

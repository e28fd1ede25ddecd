# SPDX-License-Identifier: GPL-2.0-or-later
"""Takes the samples of a metric while the host counts every instruction by its address.

The host's counter (patchlab/explain/counter.c) sits in QEMU and starts and stops at two
instructions that do nothing and that no compiler writes.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import re
import time
from collections import deque
from pathlib import Path
from typing import Any

from guest import sampling, slowdown
from guest.words import Context, Metric

# nopl 0x????4c50(%rax), ret: the two bytes in front say which it is. counter.c has the same.
MARK = bytes.fromhex("0f1f80 504c")
START, STOP = b"\x01\x4d", b"\x02\x4d"
_RETURN = b"\xc3"
_APART = 64
_PROT = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
_EXECUTABLE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) ..x. \S+ \S+ \S+ *(.*)")


class Marks:
    """The two instructions, each in a function of its own."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE, prot=_PROT)
        for place, which in enumerate((START, STOP)):
            self._page.seek(place * _APART)
            self._page.write(MARK + which + _RETURN)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        function = ctypes.CFUNCTYPE(None)
        self.start, self.stop = function(address), function(address + _APART)


class Faults:
    """Page faults of the whole guest so far, minor and major: /proc/vmstat."""

    def __init__(self) -> None:
        self._file = os.open("/proc/vmstat", os.O_RDONLY)

    def read(self) -> tuple[int, int]:
        lines = dict(line.split() for line in os.pread(self._file, 1 << 16, 0).splitlines())
        return int(lines[b"pgfault"]), int(lines[b"pgmajfault"])

    def close(self) -> None:
        os.close(self._file)


def trace(metric: Metric, context: Context, samples: int, warmup: int) -> dict[str, Any]:
    """The windows of sampling.sample(), by the same draws, and an empty one before them.

    Of each: nanoseconds between its marks by the guest's clock, whether the guest slept, and
    its page faults. ``maps`` is where the code of this process lies.
    """
    random = context.random
    padding = bytearray(random.randrange(sampling.HEAP))
    extra = random.randrange(sampling.EXTRA)
    spin = random.randrange(sampling.SPIN)
    marks, idle, faults = Marks(), sampling.IdleClock(), Faults()
    windows: list[dict[str, Any]] = []
    rounds = extra + warmup + samples
    with metric.bench(context, rounds) as made:
        bench, _ = slowdown.applied(made, rounds, extra + warmup)
        sampling.settle()
        deque(range(spin), maxlen=0)
        clock = time.perf_counter_ns
        for turn in range(-1, rounds):
            window = bench.window if turn >= 0 else _nothing
            if turn >= 0:
                bench.before()
            faulted, ticks = faults.read(), idle.read()
            marks.start()
            start = clock()
            window()
            end = clock()
            marks.stop()
            slept, now = idle.read() > ticks, faults.read()
            if turn >= 0:
                bench.after()
            minor, major = (b - a for a, b in zip(faulted, now, strict=True))
            windows.append({"ns": end - start, "idle": slept, "faults": minor, "major": major})
        maps = executable(Path("/proc/self/maps").read_text())
    gc.enable()
    idle.close()
    faults.close()
    del padding
    return {"windows": windows, "skipped": 1 + extra + warmup, "units": bench.units, "maps": maps}


def executable(maps: str) -> list[tuple[int, int, str]]:
    """Start, end and file of what may be executed, out of /proc/PID/maps."""
    found = (_EXECUTABLE.fullmatch(line) for line in maps.splitlines())
    return [(int(m[1], 16), int(m[2], 16), m[3] or "anonymous") for m in found if m]


def _nothing() -> None:
    pass

# SPDX-License-Identifier: GPL-2.0-or-later
"""MAP_DIRECT: how long the blocks stay, and that a mapping is not merged with another."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from guest.checking import need
from guest.features.map_direct_rig import (
    PAGES,
    POSTED,
    SIZE,
    V6,
    Dialect,
    dialect,
    map_direct,
    need_mount,
    new_file,
    planted,
    released,
    still_held,
)
from guest.libc import NONE, PAGE, PRIVATE, READ, SHARED, WRITE, Map
from guest.victims import Victim
from guest.words import Check, Context

_ANONYMOUS = 0x20
_MAN = "mmap(2) of the posting of 2017-08-23"


def last_unmap(_context: Context) -> str:
    need_mount()
    with new_file("life") as (path, fd):
        map_ = map_direct(fd)
        still_held(path, "it is mapped")
        map_.unmap(4 * PAGE, 4 * PAGE)
        still_held(path, "a part of the map is left")
        map_.unmap(0, 4 * PAGE)
        still_held(path, "the end of the map is left")
        map_.unmap(8 * PAGE, SIZE - 8 * PAGE)
        released(path, "all parts are unmapped")
        _moved(path, fd)
        _forked(path, fd)
        _killed(path, fd, exec_=False)
        _killed(path, fd, exec_=True)
    return "parts, mremap, mprotect, fork, SIGKILL, exec"


def _moved(path: Path, fd: int) -> None:
    map_ = map_direct(fd, SIZE // 2)
    map_.mremap(SIZE)
    still_held(path, "mremap to twice the size")
    map_.mprotect(READ)
    still_held(path, "mprotect to read only")
    map_.close()
    released(path, "the moved map is gone")


def _forked(path: Path, fd: int) -> None:
    map_ = map_direct(fd)
    child = Victim(signal.pause)
    try:
        map_.close()
        still_held(path, "a child has the map by fork")
    finally:
        child.kill()
        child.ended(10.0)
        child.close()
    released(path, "the child is gone")


def _killed(path: Path, fd: int, *, exec_: bool) -> None:
    ready, writing = os.pipe()

    def work() -> None:
        map_ = map_direct(fd)
        map_.view[0] = 1
        os.write(writing, b"m")
        if exec_:
            os.set_inheritable(writing, False)
            os.execv("/bin/sleep", ["sleep", "60"])
        signal.pause()

    child = Victim(work)
    os.close(writing)
    try:
        os.read(ready, 1)
        if exec_:
            os.read(ready, 1)  # its end: exec has closed the other one
            released(path, "the process called exec")
        else:
            still_held(path, "another process has the map")
            child.kill()
            child.ended(10.0)
            released(path, "the process was killed")
    finally:
        child.close()
        os.close(ready)


def closed_descriptor(_context: Context) -> str:
    need_mount()
    with new_file("closed") as (path, fd):
        map_ = map_direct(fd)
        os.close(fd)
        still_held(path, "only the descriptor is closed")
        map_.view[0] = 1
        map_.close()
        released(path, "the map is gone, too")
    return "held until munmap"


def _regions(path: Path) -> list[tuple[int, int, list[str]]]:
    """Start, end and VmFlags of all VMAs of the file."""
    found: list[tuple[int, int, list[str]]] = []
    ours = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            ours = line.endswith(str(path))
            if ours:
                start, _, end = first.partition("-")
                found.append((int(start, 16), int(end, 16), []))
        elif first == "VmFlags:" and ours:
            found[-1][2].extend(line.split()[1:])
    return found


def stay_two(_context: Context) -> str:
    need_mount()
    seen = []
    for what, direct_first in (("plain, direct", False), ("direct, plain", True)):
        with new_file("two") as (path, fd):
            seen.append(f"{what}: {_two(path, fd, direct_first)}")
    return "; ".join(seen)


def _two(path: Path, fd: int, direct_first: bool) -> str:
    """Two maps of one file side by side, in memory and in the file."""
    half = SIZE // 2
    room = Map(-1, 2 * SIZE, NONE, PRIVATE | _ANONYMOUS)
    at = room.address + PAGE
    direct_at, plain_at = (0, half) if direct_first else (half, 0)

    def plain() -> Map:
        return Map(fd, half, READ | WRITE, SHARED, plain_at, at + plain_at)

    def direct() -> Map:
        return map_direct(fd, half, direct_at, at + direct_at)

    one, two = (direct(), plain()) if direct_first else (plain(), direct())
    first, second = (one, two) if direct_first else (two, one)  # direct, plain
    regions = _regions(path)
    need(len(regions) == 2, f"{len(regions)} VMAs where there should be two: {regions}")
    if dialect() in (Dialect.SEAL, Dialect.LEASE):
        marked = [start for start, _, flags in regions if "di" in flags]
        need(marked == [first.address], f"'di' is in the flags of {marked}")
    still_held(path, "both are mapped")
    second.close()
    still_held(path, "the plain map is gone")
    first.close()
    released(path, "the direct map is gone")
    room.close()
    return "two VMAs"


CHECKS = (
    Check("D17", "The blocks stay until the last part of the map is gone, however that goes",
          _MAN, "held, then not", last_unmap,
          red=planted("kept-seal"), green=V6),
    Check("D18", "close(fd) does not end it", _MAN, "held until munmap", closed_descriptor,
          red=planted("ends-at-close"), green=V6),
    Check("D19", "Adjacent plain and direct maps stay two", "Linux mm/vma.c, is_mergeable_vma",
          f"two VMAs of {PAGES // 2} pages each, either way round", stay_two,
          red=POSTED, green=V6),
)  # fmt: skip

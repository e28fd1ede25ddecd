# SPDX-License-Identifier: GPL-2.0-or-later
"""Shared writable maps of FUSE files: how much memory a server can keep dirty."""

from __future__ import annotations

import mmap
from pathlib import Path

from guest.checking import Puppet, need
from guest.features.fuse_writable_mmap_rig import SOON, mapped_file, other
from guest.fuse.protocol import Op
from guest.libc import PAGE
from guest.words import Check, Context

_PAGES = 4096
_WARM = 512  # pages
_DEFAULT, _RAISED = 1, 4  # per cent of what may be dirty in all
# A writer looks at the limit after some pages, and the limit moves with free memory.
_SLACK = 1.5
# A writer over its limit looks again every 0.2 s and sleeps on; one that is only slowed down
# stores some pages between two sleeps. Counted, not timed: a busy host stops a guest for seconds.
_SLEEPS = 8
_LOOKS = 200  # 10 s of sleep with no look at the limit: it sits on a page that is being written


def dirty_limit(context: Context) -> str:
    counters = [mmap.mmap(-1, PAGE) for _ in range(2)]
    with mapped_file(context, bytes(_PAGES * PAGE), limits=True) as (fs, _, map_):

        def dirty(half: int) -> None:
            begin = half * _PAGES // 2
            for number in range(1, _PAGES // 2 + 1):
                map_.view[(begin + number - 1) * PAGE] = 1
                counters[half][:4] = number.to_bytes(4, "little")

        # A filesystem's share also depends on what it has written lately, of all that was.
        for _ in range(4):
            map_.view[: _WARM * PAGE : PAGE] = bytes([2]) * _WARM
            need(map_.msync() == 0, "msync failed")
        ratio = int((fs.bdi / "max_ratio").read_text())
        need(ratio == _DEFAULT, f"max_ratio is {ratio} by default")
        fs.withhold(Op.WRITE)
        with other(dirty=dirty) as one, other(dirty=dirty) as two:
            one.start("dirty", 0)
            first, allowed = _stop(one, counters[0]), _allowed(_DEFAULT)
            need(not one.settled(0), f"{first} pages were dirtied at once, {allowed} are allowed")
            need(first <= allowed * _SLACK, f"{first} pages dirty, {allowed} are allowed")
            (fs.bdi / "max_ratio").write_text(str(_RAISED))
            # Another one: the first may sit on a page that was written before its store.
            two.start("dirty", 1)
            second, more = first + _stop(two, counters[1]), _allowed(_RAISED)
            need(not two.settled(0), f"{second} pages were dirtied at once, {more} are allowed")
            said = f"{first} pages, with max_ratio {_RAISED} {second} of {more}\n{two.where()}"
            need(second > first * 2, said.rstrip())
            need(second <= more * _SLACK, f"{second} pages dirty, {more} are allowed")
            fs.release(Op.WRITE)
            for writer in (one, two):
                writer.result(4 * SOON)
    return (
        f"max_ratio {_DEFAULT}: a writer stopped at {first} pages of {allowed} allowed; "
        f"{_RAISED}: another at {second} of {more}; both went on when the WRITEs were answered"
    )


def _count(counter: mmap.mmap) -> int:
    return int.from_bytes(counter[:4], "little")


def _stop(writer: Puppet, counter: mmap.mmap) -> int:
    """How far it got when it was done, or slept and slept without another page."""
    last, slept, looks = _count(counter), _sleeps(writer), 0
    while not writer.settled(0.05):
        if _count(counter) != last:
            last, slept, looks = _count(counter), _sleeps(writer), 0
        elif _sleeps(writer) - slept >= _SLEEPS or looks >= _LOOKS:
            break
        looks += 1
    return _count(counter)


def _sleeps(writer: Puppet) -> int:
    """How often it has gone to sleep."""
    lines = Path(f"/proc/{writer.pid}/status").read_text().splitlines()
    (sleeps,) = [one for one in lines if one.startswith("voluntary_ctxt_switches:")]
    return int(sleeps.split()[1])


def _allowed(ratio: int) -> int:
    """Pages that a filesystem with this max_ratio may have dirty or under writeback."""
    lines = Path("/proc/vmstat").read_text().splitlines()
    limit = next(int(one.split()[1]) for one in lines if one.startswith("nr_dirty_threshold "))
    return limit * ratio // 100


CHECKS = (
    Check(
        "B17",
        "A FUSE filesystem has 1 % of the dirty memory, and more only when root allows it",
        "Linux 2.6.26: fuse: support writable mmap (3be5a52b30aa), max_ratio",
        "max_ratio is 1; a writer whose WRITEs are withheld stops near that; raised, later",
        dirty_limit,
        patience=2,
        red="planted-fuse-writable-mmap@v2 fuse.plant=no-ratio; "
        "planted-fuse-writable-mmap@v2 fuse.plant=no-strictlimit",
    ),
)

# SPDX-License-Identifier: GPL-2.0-or-later
"""XFS with dax=always on virtio-pmem: the metrics.

No msync and no fsync while samples are taken: virtio-pmem's flush waits for the host, and
waiting is not counted in instructions. All pages are written before, with zeros, so a fault
finds an allocated block and starts no transaction for it.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import repeat
from pathlib import Path

from guest.libc import PAGE, SHARED
from guest.place import Place
from guest.words import Bench, Context, Metric, Skipped

POINT = Path("/mnt/pmem0")
_PAGES = 512  # a turn
PART = _PAGES * PAGE  # bytes a turn
_CHUNK = bytes(1 << 20)


@contextlib.contextmanager
def written(name: str, size: int, point: Path = POINT) -> Iterator[int]:
    """A file of ``size`` zeros, every block written. Raises Skipped where there is no room."""
    if not os.path.ismount(point):
        raise Skipped(f"nothing is mounted on {point}")
    room = os.statvfs(point)
    if size > room.f_bavail * room.f_frsize // 2:
        raise Skipped(f"{size >> 20} MiB do not fit into half of what is free on {point}")
    path = point / f"measure-{name}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        for at in range(0, size, len(_CHUNK)):
            os.pwrite(fd, _CHUNK, at)
        os.fsync(fd)
        yield fd
        # XFS frees the blocks of an unlinked file some time later, and gives out again only what
        # the log has on disk as free: so that the next file lies alike in every boot.
        os.ftruncate(fd, 0)
        os.fsync(fd)
    finally:
        os.close(fd)
        path.unlink()


@contextlib.contextmanager
def each_part(
    name: str,
    parts: int,
    work: Callable[[memoryview], Callable[[], object]],
    units: int,
    point: Path = POINT,
    flags: int = SHARED,
) -> Iterator[Bench]:
    """Turn n works on part n, modulo ``parts``, of a file on ``point`` through a new map.

    ``work(view)`` prepares, without touching the memory, what the window does. The page cache's
    tree grows a level when a page past its reach is touched, 4,096 for two levels, and each
    later fault walks it: one more part is touched first, so that it has grown before turn 0.
    """
    with written(name, (parts + 1) * PART, point) as fd:
        place, turn = Place(PART, flags), iter(range(1 << 30))
        place.map(fd, parts * PART)[-PAGE] = 1
        place.clear()
        doing: list[Callable[[], object]] = []

        def before() -> None:
            doing[:] = [work(place.map(fd, next(turn) % parts * PART))]

        def after() -> None:
            doing.clear()
            place.clear()

        def run() -> object:
            return doing[0]()

        yield Bench(run, units, before, after)


def first_touch(_context: Context, rounds: int) -> AbstractContextManager[Bench]:
    marks = bytes([1]) * _PAGES

    def work(view: memoryview) -> Callable[[], object]:
        return lambda: view.__setitem__(slice(None, None, PAGE), marks)

    return each_part("first_touch", rounds, work, _PAGES)


@contextlib.contextmanager
def second_touch(_context: Context, _rounds: int) -> Iterator[Bench]:
    marks, stride, turns = bytes([1]) * _PAGES, slice(None, None, PAGE), 16
    with written("second_touch", PART) as fd:
        place = Place(PART)
        view = place.map(fd)
        view[stride] = marks

        def touch() -> None:
            deque(map(view.__setitem__, repeat(stride, turns), repeat(marks)), maxlen=0)

        yield Bench(touch, _PAGES * turns)
        place.clear()


def seq_read(_context: Context, _rounds: int) -> AbstractContextManager[Bench]:
    into = memoryview(bytearray(PART))
    everything = slice(None)
    return each_part(
        "seq_read", 1, lambda view: lambda: into.__setitem__(everything, view), PART >> 10
    )


def seq_write(context: Context, _rounds: int) -> AbstractContextManager[Bench]:
    data, everything = context.random.randbytes(PART), slice(None)
    return each_part(
        "seq_write", 1, lambda view: lambda: view.__setitem__(everything, data), PART >> 10
    )


def _shuffled(context: Context) -> list[slice]:
    pages = [slice(at, at + PAGE) for at in range(0, PART, PAGE)]
    context.random.shuffle(pages)
    return pages


def rand_read(context: Context, _rounds: int) -> AbstractContextManager[Bench]:
    pages, into, everything = _shuffled(context), memoryview(bytearray(PAGE)), slice(None)

    def work(view: memoryview) -> Callable[[], object]:
        sources = [view[one] for one in pages]
        return lambda: deque(map(into.__setitem__, repeat(everything), sources), maxlen=0)

    return each_part("rand_read", 1, work, PART >> 10)


def rand_write(context: Context, _rounds: int) -> AbstractContextManager[Bench]:
    pages, data = _shuffled(context), context.random.randbytes(PAGE)

    def work(view: memoryview) -> Callable[[], object]:
        return lambda: deque(map(view.__setitem__, pages, repeat(data)), maxlen=0)

    return each_part("rand_write", 1, work, PART >> 10)


# The minimum where a window has one timer tick or two (4 ms each): which, is chance, and the
# median would take turns. A tick with what it sets off (RCU, the scheduler) is 4,000 to 13,000
# instructions, 0.4 % of such a window.
METRICS = (
    Metric(
        "P.first_touch",
        "First store to a page whose block is allocated and written with zeros: a 4 KiB DAX fault",
        "page",
        first_touch,
        primary=True,
        statistic="minimum",
    ),
    Metric("P.second_touch", "Store to a page that is mapped already", "page", second_touch),
    Metric(
        "P.seq_read",
        "Copy 2 MiB out of a new map in order: a read fault and a copy for each page",
        "KiB",
        seq_read,
        primary=True,
        statistic="minimum",
    ),
    Metric(
        "P.seq_write",
        "Copy 2 MiB into a new map in order: a write fault and a copy for each page",
        "KiB",
        seq_write,
        primary=True,
        statistic="minimum",
    ),
    Metric(
        "P.rand_read",
        "Copy 512 pages out of a new map in random order",
        "KiB",
        rand_read,
    ),
    Metric(
        "P.rand_write",
        "Copy 512 pages into a new map in random order",
        "KiB",
        rand_write,
        margin=0.002,
    ),
)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Shared writable maps of FUSE files: the metrics.

None sleeps in its window: one of the client and the server is always runnable. So the
kernel's own writeback is kept out of the way: no periodic flusher, no dirty throttling.
Pages are touched inside the interpreter's C loops, one byte a page.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import repeat
from pathlib import Path

from guest import fuse
from guest.fuse.server import Options
from guest.libc import PAGE, READ, SHARED, WRITE, Map, mmap_errno
from guest.place import AROUND, Place
from guest.words import Bench, Context, Metric, Unsupported

PAGES = 1024
SIZE = PAGES * PAGE
TRIPS = 200  # round trips a turn: they cost 100 times what a fault does
_FLUSHER = Path("/proc/sys/vm/dirty_writeback_centisecs")
_NAME = "file"


def probe(fd: int) -> None:
    """Raises Unsupported where shared writable maps are not there at all."""
    if mmap_errno(fd, PAGE, READ | WRITE, SHARED) == errno.ENODEV:
        raise Unsupported("mmap gives ENODEV")


@contextlib.contextmanager
def quiet(bdi: Path, delay: int = 0) -> Iterator[None]:
    """No flusher on its timer, and no limit on this filesystem's dirty pages.

    A filesystem's first dirty page still wakes the flusher ``delay`` hundredths of a second
    later (wb_wakeup_delayed()), and it writes what there is while the filesystem has no share
    of what was written lately (wb_over_bg_thresh()).
    """
    with no_flusher(delay):
        (bdi / "max_ratio").write_text("100")
        with contextlib.suppress(FileNotFoundError):  # Linux 6.2 and later
            (bdi / "strict_limit").write_text("0")
        yield


@contextlib.contextmanager
def no_flusher(delay: int = 0) -> Iterator[None]:
    """No flusher on its timer, for any filesystem; see ``quiet``."""
    interval = _FLUSHER.read_text()
    _FLUSHER.write_text(str(delay))
    try:
        yield
    finally:
        _FLUSHER.write_text(interval)


@contextlib.contextmanager
def cached_file(context: Context, options: Options) -> Iterator[tuple[Path, int]]:
    """A quiet mount with one file of SIZE bytes, all of it in the page cache; path and fd."""
    data = context.random.randbytes(SIZE)
    with fuse.mounted({_NAME: data}, context.scratch, options) as fs, quiet(fs.bdi):
        path = fs.path / _NAME
        fd = os.open(path, os.O_RDWR)
        try:
            os.pread(fd, SIZE, 0)
            yield path, fd
        finally:
            os.close(fd)


SILENT = Options(record=False)
_FRESH_ATTRIBUTES = Options(record=False, attr_timeout=0)


class _Remap:
    """A new map for every turn: made before the window, removed after it."""

    def __init__(self, fd: int, prot: int, touch: Callable[[memoryview], object]) -> None:
        self.fd, self.prot, self.touch = fd, prot, touch
        self.place = Place(SIZE)

    def before(self) -> None:
        self.view = self.place.map(self.fd, prot=self.prot)

    def window(self) -> None:
        self.touch(self.view)

    def after(self) -> None:
        self.place.clear()


def _touch_read(view: memoryview) -> object:
    return bytes(view[::AROUND])


def _writer() -> Callable[[memoryview], None]:
    marks = bytes([7]) * PAGES

    def write(view: memoryview) -> None:
        view[::PAGE] = marks

    return write


@contextlib.contextmanager
def fault(context: Context, _rounds: int) -> Iterator[Bench]:
    with cached_file(context, SILENT) as (path, _):
        fd = os.open(path, os.O_RDONLY)
        remap = _Remap(fd, READ, _touch_read)
        yield Bench(remap.window, SIZE // AROUND, remap.before, remap.after)
        os.close(fd)


@contextlib.contextmanager
def first_store(context: Context, _rounds: int) -> Iterator[Bench]:
    with cached_file(context, SILENT) as (_, fd):
        probe(fd)
        remap = _Remap(fd, READ | WRITE, _writer())

        def after() -> None:
            os.fsync(fd)  # the next turn's pages must be clean again
            remap.after()

        yield Bench(remap.window, PAGES, remap.before, after)


@contextlib.contextmanager
def dirty_msync(context: Context, _rounds: int) -> Iterator[Bench]:
    with cached_file(context, SILENT) as (_, fd):
        probe(fd)
        write = _writer()
        with Map(fd, SIZE) as map_:

            def window() -> None:
                write(map_.view)
                map_.msync()

            yield Bench(window, PAGES)


@contextlib.contextmanager
def msync(context: Context, _rounds: int) -> Iterator[Bench]:
    with cached_file(context, SILENT) as (_, fd):
        probe(fd)
        write = _writer()
        with Map(fd, SIZE) as map_:
            yield Bench(map_.msync, PAGES, lambda: write(map_.view))


@contextlib.contextmanager
def munmap_close(context: Context, _rounds: int) -> Iterator[Bench]:
    with cached_file(context, SILENT) as (path, kept):
        probe(kept)
        write = _writer()
        now: list[tuple[int, Map]] = []

        def before() -> None:
            fd = os.open(path, os.O_RDWR)
            now[:] = [(fd, Map(fd, SIZE))]
            write(now[0][1].view)

        def window() -> None:
            fd, map_ = now[0]
            map_.close()
            os.close(fd)

        yield Bench(window, PAGES, before, lambda: os.fsync(kept))


@contextlib.contextmanager
def getattr_trip(context: Context, _rounds: int) -> Iterator[Bench]:
    with cached_file(context, _FRESH_ATTRIBUTES) as (_, fd):
        yield Bench(lambda: deque(map(os.fstat, repeat(fd, TRIPS)), maxlen=0), TRIPS)


@contextlib.contextmanager
def getattr_fsync(context: Context, _rounds: int) -> Iterator[Bench]:
    with cached_file(context, _FRESH_ATTRIBUTES) as (_, fd):

        def window() -> None:
            for _ in repeat(None, TRIPS):
                os.fstat(fd)
                os.fsync(fd)

        yield Bench(window, TRIPS)


@contextlib.contextmanager
def cold_read(context: Context, _rounds: int) -> Iterator[Bench]:
    with cached_file(context, SILENT) as (_, fd):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # no readahead: one READ a page
        offsets = range(0, TRIPS * PAGE, PAGE)

        def before() -> None:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

        def window() -> None:
            deque(map(os.pread, repeat(fd), repeat(PAGE), offsets), maxlen=0)

        yield Bench(window, TRIPS, before)


@contextlib.contextmanager
def write_through(context: Context, _rounds: int) -> Iterator[Bench]:
    with cached_file(context, SILENT) as (_, fd):
        page, offsets = context.random.randbytes(PAGE), range(0, TRIPS * PAGE, PAGE)

        def window() -> None:
            deque(map(os.pwrite, repeat(fd), repeat(page), offsets), maxlen=0)

        yield Bench(window, TRIPS)


@contextlib.contextmanager
def tmpfs_store(_context: Context, _rounds: int) -> Iterator[Bench]:
    fd = os.memfd_create("reference")
    os.ftruncate(fd, SIZE)
    remap = _Remap(fd, READ | WRITE, _writer())

    def before() -> None:
        os.ftruncate(fd, 0)
        os.ftruncate(fd, SIZE)
        remap.before()

    yield Bench(remap.window, PAGES, before, remap.after)
    os.close(fd)


@contextlib.contextmanager
def tmpfs_fault(_context: Context, _rounds: int) -> Iterator[Bench]:
    fd = os.memfd_create("reference")
    os.pwrite(fd, bytes([1]) * SIZE, 0)
    remap = _Remap(fd, READ, _touch_read)
    yield Bench(remap.window, SIZE // AROUND, remap.before, remap.after)
    os.close(fd)


def _metric(
    name: str,
    unit: str,
    bench: Callable[[Context, int], AbstractContextManager[Bench]],
    sentence: str,
    primary: bool = False,
    margin: float = 0.001,
    statistic: str = "median",
) -> Metric:
    return Metric(f"B.{name}", sentence, unit, bench, primary, margin=margin, statistic=statistic)


# 64 faults take 1.1 ms. A timer tick, every 4 ms, adds 2.4 % to the windows that it hits: one
# in four, so that neither the median nor the mean is the fault's own cost. The window of
# munmap_close has six or seven ticks, each 0.1 % of it.
_SHORT = "minimum"


METRICS = (
    _metric(
        "fault",
        "fault",
        fault,
        "Read fault on a cached page through a new map; one fault maps 16 pages",
        primary=True,
        statistic=_SHORT,
    ),
    _metric(
        "first_store",
        "page",
        first_store,
        "First store to a cached, clean page through a new shared map",
        primary=True,
    ),
    _metric(
        "dirty_msync",
        "page",
        dirty_msync,
        "Store to each of 1,024 mapped pages, then msync: WRITEs of up to 1 MiB, FSYNC",
        primary=True,
    ),
    _metric("msync", "page", msync, "msync of 1,024 pages dirtied before"),
    _metric(
        "munmap_close",
        "page",
        munmap_close,
        "munmap of 1,024 dirty pages and close: all WRITEs answered, then FLUSH",
        statistic=_SHORT,
    ),
    _metric(
        "getattr",
        "round trip",
        getattr_trip,
        "fstat that the server answers: one GETATTR",
        primary=True,
    ),
    _metric("getattr_fsync", "pair", getattr_fsync, "fstat and fsync: one GETATTR and one FSYNC"),
    _metric(
        "cold_read",
        "page",
        cold_read,
        "read(2) of 4 KiB that is not cached: one READ a page",
        margin=0.002,
    ),
    _metric(
        "write_through",
        "write",
        write_through,
        "write(2) of 4 KiB, write-through: one WRITE each",
        margin=0.002,
    ),
    _metric("tmpfs_store", "page", tmpfs_store, "Reference: first store to a page of tmpfs"),
    _metric(
        "tmpfs_fault",
        "fault",
        tmpfs_fault,
        "Reference: read fault on a tmpfs page; one fault maps 16 pages",
        statistic=_SHORT,
    ),
)

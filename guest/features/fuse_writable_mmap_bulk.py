# SPDX-License-Identifier: GPL-2.0-or-later
"""Shared writable maps of FUSE files: much data at once, and the same on ext4 and tmpfs.

Under icount none of these sleeps: the server, or the loop device that ext4 is on, is runnable
while the client waits. A throttled writer does sleep, so it is timed by the wall clock only.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from itertools import repeat
from random import Random

from guest import fuse, libc
from guest.features import fuse_writable_mmap_times as times
from guest.features.fuse_writable_mmap_rig import ext4
from guest.features.fuse_writable_mmap_times import TRIPS
from guest.fuse import protocol as p
from guest.fuse.server import Options
from guest.libc import PAGE, Map
from guest.words import Bench, Context, Metric

PAGES = 512
SIZE = PAGES * PAGE

# A file of SIZE bytes or more, all of it in the page cache, and no flusher on its timer.
Place = Callable[[Context], AbstractContextManager[int]]
Made = Callable[[Context, int], AbstractContextManager[Bench]]

_CACHING = Options(record=False, flags=p.DEFAULT_FLAGS | p.WRITEBACK_CACHE)


@contextlib.contextmanager
def on_fuse(context: Context, options: Options = times.SILENT) -> Iterator[int]:
    with times.cached_file(context, options) as (_, fd):
        yield fd


@contextlib.contextmanager
def on_ext4(context: Context) -> Iterator[int]:
    with ext4(context) as point:
        fd = os.open(point / "file", os.O_RDWR | os.O_CREAT)
        try:
            os.pwrite(fd, context.random.randbytes(SIZE), 0)
            os.fsync(fd)
            with times.no_flusher():
                yield fd
        finally:
            os.close(fd)


@contextlib.contextmanager
def on_tmpfs(context: Context) -> Iterator[int]:
    fd = os.memfd_create("reference")
    try:
        os.pwrite(fd, context.random.randbytes(SIZE), 0)
        yield fd
    finally:
        os.close(fd)


def written_back(place: Place) -> Made:
    @contextlib.contextmanager
    def made(context: Context, _rounds: int) -> Iterator[Bench]:
        with place(context) as fd:
            times.probe(fd)
            data = context.random.randbytes(SIZE)
            with Map(fd, SIZE) as map_:

                def window() -> None:
                    map_.view[:] = data
                    map_.msync()

                yield Bench(window, SIZE)

    return made


def rewritten(place: Place) -> Made:
    @contextlib.contextmanager
    def made(context: Context, _rounds: int) -> Iterator[Bench]:
        with place(context) as fd:
            times.probe(fd)
            # The same in every boot: how many WRITEs there are hangs on which pages they are.
            pages = [page * PAGE for page in Random(PAGES).sample(range(PAGES), PAGES // 2)]
            with Map(fd, SIZE) as map_:
                store = map_.view.__setitem__

                def window() -> None:
                    deque(map(store, pages, repeat(7)), maxlen=0)
                    map_.msync()

                yield Bench(window, len(pages))

    return made


def buffered(place: Place, size: int) -> Made:
    """write(2) of so many bytes each, in order, and fsync."""

    @contextlib.contextmanager
    def made(context: Context, _rounds: int) -> Iterator[Bench]:
        with place(context) as fd:
            data, offsets = context.random.randbytes(size), range(0, SIZE, size)

            def window() -> None:
                deque(map(os.pwrite, repeat(fd), repeat(data), offsets), maxlen=0)
                os.fsync(fd)

            yield Bench(window, SIZE)

    return made


@contextlib.contextmanager
def second_store(context: Context, _rounds: int) -> Iterator[Bench]:
    with on_fuse(context) as fd:
        times.probe(fd)
        with Map(fd, SIZE) as map_:
            view = map_.view

            def window() -> None:
                for offset in range(0, TRIPS * PAGE, PAGE):
                    view[offset] = 1
                    libc.start_writeback(fd)
                    view[offset] = 2

            yield Bench(window, TRIPS, after=lambda: os.fsync(fd))


_MANY = 8 * PAGES


def throttled(ratio: int) -> Made:
    """A writer that the dirty limit of its filesystem holds back, or with 100 does not."""

    @contextlib.contextmanager
    def made(context: Context, _rounds: int) -> Iterator[Bench]:
        data = bytes(_MANY * PAGE)
        with fuse.mounted({"file": data}, context.scratch, times.SILENT) as fs:
            (fs.bdi / "max_ratio").write_text(str(ratio))
            fd = os.open(fs.path / "file", os.O_RDWR)
            times.probe(fd)
            os.pread(fd, len(data), 0)
            marks = bytes([7]) * _MANY
            with Map(fd, len(data)) as map_:

                def window() -> None:
                    map_.view[::PAGE] = marks

                yield Bench(window, _MANY, after=lambda: os.fsync(fd))
            os.close(fd)

    return made


_BACK, _AGAIN = "dirty 2 MiB and msync", "dirty 256 of 512 pages at random and msync"
_SMALL, _LARGE = "write(2) of 4 KiB each and fsync", "write(2) of 1 MiB each and fsync"
_EXT4, _TMPFS = "ext4", "tmpfs"
_LOOSE = 0.005


def _metric(
    name: str,
    unit: str,
    operation: str,
    subject: str,
    bench: Made,
    sentence: str,
    clocks: tuple[str, ...] = ("icount", "wall"),
) -> Metric:
    return Metric(
        f"B.{name}",
        sentence,
        unit,
        bench,
        clocks=clocks,
        margin=_LOOSE,
        operation=operation,
        subject=subject,
    )


def _beside(
    name: str, unit: str, operation: str, made: Callable[[Place], Made], sentence: str
) -> tuple[Metric, Metric]:
    return (
        _metric(f"ext4.{name}", unit, operation, _EXT4, made(on_ext4), f"Reference: {sentence}"),
        _metric(f"tmpfs.{name}", unit, operation, _TMPFS, made(on_tmpfs), f"Reference: {sentence}"),
    )


_caching = partial(on_fuse, options=_CACHING)

METRICS = (
    _metric(
        "writeback",
        "byte",
        _BACK,
        "",
        written_back(on_fuse),
        "Store 2 MiB through a shared map and msync: WRITEs of up to 1 MiB, FSYNC",
    ),
    _metric(
        "rewrite",
        "page",
        _AGAIN,
        "",
        rewritten(on_fuse),
        "Store a byte to 256 pages of 512 in random order, then msync: many short WRITEs",
    ),
    _metric(
        "second_store",
        "page",
        "store, start writeback, store again",
        "",
        second_store,
        "Store to a page, start its writeback, store again: the second waits for the answer",
    ),
    _metric(
        "buffered_4k",
        "byte",
        _SMALL,
        "",
        buffered(_caching, PAGE),
        "FUSE_WRITEBACK_CACHE: 2 MiB by write(2) of 4 KiB each, then fsync",
    ),
    _metric(
        "buffered_1m",
        "byte",
        _LARGE,
        "",
        buffered(_caching, 1 << 20),
        "FUSE_WRITEBACK_CACHE: 2 MiB by write(2) of 1 MiB each, then fsync",
    ),
    *_beside("writeback", "byte", _BACK, written_back, "the same on a file that is there"),
    *_beside("rewrite", "page", _AGAIN, rewritten, "the same on a file that is there"),
    *_beside(
        "buffered_4k", "byte", _SMALL, partial(buffered, size=PAGE), "rewrite a file that is there"
    ),
    *_beside(
        "buffered_1m",
        "byte",
        _LARGE,
        partial(buffered, size=1 << 20),
        "rewrite a file that is there",
    ),
    *(
        _metric(
            f"throttled_{ratio}",
            "page",
            f"dirty 16 MiB, max_ratio {ratio}",
            "",
            throttled(ratio),
            f"Store to 4,096 pages with max_ratio {ratio}: how long the dirty limit holds one up",
            clocks=("wall",),
        )
        for ratio in (1, 100)
    ),
)

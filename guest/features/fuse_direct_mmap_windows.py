# SPDX-License-Identifier: GPL-2.0-or-later
"""What the metrics of direct mmap time, and the same on what they are held against.

None sleeps in its window: one of the client and the server is always runnable. What is queued
for the server when a window ends (a MUNMAP) is answered before the next one begins. Memory is
touched inside the interpreter's C loops, one byte a page, or copied page by page.
The comparators need nothing of the feature: a memfd, and a FUSE file with FOPEN_DIRECT_IO whose
server is the same.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import count, repeat

from guest import fuse
from guest.features.fuse_direct_mmap_rig import fence
from guest.fuse import direct
from guest.fuse.echo import WORD
from guest.fuse.protocol import FOPEN_DIRECT_IO
from guest.fuse.server import Options
from guest.libc import PAGE, Map, map_and_unmap
from guest.place import Place
from guest.words import Bench, Context

PAGES = 512  # of a region that is touched
SIZE = PAGES * PAGE
BUFFER = 16 * PAGE  # a sound device's: the region that is only mapped and unmapped
TRIPS = 100  # round trips a turn
WORDS = 400  # a turn, through the region: a fifth of what a round trip costs
# Of a turn. A munmap leaves its VMA and nodes to RCU, which frees some 70 of them at once at the
# end of a grace period: 100,000 instructions. So many that a turn has ten of these or so.
MAPS = 100  # where each is up to three round trips
BARE_MAPS = 1200  # where no server has a part in it
# Times over the whole region, where a page costs next to nothing: shorter than half a tick
# (1,000,000 instructions), so that most samples have none in them.
TURNS = 2
_NAME = "direct-io"

Made = Callable[[Context, int], AbstractContextManager[Bench]]


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class _Source:
    """What is mapped: ``fresh`` makes it untouched, ``settle`` waits until nothing is queued."""

    fd: int
    fresh: Callable[[], object] = _nothing
    settle: Callable[[], object] = _nothing
    maps: int = MAPS


Opened = Callable[[Context], AbstractContextManager[_Source]]


@contextlib.contextmanager
def region(context: Context, kind: str = direct.FUSE) -> Iterator[_Source]:
    """Every map gets a new region. Raises Unsupported without the feature, Skipped without CUSE."""
    options = Options(direct=True, record=False)
    with (
        direct.served(kind, context.scratch, bytes(PAGE), options) as target,
        target.open() as fd,
    ):
        yield _Source(fd, settle=partial(fence, fd))


@contextlib.contextmanager
def tmpfs(_context: Context) -> Iterator[_Source]:
    fd = os.memfd_create("reference")

    def fresh() -> None:
        os.ftruncate(fd, 0)
        os.ftruncate(fd, SIZE)

    fresh()
    yield _Source(fd, fresh, maps=BARE_MAPS)
    os.close(fd)


# ---------------------------------------------------------------- maps, whatever is behind them


def map_unmap(opened: Opened) -> Made:
    @contextlib.contextmanager
    def bench(context: Context, _rounds: int) -> Iterator[Bench]:
        with opened(context) as source:
            window = partial(map_and_unmap, source.fd, BUFFER, source.maps)
            yield Bench(window, source.maps, after=source.settle)

    return bench


def first_touch(opened: Opened) -> Made:
    @contextlib.contextmanager
    def bench(context: Context, _rounds: int) -> Iterator[Bench]:
        marks, stride = bytes([1]) * PAGES, slice(None, None, PAGE)
        with opened(context) as source:
            place, views = Place(SIZE), deque[memoryview](maxlen=1)

            def before() -> None:
                source.fresh()
                views.append(place.map(source.fd))

            def after() -> None:
                views.clear()
                place.clear()
                source.settle()

            yield Bench(lambda: views[0].__setitem__(stride, marks), PAGES, before, after)

    return bench


def second_touch(opened: Opened) -> Made:
    marks, stride = bytes([1]) * PAGES, slice(None, None, PAGE)

    def touch(view: memoryview, _context: Context) -> object:
        return deque(map(view.__setitem__, repeat(stride, TURNS), repeat(marks)), maxlen=0)

    return _filled(opened, touch)


def sequential(opened: Opened) -> Made:
    into, everything = memoryview(bytearray(SIZE)), slice(None)

    def copy(view: memoryview, _context: Context) -> object:
        return deque(map(into.__setitem__, repeat(everything, TURNS), repeat(view)), maxlen=0)

    return _filled(opened, copy)


def scattered(opened: Opened) -> Made:
    @contextlib.contextmanager
    def bench(context: Context, _rounds: int) -> Iterator[Bench]:
        pages = _shuffled(context)
        into, everything = memoryview(bytearray(PAGE)), slice(None)
        with _touched(opened, context) as view:
            sources = [view[at : at + PAGE] for at in pages]

            def copy() -> None:
                deque(map(into.__setitem__, repeat(everything), sources), maxlen=0)

            yield Bench(copy, len(pages))

    return bench


def _filled(opened: Opened, work: Callable[[memoryview, Context], object]) -> Made:
    """``work`` does all pages of a map that is there, TURNS times."""

    @contextlib.contextmanager
    def bench(context: Context, _rounds: int) -> Iterator[Bench]:
        with _touched(opened, context) as view:
            yield Bench(lambda: work(view, context), PAGES * TURNS)

    return bench


@contextlib.contextmanager
def _touched(opened: Opened, context: Context) -> Iterator[memoryview]:
    with opened(context) as source:
        place = Place(SIZE)
        view = place.map(source.fd)
        view[:] = context.random.randbytes(SIZE)
        yield view
        place.clear()


def _shuffled(context: Context) -> list[int]:
    """The offsets of all pages."""
    offsets = list(range(0, SIZE, PAGE))
    context.random.shuffle(offsets)
    return offsets


# ---------------------------------------------------------------- a word there, an answer back


@contextlib.contextmanager
def ping_pong(context: Context, _rounds: int) -> Iterator[Bench]:
    options = Options(direct=True, record=False)
    ping, pong = context.scratch / "ping", context.scratch / "pong"
    for pipe in (ping, pong):
        os.mkfifo(pipe)
    with (
        direct.served(direct.FUSE, context.scratch, bytes(PAGE), options) as target,
        target.open() as fd,
        Map(fd, PAGE) as region,
    ):
        tell, hear = os.open(ping, os.O_RDWR), os.open(pong, os.O_RDWR)
        (mapping,) = target.service.mappings()
        target.service.echo(mapping.handle, ping, pong)
        words, numbers = region.view.cast("Q"), count(1)

        def window() -> None:
            for word in map(next, repeat(numbers, WORDS)):
                words[0] = word
                os.write(tell, b".")
                os.read(hear, 1)
                if words[1] != word + 1:
                    raise RuntimeError(f"the server answered {words[1]} to {word}")

        yield Bench(window, WORDS)
        os.close(tell)
        os.close(hear)


@contextlib.contextmanager
def _direct_io(context: Context) -> Iterator[int]:
    data = context.random.randbytes(SIZE)
    flags = {_NAME: FOPEN_DIRECT_IO}
    with fuse.mounted({_NAME: data}, context.scratch, Options(record=False), flags) as fs:
        fd = os.open(fs.path / _NAME, os.O_RDWR)
        try:
            yield fd
        finally:
            os.close(fd)


@contextlib.contextmanager
def dio_ping_pong(context: Context, _rounds: int) -> Iterator[Bench]:
    with _direct_io(context) as fd:
        # A page of its own: a word of the heap may lie across two, which costs more.
        page = memoryview(mmap.mmap(-1, PAGE))
        words, numbers = page.cast("Q"), count(1)
        said, heard = [page[:WORD]], [page[WORD : 2 * WORD]]

        def window() -> None:
            for word in map(next, repeat(numbers, TRIPS)):
                words[0] = word
                os.pwritev(fd, said, 0)
                os.preadv(fd, heard, 0)
                if words[1] != word:
                    raise RuntimeError(f"the server answered {words[1]} to {word}")

        yield Bench(window, TRIPS)


@contextlib.contextmanager
def dio_sequential(context: Context, _rounds: int) -> Iterator[Bench]:
    with _direct_io(context) as fd:
        into = [mmap.mmap(-1, SIZE)]  # whole pages: a READ takes 256 of them
        yield Bench(lambda: os.preadv(fd, into, 0), PAGES)


@contextlib.contextmanager
def dio_scattered(context: Context, _rounds: int) -> Iterator[Bench]:
    with _direct_io(context) as fd:
        into, offsets = [mmap.mmap(-1, PAGE)], _shuffled(context)[:TRIPS]

        def window() -> None:
            deque(map(os.preadv, repeat(fd), repeat(into), offsets), maxlen=0)

        yield Bench(window, len(offsets))

# SPDX-License-Identifier: GPL-2.0-or-later
"""MAP_DIRECT: the metrics, and the same operations on what it is held against.

Under icount nothing here waits: all blocks are written before, and msync(2), which waits for
the host, is timed on the wall's clock only. What is held against it: plain mappings of the same
DAX file; XFS with its page cache on virtio-blk; MAP_SYNC on memmap= memory, which needs no flush.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

from guest.features.map_direct_kinds import DISK, SYNC
from guest.features.map_direct_rig import POINT, VALIDATE, need_dialect
from guest.features.virtio_pmem_times import PART, each_part, written
from guest.libc import PAGE, READ, SHARED, WRITE, Map
from guest.words import Bench, Context, Metric, Skipped

MAP_SYNC = 0x80000
_PAGES = PART // PAGE
_FLUSHED = 16 << 20  # bytes
_PAIRS = 64
_TURNS = 16
_LOOSE = 0.005  # where the kernel allocates, or a fault's path depends on where things lie
_TICKS = "minimum"  # of windows of 2 to 5 ms, with a timer tick more or less: virtio_pmem_times

Made = Callable[[Context, int], AbstractContextManager[Bench]]


@dataclass(frozen=True, slots=True)
class Target:
    """What is mapped, where, and how."""

    name: str  # in the metric's id
    subject: str  # in the report; "" is MAP_DIRECT itself
    point: Path
    flags: int
    about: str

    def need(self) -> None:
        """Raises Unsupported or Skipped."""
        if self.flags == VALIDATE:
            need_dialect()
        if not os.path.ismount(self.point):
            raise Skipped(f"nothing is mounted on {self.point}")


DIRECT = Target("", "", POINT, VALIDATE, "an XFS DAX file with MAP_DIRECT")
PLAIN = Target("plain.", "plain DAX", POINT, SHARED, "an XFS DAX file, plain")
CACHED = Target("cached.", "page cache", DISK, SHARED, "an XFS file on virtio-blk, page cache")
SYNCED = Target(
    "sync.", "MAP_SYNC", SYNC, 0x03 | MAP_SYNC, "an XFS DAX file with MAP_SYNC on memmap= memory"
)
TARGETS = (DIRECT, PLAIN, CACHED, SYNCED)


def _map_unmap(target: Target) -> Made:
    @contextlib.contextmanager
    def bench(_context: Context, _rounds: int) -> Iterator[Bench]:
        target.need()
        with written("map_unmap", 16 * PAGE, target.point) as fd:
            both, flags = READ | WRITE, target.flags

            def run() -> None:
                for _ in range(_PAIRS):
                    Map(fd, 16 * PAGE, both, flags).close()

            yield Bench(run, _PAIRS)

    return bench


def _each_part(
    target: Target,
    name: str,
    parts: Callable[[int], int],
    work: Callable[[Context, memoryview], Callable[[], object]],
    units: int,
) -> Made:
    def bench(context: Context, rounds: int) -> AbstractContextManager[Bench]:
        target.need()
        return each_part(
            name,
            parts(rounds),
            lambda view: work(context, view),
            units,
            target.point,
            target.flags,
        )

    return bench


def _first_touch(target: Target) -> Made:
    marks = bytes([1]) * _PAGES

    def work(_context: Context, view: memoryview) -> Callable[[], object]:
        return lambda: view.__setitem__(slice(None, None, PAGE), marks)

    return _each_part(target, "first_touch", lambda rounds: rounds, work, _PAGES)


def _second_touch(target: Target) -> Made:
    marks, stride = bytes([1]) * _PAGES, slice(None, None, PAGE)

    def work(_context: Context, view: memoryview) -> Callable[[], object]:
        view[stride] = marks
        return lambda: deque(map(view.__setitem__, repeat(stride, _TURNS), repeat(marks)), maxlen=0)

    return _each_part(target, "second_touch", lambda _: 1, work, _PAGES * _TURNS)


def _sequential(target: Target) -> Made:
    into, everything = memoryview(bytearray(PART)), slice(None)

    def work(_context: Context, view: memoryview) -> Callable[[], object]:
        return lambda: into.__setitem__(everything, view)

    return _each_part(target, "sequential", lambda _: 1, work, _PAGES)


def _random(target: Target) -> Made:
    into, everything = memoryview(bytearray(PAGE)), slice(None)

    def work(context: Context, view: memoryview) -> Callable[[], object]:
        pages = [view[at : at + PAGE] for at in range(0, PART, PAGE)]
        context.random.shuffle(pages)
        return lambda: deque(map(into.__setitem__, repeat(everything), pages), maxlen=0)

    return _each_part(target, "random", lambda _: 1, work, _PAGES)


def _msync(target: Target, *, dirty: bool) -> Made:
    """msync(2) of 16 MiB, all of it stored to or none."""

    @contextlib.contextmanager
    def bench(_context: Context, _rounds: int) -> Iterator[Bench]:
        target.need()
        with (
            written("msync", _FLUSHED, target.point) as fd,
            Map(fd, _FLUSHED, READ | WRITE, target.flags) as map_,
        ):
            marks, stride = bytes([1]) * (_FLUSHED // PAGE), slice(None, None, PAGE)
            map_.view[stride] = marks
            map_.msync()

            def before() -> None:
                if dirty:
                    map_.view[stride] = marks

            yield Bench(map_.msync, _FLUSHED // PAGE, before)

    return bench


def _calls(target: Target, *, write: bool) -> Made:
    """The same bytes by pread(2) or pwrite(2), a page a call."""

    @contextlib.contextmanager
    def bench(_context: Context, _rounds: int) -> Iterator[Bench]:
        target.need()
        with written("calls", PART, target.point) as fd:
            data, places = bytes(PAGE), range(0, PART, PAGE)

            def reads() -> None:
                for at in places:
                    os.pread(fd, PAGE, at)

            def writes() -> None:
                for at in places:
                    os.pwrite(fd, data, at)

            yield Bench(writes if write else reads, _PAGES)

    return bench


def _metrics(target: Target) -> tuple[Metric, ...]:
    def metric(
        name: str, unit: str, operation: str, bench: Made, sentence: str, **more: object
    ) -> Metric:
        return Metric(
            f"D.{target.name}{name}",
            f"{sentence}: {target.about}",
            unit,
            bench,
            primary=not target.subject and name in ("map_unmap", "first_touch"),
            margin=_LOOSE,
            operation=operation,
            subject=target.subject,
            **more,  # type: ignore[arg-type]
        )

    wall = ("wall",)
    ticks = {"statistic": _TICKS}
    # Not of map_unmap: one window of many takes 2 % less, and only some boots have one.
    return (
        metric("map_unmap", "pair", "mmap and munmap", _map_unmap(target),
               "mmap and munmap of 64 KiB that nobody touches"),
        metric("first_touch", "page", "first touch", _first_touch(target),
               "First store to a page whose block is written", **ticks),
        metric("second_touch", "page", "second touch", _second_touch(target),
               "Store to a page that is mapped"),
        metric("sequential", "page", "read in order", _sequential(target),
               "Copy 2 MiB in order out of a new map", **ticks),
        metric("random", "page", "read at random", _random(target),
               "Copy 512 pages in random order out of a new map", **ticks),
        metric("msync", "page", "store and msync", _msync(target, dirty=True),
               "msync of 16 MiB of which every page was stored to", clocks=wall),
        metric("msync_clean", "page", "msync of nothing", _msync(target, dirty=False),
               "msync of 16 MiB that nobody stored to", clocks=wall),
    )  # fmt: skip


def _by_calls(target: Target) -> tuple[Metric, ...]:
    about = f"of a page: {target.about}"
    return tuple(
        Metric(
            f"D.{target.name}{name}",
            f"{name}(2) {about}",
            "page",
            _calls(target, write=name == "pwrite"),
            margin=_LOOSE,
            operation=name,
            subject=target.subject,
            statistic=_TICKS,
        )
        for name in ("pread", "pwrite")
    )


METRICS = (
    *(metric for target in TARGETS for metric in _metrics(target)),
    *(metric for target in (PLAIN, CACHED) for metric in _by_calls(target)),
)

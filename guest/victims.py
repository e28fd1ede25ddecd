# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes that map a file which its parent serves, and that may be killed at any time."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable
from random import Random

from guest import libc
from guest.libc import PAGE, READ, SHARED, WRITE, Map

MREMAP_MAYMOVE = 1
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mremap.restype = ctypes.c_void_p
_libc.mremap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.pread.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long)
_libc.pread.restype = ctypes.c_ssize_t
_libc.pwrite.argtypes = _libc.pread.argtypes
_libc.pwrite.restype = ctypes.c_ssize_t


class Victim:
    """``work`` in a forked process without the descriptors ``closing``, on one CPU if told."""

    def __init__(
        self, work: Callable[[], object], closing: Iterable[int] = (), cpu: int | None = None
    ) -> None:
        self._report, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self._run(work, closing, cpu, writing)
        os.close(writing)
        self._process = os.pidfd_open(self.pid)
        self.status: int | None = None

    def _run(
        self, work: Callable[[], object], closing: Iterable[int], cpu: int | None, writing: int
    ) -> None:
        try:
            libc.die_with_parent(signal.SIGKILL)
            for fd in (self._report, *closing):
                os.close(fd)
            pin(cpu)
            work()
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.write(writing, f"{type(error).__name__}: {error}".encode()[:2000])
            os._exit(1)
        os._exit(0)

    def ended(self, seconds: float = 0.0) -> bool:
        """Whether it is gone, or goes within ``seconds``."""
        if self.status is None:
            poll = select.poll()
            poll.register(self._process, select.POLLIN)
            if poll.poll(seconds * 1000):
                self.status = os.waitpid(self.pid, 0)[1]
        return self.status is not None

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)

    def said(self) -> str:
        """What it raised; only once it has ended."""
        os.set_blocking(self._report, False)
        with contextlib.suppress(BlockingIOError):
            return os.read(self._report, 4000).decode("utf-8", "replace")
        return ""

    def close(self) -> None:
        if self._process < 0:
            return
        self.kill()
        self.ended(5.0)
        os.close(self._process)
        os.close(self._report)
        self._process = -1


def pin(cpu: int | None) -> None:
    """Keeps this process on one CPU; None, and a CPU that is not there, change nothing."""
    there = sorted(os.sched_getaffinity(0))
    if cpu is not None and len(there) > 1:
        os.sched_setaffinity(0, {there[cpu % len(there)]})


def spin(seconds: float) -> None:
    """Waits without giving up the CPU: a sleep would be as long as a timer tick."""
    limit = time.perf_counter() + seconds
    while time.perf_counter() < limit:
        pass


# ---------------------------------------------------------------- memory that may fault


def store(map_: Map, offset: int, length: int, source: int) -> bool:
    """Fills a part of the mapping from ``source`` (/dev/zero); False where there is no page.

    The kernel does the stores, so a page that is not there is EFAULT and no signal.
    """
    return bool(_libc.pread(source, map_.address + offset, length, 0) == length)


def load(map_: Map, offset: int, length: int, sink: int) -> bool:
    """Writes a part of the mapping into ``sink`` (a file on tmpfs); False where there is none."""
    return bool(_libc.pwrite(sink, map_.address + offset, length, 0) == length)


def remap(map_: Map, length: int) -> bool:
    """mremap to ``length`` bytes, moving if need be; the view is void afterwards."""
    found = _libc.mremap(map_.address, map_.length, length, MREMAP_MAYMOVE)
    if found is None or found == ctypes.c_void_p(-1).value:
        return False
    map_.address, map_.length = found, length
    return True


def unmap_page(map_: Map, offset: int) -> list[Map]:
    """Unmaps one page and gives what is left, so that nobody unmaps the hole once more."""
    _libc.munmap(map_.address + offset, PAGE)
    rest = ((0, offset), (offset + PAGE, map_.length - offset - PAGE))
    return [_piece(map_, start, length) for start, length in rest if length > 0]


def _piece(map_: Map, offset: int, length: int) -> Map:
    piece = Map.__new__(Map)
    piece.address, piece.length = map_.address + offset, length
    return piece


# ---------------------------------------------------------------- what clients do


def once(path: str, pages: int = 2, *, linger: bool = False) -> None:
    """open, map, store, load, munmap. ``linger``: stays mapped until it is killed."""
    fd = os.open(path, os.O_RDWR)
    map_ = Map(fd, pages * PAGE)
    map_.view[0] = 1
    map_.view[len(map_.view) - 1] = 2
    while linger:
        map_.view[0] = map_.view[0] ^ 3
    map_.close()
    os.close(fd)


def cycles(path: str, count: int) -> None:
    """The same ``count`` times through one descriptor, one page touched."""
    fd = os.open(path, os.O_RDWR)
    for _ in range(count):
        map_ = Map(fd, PAGE)
        map_.view[0] = 1
        map_.close()
    os.close(fd)


class Wild:
    """A client that does everything, in an order that its seed decides.

    What it is refused is no failure: a hostile server refuses at will.
    """

    def __init__(self, path: str, random: Random, scratch: str) -> None:
        self.random = random
        self.file = os.open(path, os.O_RDWR)
        self.zero = os.open("/dev/zero", os.O_RDONLY)
        self.sink = os.open(scratch, os.O_RDWR | os.O_TMPFILE, 0o600)
        self.maps: list[Map] = []
        self.children: list[int] = []
        self.actions = (
            *(self.map,) * 12, *(self.touch,) * 5, *(self.unmap,) * 7, self.part, self.part,
            self.remap, self.remap, self.fork, self.protect, self.transfer, self.sync,
        )  # fmt: skip

    def run(self, seconds: float) -> None:
        """Acts for so long, then lets go of everything."""
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            with contextlib.suppress(OSError):
                self.random.choice(self.actions)()
        while self.maps:
            self.unmap()
        self.reap(block=True)
        os.close(self.file)

    def pick(self) -> Map:
        if not self.maps:
            raise OSError(errno.EAGAIN, "nothing is mapped")
        return self.random.choice(self.maps)

    def map(self) -> None:
        if len(self.maps) > 6:
            self.unmap()
        prot = self.random.choice((READ | WRITE, READ | WRITE, READ))
        flags = self.random.choice((SHARED, SHARED, SHARED, libc.PRIVATE))
        pages, offset = self.random.randrange(1, 5), self.random.choice((0, 0, 1, 2))
        self.maps.append(Map(self.file, pages * PAGE, prot, flags, offset * PAGE))

    def touch(self) -> None:
        map_ = self.pick()
        offset = self.random.randrange(map_.length)
        length = min(self.random.randrange(1, PAGE), map_.length - offset)
        work = self.random.choice(((store, self.zero), (load, self.sink)))
        work[0](map_, offset, length, work[1])

    def unmap(self) -> None:
        if self.maps:
            self.maps.pop(self.random.randrange(len(self.maps))).close()

    def part(self) -> None:
        map_ = self.pick()
        self.maps.remove(map_)
        self.maps += unmap_page(map_, self.random.randrange(0, map_.length, PAGE))

    def remap(self) -> None:
        remap(self.pick(), self.random.randrange(1, 6) * PAGE)

    def protect(self) -> None:
        self.pick().mprotect(self.random.choice((READ, READ | WRITE, 0, READ | WRITE)))

    def fork(self) -> None:
        self.reap(block=len(self.children) > 2)
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                libc.die_with_parent(signal.SIGKILL)
                self.children = []
                for _ in range(self.random.randrange(1, 4)):
                    self.touch()
                    self.unmap()
            os._exit(0)
        self.children.append(pid)

    def transfer(self) -> None:
        """read(2) or write(2) of the FUSE file, from or to a mapping of it."""
        map_ = self.pick()
        self.random.choice((store, load))(map_, 0, min(map_.length, 2 * PAGE), self.file)

    def sync(self) -> None:
        self.pick().msync()
        os.fsync(self.file)

    def reap(self, *, block: bool) -> None:
        for pid in list(self.children):
            if os.waitpid(pid, 0 if block else os.WNOHANG)[0]:
                self.children.remove(pid)


def wild(path: str, seed: str, seconds: float, scratch: str) -> None:
    sys.setswitchinterval(1)
    Wild(path, Random(seed), scratch).run(seconds)

# SPDX-License-Identifier: GPL-2.0-or-later
"""MAP_DIRECT: the order of locks, and the blocks of a file that everybody tries to move."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import threading
import time
from pathlib import Path

from guest.checking import need, stacks
from guest.features.map_direct_rig import (
    POSTED,
    SIZE,
    V6,
    V9,
    held,
    map_direct,
    mover,
    need_dialect,
    need_mount,
    new_file,
    planted,
    remounted,
)
from guest.libc import PRIVATE, READ, SHARED, WRITE, Map
from guest.victims import Victim, pin
from guest.words import Check, CheckError, Context

_SECONDS = 5.0
_libc = ctypes.CDLL(None, use_errno=True)
_libc.pwrite.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_MADV_DONTNEED = 4
_SHOWN = 4 << 20  # bytes
_LOCKDEP = Path("/proc/lockdep_stats")


def _reports() -> list[str]:
    """What lockdep has said since the boot: it speaks once, and any earlier check may meet it."""
    found = []
    log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while record := os.read(log, 8192):
            text = record.decode("utf-8", "replace").partition(";")[2].splitlines()[0]
            if "possible circular locking" in text or "possible recursive" in text:
                found.append(text)
    os.close(log)
    return found


def lock_order(_context: Context) -> str:
    """One thread writes to the file from a map of it, the other maps and unmaps it.

    Where lockdep is, it is shown the order of a write first: with that one mmap(2) is enough for
    it to report the other order, before anything hangs.
    """
    need_dialect()
    if _LOCKDEP.exists():
        _show_a_write()
        with held("reported"):
            pass
        need(not (reports := _reports()), f"lockdep: {reports}")
    with new_file("order") as (_, fd):
        victim = Victim(lambda: _race(fd))
        try:
            if not victim.ended(_SECONDS * 4):
                where = stacks(victim.pid)
                raise CheckError(f"write(2) from a map and mmap(2) wait for each other\n{where}")
            need(victim.status == 0, f"the race ended with {victim.said()}")
        finally:
            victim.close()
    reports = _reports()
    need(not reports, f"lockdep: {reports}")
    return f"{_SECONDS:.0f} s, nothing hangs and lockdep says nothing"


def _show_a_write() -> None:
    """A write(2) that waits for mmap_lock, with the IOLOCK of an XFS file held.

    A DAX write faults in an SRCU section. Lockdep puts what is taken there behind SRCU and not
    behind the IOLOCK, and behind SRCU's recursive read lock one for reading closes no cycle
    (kernel/locking/lockdep.c, check_prevs_add; lockdep-design.rst, strong dependencies). A write
    to the page cache of the same filesystem type has the IOLOCK alone. Faults try mmap_lock
    first, which tells lockdep nothing: so another thread has it often and long, by fork(2).
    """
    with remounted("dax=never"), new_file("shown", _SHOWN) as (_, fd):
        victim = Victim(lambda: _fault_in_writes(fd))
        try:
            need(victim.ended(_SECONDS * 4), "writes beside fork(2) do not end")
            need(victim.status == 0, f"writes beside fork(2) ended with {victim.said()}")
        finally:
            victim.close()


def _fault_in_writes(fd: int) -> None:
    stop = time.monotonic() + _SECONDS / 2

    def fork() -> None:
        while time.monotonic() < stop:
            if not (child := os.fork()):
                os._exit(0)
            os.waitpid(child, 0)

    other = threading.Thread(target=fork)
    other.start()
    source = Map(-1, _SHOWN, READ | WRITE, PRIVATE | mmap.MAP_ANONYMOUS)
    while time.monotonic() < stop:
        _libc.madvise(source.address, _SHOWN, _MADV_DONTNEED)
        _libc.pwrite(fd, source.address, _SHOWN, 0)
    other.join()


def _race(fd: int) -> None:
    stop = time.monotonic() + _SECONDS

    def write() -> None:
        pin(0)
        with Map(fd, SIZE, READ | WRITE, SHARED) as source:
            while time.monotonic() < stop:
                _libc.madvise(source.address, SIZE, _MADV_DONTNEED)
                _libc.pwrite(fd, source.address, SIZE // 2, SIZE // 2)

    def remap() -> None:
        pin(1)
        while time.monotonic() < stop:
            with contextlib.suppress(OSError):
                map_direct(fd).close()

    threads = [threading.Thread(target=one) for one in (write, remap)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()


def nothing_moves(context: Context) -> str:
    """Other processes try all that moves blocks; the holder compares where they are."""
    need_mount()
    with held("stress") as one, new_file("mover") as (other_path, _):
        seeds = [context.random.randrange(1 << 32) for _ in range(3)]
        with contextlib.ExitStack() as stack:
            movers = [stack.enter_context(mover(one.path, other_path, seed)) for seed in seeds]
            looks, limit = 0, time.monotonic() + _SECONDS
            while time.monotonic() < limit:
                one.unmoved(f"look {looks}")
                looks += 1
            for moving in movers:
                need(not moving.ended(), f"a mover: {moving.said()}")
        # Movers that waited for a lease were killed before it was returned.
        one.unmoved("after the stress")
    return f"{looks} looks in {_SECONDS:.0f} s, no extent moved"


CHECKS = (
    Check("D23", "write(2) from a map of its file and mmap(2) take their locks in one order",
          "Linux mm/filemap.c, the order of locks", "no report of lockdep, no hang", lock_order,
          red=f"{POSTED}; {POSTED} + config:debug", green=V6),
    Check("D24", "The extents are the same before, during and after others try to move them",
          "mmap(2) of the posting of 2017-08-23", "the same extents at every look", nothing_moves,
          red="; ".join((planted("unsealed"), planted("unleased", V9))), green=V6),
)  # fmt: skip

# SPDX-License-Identifier: GPL-2.0-or-later
"""MAP_DIRECT with layout leases: who is told, who waits, and what happens to the deaf."""

from __future__ import annotations

import errno
import os
import signal
import time

from guest import blocks, libc
from guest.checking import error_of, fate, need
from guest.features.map_direct_rig import (
    MODES,
    SIZE,
    V9,
    VALIDATE,
    break_time,
    held,
    map_direct,
    need_lease,
    new_file,
    planted,
)
from guest.libc import PAGE, READ, SHARED, WRITE, Map
from guest.victims import Victim, pin
from guest.words import Check, Context

_SOURCE = "v9 of 2017-10-11, its cover letter; fcntl(2), leases"
_TIME = 2  # seconds, as lease-break-time
_TRIES = 20


def told(_context: Context) -> str:
    need_lease()
    with held("told") as one:
        seen = [one.keeps("truncate", lambda: os.truncate(one.path, PAGE))]
    with held("own") as one:
        # The caller stands in its own way: the handler lets go, and the call goes on.
        before = signal.signal(signal.SIGIO, lambda *_: one.let_go())
        try:
            started = time.monotonic()
            os.ftruncate(one.fd, PAGE)
            took = time.monotonic() - started
        finally:
            signal.signal(signal.SIGIO, before)
        need(took < _TIME, f"a truncate by the holder itself took {took:.1f} s")
    seen.append("the holder's own truncate goes on when its handler has let go")
    seen.append(_own_dedupe())
    return ", ".join(seen)


def _own_dedupe() -> str:
    """It cannot be restarted, so it says that it was interrupted."""
    with held("own-dedupe") as one, new_file("other") as (_, other):
        before = signal.signal(signal.SIGIO, lambda *_: one.let_go())
        try:
            gave = error_of(lambda: blocks.dedupe(one.fd, other, SIZE))
            need(gave == errno.EINTR, f"a dedupe by the holder itself gave {libc.name_of(gave)}")
            gave = error_of(lambda: blocks.dedupe(one.fd, other, SIZE))
            need(gave == 0, f"a dedupe after it has let go gave {libc.name_of(gave)}")
        finally:
            signal.signal(signal.SIGIO, before)
    return "its dedupe is EINTR once"


def waits(_context: Context) -> str:
    need_lease()
    with held("waits") as one:
        victim = Victim(lambda: _truncate_alone(one.map, one.fd))
        try:
            need(not victim.ended(0.5), "truncate did not wait")
            one.unmoved("truncate is waiting")
            again = libc.mmap_errno(one.fd, SIZE, READ | WRITE, VALIDATE)
            need(again == errno.EAGAIN, f"another MAP_DIRECT gave {libc.name_of(again)}")
            victim.kill()
            need(victim.ended(2.0), "SIGKILL does not end the wait")
        finally:
            victim.close()
    return "waits, EAGAIN for another MAP_DIRECT, SIGKILL ends it"


def _truncate_alone(map_: Map | None, fd: int) -> None:
    if map_:
        map_.close()
    os.ftruncate(fd, PAGE)


def expires(_context: Context) -> str:
    need_lease()
    with break_time(_TIME), held("deaf") as one:
        map_ = one.map
        need(map_ is not None, "not mapped")
        assert map_ is not None
        map_.view[0] = 1
        started = time.monotonic()
        victim = Victim(lambda: _punch_alone(map_, one.fd))
        try:
            need(victim.ended(_TIME * 3), "fallocate waits longer than lease-break-time")
            need(victim.status == 0, f"fallocate, after the time: {victim.said()}")
        finally:
            victim.close()
        took = time.monotonic() - started
        need(took > _TIME / 2, f"fallocate did not wait: {took:.1f} s")
        seen = fate(lambda: map_.view[8 * PAGE])
        need(seen == "SIGBUS", f"a load from the dead mapping: {seen}")
        one.let_go()
        again = libc.mmap_errno(one.fd, PAGE, READ | WRITE, VALIDATE)
        need(again == 0, f"mapping it anew gave {libc.name_of(again)}")
    return f"fallocate went on after {took:.1f} s, the mapping is dead, a new one works"


def _punch_alone(map_: Map, fd: int) -> None:
    map_.close()
    blocks.fallocate(fd, MODES["punch"], 4 * PAGE, PAGE)


def faults_tell(_context: Context) -> str:
    need_lease()
    with held("faults") as one:
        one.let_go()
        blocks.fallocate(one.fd, MODES["punch"], 4 * PAGE, PAGE)
        with Map(one.fd, SIZE, READ | WRITE, VALIDATE) as direct:
            seen = fate(lambda: direct.view.__setitem__(4 * PAGE, 1))
            need(seen == "SIGBUS", f"the holder's store to a hole: {seen}")
            need(one.signals == 0, "the holder's own store has broken its lease")
            with Map(one.fd, SIZE, READ | WRITE, SHARED) as plain:
                seen = fate(lambda: plain.view.__setitem__(4 * PAGE, 1))
            need(seen == "SIGBUS", f"another's store to a hole: {seen}")
            need(one.signals > 0, "the holder was not told of a store to a hole")
    return "SIGBUS for both; the holder is told of the other's only"


def again(_context: Context) -> str:
    """The holder maps the file anew before anybody else on its CPU can run."""
    need_lease()
    cpus = os.sched_getaffinity(0)
    with held("again") as one:
        gave: list[int] = []

        def map_again(*_: object) -> None:
            one.let_go()
            if len(gave) == _TRIES:
                return
            try:
                one.map = map_direct(one.fd)
                gave.append(0)
            except OSError as error:
                gave.append(error.errno or errno.EIO)

        before = signal.signal(signal.SIGIO, map_again)
        victim = Victim(lambda: _truncate_alone(one.map, one.fd), cpu=0)
        try:
            pin(0)
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
            need(victim.ended(_TIME * 3), "truncate still waits")
            need(victim.status == 0, f"truncate: {victim.said()}")
        finally:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
            os.sched_setaffinity(0, cpus)
            signal.signal(signal.SIGIO, before)
            victim.close()
        need(gave == [errno.EAGAIN], f"mapping it again gave {[libc.name_of(one) for one in gave]}")
        after = libc.mmap_errno(one.fd, PAGE, READ | WRITE, VALIDATE)
        need(after == 0, f"mapping it when that is done gave {libc.name_of(after)}")
    return "EAGAIN until the truncate is done"


def busy(_context: Context) -> str:
    """Who waits for a page that a device has does not have to wait for a new holder, too."""
    need_lease()
    with held("busy") as one, Map(one.fd, PAGE, READ | WRITE, SHARED) as plain:
        before = signal.signal(signal.SIGIO, lambda *_: one.let_go())
        with libc.busy_page(plain):
            victim = Victim(lambda: _truncate_alone(one.map, one.fd))
            try:
                need(not victim.ended(0.5), f"truncate does not wait: {victim.said()}")
                need(one.map is None, "truncate waits, and the holder was not told")
                gave = libc.mmap_errno(one.fd, SIZE, READ | WRITE, VALIDATE)
            except BaseException:
                victim.close()
                raise
        try:
            need(victim.ended(_TIME * 3), "truncate still waits, and no page is busy")
            need(victim.status == 0, f"truncate: {victim.said()}")
        finally:
            signal.signal(signal.SIGIO, before)
            victim.close()
        need(gave == errno.EAGAIN, f"MAP_DIRECT, while a page is busy, gave {libc.name_of(gave)}")
    return "EAGAIN until the page is given back and the truncate is done"


CHECKS = (
    Check("D26", "The holder is told before the block map changes", _SOURCE,
          "SIGIO, then it changes", told,
          red=planted("untold", V9), green=V9),
    Check("D27", "The change waits for the holder, and can be killed", _SOURCE,
          "it waits; EAGAIN for a new mapping", waits,
          red=planted("unkillable", V9), green=V9),
    Check("D28", "A holder that does not react loses the mapping after lease-break-time", _SOURCE,
          "the change goes on, accesses get SIGBUS", expires,
          red=planted("undead", V9), green=V9),
    Check("D29", "A store that needs a block starts to break the lease", _SOURCE,
          "SIGBUS; the holder is told, but not of its own", faults_tell,
          red=planted("silent-faults", V9), green=V9),
    Check("D33", "A holder who maps again at once does not hold up who waits",
          "Linux fs/locks.c, __break_lease; ledger bounded-wait", "EAGAIN until the change is done",
          again,
          red=planted("greedy", V9), green=V9),
    Check("D34", "Nor does one who maps it while a page is busy",
          "Linux fs/xfs, xfs_break_layouts; ledger bounded-wait", "EAGAIN until the change is done",
          busy,
          red=planted("half-counted", V9), green=V9),
)  # fmt: skip

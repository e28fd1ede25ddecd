# SPDX-License-Identifier: GPL-2.0-or-later
"""Shared writable maps of FUSE files: dead servers, aborts, forks, modes, times."""

from __future__ import annotations

import errno
import os
import time

from guest import fuse
from guest.checking import fate, let_go, need, opened, story
from guest.features import fuse_writable_mmap_times as times
from guest.features.fuse_writable_mmap_rig import (
    NAME,
    SOON,
    file_of,
    hold,
    mapped_file,
    meminfo,
    other,
    soon,
)
from guest.fuse import protocol as p
from guest.fuse.protocol import Op
from guest.fuse.server import Options
from guest.libc import PAGE, PRIVATE, READ, SHARED, WRITE, Map, mmap_errno, name_of
from guest.words import Check, CheckError, Context

_GONE = (errno.EIO, errno.ENOTCONN, errno.ECONNABORTED)


def server_dead(context: Context) -> str:
    with mapped_file(context, bytes(3 * PAGE)) as (fs, fd, map_):
        map_.view[0] = map_.view[PAGE] = 1
        hold(fs, fd)
        map_.view[2 * PAGE] = 1
        with other(msync=map_.msync) as one:
            one.start("msync")
            need(one.waits(), "msync returned while a WRITE was unanswered")
            fs.kill()
            met = soon(one, "msync, when the server had died,")
        later = map_.msync()
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        with Map(fd, 3 * PAGE) as fresh:
            fresh.view[0] = 2  # what is in the cache stays usable
            again = fresh.msync()
    seen = f"msync: {name_of(met)} to who waited, {name_of(later)} and {name_of(again)} later"
    need(met in _GONE and again in _GONE, seen)
    with file_of(context, bytes(PAGE)) as (fs, fd):
        times.probe(fd)
        with Map(fd, PAGE) as map_:
            fs.kill()
            how = fate(lambda: map_.view[0])
    need(how == "SIGBUS", f"{seen}; a load that needs the dead server: {how}")
    return f"{seen}; a load that needs the server: SIGBUS"


def aborted(context: Context) -> str:
    idle = _under_writeback()
    with mapped_file(context, bytes(4 * PAGE)) as (fs, fd, map_), Map(fd, PAGE) as second:
        map_.view[0] = map_.view[PAGE] = 1
        hold(fs, fd)
        fs.withhold(Op.READ)

        def store() -> None:
            second.view[0] = 2

        with (
            other(msync=map_.msync) as syncing,
            other(store=store) as storing,
            other(truncate=lambda: os.ftruncate(fd, PAGE)) as cutting,
            other(read=lambda: len(os.pread(fd, PAGE, 3 * PAGE))) as reading,
        ):
            parties = {
                "msync": syncing,
                "store": storing,
                "truncate": cutting,
                "read": reading,
            }
            os.posix_fadvise(fd, 2 * PAGE, 0, os.POSIX_FADV_DONTNEED)
            for what, one in parties.items():
                one.start(what)
            for what, one in parties.items():
                need(one.waits(), f"{what} did not wait: {story(fs.log())}")
            need(fs.abort(), "the connection has no file named abort")
            ended = {what: soon(one, f"{what}, after the abort,") for what, one in parties.items()}
        left = _settled(idle)
    need(left == idle, f"pages under writeback before {idle} kB, after the abort {left} kB")
    told = ", ".join(f"{what} {_result(got)}" for what, got in ended.items())
    need(ended["msync"] in _GONE, told)
    return f"{told}; nothing is left under writeback"


def _under_writeback() -> int:
    found = meminfo()
    return found["Writeback"] + found["WritebackTmp"]


def _settled(wanted: int) -> int:
    """Others write too, so it may take a moment."""
    end = time.monotonic() + SOON
    while (found := _under_writeback()) != wanted and time.monotonic() < end:
        time.sleep(0.1)
    return found


def _result(got: object) -> str:
    if isinstance(got, dict):
        return name_of(got["errno"])
    return name_of(got) if isinstance(got, int) and got else "ended"


def fork_and_private(context: Context) -> str:
    with mapped_file(context, bytes(2 * PAGE)) as (fs, fd, map_):

        def in_child() -> None:
            map_.view[0] = 0xA5

        need(fate(in_child) == "no signal", "a forked child's store got a signal")
        need(map_.view[0] == 0xA5, "the parent does not see what its child stored")
        with Map(fd, 2 * PAGE, flags=PRIVATE) as private:
            private.view[0] = 0x11
            private.view[PAGE] = 0x22
            seen = (map_.view[0], map_.view[PAGE], os.pread(fd, 1, 0)[0])
            need(seen == (0xA5, 0, 0xA5), f"a store to a private map shows in the file: {seen}")
            map_.view[0] = 0x5A
            need(private.view[0] == 0x11, "a private copy changed with the file")
        need(map_.msync() == 0, "msync failed")
        got = fs.data(NAME)[::PAGE]
        need(got == b"\x5a\0", f"the server's pages begin with {got.hex(' ')}")
    return "a child's store is the parent's; a private map's stays its own, also at the server"


_ALLOWING = Options(flags=p.DEFAULT_FLAGS | p.DIRECT_IO_ALLOW_MMAP)


def direct_io(context: Context) -> str:
    with file_of(context, bytes(PAGE)) as (_, fd):
        times.probe(fd)
    plain = _direct(context, Options())
    allowed = _direct(context, _ALLOWING)
    need(plain == (errno.ENODEV, 0), f"without the flag shared, private: {_names(plain)}")
    need(allowed == (0, 0), f"with it shared, private: {_names(allowed)}")
    return f"FOPEN_DIRECT_IO: shared, private {_names(plain)}; with ALLOW_MMAP {_names(allowed)}"


def _direct(context: Context, options: Options) -> tuple[int, int]:
    flags = {NAME: p.FOPEN_DIRECT_IO}
    with (
        fuse.mounted({NAME: bytes(PAGE)}, context.scratch, options, flags) as fs,
        opened(fs.path / NAME, os.O_RDWR) as fd,
        let_go(fs),
    ):
        missing = options.flags & ~(fs.facts["agreed"])
        need(not missing, f"the kernel does not offer {missing:#x}")
        shared = mmap_errno(fd, PAGE, READ | WRITE, SHARED)
        private = mmap_errno(fd, PAGE, READ | WRITE, PRIVATE)
        if not shared:
            with Map(fd, PAGE) as map_:
                map_.view[0] = 9
                need(map_.msync() == 0, "msync failed")
                need(os.pread(fd, 1, 0) == b"\t", "read(2) does not see what was stored")
        return shared, private


def _names(found: tuple[int, int]) -> str:
    return ", ".join(map(name_of, found))


_CACHING = Options(flags=p.DEFAULT_FLAGS | p.WRITEBACK_CACHE)


def mtime_moves(context: Context) -> str:
    told = []
    for what, options in (("write-through", Options()), ("FUSE_WRITEBACK_CACHE", _CACHING)):
        with mapped_file(context, bytes(PAGE), options) as (fs, fd, map_):
            # A READ makes the access time stale: it comes before, so that fstat asks for no more.
            need(map_.view[0] == 0, "the page is not the file's")
            first = os.fstat(fd).st_mtime_ns
            fs.log(clear=True)
            time.sleep(0.05)
            map_.view[0] = 1
            need(map_.msync() == 0, "msync failed")
            second = os.fstat(fd).st_mtime_ns
            log = fs.log()
        if second <= first:
            raise CheckError(f"{what}: mtime {first}, after a store and msync {second}")
        told.append(f"{what}: {(second - first) / 1e6:.0f} ms later, {story(log)}")
    return "; ".join(told)


CHECKS = (
    Check(
        "B13",
        "When the server has died, msync fails, loads of what is not cached give SIGBUS",
        "Linux 6.12: fs/fuse/file.c; mmap(2), SIGBUS",
        f"a waiting msync fails within {SOON:.0f} s; msync EIO or ENOTCONN; a load SIGBUS",
        server_dead,
        red="planted-fuse-writable-mmap@v2 fuse.plant=dead-zeros",
    ),
    Check(
        "B14",
        "An abort through /sys/fs/fuse/connections frees everybody who waits",
        "Linux Documentation/filesystems/fuse.rst, aborting a filesystem connection",
        f"msync, a second store, ftruncate and read(2) end within {SOON:.0f} s; "
        "no page stays under writeback",
        aborted,
        red="planted-fuse-writable-mmap@v2 fuse.plant=abort-leaks",
    ),
    Check(
        "B15",
        "A fork shares the map; stores to a private map stay private",
        "mmap(2), MAP_SHARED and MAP_PRIVATE; fork(2)",
        "a child's store is seen by the parent; a private store by nobody else",
        fork_and_private,
        red="planted-fuse-writable-mmap@v2 fuse.plant=not-copied",
    ),
    Check(
        "B18",
        "A FOPEN_DIRECT_IO file is mapped shared only with FUSE_DIRECT_IO_ALLOW_MMAP",
        "Linux Documentation/filesystems/fuse-io.rst; include/uapi/linux/fuse.h",
        "shared ENODEV and private works; with the flag both work",
        direct_io,
        red="planted-fuse-writable-mmap@v2 fuse.plant=direct-any",
    ),
    Check(
        "B22",
        "A store and msync move the file's mtime",
        "POSIX.1-2024, mmap: the last data modification timestamp is marked for update",
        "mtime after msync is later, with and without FUSE_WRITEBACK_CACHE",
        mtime_moves,
        red="planted-fuse-writable-mmap@v2 fuse.plant=old-mtime",
    ),
)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Direct mmap: what must not leak, regions with ids, and a server that splices."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

from guest.checking import fate, need
from guest.features.fuse_direct_mmap_rig import (
    V1,
    V2,
    V3,
    both,
    expect,
    fence,
    need_ids,
    need_none_left,
    newest,
    one_end_each,
    serving,
)
from guest.fuse import direct
from guest.fuse import protocol as p
from guest.fuse.direct import Target
from guest.fuse.protocol import Notify, Op
from guest.fuse.server import Options
from guest.libc import PAGE, READ, SHARED, Map, mmap_errno, name_of
from guest.words import Check, Context

CYCLES = 1000
_CUSE_PAGES = 32  # FUSE_DEFAULT_MAX_PAGES_PER_REQ: CUSE_INIT has no max_pages


# ---------------------------------------------------------------- leaks


@dataclass(frozen=True, slots=True)
class Left:
    """What could be left behind; counts of the whole machine are only near."""

    fds: int
    files: int
    inodes: int
    shmem: int  # kB
    waiting: int

    @classmethod
    def now(cls, target: Target) -> Left:
        used, free = Path("/proc/sys/fs/inode-nr").read_text().split()
        return cls(
            len(target.service.fds()),
            int(Path("/proc/sys/fs/file-nr").read_text().split()[0]),
            int(used) - int(free),
            _shmem(),
            target.service.waiting(),
        )


def _shmem() -> int:
    # The counters are kept per CPU; this folds them first.
    Path("/proc/sys/vm/stat_refresh").write_text("1")
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(one.split()[1]) for one in lines if one.startswith("Shmem:"))


@both
def nothing_leaks(_context: Context, target: Target) -> str:
    with target.open() as fd:
        for cycle in range(20):
            _cycle(target, fd, cycle)
        _settle(target, fd)
        before = Left.now(target)
        for cycle in range(CYCLES):
            _cycle(target, fd, cycle)
            if cycle % 100 == 99:
                _settle(target, fd)
        _settle(target, fd)
        after = Left.now(target)
    slack = CYCLES // 10  # a leak of one in ten cycles shows
    seen = f"before {before}, after {after}"
    need(after.fds == before.fds and after.waiting == 0, seen)
    need(after.inodes - before.inodes < slack, seen)
    # file-nr leaves out what each CPU has not folded in, up to 32 of either sign.
    need(after.files - before.files < 2 * slack, seen)
    need(after.shmem - before.shmem < slack * PAGE // 1024, seen)
    return f"{CYCLES} cycles: descriptors {after.fds}, requests waiting {after.waiting}, as before"


def _cycle(target: Target, fd: int, cycle: int) -> None:
    """Maps, touches, unmaps; every tenth is spoiled or refused on its way."""
    kind = cycle % 20
    if kind == 7 and not target.dialect.ids:
        target.service.spoil(Op.MMAP)
        need(mmap_errno(fd, PAGE, READ, SHARED) != 0, "COMMIT could not be read, mmap succeeds")
    elif kind == 17:
        target.service.answer(Op.MMAP, errno.EPERM)
        need(mmap_errno(fd, PAGE, READ, SHARED) == errno.EPERM, "refused, mmap succeeds")
        target.service.answer(Op.MMAP, 0)
    else:
        with Map(fd, PAGE) as map_:
            map_.view[0] = 1


def _settle(target: Target, fd: int) -> None:
    """Every mapping has had its end, and the log is empty."""
    fence(fd)
    one_end_each(target)
    target.service.mappings(forget=True)
    target.service.log(clear=True)


# ---------------------------------------------------------------- ids


@both
def store_and_retrieve(context: Context, target: Target) -> str:
    need_ids(target, "data crosses in the region itself, not by STORE and RETRIEVE")
    target.service.policy(target.name, size=2 * PAGE)
    with target.open() as fd, Map(fd, 4 * PAGE) as map_:
        region = newest(target).handle
        _moves(context, target, map_, region)
        _ranges(target, map_, region)
        _ids(target, fd, region)
        _long(target, fd)
    _outlives(target)
    one_end_each(target)
    return (
        "STORE is seen, RETRIEVE gives what was stored, SIGBUS past the size, EIO for another "
        "size, ENOENT for an unknown id, contents until MUNMAP is answered"
    )


def _moves(context: Context, target: Target, map_: Map, region: int) -> None:
    data = context.random.randbytes(PAGE + 100)
    need(target.service.store(region, 50, data) == 0, "STORE is refused")
    need(bytes(map_.view[50 : 50 + len(data)]) == data, "STORE is not seen by the client")
    map_.view[PAGE - 10 : PAGE + 10] = b"from the client.once"
    got = target.service.load(region, PAGE - 10, 20)
    need(got == b"from the client.once", f"RETRIEVE gave {got!r}")


def _ranges(target: Target, map_: Map, region: int) -> None:
    service = target.service
    how = fate(lambda: map_.view[2 * PAGE])
    need(how == "SIGBUS", f"a load past the region's size: {how}")
    cut = service.load(region, 2 * PAGE - 6, 100)
    need(len(cut) == 6, f"RETRIEVE across the end gave {len(cut)} bytes, 6 are there")
    got = {
        "STORE across the end": service.store(region, 2 * PAGE - 1, b"ab"),
        "STORE to an unknown id": service.store(region + 99, 0, b"a"),
        "RETRIEVE of an unknown id": service.notify(
            Notify.MAP_RETRIEVE, p.MAP_RETRIEVE_OUT.pack(1, region + 99, 0, 1, 0)
        ),
    }
    expect(got, dict(zip(got, (errno.EINVAL, errno.ENOENT, errno.ENOENT), strict=True)))


def _ids(target: Target, fd: int, region: int) -> None:
    fresh = region + 99
    replies = {
        "the same size": (region, 2 * PAGE, 0, 0),
        "another size": (region, 3 * PAGE, 0, 0),
        "size 0": (fresh, 0, 0, 0),
        "an unknown flag": (fresh, PAGE, 1 << 9, 0),
        "padding": (fresh, PAGE, 0, 1),
    }
    got = {}
    for what, fields in replies.items():
        target.service.policy(target.name, raw=p.MMAP_ID_OUT.pack(*fields).hex())
        got[what] = mmap_errno(fd, PAGE, READ, SHARED)
    target.service.policy(target.name, raw=None)
    expect(got, {what: 0 if what == "the same size" else errno.EIO for what in got})


def _long(target: Target, fd: int) -> None:
    """One RETRIEVE brings max_pages pages and max_write bytes at most."""
    limit = _CUSE_PAGES * PAGE if target.kind == direct.CUSE else Options().max_write
    target.service.policy(target.name, size=limit + PAGE)
    with Map(fd, limit + PAGE) as map_:
        map_.view[limit - 1] = 0x5A
        got = target.service.load(newest(target).handle, 0, limit + PAGE)
        need(len(got) <= limit, f"RETRIEVE gave {len(got)} bytes, {limit} are allowed")
        need(got == bytes(map_.view[: len(got)]), "a long RETRIEVE differs from the map")
    target.service.policy(target.name, size=2 * PAGE)


def _outlives(target: Target) -> None:
    service = target.service
    service.withhold(Op.MUNMAP)
    with target.open() as fd:
        with Map(fd, PAGE) as map_:
            region = newest(target).handle
            map_.view[:4] = b"last"
        fence(fd)
        got = service.load(region, 0, 4)
        need(got == b"last", f"before MUNMAP is answered RETRIEVE gave {got!r}")
        service.policy(target.name, region="given", given=region, size=2 * PAGE)
        with Map(fd, PAGE) as again:
            need(
                bytes(again.view[:4]) == b"last", "a mapping before that answer has other contents"
            )
        fence(fd)
        service.policy(target.name, region="own")
        service.release(Op.MUNMAP)
        gone = service.store(region, 0, b"a")
        need(gone == errno.ENOENT, f"STORE after MUNMAP was answered: {name_of(gone)}")


# ---------------------------------------------------------------- other servers


@serving(Options(direct=True, splice=True, max_write=1 << 16))
def splicing(_context: Context, target: Target) -> str:
    service = target.service
    before = service.fds()
    with target.open() as fd:
        with Map(fd, 2 * PAGE) as map_:
            region = newest(target).handle
            map_.view[PAGE] = 0x3C
            need(service.load(region, PAGE, 1) == b"\x3c", "the server does not see a store")
            need(service.store(region, 1, b"\x55") == 0, "the server cannot write the region")
            need(map_.view[1] == 0x55, "the client does not see the server's store")
        fence(fd)
    need_none_left(target, before)
    one_end_each(target)
    return "mmap, stores both ways and MUNMAP work, no descriptor is left"


CHECKS = (
    Check(
        "A20",
        "A thousand maps and unmaps leave nothing behind, though some fail on their way",
        "docs/fuse-direct-mmap.md: every accepted MMAP has exactly one end",
        "descriptors, waiting requests, files, inodes and shmem are as before",
        nothing_leaks,
        red=V1,
        green=V2,
        patience=5.0,
    ),
    Check(
        "A21",
        "Regions with ids: the server writes them by STORE and reads them by RETRIEVE",
        "Miklos Szeredi, in the review of 2009-06: explicit notifications to read and write",
        "both see each other's data; SIGBUS past the size; EIO for an id with another size",
        store_and_retrieve,
        red=f"{V3} + planted-fuse-direct-mmap@v3 fuse.plant=store-lost; "
        f"{V3} + planted-fuse-direct-mmap@v3 fuse.plant=any-size",
        green=V3,
    ),
    Check(
        "A22",
        "A server that reads and replies through pipes is served as well",
        "Linux Documentation/filesystems/fuse.rst; splice(2) of /dev/fuse",
        "mmap, stores both ways and MUNMAP, as with read(2) and write(2)",
        splicing,
        red=f"{V3} + planted-fuse-direct-mmap@v3 fuse.plant=no-splice",
        green=V3,
    ),
)

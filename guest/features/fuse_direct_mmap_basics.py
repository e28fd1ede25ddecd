# SPDX-License-Identifier: GPL-2.0-or-later
"""Direct mmap: what is asked and answered, and what a client sees of it."""

from __future__ import annotations

import errno
import os

from guest.checking import need, puppet, story
from guest.features.fuse_direct_mmap_rig import (
    DATA,
    TEJUN,
    V1,
    V2,
    V3,
    asked,
    both,
    ends,
    expect,
    fence,
    newest,
    quiet,
)
from guest.fuse import direct
from guest.fuse.direct import Dialect, Target
from guest.fuse.protocol import Op
from guest.libc import (
    MAP_LOCKED,
    NONE,
    PAGE,
    PRIVATE,
    READ,
    SHARED,
    WRITE,
    Map,
    mmap_errno,
    name_of,
)
from guest.words import Check, Context

BOTH_WAYS = {"MAP_SHARED": SHARED, "MAP_PRIVATE": PRIVATE}


@both
def shared(_context: Context, target: Target) -> str:
    with target.open() as fd, Map(fd, 2 * PAGE) as map_:
        fresh = bytes(map_.view)
        map_.view[5], map_.view[PAGE + 7] = 0xA5, 0x5A
        got = (map_.view[5], map_.view[PAGE + 7], map_.view[6])
    need(not any(fresh), "the new region is not zeroed")
    need(got == (0xA5, 0x5A, 0), f"stored a5 and 5a, loaded {got[0]:x}, {got[1]:x}, {got[2]:x}")
    return "mmap succeeds, the region is zeroed, stores are loaded back"


@both
def request(_context: Context, target: Target) -> str:
    with target.open() as first, target.open() as second:
        with Map(second, PAGE + 1, READ, SHARED, 2 * PAGE) as one:
            _says(target, 2, one.address, (2 * PAGE, 2 * PAGE, READ, SHARED))
        with Map(first, PAGE, READ | WRITE, PRIVATE | MAP_LOCKED) as two:
            _says(target, 1, two.address, (PAGE, 0, READ | WRITE, PRIVATE | MAP_LOCKED))
    return "node, fh, address, whole pages, byte offset, prot and flags are those of the mmap"


def _says(target: Target, opening: int, address: int, wanted: tuple[int, ...]) -> None:
    events = asked(target)[-1:] + ([] if target.dialect.ids else asked(target, Op.MMAP_COMMIT)[-1:])
    for one in events:
        got = (one.size, one.offset, one.prot, one.flags)
        need(got == wanted, f"{one.op}: len, offset, prot, flags {got}, wanted {wanted}")
        need(one.name == target.name, f"{one.op} is about node {one.node}")
        need(one.fh >> 32 == opening, f"{one.op}: fh {one.fh:#x} is not of open number {opening}")
        need(one.addr == address, f"{one.op}: addr {one.addr:#x}, mapped at {address:#x}")


@both
def errors(_context: Context, target: Target) -> str:
    with target.open() as fd:
        told = [_refused(target, fd, Op.MMAP)]
        quiet(target, Op.MMAP_COMMIT, "after an errno in the reply to MMAP")
        if not target.dialect.ids:
            told.append(_refused(target, fd, Op.MMAP_COMMIT))
        quiet(target, Op.MUNMAP, "of a mapping that was refused")
        need(mmap_errno(fd, PAGE, READ, SHARED) == 0, "mmap fails once the server says yes")
    return "; ".join(told)


def _refused(target: Target, fd: int, op: Op) -> str:
    got, wanted = {}, {}
    for error in (errno.EPERM, errno.EBUSY, errno.ENOMEM, errno.EXDEV):
        target.service.answer(op, error)
        for how, flags in BOTH_WAYS.items():
            what = f"{name_of(error)} to {op.name}, {how}:"
            got[what], wanted[what] = mmap_errno(fd, PAGE, READ, flags), error
    target.service.answer(op, 0)
    expect(got, wanted)
    return f"EPERM, EBUSY, ENOMEM and EXDEV in the reply to {op.name} are mmap's errno"


@both
def both_ways(context: Context, target: Target) -> str:
    service = target.service
    with target.open() as fd, Map(fd, 2 * PAGE, offset=PAGE) as map_:
        region = newest(target).handle
        service.log(clear=True)
        mine, theirs = context.random.randbytes(300), context.random.randbytes(300)
        map_.view[PAGE - 100 : PAGE + 200] = mine
        got = service.load(region, 2 * PAGE - 100, 300)
        need(got == mine, "the server does not see what the client stored")
        need(service.store(region, PAGE + 7, theirs) == 0, "the server cannot write the region")
        need(bytes(map_.view[7:307]) == theirs, "the client does not see what the server wrote")
        log = service.log()
    data = [one for one in log if one.request and one.op in ("READ", "WRITE", "GETATTR")]
    need(not data, f"requests meanwhile: {story(log)}")
    return "stores cross pages both ways, byte 0 of the map is byte offset of the region, no READ"


@both
def own_or_shared(_context: Context, target: Target) -> str:
    maps: list[Map] = []

    def map_it() -> int:
        maps.append(Map(os.open(target.path, os.O_RDWR), PAGE))
        return 0

    def look() -> int:
        return int(maps[-1].view[0])

    seen = {}
    with target.open() as fd, puppet({"map": map_it, "look": look}) as other:
        for region in ("own", "shared"):
            target.service.policy(target.name, region=region, keep=True)
            with Map(fd, PAGE) as map_:
                other.do("map")
                map_.view[0] = 0xC3
                seen[region] = other.do("look")
    need(
        seen == {"own": 0, "shared": 0xC3},
        f"stored c3; the other process loads {seen['own']:x} of a region of its own, "
        f"{seen['shared']:x} of the shared one",
    )
    return "two processes: a region each stays apart, the same region is one memory"


@both
def not_known(_context: Context, target: Target) -> str:
    target.service.answer(Op.MMAP, errno.ENOSYS)
    falls_back = target.dialect is Dialect.POSTED and target.kind == direct.FUSE
    wanted = {"MAP_SHARED": errno.ENODEV, "MAP_PRIVATE": 0 if falls_back else errno.ENODEV}
    with target.open() as fd:
        got = {how: mmap_errno(fd, PAGE, READ, flags) for how, flags in BOTH_WAYS.items()}
        text = expect(got, wanted)
        if not falls_back:
            return f"ENOSYS to MMAP: {text}"
        with Map(fd, PAGE, READ, PRIVATE) as map_:
            need(bytes(map_.view[:4]) == DATA[:4], "the private map does not show the file")
    return f"ENOSYS to MMAP: {text}, and shows what read(2) gives"


@both
def refused_means_refused(_context: Context, target: Target) -> str:
    target.service.answer(Op.MMAP, errno.ENOSYS)
    with target.open() as fd:
        got = {how: mmap_errno(fd, PAGE, READ, flags) for how, flags in BOTH_WAYS.items()}
    need(all(got.values()), expect(got, got) + ": a map although the server refused")
    return "ENOSYS to MMAP: " + expect(got, got)


@both
def syncing(_context: Context, target: Target) -> str:
    service = target.service
    with target.open() as fd, Map(fd, PAGE) as map_:
        map_.view[0] = 1
        fence(fd)
        service.log(clear=True)
        failed = map_.msync()
        fence(fd)
        sent = [one.op for one in service.log() if one.request]
        need(failed == 0 and sent == ["READ"], f"msync {name_of(failed)} sent {sent[:-1]}")
        if target.kind == direct.CUSE:
            return "msync sends nothing"
        os.fsync(fd)
        need(bool(asked(target, Op.FSYNC)), "fsync did not reach the server")
    return "msync sends nothing, fsync sends FSYNC"


@both
def copy_on_write(_context: Context, target: Target) -> str:
    service = target.service
    service.policy(target.name, region="shared", keep=True)
    with target.open() as fd, Map(fd, PAGE) as common, Map(fd, PAGE, flags=PRIVATE) as private:
        region = newest(target).handle
        need(service.store(region, 0, b"server") == 0, "the server cannot write the region")
        need(bytes(private.view[:6]) == b"server", "the private map does not show the region")
        private.view[:6] = b"client"
        got = bytes(common.view[:6]), service.load(region, 0, 6)
        need(got == (b"server", b"server"), f"a private store is seen: {got[0]!r}, {got[1]!r}")
        common.view[:6] = b"shared"
        need(bytes(private.view[:6]) == b"client", "the copied page changed with the region")
    return "shows the region until the first store, which neither server nor shared map sees"


@both
def protection(_context: Context, target: Target) -> str:
    got = {}
    with target.open(os.O_RDONLY) as fd:
        got["read-only descriptor: mmap"] = mmap_errno(fd, PAGE, READ | WRITE, SHARED)
        with Map(fd, PAGE, READ) as map_:
            got["mprotect(PROT_WRITE)"] = map_.mprotect(READ | WRITE)
        with Map(fd, PAGE, READ, PRIVATE) as map_:
            got["private mprotect(PROT_WRITE)"] = map_.mprotect(READ | WRITE)
    need(len(asked(target)) == 2, "an mmap that the descriptor forbids reached the server")
    with target.open() as fd, Map(fd, PAGE, NONE) as map_:
        got["read-write descriptor: mprotect(PROT_WRITE)"] = map_.mprotect(READ | WRITE)
        map_.view[0] = 7
        loaded = target.service.load(newest(target).handle, 0, 1)
    need(loaded == b"\7", "a store after mprotect did not reach the region")
    refused = {"read-only descriptor: mmap", "mprotect(PROT_WRITE)"}
    return expect(got, {what: errno.EACCES if what in refused else 0 for what in got})


@both
def adjacent(_context: Context, target: Target) -> str:
    target.service.policy(target.name, region="shared", size=2 * PAGE, keep=True)
    with target.open() as fd:
        with Map(-1, 2 * PAGE, NONE, PRIVATE | 0x20) as room:
            at = room.address
            upper = Map(fd, PAGE, offset=PAGE, at=at + PAGE)
            high = newest(target)
            lower = Map(fd, PAGE, at=at)
            low = newest(target)
            need(low.unique != high.unique, "the second map was merged, the server not asked")
            lower.view[0], upper.view[0] = 1, 2
            lower.close()
            fence(fd)
            got = ends(target, low.unique), ends(target, high.unique)
            need(got == (["MUNMAP"], []), f"after munmap of the lower: ends {got[0]}, {got[1]}")
            need(upper.view[0] == 2, "the upper map changed")
        fence(fd)
        got = ends(target, low.unique), ends(target, high.unique)
        need(got == (["MUNMAP"], ["MUNMAP"]), f"after both: ends {got[0]}, {got[1]}")
    return "two adjacent pieces of one region are two mappings, each with an end of its own"


CHECKS = (
    Check(
        "A1",
        "A FUSE file and a CUSE device can be mapped shared, on memory that the server picks",
        TEJUN,
        "mmap(MAP_SHARED) succeeds, a new region is zero, loads give what was stored",
        shared,
        red="base",
        green=V3,
    ),
    Check(
        "A2",
        "MMAP says what is to be mapped: node, fh, address, length, offset, prot and flags",
        TEJUN,
        "the fields of the mmap, the length in whole pages; COMMIT repeats them",
        request,
        red=f"{V3} + planted-fuse-direct-mmap@v3 fuse.plant=page-offset",
        green=V3,
    ),
    Check(
        "A3",
        "The server's errno is mmap's errno, and nothing follows",
        TEJUN,
        "mmap fails with what the server answered; no COMMIT after MMAP's errno, no MUNMAP",
        errors,
        red=f"{V3} + planted-fuse-direct-mmap@v3 fuse.plant=wrong-errno",
        green=V3,
    ),
    Check(
        "A5",
        "Client and server see each other's stores at once, with no request in between",
        TEJUN,
        "what one stores the other loads, at the mmap's offset; no READ, no WRITE",
        both_ways,
        red=f"{V3} + planted-fuse-direct-mmap@v3 fuse.plant=offset-zero",
        green=V3,
    ),
    Check(
        "A6",
        "Sharing is the server's decision: its own region for a mapping, or one for several",
        "Tejun Heo, in the review of 2009-06",
        "own regions are independent, the same region is shared between processes",
        own_or_shared,
        red=f"{V3} + planted-fuse-direct-mmap@v3 fuse.plant=never-share",
        green=V3,
    ),
    Check(
        "A11",
        "ENOSYS in the reply to MMAP leads to what the dialect documents",
        "docs/fuse-direct-mmap.md, Who asks whom",
        "ENODEV; as posted, MAP_PRIVATE of a FUSE file falls back to the page cache",
        not_known,
        red=f"{V3} + planted-fuse-direct-mmap@v3 fuse.plant=raw-enosys",
        green=V3,
    ),
    Check(
        "A16",
        "msync of a direct map is no business of the server, fsync is",
        "docs/fuse-direct-mmap.md; msync(2), fsync(2)",
        "msync returns 0 and sends nothing; fsync of a FUSE file sends FSYNC",
        syncing,
        red=f"{V3} + planted-fuse-direct-mmap@v3 fuse.plant=msync-asks",
        green=V3,
    ),
    Check(
        "A17",
        "A private map is copied on write",
        "mmap(2), MAP_PRIVATE",
        "it shows the region until its first store, which nobody else sees",
        copy_on_write,
        red=f"{V3} + planted-fuse-direct-mmap@v3 fuse.plant=private-shares",
        green=V3,
    ),
    Check(
        "A18",
        "mprotect gives what the descriptor allows, and no more",
        "mmap(2) and mprotect(2), EACCES",
        "read-only: EACCES for a shared writable map, the server is not asked; read-write: 0",
        protection,
        red=f"{V3} + planted-fuse-direct-mmap@v3 fuse.plant=readonly-hole",
        green=V3,
    ),
    Check(
        "A19",
        "Adjacent maps of one region stay two mappings",
        "Linux 6.12: mm/mmap.c, vma_merge_new_range extends a neighbour without ->mmap",
        "two MMAPs, two MUNMAPs, each after its own munmap",
        adjacent,
        red=f"{V3} + planted-fuse-direct-mmap@v3 fuse.plant=merged",
        green=V3,
    ),
    Check(
        "A25",
        "An mmap that the server refuses fails, whatever the errno and the flags",
        "Andrew Morton, 2009-06-23: Hasn't the kernel just lied to userspace?",
        "ENOSYS to MMAP: neither MAP_SHARED nor MAP_PRIVATE succeeds",
        refused_means_refused,
        red=V1,
        green=V2,
    ),
)

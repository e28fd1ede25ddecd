# SPDX-License-Identifier: GPL-2.0-or-later
"""Direct mmap where a region is named by a descriptor: which ones, and when they are there."""

from __future__ import annotations

import errno
import os

from guest.checking import need
from guest.features.fuse_direct_mmap_rig import (
    TEJUN,
    V1,
    V2,
    asked,
    both,
    expect,
    fence,
    need_fds,
    need_none_left,
    newest,
    one_end_each,
)
from guest.fuse import protocol as p
from guest.fuse.direct import Dialect, Target
from guest.fuse.protocol import Op
from guest.libc import PAGE, PRIVATE, READ, SHARED, WRITE, Map, mmap_errno, name_of
from guest.words import Check, Context


@both
def committed_fd(_context: Context, target: Target) -> str:
    need_fds(target, "COMMIT and its descriptor are not there")
    service = target.service
    before = service.fds()
    with target.open() as fd:
        with Map(fd, 2 * PAGE, offset=PAGE) as map_:
            region = newest(target).handle
            need(region in service.fds() and region not in before, f"fd {region} is not new")
            need(bool(service.fd_flags(region) & os.O_CLOEXEC), "the fd is not close-on-exec")
            size = os.stat(f"/proc/{service.pid}/fd/{region}").st_size
            need(size == 3 * PAGE, f"the region has {size} bytes, {3 * PAGE} were asked for")
            map_.view[0] = 0x3C
            need(service.load(region, PAGE, 1) == b"\x3c", "it is not the mapped region")
        fence(fd)
        service.spoil(Op.MMAP)
        failed = mmap_errno(fd, PAGE, READ, SHARED)
        fence(fd)
    left = {n: what for n, what in service.fds().items() if n not in before}
    need(failed != 0, "mmap succeeds although the server could not read COMMIT")
    need(not left, f"COMMIT was read into a bad buffer, and the server has {left}")
    return (
        f"new, close-on-exec, large enough; after a read that faults none, mmap {name_of(failed)}"
    )


@both
def bad_descriptors(_context: Context, target: Target) -> str:
    need_fds(target, "the server offers no descriptor")
    service, got, wanted = target.service, {}, {}
    offers = {kind: service.make(kind) for kind in ("pipe", "regular", "directory", "zero", "path")}
    offers["closed"] = service.make("closed")
    with target.open() as fd:
        for kind, number in offers.items():
            service.policy(target.name, region="given", given=number)
            got[kind] = mmap_errno(fd, PAGE, READ, SHARED)
            wanted[kind] = errno.EBADF if kind in ("closed", "path") else errno.EINVAL
            # Whether mmap waits for the answer is the kernel's affair.
            need(service.wait(Op.MMAP_COMMIT, len(got)), f"{kind}: no COMMIT")
            told = asked(target, Op.MMAP_COMMIT)[-1].handle
            need(
                told == -got[kind],
                f"{kind}: mmap gives {name_of(got[kind])}, COMMIT carries {told}",
            )
        if target.dialect is Dialect.FDS:
            got |= (odd := _odd_replies(target, fd))
            wanted |= dict.fromkeys(odd, errno.EINVAL)
        text = expect(got, wanted)
        service.policy(target.name, region="own", raw=None)
        need(mmap_errno(fd, PAGE, READ, SHARED) == 0, "a good reply is not taken afterwards")
    one_end_each(target)
    return f"mmap and COMMIT: {text}"


def _odd_replies(target: Target, fd: int) -> dict[str, int]:
    replies = {"fd -2": p.MMAP_OUT.pack(-2, 0), "unknown flag": p.MMAP_OUT.pack(-1, 1 << 9)}
    got = {}
    for what, raw in replies.items():
        target.service.policy(target.name, region="own", raw=raw.hex())
        got[what] = mmap_errno(fd, PAGE, READ, SHARED)
    return got


@both
def no_descriptor_left(_context: Context, target: Target) -> str:
    need_fds(target, "no descriptor is made in the server")
    service = target.service
    before = service.fds()
    with target.open() as fd:
        service.limit_files(True)
        failed = mmap_errno(fd, PAGE, READ, SHARED)
        service.wait(Op.MMAP_COMMIT)
        told = [one.handle for one in asked(target, Op.MMAP_COMMIT)]
        service.limit_files(False)
        again = mmap_errno(fd, PAGE, READ, SHARED)
        fence(fd)
    seen = f"mmap {name_of(failed)}, COMMIT carries {told}; with room again mmap {name_of(again)}"
    need((failed, told, again) == (errno.EMFILE, [-errno.EMFILE], 0), seen)
    need_none_left(target, before)
    one_end_each(target)
    return seen


@both
def sealed(_context: Context, target: Target) -> str:
    need_fds(target, "no descriptor crosses")
    got: dict[str, int] = {}
    wanted: dict[str, int] = {}
    with target.open() as fd, target.open(os.O_RDONLY) as reading:
        for kind, error in _LIMITED.items():
            given = target.service.make(kind, PAGE)
            target.service.policy(target.name, region="given", given=given)
            failed = (
                mmap_errno(fd, PAGE, READ | WRITE, SHARED),
                mmap_errno(reading, PAGE, READ, SHARED),
                mmap_errno(fd, PAGE, READ | WRITE, PRIVATE),
            )
            rest = errno.EACCES if kind == "writeonly" else 0
            got |= {f"{kind}, {how}:": one for how, one in zip(_HOW, failed, strict=True)}
            wanted |= {
                f"{kind}, {how}:": one for how, one in zip(_HOW, (error, rest, rest), strict=True)
            }
        text = expect(got, wanted)
        return f"{text}; {_sealing(target, fd)}"


_LIMITED = {"sealed": errno.EPERM, "readonly": errno.EACCES, "writeonly": errno.EACCES}
_HOW = ("shared and writable", "shared, of a read-only file", "private")


def _sealing(target: Target, fd: int) -> str:
    service = target.service
    given = service.make("memfd", PAGE)
    service.policy(target.name, region="given", given=given)
    with Map(fd, PAGE) as map_:
        map_.view[0] = 1
        got = {"F_SEAL_WRITE while it is mapped": service.seal(given)}
    fence(fd)
    got["afterwards"] = service.seal(given)
    return expect(got, dict(zip(got, (errno.EBUSY, 0), strict=True)))


CHECKS = (
    Check(
        "A4",
        "COMMIT's descriptor is there when its read succeeded, and never else",
        TEJUN,
        "new, close-on-exec, of offset + len bytes; none after a read of COMMIT that faults",
        committed_fd,
        red=V1,
        green=V2,
    ),
    Check(
        "A7",
        "What is no region cannot be mapped, and COMMIT says so",
        TEJUN,
        "EBADF for a closed fd, EINVAL for a pipe or a file that is not shmem, in COMMIT as well",
        bad_descriptors,
        red=f"{V2} + planted-fuse-direct-mmap@v2 fuse.plant=any-file",
        green=V2,
    ),
    Check(
        "A12",
        "A server that can have no more descriptors is told, and mmap fails",
        "Andrew Morton, 2009-06-23: Shouldn't this be `return fd;`?",
        "mmap gives EMFILE, COMMIT carries it, nothing is left",
        no_descriptor_left,
        red=f"{V2} + planted-fuse-direct-mmap@v2 fuse.plant=commit-zero",
        green=V2,
    ),
    Check(
        "A27",
        "A descriptor that is sealed or read-only gives no writable shared map",
        "mmap(2), EACCES and EPERM; fcntl(2), F_SEAL_WRITE",
        "EPERM for a sealed memfd, EACCES for a read-only fd; read-only and private maps work",
        sealed,
        red=V1,
        green=V2,
    ),
)

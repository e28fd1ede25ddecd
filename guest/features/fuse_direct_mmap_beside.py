# SPDX-License-Identifier: GPL-2.0-or-later
"""Direct mmap beside what was there before: read(2), write(2), the page cache, old servers."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from guest.checking import need, opened, story
from guest.features.fuse_direct_mmap_rig import DATA, V1, V2, V3, asked, both, expect
from guest.fuse import client, direct
from guest.fuse import protocol as p
from guest.fuse.direct import Target
from guest.fuse.protocol import Op
from guest.fuse.server import Options
from guest.fuse.steering import Event
from guest.libc import PAGE, PRIVATE, READ, SHARED, Map, mmap_errno
from guest.words import Check, Context

_PROGRAM = Path("/bin/true")


@both
def agrees(context: Context, target: Target) -> str:
    target.service.policy(target.name, region="shared", keep=True, serve=True)
    with target.open() as fd, Map(fd, 2 * PAGE) as map_:
        for _ in range(10):
            # A device's read(2) and write(2) have no offset: cuse_read_iter says 0.
            offset = context.random.randrange(PAGE) if target.kind == direct.FUSE else 0
            stored, written = context.random.randbytes(200), context.random.randbytes(200)
            map_.view[offset : offset + 200] = stored
            need(os.pread(fd, 200, offset) == stored, f"read(2) misses a store at {offset}")
            need(os.pwrite(fd, written, offset) == 200, "write(2) is short")
            got = bytes(map_.view[offset : offset + 200])
            need(got == written, f"a load misses a write(2) at {offset}")
    if target.kind == direct.FUSE:
        _cached(context)
    return "read(2) and write(2) agree with the map" + (
        ", a file in the page cache is not mapped directly" if target.kind == direct.FUSE else ""
    )


def _cached(context: Context) -> None:
    """FOPEN_DIRECT_MMAP alone: the page cache is used, so the server is not asked."""
    with (
        direct.served(direct.FUSE, context.scratch, DATA, flags=p.FOPEN_DIRECT_MMAP) as target,
        target.open() as fd,
        Map(fd, PAGE) as map_,
    ):
        need(not asked(target), "MMAP of a file whose page cache is used")
        need(bytes(map_.view) == DATA[:PAGE], "the map does not show the file")
        os.pwrite(fd, b"x", 0)
        need(map_.view[0] == ord("x"), "write(2) and the map of the page cache disagree")


def unaware(context: Context) -> str:
    direct.wanted()
    told = [_unaware_file(context, flags) for flags in (p.FOPEN_DIRECT_IO, direct.FLAGS)]
    told.append(_allowing(context))
    told.append(_unaware_device(context))
    return "; ".join(dict.fromkeys(told))


def _unaware_file(context: Context, flags: int) -> str:
    files = {"file": DATA, "program": _PROGRAM.read_bytes()}
    with (
        client.mounted(files, context.scratch, Options(), dict.fromkeys(files, flags)) as fs,
        opened(fs.path / "file", os.O_RDWR) as fd,
    ):
        got = {"MAP_SHARED": mmap_errno(fd, PAGE, READ, SHARED)}
        with Map(fd, PAGE, READ, PRIVATE) as map_:
            need(bytes(map_.view) == DATA[:PAGE], "MAP_PRIVATE does not show the file")
        ended = os.spawnv(os.P_WAIT, fs.path / "program", ["program"])
        need(ended == 0, f"a program on a DIRECT_IO file ended with {ended}")
        _not_asked(fs.log())
    return f"{expect(got, {'MAP_SHARED': errno.ENODEV})}, MAP_PRIVATE and exec work, no MMAP"


def _not_asked(log: list[Event]) -> None:
    sent = [one for one in log if one.request and one.op == Op.MMAP.name]
    need(not sent, f"a server that never heard of it gets MMAP: {story(log)}")


def _allowing(context: Context) -> str:
    options = Options(flags=p.DEFAULT_FLAGS | p.DIRECT_IO_ALLOW_MMAP)
    with (
        client.mounted({"file": DATA}, context.scratch, options, {"file": direct.FLAGS}) as fs,
        opened(fs.path / "file", os.O_RDWR) as fd,
    ):
        got = {"with DIRECT_IO_ALLOW_MMAP MAP_SHARED": mmap_errno(fd, PAGE, READ, SHARED)}
        _not_asked(fs.log())
    return expect(got, dict.fromkeys(got, 0))


def _unaware_device(context: Context) -> str:
    with direct.served(direct.CUSE, context.scratch, DATA, Options()) as target:
        with target.open() as fd:
            got = {
                "a device: MAP_SHARED": mmap_errno(fd, PAGE, READ, SHARED),
                "MAP_PRIVATE": mmap_errno(fd, PAGE, READ, PRIVATE),
            }
        _not_asked(target.service.log())
    return expect(got, dict.fromkeys(got, errno.ENODEV))


CHECKS = (
    Check(
        "A24",
        "A server that never heard of direct mmap is never asked, and all is as on stock",
        "Linux 6.12: fs/fuse/file.c, fuse_file_mmap; fs/fuse/cuse.c has no ->mmap",
        "no MMAP; MAP_SHARED ENODEV, MAP_PRIVATE and exec of a DIRECT_IO file work",
        unaware,
        red=V1,
        green=V2,
    ),
    Check(
        "A26",
        "read(2), write(2) and the map agree when the server serves all of them from the region",
        "Miklos Szeredi, 2009-06: no synchronisation with the normal I/O paths",
        "each sees the other at once; a file that uses the page cache is not mapped directly",
        agrees,
        red=f"{V3} + planted-fuse-direct-mmap@v3 fuse.plant=cached-too",
        green=V3,
    ),
)

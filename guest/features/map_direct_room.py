# SPDX-License-Identifier: GPL-2.0-or-later
"""MAP_DIRECT on a filesystem without room, and for a user without quota."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from guest import blocks, libc
from guest.checking import error_of, need
from guest.features.map_direct_rig import (
    MODES,
    NOBODY,
    POINT,
    SIZE,
    V6,
    VALIDATE,
    Dialect,
    Held,
    as_nobody,
    grant,
    need_dialect,
    new_file,
    planted,
    remounted,
)
from guest.libc import PAGE, READ, WRITE, Map
from guest.words import Check, CheckError, Context

_SOURCE = "mmap(2) of the posting of 2017-08-23; write(2), ENOSPC and EDQUOT"
_LIMIT = 1 << 20  # bytes of quota


def no_room(_context: Context) -> str:
    """A mapping needs no block: it can be made, stored to and synced on a full filesystem."""
    found = need_dialect()
    with new_file("before") as (_, early), _full() as left:
        with Map(early, SIZE, READ | WRITE, VALIDATE) as map_:
            map_.view[:] = b"f" * SIZE
            failed = map_.msync()
            need(failed == 0, f"msync on the full filesystem gave {libc.name_of(failed)}")
            need(os.pread(early, SIZE, 0) == b"f" * SIZE, "the stores are not in read(2)")
        need(_free() <= left, f"mapping it took blocks: {left} were free, now {_free()}")
    with _file_with_a_hole() as (path, fd), _full(), contextlib.closing(Held(path, fd)) as one:
        # What refuses first does not matter, as long as somebody does and nothing moves.
        if found is not Dialect.LEASE:
            gave = error_of(lambda: os.pwrite(fd, b"h", 4 * PAGE))
            need(gave in (errno.ENOSPC, errno.ETXTBSY), f"a write to a hole: {libc.name_of(gave)}")
        one.unmoved("a write to a hole on the full filesystem")
    return f"mapped, stored and synced on a full filesystem; {_quota(found)}"


@contextlib.contextmanager
def _file_with_a_hole() -> Iterator[tuple[Path, int]]:
    with new_file("hole-full") as (path, fd):
        blocks.fallocate(fd, MODES["punch"], 4 * PAGE, PAGE)
        yield path, fd


def _free() -> int:
    return os.statvfs(POINT).f_bfree


@contextlib.contextmanager
def _full() -> Iterator[int]:
    """Another file takes all the room there is; how many blocks are free then."""
    path = POINT / "direct-filler"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        size, step = 0, 64 << 20
        while step >= PAGE:
            if error_of(lambda: blocks.fallocate(fd, 0, size, step)):  # noqa: B023
                step //= 2
            else:
                size += step
        gave = error_of(lambda: os.pwrite(fd, b"x", size + (1 << 30)))
        need(gave == errno.ENOSPC, f"a write to the full filesystem: {libc.name_of(gave)}")
        yield _free()
    finally:
        os.close(fd)
        path.unlink()


def _quota(found: Dialect) -> str:
    """What a user has mapped is what he has written: no more and no less is charged."""
    with remounted("dax=always,uquota"), new_file("quota") as (path, fd):
        os.chown(path, NOBODY, NOBODY)
        _limit()
        if found is not Dialect.LEASE:
            grant(fd)
        before = _charged()
        gave = as_nobody(lambda: _store(fd))
        need(gave == 0, f"mapping and storing as a user with quota gave {libc.name_of(gave)}")
        need(_charged() == before, f"charged were {before} KiB, now {_charged()}")
        over = as_nobody(lambda: error_of(lambda: _write_too_much(fd)))
        need(over == errno.EDQUOT, f"writing past the quota gave {libc.name_of(over)}")
        again = as_nobody(lambda: _store(fd))
        need(again == 0, f"mapping with no quota left gave {libc.name_of(again)}")
    return "and by a user without quota, who is charged nothing for it"


def _limit() -> None:
    _xfs_quota(f"limit -u bhard={_LIMIT >> 10}k {NOBODY}")


def _charged() -> int:
    """KiB of blocks that nobody is charged for."""
    words = _xfs_quota(f"quota -u -b -N -n {NOBODY}").split()
    if len(words) < 2 or not words[1].isdigit():
        raise CheckError(f"xfs_quota says {' '.join(words)!r}")
    return int(words[1])


def _xfs_quota(command: str) -> str:
    done = subprocess.run(
        ["xfs_quota", "-x", "-c", command, str(POINT)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CheckError(f"xfs_quota -c {command!r}: {done.stderr.strip()}")
    return done.stdout


def _store(fd: int) -> int:
    try:
        with Map(fd, SIZE, READ | WRITE, VALIDATE) as map_:
            map_.view[:] = b"q" * SIZE
            return map_.msync()
    except OSError as error:
        return error.errno or errno.EIO


def _write_too_much(fd: int) -> None:
    written = SIZE
    while written <= 2 * _LIMIT:
        written += os.pwrite(fd, bytes(64 << 10), written)


CHECKS = (
    Check("D25", "A full filesystem and a user without quota can map, store and sync", _SOURCE,
          "no block is needed, none is charged", no_room,
          red=planted("needs-room"), green=V6),
)  # fmt: skip

# SPDX-License-Identifier: GPL-2.0-or-later
"""Shared writable maps of FUSE files (in the kernel since 2.6.26): the checks.

Each check mounts a filesystem of its own; none leans on what another one did.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guest import fuse, libc
from guest.checking import LISTEN, before, error_of, fate, forked, need, opened, story
from guest.features import fuse_writable_mmap_bounds as bounds
from guest.features import fuse_writable_mmap_bulk as bulk
from guest.features import fuse_writable_mmap_ends as ends
from guest.features import fuse_writable_mmap_held as held
from guest.features import fuse_writable_mmap_stress as stress
from guest.features import fuse_writable_mmap_times as times
from guest.features.fuse_writable_mmap_rig import NAME, file_of, mapped_file, meminfo
from guest.fuse import protocol as p
from guest.fuse.protocol import Op
from guest.libc import PAGE, READ, SHARED, WRITE, Map, mmap_errno, name_of
from guest.words import Check, CheckError, Context, Feature


def shared_writable(context: Context) -> str:
    with file_of(context, bytes(2 * PAGE)) as (_, fd):
        times.probe(fd)
        with Map(fd, 2 * PAGE) as map_:
            map_.view[5] = 0xA5
            map_.view[PAGE + 7] = 0x5A
            got = (map_.view[5], map_.view[PAGE + 7], map_.view[6])
    need(
        got == (0xA5, 0x5A, 0),
        f"stored a5 and 5a, loaded {got[0]:x}, {got[1]:x}; beside {got[2]:x}",
    )
    return "mmap succeeds, stores to two pages are loaded back"


def coherent(context: Context) -> str:
    size = 8 * PAGE
    image = bytearray(context.random.randbytes(size))
    with mapped_file(context, bytes(image)) as (fs, fd, map_):
        for turn in range(40):
            length = context.random.randrange(1, 3 * PAGE)
            offset = context.random.randrange(size - length)
            new = context.random.randbytes(length)
            if turn % 2:
                map_.view[offset : offset + length] = new
                how = "store"
            else:
                os.pwrite(fd, new, offset)
                how = "write(2)"
            image[offset : offset + length] = new
            _same(os.pread(fd, size, 0), image, f"read(2) after a {how} at {offset}+{length}")
            _same(bytes(map_.view), image, f"load after a {how} at {offset}+{length}")
        need(map_.msync() == 0, "msync failed")
        _same(fs.data(NAME), image, "the server's data after msync")
    return (
        "40 stores and writes, each seen by read(2) and by loads at once, by the server after msync"
    )


def _same(got: bytes, wanted: bytes | bytearray, what: str) -> None:
    if got != wanted:
        at = next(
            (i for i, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b), len(got)
        )
        raise CheckError(f"{what}: differs from byte {at} on ({len(got)} bytes)")


def msync_order(context: Context) -> str:
    pages = 6
    with mapped_file(context, bytes(pages * PAGE)) as (fs, _, map_):
        for page in range(0, pages, 2):  # with gaps, so that there are several WRITEs
            map_.view[page * PAGE] = page + 1
        fs.log(clear=True)
        fs.withhold(Op.WRITE)
        with forked(map_.msync) as syncing:
            need(fs.wait(Op.WRITE, pages // 2), f"WRITEs on msync: {story(fs.log())}")
            fs.release(Op.WRITE, 1, keep=True)
            need(
                not fs.wait(Op.FSYNC, seconds=LISTEN),
                f"FSYNC while WRITEs were unanswered: {story(fs.log())}",
            )
            fs.release(Op.WRITE)
            need(fs.wait(Op.FSYNC), f"no FSYNC after the WRITEs: {story(fs.log())}")
            failed = syncing()
        need(failed == 0, f"msync gave {name_of(failed)}")
        log = fs.log()
        writes = [one for one in log if one.request and one.op == "WRITE"]
        plain = [one for one in writes if not one.flags & p.WRITE_CACHE]
        need(not plain, f"WRITE without FUSE_WRITE_CACHE at {[one.offset for one in plain]}")
        before(log, ("reply", "WRITE"), ("request", "FSYNC"))
        kept = fs.data(NAME)[::PAGE]
        need(
            kept == bytes([1, 0, 3, 0, 5, 0]), f"first bytes of the server's pages: {kept.hex(' ')}"
        )
        return f"{story(log)}, every WRITE with FUSE_WRITE_CACHE"


def munmap_and_close_flush(context: Context) -> str:
    with file_of(context, bytes(2 * PAGE)) as (fs, fd):
        times.probe(fd)
        fs.log(clear=True)
        map_ = Map(fd, 2 * PAGE)
        try:
            map_.view[0] = 1
            os.close(fd)
            closing = fs.log()
            before(closing, ("reply", "WRITE"), ("request", "FLUSH"))
            need(fs.data(NAME, 0, 1) == b"\1", "close returned before the server had the store")
            need(
                not fs.wait(Op.RELEASE, seconds=LISTEN),
                f"RELEASE while mapped: {story(fs.log())}",
            )
            fs.log(clear=True)
            map_.view[PAGE] = 2
        finally:
            map_.close()
        need(fs.wait(Op.RELEASE), f"no RELEASE after munmap: {story(fs.log())}")
        ending = fs.log()
        before(ending, ("reply", "WRITE"), ("request", "RELEASE"))
        need(fs.data(NAME, PAGE, 1) == b"\2", "munmap lost the store")
    return f"close: {story(closing)}; munmap: {story(ending)}"


def accounting(context: Context) -> str:
    pages = 4
    with mapped_file(context, bytes(pages * PAGE)) as (fs, fd, map_):
        map_.view[::PAGE] = bytes([1]) * pages
        idle = meminfo()
        fs.withhold(Op.WRITE)
        libc.start_writeback(fd)
        need(fs.wait(Op.WRITE), f"writeback was started, no WRITE came: {story(fs.log())}")
        meanwhile = meminfo()
        fs.release(Op.WRITE)
        need(map_.msync() == 0, "msync failed")
        after = meminfo()
    temp = [one["WritebackTmp"] for one in (idle, meanwhile, after)]
    plain = [one["Writeback"] for one in (idle, meanwhile, after)]
    seen = (
        f"before, held, answered: WritebackTmp {temp[0]}, {temp[1]}, {temp[2]} kB; "
        f"Writeback {plain[0]}, {plain[1]}, {plain[2]} kB"
    )
    kilobytes = pages * PAGE // 1024
    copies = temp == [0, kilobytes, 0] and plain[1] == 0
    cached = not any(temp) and plain == [0, kilobytes, 0]
    need(copies or cached, seen)
    return f"{'temporary copies' if copies else 'pages of the page cache'}: {seen}"


def past_the_end(context: Context) -> str:
    size = PAGE + 100
    with file_of(context, b"\x11" * size) as (_, fd):
        times.probe(fd)
        with Map(fd, 3 * PAGE) as map_:
            need(map_.view[size - 1] == 0x11, "the last byte is not the file's")
            tail = bytes(map_.view[size : 2 * PAGE])
            need(not any(tail), f"past the end the last page has {_first(tail)}")
            for what, touch in (("load", lambda: map_.view[2 * PAGE]), ("store", _store(map_))):
                how = fate(touch)
                need(how == "SIGBUS", f"a {what} one page past the end: {how}, not SIGBUS")
            map_.view[size : 2 * PAGE] = b"\xee" * (2 * PAGE - size)
            os.ftruncate(fd, 3 * PAGE)
            loaded = bytes(map_.view[size : 3 * PAGE])
            need(not any(loaded), f"after growth a load sees {_first(loaded)}")
            read = os.pread(fd, 3 * PAGE, size)
            need(not any(read), f"after growth read(2) sees {_first(read)}")
            how = fate(_store(map_))
            need(how == "no signal", f"after growth a store to the new page: {how}")
    return "SIGBUS on load and store; what was stored past the end reads as zero after growth"


def _store(map_: Map) -> Any:
    def store() -> None:
        map_.view[2 * PAGE] = 1

    return store


def _first(data: bytes) -> str:
    at = next((i for i, byte in enumerate(data) if byte), -1)
    return f"{data[at]:#x} at {at} bytes past the old end"


def error_once(context: Context) -> str:
    with (
        mapped_file(context, bytes(PAGE)) as (fs, fd, map_),
        opened(fs.path / NAME, os.O_RDWR) as other,
    ):
        map_.view[0] = 1
        fs.answer(Op.WRITE, errno.EIO)
        first, second = map_.msync(), map_.msync()
        need(fs.wait(Op.WRITE, seconds=0), f"no WRITE on msync: {story(fs.log())}")
        fs.answer(Op.WRITE, 0)
        elsewhere = [_fsync(other), _fsync(other)]
        again = _fsync(fd)
        map_.view[0] = 2
        healed, data = map_.msync(), fs.data(NAME, 0, 1)
    seen = (
        f"msync {name_of(first)}, {name_of(second)}; the other descriptor's fsync "
        f"{name_of(elsewhere[0])}, {name_of(elsewhere[1])}; fsync {name_of(again)}; "
        f"a new store's msync {name_of(healed)}, the server has {data.hex()}"
    )
    once = (first, second, *elsewhere, again) == (errno.EIO, 0, errno.EIO, 0, 0)
    need(once and healed == 0 and data == b"\2", seen)
    return seen


def _fsync(fd: int) -> int:
    return error_of(lambda: os.fsync(fd))


def read_only(context: Context) -> str:
    with file_of(context, bytes(PAGE)) as (fs, fd):
        times.probe(fd)
        with opened(fs.path / NAME, os.O_RDONLY) as readable:
            direct = mmap_errno(readable, PAGE, READ | WRITE, SHARED)
            with Map(readable, PAGE, READ) as map_:
                later = map_.mprotect(READ | WRITE)
        with Map(fd, PAGE, READ) as map_:
            allowed = map_.mprotect(READ | WRITE)
    seen = (
        f"read-only descriptor: mmap {name_of(direct)}, mprotect {name_of(later)}; "
        f"read-write descriptor: mprotect {name_of(allowed)}"
    )
    need((direct, later, allowed) == (errno.EACCES, errno.EACCES, 0), seen)
    return seen


def prepare(_settings: Mapping[str, Any]) -> dict[str, str]:
    """Raises OSError when nothing can be mounted."""
    with (
        tempfile.TemporaryDirectory(prefix="fuse-") as folder,
        fuse.mounted({NAME: b""}, Path(folder).resolve()) as fs,
    ):
        return {
            "fuse protocol": f"{fs.facts['major']}.{fs.facts['minor']}",
            "fuse offered": f"{fs.facts['offered']:#x}",
            "fuse agreed": f"{fs.facts['agreed']:#x}",
        }


_IN_TREE = "Linux 6.12: fs/fuse/file.c"

_OWN = (
    Check(
        "B1",
        "A shared writable map of a FUSE file can be made, and stores to it are kept",
        "Linux 2.6.26: fuse: support writable mmap (3be5a52b30aa)",
        "mmap(PROT_READ|PROT_WRITE, MAP_SHARED) succeeds, loads give what was stored",
        shared_writable,
        red="fuse-writable-mmap@control",
    ),
    Check(
        "B2",
        "A shared map is coherent with read(2) and write(2), both ways",
        "mmap(2), MAP_SHARED; " + _IN_TREE,
        "every store is seen by read(2), every write(2) by a load, at once",
        coherent,
        red="planted-fuse-writable-mmap@v1 fuse.plant=write-bypass",
    ),
    Check(
        "B3",
        "msync sends the dirty pages as cached WRITEs, and FSYNC when all of them are answered",
        _IN_TREE + ", fuse_fsync",
        "WRITE with FUSE_WRITE_CACHE for each dirty page, then FSYNC after the last reply",
        msync_order,
        red="planted-fuse-writable-mmap@v1 fuse.plant=early-fsync; "
        "planted-fuse-writable-mmap@v1 fuse.plant=no-cache-flag",
    ),
    Check(
        "B4",
        "close and munmap write back what the map dirtied; RELEASE comes after munmap",
        _IN_TREE + ", fuse_flush and fuse_vma_close",
        "close: WRITE answered, then FLUSH, no RELEASE; munmap: WRITE answered, then RELEASE",
        munmap_and_close_flush,
        red="planted-fuse-writable-mmap@v1 fuse.plant=drop-dirty",
    ),
    Check(
        "B5",
        "Pages whose WRITE is unanswered are counted, as copies or as pages of the page cache",
        "Linux 2.6.26: fuse: support writable mmap (3be5a52b30aa), NR_WRITEBACK_TEMP; "
        "Documentation/filesystems/proc.rst, Writeback",
        "while 4 pages' WRITEs are held: 16 kB of WritebackTmp or of Writeback; then 0 kB again",
        accounting,
        red="planted-fuse-writable-mmap@v1 fuse.plant=uncounted",
    ),
    Check(
        "B11",
        "Touching a page past the end of the file gives SIGBUS; growth shows zeros",
        "mmap(2), SIGBUS; POSIX.1-2024, mmap: the rest of the last page is zero-filled",
        "SIGBUS for load and store; after ftruncate upwards only zeros past the old end",
        past_the_end,
        red="planted-fuse-writable-mmap@v1 fuse.plant=stale-tail",
    ),
    Check(
        "B12",
        "A failed writeback is reported once to each open file",
        "fsync(2); errseq_t, Linux Documentation/core-api/errseq.rst",
        "msync EIO then 0; another descriptor's fsync EIO then 0; later stores are written",
        error_once,
        red="planted-fuse-writable-mmap@v1 fuse.plant=lost-error",
    ),
    Check(
        "B16",
        "A read-only descriptor gives no writable shared map",
        "mmap(2) and mprotect(2), EACCES",
        "read-only: EACCES from mmap and from mprotect; read-write: mprotect succeeds",
        read_only,
        red="planted-fuse-writable-mmap@v1 fuse.plant=readonly-hole",
    ),
)

CHECKS = tuple(
    sorted(
        (*_OWN, *bounds.CHECKS, *ends.CHECKS, *held.CHECKS, *stress.CHECKS),
        key=lambda one: int(one.id.removeprefix("B")),
    )
)
FEATURE = Feature(CHECKS, (*times.METRICS, *bulk.METRICS), prepare)

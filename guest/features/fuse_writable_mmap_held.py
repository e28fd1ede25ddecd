# SPDX-License-Identifier: GPL-2.0-or-later
"""Shared writable maps of FUSE files: while a server withholds the answer to a WRITE."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from guest import fuse, libc
from guest.checking import LISTEN, before, need, story
from guest.features import fuse_writable_mmap_times as times
from guest.features.fuse_writable_mmap_rig import (
    NAME,
    SOON,
    ext4,
    file_of,
    held_page,
    hold,
    mapped_file,
    other,
    soon,
    spans,
)
from guest.fuse.protocol import Op
from guest.fuse.steering import Event
from guest.libc import PAGE, Map, name_of
from guest.words import Check, Context

_VM = Path("/proc/sys/vm")
_MEMORY = Path("/sys/devices/system/memory")
# These take one page out of use, by its address (CONFIG_MEMORY_FAILURE). They come to that page
# and no other; compaction may pass it by, and a block may be refused before.
_SOFT_OFFLINE = _MEMORY / "soft_offline_page"
_HARD_OFFLINE = _MEMORY / "hard_offline_page"
_PAGEMAP_FRAME = (1 << 55) - 1  # Documentation/admin-guide/mm/pagemap.rst


def _store(map_: Map) -> Callable[[int, int], None]:
    def store(page: int, value: int) -> None:
        map_.view[page * PAGE] = value

    return store


def sync_returns(context: Context) -> str:
    with held_page(context, 2) as (fs, _, map_):
        map_.view[PAGE] = 2
        with other(sync=os.sync) as one:
            one.start("sync")
            soon(one, "sync(2)")
        need(fs.wait(Op.WRITE, 2), f"sync(2) did not start the writeback: {story(fs.log())}")
        need(not fs.wait(Op.WRITE, event="reply", seconds=0), "the WRITE was answered")
    return "sync(2) returned with one WRITE unanswered, and had another page written"


def second_store(context: Context) -> str:
    with held_page(context, 2) as (fs, _, map_):
        with other(store=_store(map_)) as same, other(store=_store(map_)) as beside:
            same.start("store", 0, 2)
            need(same.waits(), "a second store to a page went ahead while its WRITE was unanswered")
            beside.start("store", 1, 3)
            soon(beside, "a store to another page")
            need(not same.settled(0), "the store to the other page let the waiting one go")
            fs.release(Op.WRITE)
            soon(same, "the second store, when the WRITE was answered,")
        need(map_.msync() == 0, "msync failed")
        got = fs.data(NAME)[::PAGE]
        need(got == b"\2\3", f"the server's pages begin with {got.hex(' ')}, not 02 03")
    return "a store to the same page waits for the answer, one to another page does not"


def read_again(context: Context) -> str:
    with file_of(context, bytes(PAGE)) as (fs, fd):
        times.probe(fd)
        with Map(fd, PAGE) as map_:
            map_.view[0] = 1
            hold(fs, fd)
        os.posix_fadvise(fd, 0, PAGE, os.POSIX_FADV_DONTNEED)
        fs.log(clear=True)
        with other(read=lambda: os.pread(fd, 1, 0)[0]) as one:
            one.start("read")
            waiting = one.waits()
            early = [event for event in fs.log() if event.request and event.op == "READ"]
            need(not early, f"READ while the WRITE was unanswered: {story(fs.log())}")
            fs.release(Op.WRITE)
            got = soon(one, "read(2), when the WRITE was answered,")
        need(got == 1, f"read(2) gave {got:#x}, not what was stored")
        if waiting:
            before(fs.log(), ("reply", "WRITE"), ("request", "READ"))
            return "the page left the cache; read(2) waited for the answer, then saw the store"
        return "the page stayed in the cache; read(2) saw the store at once, without a READ"


def one_write(context: Context) -> str:
    for what, way in _WAYS.items():
        with held_page(context, 1) as (fs, fd, map_), other(way=partial(way, fd, map_)) as one:
            one.start("way")
            waiting = one.waits()
            need(
                not fs.wait(Op.WRITE, 2, seconds=LISTEN),
                f"{what} sent a WRITE beside the cached one of the page: {story(fs.log())}",
            )
            need(waiting, f"{what} did not wait, and sent nothing: {story(fs.log())}")
            fs.release(Op.WRITE)
            soon(one, f"{what}, when the WRITE was answered,")
            need(fs.wait(Op.WRITE, 2), f"{what} sent nothing: {story(fs.log())}")
    return f"{', '.join(_WAYS)} wait and send nothing; {_hammered(context)}"


def _store_again(fd: int, map_: Map) -> None:
    map_.view[0] = 2
    libc.start_writeback(fd)


# Each of them changes the page and sends it.
_WAYS: Mapping[str, Callable[[int, Map], object]] = {
    "write(2) to a part of it": lambda fd, _: os.pwrite(fd, b"\2" * 100, 8),
    "write(2) to all of it": lambda fd, _: os.pwrite(fd, b"\2" * PAGE, 0),
    "a store and writeback": _store_again,
}

_HAMMERS = 3  # processes
_TURNS = 25


def _hammered(context: Context) -> str:
    """Several processes at once. Without write(2), which may go out first and be overtaken."""
    pages = 4
    with mapped_file(context, bytes(pages * PAGE)) as (fs, fd, map_):
        plans = [[context.random.randrange(pages) for _ in range(_TURNS)] for _ in range(_HAMMERS)]

        def hammer(number: int) -> None:
            for page in plans[number]:
                map_.view[page * PAGE] = number
                libc.start_writeback(fd)

        fs.withhold(Op.WRITE)
        with contextlib.ExitStack() as stack:
            everyone = [stack.enter_context(other(hammer=hammer)) for _ in range(_HAMMERS)]
            for number, one in enumerate(everyone):
                one.start("hammer", number)
            patience = 4000
            while waiting := [one for one in everyone if not one.settled(0)]:
                waiting[0].settled(0.01)
                fs.release(Op.WRITE, 1, keep=True)
                patience -= 1
                need(patience > 0, f"no end: {story(fs.log())}")
            fs.release(Op.WRITE)
            for one in everyone:
                one.result()
        need(map_.msync() == 0, "msync failed")
        return _apart(spans(fs.log()))


def _apart(writes: list[tuple[Event, int, int]]) -> str:
    """Raises CheckError when two of the same page were unanswered at a time."""
    clashes = [
        f"pages {a.offset // PAGE}+{-(-a.size // PAGE)} and {b.offset // PAGE}+{-(-b.size // PAGE)}"
        for at, (a, _, end) in enumerate(writes)
        for b, begin, _ in writes[at + 1 :]
        if begin < end and _overlap(a.offset, a.size, b.offset, b.size)
    ]
    need(not clashes, f"{len(clashes)} of {len(writes)} WRITEs beside another: {clashes[:3]}")
    most = max(sum(a <= b < end for _, a, end in writes) for _, b, _ in writes)
    return f"of {_HAMMERS} processes' {len(writes)} WRITEs up to {most} at a time, none of a page"


def _overlap(a: int, a_size: int, b: int, b_size: int) -> bool:
    """Do they share a page?"""
    return a // PAGE <= (b + b_size - 1) // PAGE and b // PAGE <= (a + a_size - 1) // PAGE


def truncate_meanwhile(context: Context) -> str:
    pages, size = 6, PAGE + 100
    with mapped_file(context, bytes(pages * PAGE)) as (fs, fd, map_):
        map_.view[0 : 2 * PAGE] = b"\1" * (2 * PAGE)
        hold(fs, fd)
        with other(truncate=lambda: os.ftruncate(fd, size)) as one:
            one.start("truncate")
            need(one.waits(), "ftruncate went ahead while a WRITE of the file was unanswered")
            map_.view[3 * PAGE : 5 * PAGE] = b"\2" * (2 * PAGE)
            libc.start_writeback(fd)
            need(
                not fs.wait(Op.WRITE, 2, seconds=0.3),
                f"a WRITE went out while ftruncate waited: {story(fs.log())}",
            )
            fs.release(Op.WRITE)
            soon(one, "ftruncate, when the WRITE was answered,")
        map_.view[size - 1] = 3
        need(map_.msync() == 0, "msync failed")
        log = fs.log()
        cut = next(at for at, it in enumerate(log) if it.request and it.op == "SETATTR")
        past = [
            f"{one.offset}+{one.size}"
            for one, at, _ in spans(log)
            if at > cut and one.offset + one.size > size
        ]
        need(not past, f"WRITE past the new end, {size}: {', '.join(past)}")
        held = fs.data(NAME)
        need(len(held) == size, f"the server's file has {len(held)} bytes, not {size}")
        need(held[-1] == 3, "the store after ftruncate is not in the file")
    return f"{story(log)}; no WRITE past byte {size}, the server's file ends there"


def others_go_on(context: Context) -> str:
    with _beside(context) as files, _held_for_all(context) as (_, map_, page):
        address = map_.address + page * PAGE
        told = [_unrelated(files, address)]
        # Nobody may touch the page any more, so it is the last.
        told += _taken_out("memory failure", _HARD_OFFLINE, address)
        return f"while a WRITE was unanswered: {', '.join(told)}"


def others_go_on_behind_a_store(context: Context) -> str:
    with (
        _beside(context) as files,
        _held_for_all(context) as (fs, map_, page),
        other(store=_store(map_)) as same,
    ):
        same.start("store", page, 2)
        need(same.waits(), "a second store to a page went ahead while its WRITE was unanswered")
        seen = _unrelated(files, map_.address + page * PAGE)
        need(not same.settled(0), "the waiting store went ahead")
        fs.release(Op.WRITE)
        soon(same, "the second store, when the WRITE was answered,")
    return f"while a store waited for the answer to a WRITE: {seen}"


@contextlib.contextmanager
def _beside(context: Context) -> Iterator[Mapping[str, Path]]:
    """A file of another FUSE mount and one of ext4, which are there first.

    The server would inherit the descriptor of the held file otherwise, and wait in close(2).
    """
    with fuse.mounted({NAME: bytes(8 * PAGE)}, context.scratch) as quick, ext4(context) as point:
        (point / NAME).write_bytes(bytes(8 * PAGE))
        yield {"another server's file": quick.path / NAME, "a file of ext4": point / NAME}


@contextlib.contextmanager
def _held_for_all(context: Context) -> Iterator[tuple[fuse.Mount, Map, int]]:
    """A map, and which page of it is held: one whose memory block may be taken out.

    The first block never may, so a page in another one is looked for.
    """
    pages = 1024
    with mapped_file(context, bytes(pages * PAGE)) as (fs, fd, map_):
        bytes(map_.view[::PAGE])
        blocks = (_memory_block(map_.address + page * PAGE).name for page in range(pages))
        page = next((page for page, name in enumerate(blocks) if name != "memory0"), 0)
        map_.view[page * PAGE] = 1
        hold(fs, fd)
        yield fs, map_, page
        fs.release(Op.WRITE)


def _unrelated(elsewhere: Mapping[str, Path], address: int) -> str:
    """What does not use the file, each with a limit; says what came of it."""
    block = _memory_block(address)
    works: tuple[tuple[str, Callable[[], object]], ...] = (
        ("compaction", lambda: _tell(_VM / "compact_memory", "1")),
        ("drop_caches", lambda: _tell(_VM / "drop_caches", "3")),
        (f"offlining of {block.name}", lambda: _offline(block)),
        *((f"stores to {what} and fsync", partial(_rewrite, it)) for what, it in elsewhere.items()),
    )
    told = [_try(what, work) for what, work in works]
    return ", ".join([*told, *_taken_out("soft offlining", _SOFT_OFFLINE, address)])


def _try(what: str, work: Callable[[], object]) -> str:
    """CheckError when it waits; else what came of it."""
    with other(work=work) as one:
        one.start("work")
        got = soon(one, what)
    error = got.get("errno", 0) if isinstance(got, dict) else 0
    return f"{what} {name_of(error)}" if error else what


def _rewrite(path: Path) -> None:
    fd = os.open(path, os.O_RDWR)
    try:
        with Map(fd, 8 * PAGE) as map_:
            map_.view[::PAGE] = bytes([7]) * 8
            os.fsync(fd)
    finally:
        os.close(fd)


def _memory_block(address: int) -> Path:
    """The folder of the memory block that has the page at this address."""
    size = int((_MEMORY / "block_size_bytes").read_text(), 16)
    return _MEMORY / f"memory{_frame(address) // size}"


def _frame(address: int) -> int:
    """The physical address of the page at this address."""
    with Path("/proc/self/pagemap").open("rb", buffering=0) as pagemap:
        pagemap.seek(address // PAGE * 8)
        (entry,) = struct.unpack("=Q", pagemap.read(8))
    frame = entry & _PAGEMAP_FRAME
    need(bool(frame), f"/proc/self/pagemap knows no frame: {entry:#x}")
    return int(frame) * PAGE


def _tell(file: Path, text: str) -> None:
    """One write(2): a buffered file tries again when it is closed. Raises OSError."""
    with file.open("wb", buffering=0) as raw:
        raw.write(text.encode())


def _taken_out(what: str, file: Path, address: int) -> list[str]:
    """Nothing on a kernel that cannot."""
    if not file.exists():
        return []
    frame = _frame(address)  # asked for here and now: who came before may have moved the page
    return [_try(what, lambda: _tell(file, f"{frame:#x}"))]


def _offline(block: Path) -> None:
    """Takes it out, and puts it back if that worked. Raises OSError, EBUSY as a rule."""
    _tell(block / "state", "offline")
    _tell(block / "state", "online")


_PROMISE = "Linux 2.6.26: fuse: support writable mmap (3be5a52b30aa)"

CHECKS = (
    Check(
        "B6",
        "sync(2) starts the writeback of FUSE files and does not wait for the server",
        _PROMISE + "; 76f9377cd2ab: don't block sync for filesystems with no data integrity",
        f"while a WRITE is withheld sync(2) returns within {SOON:.0f} s, and a dirty page is sent",
        sync_returns,
        red="fuse-writable-mmap@v2",
    ),
    Check(
        "B7",
        "A second store to a page waits until its WRITE is answered; other pages do not",
        _PROMISE,
        "the store to the same page waits, the one to another page returns; both are written",
        second_store,
        red="planted-fuse-writable-mmap@v2 fuse.plant=eager-store",
    ),
    Check(
        "B8",
        "A read of a page whose WRITE is unanswered gives what was stored, after DONTNEED too",
        _PROMISE,
        "no READ before the WRITE is answered; read(2) gives the stored byte",
        read_again,
        red="planted-fuse-writable-mmap@v2 fuse.plant=early-read",
    ),
    Check(
        "B9",
        "While a cached WRITE of a page is under way no other WRITE of it is sent",
        _PROMISE,
        "write(2) and a second store wait and send nothing; no two WRITEs of a page at a time "
        "when three processes store and start writeback",
        one_write,
        patience=2,
        red="planted-fuse-writable-mmap@v2 fuse.plant=two-writes",
    ),
    Check(
        "B10",
        "A truncate while a WRITE is withheld leads to no WRITE past the new end",
        _PROMISE,
        "ftruncate waits; pages dirtied meanwhile are cropped; the server's file has the new size",
        truncate_meanwhile,
        red="planted-fuse-writable-mmap@v2 fuse.plant=no-crop",
    ),
    Check(
        "B19",
        "Compaction, drop_caches, offlining, memory failure, other filesystems do not wait",
        _PROMISE + "; review of 2025: reclaim must not wait",
        f"while a WRITE is withheld each returns within {SOON:.0f} s",
        others_go_on,
        patience=2,
        red="fuse-writable-mmap@v2 + planted-fuse-writable-mmap@v3 fuse.plant=determinate",
    ),
    Check(
        "B23",
        "They do not wait behind a store that waits for the server, either",
        "This lab: a page locked for as long as a server likes is waited for by others",
        f"while a second store to the page waits each returns within {SOON:.0f} s",
        others_go_on_behind_a_store,
        patience=2,
        red="base",
        green="fuse-writable-mmap@v3",
    ),
)

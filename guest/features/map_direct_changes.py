# SPDX-License-Identifier: GPL-2.0-or-later
"""MAP_DIRECT: everything that would change the block map, and what may go on."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Mapping

from guest import blocks, libc
from guest.checking import error_of, fate, need
from guest.features.map_direct_rig import (
    MODES,
    SIZE,
    V6,
    V9,
    Dialect,
    Held,
    dialect,
    held,
    map_direct,
    need_mount,
    new_file,
    planted,
    remade,
)
from guest.libc import PAGE, READ, SHARED, WRITE, Map
from guest.words import Check, Context

_MAN = "mmap(2) of the posting of 2017-08-23, ETXTBSY and SIGBUS"


def _keeps(
    name: str, changes: Mapping[str, Callable[[Held], object]], wanted: int = errno.ETXTBSY
) -> str:
    seen = []
    for what, change in changes.items():
        with held(name) as one:
            seen.append(one.keeps(what, lambda change=change, one=one: change(one), wanted))  # type: ignore[misc]
    return ", ".join(seen)


def truncate(_context: Context) -> str:
    return _keeps("truncate", {
        "shrinking": lambda one: os.ftruncate(one.fd, PAGE),
        "growing": lambda one: os.ftruncate(one.fd, 4 * SIZE),
        "O_TRUNC": lambda one: os.close(os.open(one.path, os.O_WRONLY | os.O_TRUNC)),
    })  # fmt: skip


def fallocate(_context: Context) -> str:
    def change(mode: int) -> Callable[[Held], object]:
        start = SIZE if mode == blocks.FALLOC_FL_KEEP_SIZE else 4 * PAGE
        return lambda one: blocks.fallocate(one.fd, mode, start, 4 * PAGE)

    return _keeps("fallocate", {name: change(mode) for name, mode in MODES.items()})


def remap(_context: Context) -> str:
    need_mount()
    with new_file("other") as (_, other):
        seen = _keeps("remap", {
            "cloning it": lambda one: blocks.clone(one.fd, other),
            "cloning into it": lambda one: blocks.clone(other, one.fd),
            "deduping it": lambda one: blocks.dedupe(one.fd, other, SIZE),
        })  # fmt: skip
    return f"{seen}, {_copies()}"


def _copies() -> str:
    """copy_file_range(2) copies where it may not clone."""
    with new_file("copy") as (_, other), held("copied") as one:
        os.pwrite(other, b"x" * SIZE, 0)
        if dialect() is Dialect.LEASE:
            return "copy_file_range not tried: it clones when the holder has let go"
        need(os.copy_file_range(one.fd, other, SIZE, 0, 0) > 0, "copying from it gave 0")
        os.pwrite(other, b"y" * SIZE, 0)
        need(os.copy_file_range(other, one.fd, SIZE, 0, 0) > 0, "copying into it gave 0")
        one.unmoved("copy_file_range")
        need(os.pread(one.fd, 1, 0) == b"y", "copy_file_range copied nothing")
    return "copy_file_range copies"


def past_the_end(_context: Context) -> str:
    def append(one: Held) -> None:
        fd = os.open(one.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(fd, bytes(PAGE))
        finally:
            os.close(fd)

    return _keeps("grow", {
        "write past the end": lambda one: os.pwrite(one.fd, bytes(2 * PAGE), SIZE),
        "O_APPEND": append,
    })  # fmt: skip


def inside(_context: Context) -> str:
    with held("inside") as one:
        os.pwrite(one.fd, b"A" * (2 * PAGE), PAGE)
        need(one.map is not None and one.map.view[PAGE] == ord("A"), "the map does not show it")
        one.unmoved("write(2) within the file")
        need(one.signals == 0, "the holder was told of a write that moves nothing")
    return "written, seen in the map, nothing moved"


def into_a_hole(_context: Context) -> str:
    need_mount()
    with new_file("hole") as (path, fd):
        blocks.fallocate(fd, MODES["punch"], 4 * PAGE, 4 * PAGE)
        blocks.fallocate(fd, MODES["allocate"], 4 * PAGE, PAGE)  # unwritten
        writes = [("a hole", 6 * PAGE, 1), ("an unwritten extent", 4 * PAGE, 1)]
        if dialect() is Dialect.LEASE:  # a seal makes it short
            writes.append(("a hole from before it", 4 * PAGE, 3 * PAGE))
        seen = []
        for what, start, size in writes:
            change = lambda start=start, size=size: _write_all(fd, start, size)  # noqa: E731
            with contextlib.closing(Held(path, fd)) as one:
                seen.append(one.keeps(f"write(2) into {what}", change))
    return ", ".join(seen)


def _write_all(fd: int, start: int, size: int) -> None:
    written = os.pwrite(fd, b"h" * size, start)
    need(written == size, f"write(2) of {size} bytes wrote {written}")


def store_to_a_hole(_context: Context) -> str:
    need_mount()
    with new_file("store") as (_, fd):
        blocks.fallocate(fd, MODES["punch"], 4 * PAGE, 4 * PAGE)
        blocks.fallocate(fd, MODES["allocate"], 4 * PAGE, PAGE)
        with map_direct(fd) as map_:
            before = blocks.extents(fd)
            need(map_.view[6 * PAGE] == 0, "a load from a hole is not 0")
            seen = [
                f"{what}: {fate(lambda at=at: map_.view.__setitem__(at, 1))}"  # type: ignore[misc]
                for what, at in (("hole", 6 * PAGE), ("unwritten", 4 * PAGE), ("written", 0))
            ]
            need(blocks.extents(fd) == before, "a store changed the extents")
    wanted = ["hole: SIGBUS", "unwritten: SIGBUS", "written: no signal"]
    need(seen == wanted, ", ".join(seen))
    return ", ".join(seen)


def shared_blocks(_context: Context) -> str:
    need_mount()
    with new_file("source") as (_, fd), new_file("clone") as (_, other):
        blocks.clone(fd, other)
        with map_direct(fd) as map_:
            seen = [
                f"{what}: {fate(touch)}"
                for what, touch in (
                    ("load", lambda: map_.view[0]),
                    ("store", lambda: map_.view.__setitem__(0, 1)),
                )
            ]
    need(seen == ["load: SIGBUS", "store: SIGBUS"], ", ".join(seen))
    return ", ".join(seen)


def plain_beside(_context: Context) -> str:
    with held("plain") as one, Map(one.fd, SIZE, READ | WRITE, SHARED) as plain:
        plain.view[3 * PAGE] = 7
        need(one.map is not None and one.map.view[3 * PAGE] == 7, "the maps differ")
        one.unmoved("a store to a plain map")
    return "a store to it is seen in the other"


def swaps(context: Context) -> str:
    need_mount()
    wanted = errno.EINVAL if dialect() is Dialect.POSTED else errno.ETXTBSY
    with new_file("swap") as (_, other):
        os.pwrite(other, b"s" * SIZE, 0)
        swap = {"swapext": lambda one: blocks.swap_extents(one.fd, other)}
        seen = _keeps("swapped", swap, wanted)
    return f"{seen}, {_exchanges(context)}"


def _exchanges(context: Context) -> str:
    """On a filesystem that can do it: the one of lab.toml is made without."""
    device = context.settings["pmem"][0]
    able = [word.replace("exchange=0", "exchange=1") for word in device["mkfs"]]
    with remade(device, {**device, "mkfs": able}):
        with new_file("able") as (_, fd), new_file("exchanged") as (_, other):
            gave = error_of(lambda: blocks.exchange_range(fd, other, SIZE))
        if gave == errno.EOPNOTSUPP:
            return "no exchange-range here"
        need(gave == 0, f"exchange-range of files that nobody holds gave {libc.name_of(gave)}")
        with new_file("exchanged") as (_, other):
            change = {"exchange-range": lambda one: blocks.exchange_range(one.fd, other, SIZE)}
            return _keeps("exchange", change)


def names_and_times(_context: Context) -> str:
    with held("names") as one:
        away = one.path.with_name("direct-away")
        one.path.rename(away)
        os.link(away, one.path)
        away.unlink()
        one.path.chmod(0o644)
        os.utime(one.path, (1, 1))
        one.unmoved("rename, link, unlink, chmod and utimes")
        need(one.signals == 0, "the holder was told")
    return "rename, link, unlink, chmod, utimes work, nothing moved"


CHECKS = (
    Check("D8", "ftruncate either way and O_TRUNC", _MAN, "ETXTBSY, or they wait", truncate,
          red="; ".join((planted("truncates"), planted("unleased", V9))), green=V6),
    Check("D9", "Every mode of fallocate", _MAN, "ETXTBSY, or they wait", fallocate,
          red="; ".join((planted("fallocates"), planted("unleased", V9))), green=V6),
    Check("D10", "Clone, dedupe and copy_file_range, both directions", _MAN,
          "ETXTBSY, or they wait; copies copy", remap,
          red=planted("remaps"), green=V6),
    Check("D11", "Writes past the end, and O_APPEND", _MAN, "ETXTBSY, or they wait",
          past_the_end,
          red="; ".join((planted("grows"), planted("unleased", V9))), green=V6),
    Check("D12", "A write inside written extents works and shows in the map", _MAN,
          "nothing moves, nobody is told", inside,
          red=planted("no-writes"), green=V6),
    Check("D13", "write(2) into a hole or an unwritten extent", _MAN, "ETXTBSY, or it waits",
          into_a_hole,
          red="; ".join((planted("fills-holes"), planted("unleased", V9))), green=V6),
    Check("D14", "A store to a hole or an unwritten extent; a load from a hole", _MAN,
          "SIGBUS; 0", store_to_a_hole,
          red=planted("fills-holes"), green=V6),
    Check("D15", "Faults on a file with shared blocks", _MAN, "SIGBUS", shared_blocks,
          red=planted("shared-shown"), green=V6),
    Check("D16", "A plain map beside it works", _MAN, "both see the same", plain_beside,
          red=planted("alone"), green=V6),
    Check("D20", "swapext and exchange-range", _MAN, "refused, or they wait", swaps,
          red=planted("swaps"), green=V6),
    Check("D21", "rename, link, unlink, chmod and utimes work", _MAN, "nothing moves",
          names_and_times,
          red=planted("no-chmod"), green=V6),
)  # fmt: skip

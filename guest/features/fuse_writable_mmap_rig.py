# SPDX-License-Identifier: GPL-2.0-or-later
"""What the checks of shared writable maps have in common: files, held WRITEs, who waits."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from guest import fuse, libc
from guest.checking import Puppet, let_go, need, opened, puppet, story
from guest.features import fuse_writable_mmap_times as times
from guest.fuse.protocol import Op
from guest.fuse.server import Options
from guest.fuse.steering import Event
from guest.libc import PAGE, Map
from guest.words import CheckError, Context

NAME = "file"
# Seconds for what must not wait for a server. Under TCG compaction alone takes one or two.
SOON = 15.0
_HOUR = 360_000  # hundredths of a second
_IMAGE = 64 << 20  # of ext4, with its journal


@contextlib.contextmanager
def file_of(
    context: Context, data: bytes, options: Options | None = None, *, limits: bool = False
) -> Iterator[tuple[fuse.Mount, int]]:
    """A mount with one file, and that file open for reading and writing.

    Without the ``limits`` of its dirty pages nothing is written that the check did not ask for.
    A flusher may come between a fault and the store, which then waits for the WRITE of a page
    that was not stored to yet.
    """
    with (
        fuse.mounted({NAME: data}, context.scratch, options) as fs,
        contextlib.nullcontext() if limits else times.quiet(fs.bdi, _HOUR),
        opened(fs.path / NAME, os.O_RDWR) as fd,
        let_go(fs),
    ):
        yield fs, fd


@contextlib.contextmanager
def mapped_file(
    context: Context, data: bytes, options: Options | None = None, *, limits: bool = False
) -> Iterator[tuple[fuse.Mount, int, Map]]:
    """The same, and a shared writable map of all its pages."""
    with file_of(context, data, options, limits=limits) as (fs, fd):
        times.probe(fd)
        with Map(fd, -(-len(data) // PAGE) * PAGE) as map_, let_go(fs):
            yield fs, fd, map_


def hold(fs: fuse.Mount, fd: int, count: int = 1) -> None:
    """Starts writeback; from now on the server has got ``count`` WRITEs and answers none."""
    fs.withhold(Op.WRITE)
    libc.start_writeback(fd)
    need(fs.wait(Op.WRITE, count), f"writeback was started, no WRITE came: {story(fs.log())}")


@contextlib.contextmanager
def held_page(context: Context, pages: int) -> Iterator[tuple[fuse.Mount, int, Map]]:
    """A mapped file of which page 0 was stored to, and its WRITE is withheld.

    Answered at the end, so that nobody waits for it any more.
    """
    with mapped_file(context, bytes(pages * PAGE)) as (fs, fd, map_):
        map_.view[0] = 1
        hold(fs, fd)
        yield fs, fd, map_
        fs.release(Op.WRITE)


@contextlib.contextmanager
def other(**acts: Callable[..., Any]) -> Iterator[Puppet]:
    """A process that does one of these at a time; it may hang in the kernel."""
    with puppet(acts) as found:
        yield found


@contextlib.contextmanager
def ext4(context: Context) -> Iterator[Path]:
    """Where an empty ext4 on a loop device is mounted."""
    image, point = context.scratch / "image", context.scratch / "ext4"
    with image.open("wb") as file:
        file.truncate(_IMAGE)
    point.mkdir()
    now = "lazy_itable_init=0,lazy_journal_init=0"  # or a thread does it while we measure
    subprocess.run(["mkfs.ext4", "-q", "-F", "-E", now, str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(point)], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", str(point)], check=True)


def soon(one: Puppet, what: str) -> Any:
    """The result of what it was told. Raises CheckError when it waits."""
    if not one.settled(SOON):
        raise CheckError(f"{what} did not return within {SOON:.0f} s\n{one.where()}".rstrip())
    return one.result()


def spans(log: list[Event], op: str = "WRITE") -> list[tuple[Event, int, int]]:
    """Each request, and where in the log it begins and ends (past the end: not answered)."""
    ends = {one.unique: at for at, one in enumerate(log) if not one.request}
    return [
        (one, at, ends.get(one.unique, len(log)))
        for at, one in enumerate(log)
        if one.request and one.op == op
    ]


def meminfo() -> Mapping[str, int]:
    """In kB."""
    # The counters are kept per CPU; this folds them first.
    Path("/proc/sys/vm/stat_refresh").write_text("1")
    lines = Path("/proc/meminfo").read_text().splitlines()
    return {name: int(rest.split()[0]) for name, _, rest in (one.partition(":") for one in lines)}

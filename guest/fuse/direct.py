# SPDX-License-Identifier: GPL-2.0-or-later
"""Direct mmap as a client meets it: which dialect is spoken here, and a served file to map."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import count
from pathlib import Path

from guest import child
from guest.fuse import client
from guest.fuse import protocol as p
from guest.fuse.server import Options
from guest.fuse.steering import Service
from guest.libc import PAGE, READ, SHARED, mmap_errno
from guest.words import Skipped, Unsupported

# What the OPEN of a file that is to be mapped directly is answered with, in every dialect.
FLAGS = p.FOPEN_DIRECT_IO | p.FOPEN_DIRECT_MMAP
FUSE, CUSE = "FUSE", "CUSE"
KINDS = (FUSE, CUSE)
_NAME = "direct"
_numbers = count()


class Dialect(Enum):
    """How server and kernel speak of a mapping."""

    IDS = "ids"
    FDS = "descriptors, negotiated"
    POSTED = "descriptors, as posted"

    @property
    def ids(self) -> bool:
        return self is Dialect.IDS


def decide(offered: int, asked: bool) -> Dialect | None:
    """From the INIT flags that the kernel offers, and whether it sent an MMAP."""
    if offered & p.MMAP_ID:
        return Dialect.IDS
    if offered & p.MMAP_FD:
        return Dialect.FDS
    return Dialect.POSTED if asked else None


def _probe() -> str:
    with tempfile.TemporaryDirectory(prefix="dialect-") as name:
        folder = Path(name).resolve()
        options = Options(direct=True)
        with client.mounted({_NAME: b""}, folder, options, {_NAME: FLAGS}) as fs:
            fd = os.open(fs.path / _NAME, os.O_RDWR)
            mmap_errno(fd, PAGE, READ, SHARED)
            asked = any(one.op == "MMAP" for one in fs.log())
            os.close(fd)
            found = decide(fs.facts["offered"], asked)
    return found.name if found else ""


@functools.cache
def dialect() -> Dialect | None:
    """The one spoken here, None on a kernel without the feature; found out once a process.

    Raises RuntimeError when the probe itself came to no end.
    """
    # No deadline: under icount idle time is not time, and the host has a limit of its own.
    ended = child.run(_probe, None)
    if ended.value is None:
        raise RuntimeError(f"no probe of direct mmap: {ended.error}")
    return Dialect[ended.value] if ended.value else None


def wanted() -> Dialect:
    """The dialect; raises Unsupported where there is none."""
    found = dialect()
    if found is None:
        raise Unsupported("INIT offers no direct mmap, and an mmap does not reach the server")
    return found


@dataclass(frozen=True, slots=True)
class Target:
    """One served file, of a mount or the device itself. ``name`` is what orders call it."""

    kind: str
    service: Service
    path: Path
    name: str
    dialect: Dialect

    @contextlib.contextmanager
    def open(self, flags: int = os.O_RDWR) -> Iterator[int]:
        fd = os.open(self.path, flags)
        try:
            yield fd
        finally:
            with contextlib.suppress(OSError):  # closed already, or the server is dead
                os.close(fd)


@contextlib.contextmanager
def served(
    kind: str,
    folder: Path,
    data: bytes = b"",
    options: Options | None = None,
    flags: int = FLAGS,
) -> Iterator[Target]:
    """A file on a new mount under ``folder``, or a new CUSE device.

    Without ``options`` the server speaks direct mmap; with them, only if they say so.
    Raises Unsupported where there is no direct mmap, Skipped where there is no CUSE.
    """
    spoken = wanted()
    options = options or Options(direct=True)
    if kind == FUSE:
        with client.mounted({_NAME: data}, folder, options, {_NAME: flags}) as fs:
            yield Target(kind, fs, fs.path / _NAME, _NAME, spoken)
        return
    if not Path("/dev/cuse").exists():
        raise Skipped("there is no /dev/cuse")
    name = f"lab-{os.getpid()}-{next(_numbers)}"
    with client.device(name, data, options, flags) as one:
        yield Target(kind, one, one.path, name, spoken)

# SPDX-License-Identifier: GPL-2.0-or-later
"""SHA-256 of a user's files, remembered for as long as they have not changed.

A file is taken for unchanged when size, mtime, ctime and inode are as they were. A file that
was changed less than RACY before it was read is read again next time: the clock that stamps
files is coarse, and a second change in the same tick would not be seen.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
import time
from pathlib import Path

import msgspec

from patchlab.paths import Cache
from patchlab.store import content

RACY = 2.0  # seconds; network filesystems keep whole seconds
ROOM = "digests"


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """A file as it was when it was read."""

    size: int
    mtime: int  # nanoseconds
    ctime: int
    inode: int
    device: int
    mode: int
    sha256: bytes  # of the content, or of what a link says

    def same(self, status: os.stat_result) -> bool:
        """Whether the file is still the one that was read."""
        return _identity(status) == (
            self.size,
            self.mtime,
            self.ctime,
            self.inode,
            self.device,
            self.mode,
        )


Memory = dict[str, Seen]


def of(path: str, remembered: Seen | None) -> Seen:
    """What ``path`` holds now; it is read only when it is not as ``remembered``.

    A plain string: a tree has 90,000 of them, and a Path takes longer to make than to ask for.
    """
    status = os.lstat(path)
    if remembered and remembered.same(status):
        return remembered
    if stat.S_ISLNK(status.st_mode):
        target = os.fsencode(Path(path).readlink())
        return Seen(*_identity(status), hashlib.sha256(b"link " + target).digest())
    with Path(path).open("rb") as file:
        identity = _identity(os.fstat(file.fileno()))
        return Seen(*identity, hashlib.file_digest(file, "sha256").digest())


def of_file(path: Path, cache: Cache) -> str:
    """SHA-256 of one file, as hex."""
    memory = load(path, cache)
    seen = of(str(path.resolve()), memory.get(""))
    if memory.get("") != seen:
        store(path, cache, {"": seen})
    return seen.sha256.hex()


def load(path: Path, cache: Cache) -> Memory:
    """What is remembered of ``path``, a file or a tree; nothing the first time."""
    with contextlib.suppress(FileNotFoundError, msgspec.MsgspecError):
        return msgspec.msgpack.decode(_file(path, cache).read_bytes(), type=Memory)
    return {}


def store(path: Path, cache: Cache, memory: Memory) -> None:
    limit = time.time_ns() - int(RACY * 1e9)
    certain = {name: seen for name, seen in memory.items() if max(seen.ctime, seen.mtime) < limit}
    target = _file(path, cache)
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
        file.write(msgspec.msgpack.encode(certain))
    Path(file.name).replace(target)


def _file(path: Path, cache: Cache) -> Path:
    return cache.room(ROOM) / f"{content.digest(os.fsencode(path.resolve()))}.msgpack"


def _identity(status: os.stat_result) -> tuple[int, int, int, int, int, int]:
    return (
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
        status.st_dev,
        status.st_mode,
    )

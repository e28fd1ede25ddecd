# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk that is full, said with its folder, what is missing and the remedy.

A tool that finds no space says so in its own words, or dies without any (a compiler's
temporary file, a page of a file that QEMU maps). So a failure counts as a full disk when
its error says so, or when next to nothing is free on the file system at that moment.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from patchlab.errors import MissingTool, UsageError

_MIB = 1 << 20
_NEXT_TO_NOTHING = _MIB  # bytes
_NUMBERS = frozenset((errno.ENOSPC, errno.EDQUOT))
# strerror(3) of the two, and SQLite's SQLITE_FULL.
_WORDS = ("No space left on device", "Disk quota exceeded", "database or disk is full")

# Bytes that an entry of a room of the cache takes while it is made, by the shipped lab.toml.
ROOMS: Mapping[str, int] = {
    "sources": 2000 * _MIB,
    "trees": 1000 * _MIB,
    "images": 700 * _MIB,
    "roots": 700 * _MIB,
}


class DiskFull(MissingTool):
    """No space left. ``folder`` is where it was wanted."""


def free(folder: Path) -> int:
    """Bytes that this user may still write to the folder's file system."""
    status = os.statvfs(_existing(folder))
    return status.f_bavail * status.f_frsize


def is_full(error: BaseException | None, *folders: Path) -> bool:
    """Whether ``error`` came of a full disk, by its words or by what is free in ``folders``."""
    silent = not isinstance(error, UsageError)  # what is wrong with a patch says so itself
    if silent and any(free(folder) < _NEXT_TO_NOTHING for folder in folders):
        return True
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NUMBERS:
            return True
        if any(words in str(error) for words in _WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


def error(what: str, folder: Path, need: int, remedy: str) -> DiskFull:
    """``need`` is bytes in all, about; 0 when nobody knows."""
    there = free(folder)
    text = f"{what}: no space left in {folder} ({_mb(there)} free"
    if need > there:
        text += f", about {_mb(need - there)} more needed"
    return DiskFull(f"{text})", hint=remedy)


CACHE_REMEDY = "runner.py gc makes room, or name another disk's folder in $XDG_CACHE_HOME"
TMP_REMEDY = "make room there, or name another disk's folder in $TMPDIR"
RESULTS_REMEDY = (
    "make room there (runner.py gc frees the cache), and runner.py run --resume goes on"
)


def located(trouble: BaseException, remedies: Mapping[Path, str]) -> DiskFull | None:
    """The error for a full disk that nobody foresaw, in the fullest of the folders that we write.

    None when ``trouble`` did not come of a full disk. ``remedies`` has a remedy for each folder.
    """
    if not is_full(trouble):
        return None
    folder = min(remedies, key=free)
    return error(str(trouble), folder, 0, remedies[folder])


@contextlib.contextmanager
def told(what: str, folder: Path, remedy: str, need: int = 0) -> Iterator[None]:
    """Raises DiskFull in place of the error that a full disk under ``folder`` has caused."""
    try:
        yield
    except DiskFull:
        raise
    except Exception as trouble:
        if is_full(trouble):
            raise error(what, folder, need, remedy) from trouble
        raise


def require(what: str, folder: Path, need: int, remedy: str) -> None:
    """Raises DiskFull unless ``need`` bytes are free under ``folder``."""
    if free(folder) < need:
        raise error(what, folder, need, remedy)


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"

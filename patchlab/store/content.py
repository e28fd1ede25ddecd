# SPDX-License-Identifier: GPL-2.0-or-later
"""Content-keyed folders: what exists under its final name is whole, and is never rewritten.

A cache folder holds rooms (``sources/``, ``trees/``, ``images/`` …). An entry is built in
``tmp/`` under the lock of its key, and renamed into its room. A lock is the kernel's own
(flock), so a killed process leaves none, and what it left in ``tmp/`` is known by the lock
that can be taken.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from patchlab import proc
from patchlab.errors import StoreError

DIGEST_CHARACTERS = 24
PATIENCE = 4 * 3600.0
Builder = Callable[[Path], None]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~@-]*")
# A dot cannot be told from one in the key, so the parts of a temp name are joined by this.
_SEPARATOR = "="


def digest(*parts: str | bytes) -> str:
    """A key: 24 hex characters of a SHA-256 over the parts, each with its length before it."""
    hasher = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        hasher.update(len(data).to_bytes(8, "big") + data)
    return hasher.hexdigest()[:DIGEST_CHARACTERS]


def find(room: Path, key: str) -> Path | None:
    """The entry of that key, or None."""
    path = room / _valid(key)
    return path if path.is_dir() else None


def publish(room: Path, key: str, build: Builder, *, patience: float = PATIENCE) -> Path:
    """The entry of that key, built when it is not there yet.

    ``build`` fills an empty folder, which is then renamed to ``room/key``. It is called at
    most once at a time for a key, on all processes of this user; the others wait for at
    most ``patience`` seconds (StoreError) and get what the first one built. When ``build``
    raises, nothing is published and its folder is removed.
    """
    if found := find(room, key):
        return found
    lock = _lock(room, key)
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        raise StoreError(
            f"{room.name}/{key}: another process has been building it for {patience:.0f} s",
            hint=f"end that process; its lock is {lock.lock_file}",
        ) from None
    try:
        return find(room, key) or _build(room, key, build)
    finally:
        lock.release()


def discard(room: Path, key: str) -> None:
    """Take the entry out. It is gone under its name at once; a missing one is no error."""
    with _lock(room, key):
        if found := find(room, key):
            grave = _temporary(room, key)
            found.rename(grave / found.name)
            _remove(grave)


def clean_leftovers(cache: Path) -> tuple[Path, ...]:
    """Remove what killed builds left in ``tmp/``, and return it.

    What belongs to a build that is going on is left alone: its lock cannot be taken.
    """
    removed = []
    for path in sorted((cache / "tmp").glob(f"*{_SEPARATOR}*{_SEPARATOR}*")):
        room, key, _ = path.name.split(_SEPARATOR, 2)
        lock = _lock(cache / room, key)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        try:
            _remove(path)
            removed.append(path)
        finally:
            lock.release()
    return tuple(removed)


def _build(room: Path, key: str, build: Builder) -> Path:
    folder = _temporary(room, key)
    try:
        build(folder)
        # A rename may reach the disk before the data does: after a power cut the entry
        # would be there, and its files empty.
        proc.run(["sync", "--file-system", str(folder)], deadline=600)
        final = room / key
        folder.rename(final)
        return final
    except BaseException:
        _remove(folder)
        raise


def _lock(room: Path, key: str) -> FileLock:
    folder = room.parent / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{room.name}{_SEPARATOR}{_valid(key)}.lock")


def _temporary(room: Path, key: str) -> Path:
    folder = room.parent / "tmp"
    folder.mkdir(parents=True, exist_ok=True)
    room.mkdir(parents=True, exist_ok=True)
    prefix = f"{room.name}{_SEPARATOR}{_valid(key)}{_SEPARATOR}"
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=folder))
    path.chmod(0o755)
    return path


def _remove(folder: Path) -> None:
    # Half-done work may hold folders that their owner may not write to.
    def unlock_and_retry(function: Callable[[str], object], path: str, _: object) -> None:
        Path(path).parent.chmod(0o700)
        if not Path(path).is_symlink() and Path(path).is_dir():
            Path(path).chmod(0o700)
        if function in (os.unlink, os.rmdir):
            function(path)

    shutil.rmtree(folder, onerror=unlock_and_retry)
    if folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


def _valid(key: str) -> str:
    if not _NAME.fullmatch(key):
        raise StoreError(f"{key!r} cannot be the name of something in the cache")
    return key

# SPDX-License-Identifier: GPL-2.0-or-later
"""Content-keyed folders: what exists under its final name is whole, and is never rewritten.

A cache folder holds rooms (``sources/``, ``trees/``, ``images/`` …). An entry is built in
``tmp/`` under the lock of its key, and renamed into its room. A lock is the kernel's own
(flock), so a killed process leaves none, and what it left in ``tmp/`` is known by the lock
that can be taken. Who uses an entry holds a second, shared lock until the process ends, so
that gc leaves it alone; the time of an entry's folder is that of its last use.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from patchlab import full, proc
from patchlab.errors import StoreError

DIGEST_CHARACTERS = 24
PATIENCE = 4 * 3600.0
Builder = Callable[[Path], None]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~@-]*")
# A dot cannot be told from one in the key, so the parts of a temp name are joined by this.
_SEPARATOR = "="
# What this process uses -> the open file that its shared lock is on.
_HELD: dict[Path, int] = {}
_HELD_LOCK = threading.Lock()


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


def use(room: Path, key: str) -> Path | None:
    """The entry of that key, kept from gc until this process ends; None if there is none.

    Its folder's time becomes now, which tells gc when it was last used.
    """
    path = room / _valid(key)
    with contextlib.suppress(OSError), _HELD_LOCK:  # a cache may be lent read-only
        if path not in _HELD:
            handle = _open(room, key)
            # Waits only for a gc that renames it away at this moment.
            fcntl.flock(handle, fcntl.LOCK_SH)
            if not path.is_dir():
                os.close(handle)
                return None
            _HELD[path] = handle
        os.utime(path)
    return find(room, key)


def publish(room: Path, key: str, build: Builder, *, patience: float = PATIENCE) -> Path:
    """The entry of that key, for use, built when it is not there yet.

    ``build`` fills an empty folder, which is then renamed to ``room/key``. It is called at
    most once at a time for a key, on all processes of this user; the others wait for at
    most ``patience`` seconds (StoreError) and get what the first one built. When ``build``
    raises, nothing is published and its folder is removed.
    """
    if found := use(room, key):
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
        return use(room, key) or _build(room, key, build)
    finally:
        lock.release()


def discard(room: Path, key: str) -> None:
    """Take the entry out. It is gone under its name at once; a missing one is no error.

    Also one that is in use: for an entry that is found to be bad.
    """
    with _lock(room, key):
        _remove(_bury(room, key))


def discard_unused(room: Path, key: str) -> bool:
    """Take the entry out unless a live process uses or builds it; whether it is gone."""
    with contextlib.suppress(Timeout), _lock(room, key).acquire(timeout=0):
        with _unused(room, key) as free:
            grave = _bury(room, key) if free else None
        if grave:
            _remove(grave)
        return free
    return False


def in_use(room: Path, key: str) -> bool:
    """Whether a live process uses the entry, this one included."""
    with _unused(room, key) as free:
        return not free


def leftovers(cache: Path) -> tuple[Path, ...]:
    """What killed builds left in ``tmp/``. That of a build that is going on is none."""
    return _leftovers(cache, lambda _: True)


def clean_leftovers(cache: Path) -> tuple[Path, ...]:
    """Remove what killed builds left in ``tmp/``, and return it.

    What belongs to a build that is going on is left alone: its lock cannot be taken.
    """
    return _leftovers(cache, _remove)


def _leftovers(cache: Path, each: Callable[[Path], bool]) -> tuple[Path, ...]:
    found = []
    for path in sorted((cache / "tmp").glob(f"*{_SEPARATOR}*{_SEPARATOR}*")):
        room, key, _ = path.name.split(_SEPARATOR, 2)
        with contextlib.suppress(Timeout), _lock(cache / room, key).acquire(timeout=0):
            found += [path] if each(path) else []
    return tuple(found)


def _bury(room: Path, key: str) -> Path:
    """Move the entry to ``tmp/``, where it is nothing but half-done work."""
    with _HELD_LOCK:
        handle = _HELD.pop(room / key, None)
    if handle is not None:
        os.close(handle)
    grave = _temporary(room, key)
    if found := find(room, key):
        found.rename(grave / found.name)
    return grave


@contextlib.contextmanager
def _unused(room: Path, key: str) -> Iterator[bool]:
    """Nobody can begin to use the entry inside this, when it yields True."""
    handle = _open(room, key)
    try:
        yield _taken(handle)
    finally:
        os.close(handle)


def _taken(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open(room: Path, key: str) -> int:
    """The file whose lock says that the entry is in use. It stays, so that its lock is one."""
    lock = Path(_lock(room, key).lock_file).with_suffix(".use")
    return os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _build(room: Path, key: str, build: Builder) -> Path:
    folder = _temporary(room, key)
    try:
        build(folder)
        # A rename may reach the disk before the data does: after a power cut the entry
        # would be there, and its files empty.
        proc.run(["sync", "--file-system", str(folder)], deadline=600)
        final = room / key
        folder.rename(final)
        use(room, key)
        return final
    except BaseException as trouble:
        no_room = full.is_full(trouble, folder)
        _remove(folder)
        if no_room and isinstance(trouble, Exception) and not isinstance(trouble, full.DiskFull):
            need = full.ROOMS.get(room.name, 0)
            raise full.error(f"{room.name}/{key}", room, need, full.CACHE_REMEDY) from trouble
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


def _remove(folder: Path) -> bool:
    """Whether it is gone: another user's files in it may stay, and harm nobody."""

    # Half-done work may hold folders that their owner may not write to.
    def unlock_and_retry(function: Callable[[str], object], path: str, _: object) -> None:
        with contextlib.suppress(OSError):
            Path(path).parent.chmod(0o700)
            if not Path(path).is_symlink() and Path(path).is_dir():
                Path(path).chmod(0o700)
            if function in (os.unlink, os.rmdir):
                function(path)

    shutil.rmtree(folder, onerror=unlock_and_retry)
    if folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def _valid(key: str) -> str:
    if not _NAME.fullmatch(key):
        raise StoreError(f"{key!r} cannot be the name of something in the cache")
    return key

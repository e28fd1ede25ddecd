# SPDX-License-Identifier: GPL-2.0-or-later
"""Proof that an untrusted build did not write into the source that it shares.

A variant's tree is hard links into the cached source (tree.py). A planted Makefile could
open such a file and write in place, and every later build of the base would have it. That
cannot be forbidden to a process that owns the files, so it is found out: the source's
content was recorded when it was unpacked, and after the build every file whose change time
moved is read again. A change time cannot be set back (utimensat(2) sets it to now); it also
moves when another variant links or unlinks the file, which is why it alone proves nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from patchlab.errors import BuildError
from patchlab.model import SourceTree
from patchlab.paths import Cache
from patchlab.store import content

_RECORD = "files.msgpack"
_GUARDS = "guards"
_SHOWN = 5
_TICK = 0.02  # seconds; the kernel's coarse clock has 1 to 10 ms


def record(tree: Path) -> None:
    """Write down what is in ``tree``, in a file beside it (some seconds for a kernel)."""
    prints = {path: _fingerprint(tree, path) for path in _changed(tree)}
    (tree.parent / _RECORD).write_bytes(msgspec.msgpack.encode(prints))


def damage(tree: Path, paths: Iterable[str] | None = None) -> list[str]:
    """Those of ``paths`` (all, by default) that are not as they were recorded."""
    recorded = msgspec.msgpack.decode((tree.parent / _RECORD).read_bytes(), type=dict[str, str])
    suspects = recorded if paths is None else paths
    return sorted(path for path in suspects if _fingerprint(tree, path) != recorded.get(path))


@contextlib.contextmanager
def guarded(source: SourceTree, cache: Cache) -> Iterator[None]:
    """Run untrusted code that has hard links into ``source`` inside this.

    Raises BuildError when the source was damaged, now or by a build whose lab was killed;
    the source and the trees built from it are then taken out of the cache.
    """
    guards = cache.room(_GUARDS)
    if _left_by_the_dead(guards, source.key):
        _require_whole(source, cache, None)
    # This file outlives a killed lab, and then tells that nobody looked.
    handle, marker = tempfile.mkstemp(prefix=f"{source.key}=", dir=guards)
    os.close(handle)
    with FileLock(marker):
        # A write in the clock tick in which the file was linked would not move its time.
        time.sleep(_TICK)
        before = _changed(source.folder)
        try:
            yield
        finally:
            after = _changed(source.folder)
            moved = [path for path, when in before.items() if after.get(path) != when]
            _require_whole(source, cache, moved)
            Path(marker).unlink()


def _require_whole(source: SourceTree, cache: Cache, paths: list[str] | None) -> None:
    found = damage(source.folder, paths)
    if not found:
        return
    content.discard(cache.room("sources"), source.key)
    for tree in list(cache.room("trees").iterdir()):
        content.discard(cache.room("trees"), tree.name)
    raise BuildError(
        f"a build wrote into the shared source: {', '.join(found[:_SHOWN])}; "
        "source and built bases were taken out of the cache",
        hint="do not trust this series; images built since it first ran are suspect too: "
        "runner.py gc removes them",
    )


def _left_by_the_dead(guards: Path, key: str) -> bool:
    found = False
    for marker in guards.glob(f"{key}=*"):
        with contextlib.suppress(Timeout), FileLock(marker, timeout=0):
            marker.unlink(missing_ok=True)
            found = True
    return found


def _changed(tree: Path) -> dict[str, int]:
    """Every regular file below ``tree`` -> its change time in nanoseconds."""
    times: dict[str, int] = {}
    pending = [""]
    while pending:
        folder = pending.pop()
        with os.scandir(tree / folder) as entries:
            for entry in entries:
                path = f"{folder}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{path}/")
                elif entry.is_file(follow_symlinks=False):
                    times[path] = entry.stat(follow_symlinks=False).st_ctime_ns
    return times


def _fingerprint(tree: Path, path: str) -> str:
    try:
        handle = os.open(tree / path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        return f"not readable: {error.strerror}"
    with os.fdopen(handle, "rb") as file:
        mode = os.fstat(handle).st_mode
        return f"{mode:o} {hashlib.file_digest(file, 'sha256').hexdigest()}"

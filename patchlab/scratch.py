# SPDX-License-Identifier: GPL-2.0-or-later
"""Folders that live as long as the lab, and files that are written whole.

Each is held by the kernel's own lock (flock) on itself. A killed process holds none, so
what it left is known by the lock that can be taken, and goes with the next command; what
belongs to a live one stays.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from patchlab import proc
from patchlab.errors import LabError

# Short: a boot's sockets are in such a folder, and a unix socket's path may have 107 bytes.
KINDS = ("boot", "guest", "proof", "drop", "try")
_PREFIX = "patchlab"
_NEW = ".new"


@contextlib.contextmanager
def folder(kind: str, parent: Path | None = None) -> Iterator[Path]:
    """A folder of mode 0700, gone afterwards; ``parent`` is $TMPDIR by default.

    ``kind`` is one of KINDS: only those are cleaned away after a kill.
    """
    if kind not in KINDS:
        raise ValueError(f"{kind} is not one of {KINDS}")
    while True:
        made = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}-{kind}-", dir=parent))
        with hold(made) as held:
            if not held:  # clean() was between the two calls
                continue
            try:
                yield made
            finally:
                shutil.rmtree(made, ignore_errors=True)
            return


@contextlib.contextmanager
def hold(path: Path) -> Iterator[bool]:
    """Hold a file's or folder's lock; False when another holds it, or it is gone."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        yield False
        return
    try:
        yield _lock(handle) and _same(handle, path)
    finally:
        os.close(handle)


def write(file: Path, text: str) -> None:
    """The whole text or the old one, also for a reader, and when the lab is killed."""
    handle, name = tempfile.mkstemp(prefix=f".{_PREFIX}-", suffix=_NEW, dir=file.parent)
    half = Path(name)
    try:
        _lock(handle)
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
            half.chmod(0o644)
            half.replace(file)
    except BaseException:
        half.unlink(missing_ok=True)
        raise


def clean(parent: Path) -> tuple[Path, ...]:
    """Remove what killed labs of this user (of any, for root) left in ``parent``; return it."""
    found = [path for kind in KINDS for path in parent.glob(f"{_PREFIX}-{kind}-*")]
    found += parent.glob(f".{_PREFIX}-*{_NEW}")
    return tuple(path for path in sorted(found) if _remove(path))


def _remove(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        if os.geteuid() not in (0, path.lstat().st_uid):
            return False
        with hold(path) as held:
            if held and path.is_dir():
                _remove_tree(path)
            elif held:
                path.unlink()
            return held
    return False


def _remove_tree(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    if path.exists() and os.geteuid() != 0:
        # A killed mmdebstrap leaves files of the user's subordinate ids (subuid(5)).
        as_root = ["unshare", "--user", "--map-root-user", "--map-auto", "--"]
        with contextlib.suppress(LabError):
            proc.run([*as_root, "rm", "-rf", "--", str(path)], deadline=300)


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _same(handle: int, path: Path) -> bool:
    """Whether ``path`` is still what was opened: it may have been removed before the lock."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), path.lstat())
    return False

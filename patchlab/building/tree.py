# SPDX-License-Identifier: GPL-2.0-or-later
"""A working copy of a source tree that costs almost nothing.

Sources are hard-linked. That is safe for ``git apply``, which writes a new file and
renames it, and not for a compiler, which truncates in place: what a build made is copied.

make compares dates, and the host's clock may have been set back since the base was built:
then patched files would be older than the objects, and the image would lack the patch. So no
date of a tree comes from the clock. What a build made gets the date of the newest source,
which is up to date for make, and files that have changed since then one second more.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from pathlib import Path

from patchlab import proc
from patchlab.errors import LostInstrument, MissingTool

_DEADLINE = 600.0
_LATER = 1_000_000_000  # nanoseconds: file systems that keep seconds only can tell the two


def require_room_for_trees(folder: Path) -> None:
    """MissingTool unless trees can be built and shared on the folder's file system."""
    remedy = "name a folder on another file system in $XDG_CACHE_HOME"
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        raise MissingTool(
            f"{folder} is on a file system that is mounted noexec, and make runs its own tools",
            hint=f"{remedy}, or mount it with exec",
        )
    with tempfile.TemporaryDirectory(dir=folder) as name:
        file = Path(name) / "file"
        file.touch()
        try:
            file.with_name("link").hardlink_to(file)
            file.with_name("symlink").symlink_to(file)
        except OSError as error:
            raise MissingTool(
                f"{folder} is on a file system without hard or symbolic links "
                f"({error.strerror}), and trees share their files",
                hint=remedy,
            ) from error


def clone(source: Path, to: Path) -> None:
    """Make ``to`` a tree of hard links to the files of ``source``, on the same file system.

    ``to`` must not exist. Raises LostInstrument when the host's clock is before the sources.
    """
    newest, _ = _compare(source, source)
    _require_later(newest, source)
    proc.run(["cp", "-al", "--", str(source), str(to)], deadline=_DEADLINE)


def lay(source: Path, built: Path, to: Path, patched: Collection[str]) -> None:
    """Give ``to`` what the build of ``built`` made, so that make goes on where that ended.

    Both are clones of ``source`` with patches or without; ``patched`` are the files that the
    patches of either wrote. Objects get one date, and so do files that were the same when
    they were made; all others of ``patched`` are later.
    """
    newest, added = _compare(source, built)
    for path in set(added).difference(patched):
        target = to / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        shutil.copy2(built / path, target, follow_symlinks=False)
        os.utime(target, ns=(newest, newest), follow_symlinks=False)
    for path in patched:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            _date(to / path, built / path, newest)


def _date(path: Path, built: Path, newest: int) -> None:
    shared = path.lstat().st_nlink > 1
    unchanged = same(path, built)
    if shared and unchanged:
        return
    if shared:  # the patches of ``built`` changed it, those of this tree do not
        own = path.with_name(f".own-{path.name}")
        shutil.copy2(path, own, follow_symlinks=False)
        own.replace(path)
    date = newest if unchanged else newest + _LATER
    os.utime(path, ns=(date, date), follow_symlinks=False)


def same(one: Path, other: Path) -> bool:
    """Whether both are plain files of the same bytes; a patch may have made a link to anywhere."""
    plain = all(path.is_file() and not path.is_symlink() for path in (one, other))
    return plain and filecmp.cmp(one, other, shallow=False)


def dependants(tree: Path, files: Iterable[str]) -> int:
    """How many objects of a built kernel tree are made from any of the files.

    By what kbuild keeps beside each object, ``.NAME.o.cmd``: the files that it was made from.
    """
    names = [f" {file} ".encode() for file in files]
    found = 0
    for folder, _, entries in os.walk(tree):
        for entry in entries:
            if entry.endswith(".o.cmd"):
                words = Path(folder, entry).read_bytes().replace(b"\n", b" ")
                found += any(name in words for name in names)
    return found


def _require_later(newest: int, source: Path) -> None:
    """make writes files with the clock's date; they must be later than the sources."""
    if time.time_ns() <= newest + _LATER:
        dates = [datetime.fromtimestamp(t, UTC).date() for t in (time.time(), newest / 1e9)]
        raise LostInstrument(
            f"the clock of this host says {dates[0]}, and {source} has a file of {dates[1]}: "
            "make goes by these dates",
            hint="set the clock, or the dates of the base's files, and start again",
        )


def _compare(source: Path, built: Path) -> tuple[int, list[str]]:
    """The newest date of a source in nanoseconds, and what ``built`` has beside the sources.

    That is every file which is not the same inode in ``source``, as relative paths.
    """
    newest, added, pending = 0, list[str](), [""]
    while pending:
        folder = pending.pop()
        pristine, latest = _inodes(source / folder)
        newest = max(newest, latest)
        with os.scandir(built / folder) as entries:
            for entry in entries:
                path = f"{folder}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{path}/")
                elif pristine.get(entry.name) != entry.inode():
                    added.append(path)
    return newest, added


def _inodes(folder: Path) -> tuple[dict[str, int], int]:
    """Name -> inode of what is in a folder, and the newest date of its files."""
    inodes, newest = dict[str, int](), 0
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            inodes[entry.name] = entry.inode()
            if not entry.is_dir(follow_symlinks=False):
                newest = max(newest, entry.stat(follow_symlinks=False).st_mtime_ns)
    return inodes, newest

# SPDX-License-Identifier: GPL-2.0-or-later
"""A working copy of a source tree that costs almost nothing.

Sources are hard-linked. That is safe for ``git apply``, which writes a new file and
renames it, and not for a compiler, which truncates in place: what a build made is copied.

make compares dates, and the host's clock may have been set back since the base was built:
then patched files would be older than the objects, and the image would lack the patch. So no
date of a clone comes from the clock. What a build made gets the date of the newest source,
which is up to date for make, and patched files one second more.
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


def clone(source: Path, built: Path | None, to: Path, patched: Collection[str] = ()) -> int:
    """Make ``to`` a copy of ``source``, and of what building ``built`` added or changed.

    ``built`` is itself such a clone, and all of its files get one date, so that make goes on
    where the build of ``built`` ended. ``patched`` are files that patches wrote there: ``to``
    gets those of ``source``. ``to`` must not exist; all three are on one filesystem.
    Returns the date of the newest source in nanoseconds, for ``date_patched``. Raises
    LostInstrument when the host's clock is before it.
    """
    made = built or source
    newest, added = _compare(source, made)
    _require_later(newest, source)
    proc.run(["cp", "-al", "--", str(source), str(to)], deadline=_DEADLINE)
    for path in set(added).difference(patched):
        target = to / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        shutil.copy2(made / path, target, follow_symlinks=False)
        os.utime(target, ns=(newest, newest), follow_symlinks=False)
    return newest


def date_patched(tree: Path, files: Iterable[str], newest: int, built: Path) -> None:
    """Date the files that patches wrote after all that ``clone`` put there.

    But for those that are what they were when ``built`` was: its objects are made from them.
    """
    for name in files:
        path = tree / name
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            # A link to the shared source is what the patch did not write.
            if path.lstat().st_nlink == 1:
                date = newest if _same(path, built / name) else newest + _LATER
                os.utime(path, ns=(date, date), follow_symlinks=False)


def _same(one: Path, other: Path) -> bool:
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

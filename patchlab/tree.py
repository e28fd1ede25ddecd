# SPDX-License-Identifier: GPL-2.0-or-later
"""A working copy of a source tree that costs almost nothing.

Sources are hard-linked. That is safe for ``git apply``, which writes a new file and
renames it, and not for a compiler, which truncates in place: what a build made is copied.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from patchlab import proc

_DEADLINE = 600.0


def clone(source: Path, built: Path | None, to: Path) -> None:
    """Make ``to`` a copy of ``source``, and of what building ``built`` added or changed.

    ``built`` is itself such a clone. Time stamps are kept, so that make goes on where the
    build of ``built`` ended. ``to`` must not exist; all three are on one filesystem.
    """
    proc.run(["cp", "-al", "--", str(source), str(to)], deadline=_DEADLINE)
    if built is None:
        return
    for path in _added(source, built):
        target = to / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        shutil.copy2(built / path, target, follow_symlinks=False)


def _added(source: Path, built: Path) -> Iterator[str]:
    """Relative paths in ``built`` of every file that is not the same inode in ``source``."""
    pending = [""]
    while pending:
        folder = pending.pop()
        pristine = _inodes(source / folder)
        with os.scandir(built / folder) as entries:
            for entry in entries:
                path = f"{folder}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{path}/")
                elif pristine.get(entry.name) != entry.inode():
                    yield path


def _inodes(folder: Path) -> dict[str, int]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.inode() for entry in entries}
    except FileNotFoundError:
        return {}

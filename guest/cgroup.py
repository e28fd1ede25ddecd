# SPDX-License-Identifier: GPL-2.0-or-later
"""A control group, to give processes little memory."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from guest import libc
from guest.words import Skipped

_TREE = Path("/sys/fs/cgroup")
_GONE = 10.0  # seconds until killed processes have left it


@dataclass(frozen=True, slots=True)
class Group:
    path: Path

    def add(self, pid: int) -> None:
        """What it takes from now on is the group's; what it has stays where it was charged."""
        (self.path / "cgroup.procs").write_text(str(pid))

    def leave(self, size: int) -> None:
        """It may have so many bytes more than it has now."""
        now = int((self.path / "memory.current").read_text())
        (self.path / "memory.max").write_text(str(now + size))

    def events(self) -> dict[str, int]:
        """``max``: how often it was at its limit and had to reclaim; ``oom_kill`` and others."""
        lines = (self.path / "memory.events").read_text().splitlines()
        return {name: int(count) for name, count in (one.split() for one in lines)}


@contextlib.contextmanager
def group(name: str, scratch: Path) -> Iterator[Group]:
    """A new group, empty, without a limit. Raises Skipped where there can be none."""
    tree = _TREE if (_TREE / "cgroup.controllers").exists() else None
    with contextlib.ExitStack() as stack:
        if tree is None:
            tree = scratch / "cgroup"
            tree.mkdir()
            with _needed("no cgroup2"):
                libc.mount("patchlab", tree, "cgroup2")
            stack.callback(libc.unmount, tree, libc.MNT_DETACH)
        with _needed("no memory controller in cgroup2"):
            (tree / "cgroup.subtree_control").write_text("+memory")
        path = tree / name
        path.mkdir()
        stack.callback(_remove, path)
        yield Group(path)


@contextlib.contextmanager
def _needed(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Skipped(f"{what}: {error.strerror}") from None


def _remove(path: Path) -> None:
    (path / "cgroup.kill").write_text("1")
    end = time.monotonic() + _GONE
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            path.rmdir()
            return
        time.sleep(0.1)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Looks at a process and all below it, many times a second: is there a QEMU, is there a make?"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from patchlab.errors import MissingTool

EVERY = 0.05  # seconds between two looks
QEMU, MAKE, NEITHER = "QEMU", "make", "neither"
_NAMES = {"qemu-system-x86": QEMU, "make": MAKE}  # as the kernel keeps them, 15 characters
_TICK = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Watched:
    """Wall seconds by what was there, and the processor seconds of the process itself."""

    wall: dict[str, float] = field(default_factory=dict)
    own_cpu: float = 0.0

    @property
    def neither(self) -> float:
        """Share of the wall time without a QEMU and without a make."""
        return self.wall.get(NEITHER, 0.0) / (sum(self.wall.values()) or 1.0)


@contextlib.contextmanager
def watched(pid: int) -> Iterator[Watched]:
    """Watch ``pid`` while the block goes on. Raises MissingTool where /proc names no children."""
    if not Path(f"/proc/{pid}/task/{pid}/children").exists():
        raise MissingTool("this host's kernel does not say which process has which children")
    seen, end = Watched(), threading.Event()
    thread = threading.Thread(target=_watch, args=(pid, seen, end), daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        end.set()
        thread.join()


def _watch(pid: int, seen: Watched, end: threading.Event) -> None:
    before = time.monotonic()
    while not end.wait(EVERY):
        kinds = {_NAMES.get(name, "") for name in _below(pid)}
        what = QEMU if QEMU in kinds else MAKE if MAKE in kinds else NEITHER
        now = time.monotonic()
        seen.wall[what] = seen.wall.get(what, 0.0) + now - before
        seen.own_cpu = max(seen.own_cpu, cpu_seconds(pid))
        before = now


def _below(pid: int) -> Iterator[str]:
    """The names of all processes below ``pid``. Those that end meanwhile are left out."""
    pending = [str(pid)]
    while pending:
        for task in _entries(Path("/proc") / pending.pop() / "task"):
            for child in _read(task / "children").split():
                pending.append(child)
                yield _read(Path("/proc") / child / "comm").strip()


def _entries(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return list(folder.iterdir())
    return []


def _read(file: Path) -> str:
    with contextlib.suppress(OSError):
        return file.read_text()
    return ""


def cpu_seconds(pid: int) -> float:
    """User and system seconds of a process without its children; 0 when it is gone."""
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK if len(fields) > 12 else 0.0

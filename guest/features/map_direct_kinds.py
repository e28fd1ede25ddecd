# SPDX-License-Identifier: GPL-2.0-or-later
"""What MAP_DIRECT is held against: a disk with a page cache, and memory that needs no flush."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guest import libc
from guest.checking import need
from guest.features import virtio_pmem
from guest.features.map_direct_rig import (
    MAP_SHARED_VALIDATE,
    SIZE,
    V6,
    need_mount,
    new_file,
    planted,
)
from guest.libc import READ, WRITE
from guest.words import Check, Context

DISK, SYNC = Path("/mnt/disk0"), Path("/mnt/sync0")
_BLOCK = Path("/sys/block")
_SERIAL = "lab.disk"
_MAP_SYNC = 0x80000
_EOPNOTSUPP = 95


def prepare(settings: Mapping[str, Any]) -> dict[str, str]:
    """Makes and mounts what is there of the two; facts about them."""
    like = settings["pmem"][0]
    facts = {}
    for name, point, found, mount in (
        ("disk", DISK, disk(), []),
        ("memmap", SYNC, memmap(), list(like["mount"])),
    ):
        if found is None:
            facts[name] = "none"
        elif not os.path.ismount(point):
            point.mkdir(parents=True, exist_ok=True)
            virtio_pmem.remake(found, point, {**like, "mount": mount})
            facts[name] = f"{found} on {point}"
    return facts


def disk() -> Path | None:
    """The virtio-blk disk of the lab, which is not the guest's root."""
    for entry in sorted(_BLOCK.glob("vd*")):
        serial = entry / "serial"
        if serial.is_file() and serial.read_text().strip() == _SERIAL:
            return Path("/dev") / entry.name
    return None


def memmap() -> Path | None:
    """The pmem device that memmap= has made of the guest's own memory."""
    return next((Path("/dev") / entry.name for entry in virtio_pmem.legacy()), None)


def sync_only_where_it_is_true(_context: Context) -> str:
    need_mount()
    flags = MAP_SHARED_VALIDATE | _MAP_SYNC
    with new_file("sync") as (_, fd):
        gave = libc.mmap_errno(fd, SIZE, READ | WRITE, flags)
    need(gave == _EOPNOTSUPP, f"MAP_SYNC on virtio-pmem gave {libc.name_of(gave)}")
    seen = "virtio-pmem: EOPNOTSUPP, as its stores need a flush"
    if not os.path.ismount(SYNC):
        return f"{seen}; no memmap= memory here"
    path = SYNC / "sync"
    with path.open("w+b") as file:
        file.write(bytes(SIZE))
        file.flush()
        gave = libc.mmap_errno(file.fileno(), SIZE, READ | WRITE, flags)
    path.unlink()
    need(gave == 0, f"MAP_SYNC on memmap= memory gave {libc.name_of(gave)}")
    return f"{seen}; memmap=: it maps"


CHECKS = (
    Check("D32", "MAP_SYNC is for memory whose stores need no flush", "mmap(2), MAP_SYNC",
          "EOPNOTSUPP on virtio-pmem", sync_only_where_it_is_true,
          red=planted("sync-anywhere"), green=V6),
)  # fmt: skip

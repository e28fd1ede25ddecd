# SPDX-License-Identifier: GPL-2.0-or-later
"""MAP_DIRECT: power cuts. What msync(2) and fsync(2) have acknowledged is there after each.

The lab on the host sees each flush of the device and knows what was in its file then. A cut is
that, and a random part of what changed since. The guest lays the pages of the cut over those of
the one before, in a file on tmpfs, and mounts a copy of that: XFS recovers its log there, as
after a real one. So one boot makes all cuts, and none of them costs another.
"""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
from pathlib import Path
from random import Random

from guest import blocks, libc
from guest.checking import need
from guest.features.map_direct_rig import (
    POINT,
    V6,
    VALIDATE,
    device_size,
    dialect,
    loop_device,
    need_mount,
    planted,
    remake,
)
from guest.libc import PAGE, READ, SHARED, WRITE, Map
from guest.outside import Outside, outside
from guest.victims import Victim
from guest.words import Check, CheckError, Context, Skipped

CUTS = 50
PAGES = 64
FILES = 12  # that are written and synced, and kept
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
_CELL = struct.Struct("<QQ")  # page, round
_CELLS = PAGE // _CELL.size
_MAPPED, _PLAIN = "cut-mapped", "cut-plain-{}"


def page_of(page: int, turn: int) -> bytes:
    """What a page holds after it was stored to in a round."""
    return _CELL.pack(page, turn) * _CELLS


class Promises:
    """What may be in each page of the mapped file: what was acknowledged, and what came later."""

    def __init__(self, pages: int) -> None:
        self._may = [{0} for _ in range(pages)]
        self._last = [0] * pages

    def stored(self, page: int, turn: int) -> None:
        self._may[page].add(turn)
        self._last[page] = turn

    def acknowledged(self) -> None:
        for page, last in enumerate(self._last):
            self._may[page] = {last}

    def broken(self, data: bytes) -> list[str]:
        """What is wrong with the file's content, in words; a page may be torn between cells."""
        found = []
        for page, may in enumerate(self._may):
            part = data[page * PAGE : (page + 1) * PAGE]
            if len(part) < PAGE:
                found.append(f"page {page} is missing")
                continue
            cells = set(_CELL.iter_unpack(part))
            if wrong := sorted(cells - {(page, turn) for turn in may}):
                found.append(f"page {page} has {wrong[:3]}, not a round of {sorted(may)}")
        return found


class Workload:
    """What goes on in the filesystem when the power is cut."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.promises = Promises(PAGES)
        self.files: dict[str, bytes] = {}  # synced, and not unlinked since
        self.path = POINT / _MAPPED
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.pwrite(self._fd, b"".join(page_of(page, 0) for page in range(PAGES)), 0)
        os.fsync(self._fd)
        _sync_folder()
        kind = VALIDATE if dialect() else SHARED
        self.map = Map(self._fd, PAGES * PAGE, READ | WRITE, kind)
        self.extents = blocks.extents(self._fd)

    def close(self) -> None:
        self.map.close()
        os.close(self._fd)

    def acknowledged_part(self, turn: int) -> None:
        self._store(2 * turn)
        failed = self.map.msync()
        need(failed == 0, f"msync gave {libc.name_of(failed)}")
        self.promises.acknowledged()
        name = _PLAIN.format(turn)
        data = self.random.randbytes(self.random.randrange(1, 3 * PAGE))
        with open(POINT / name, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _sync_folder()
        self.files[name] = data
        while len(self.files) > FILES:
            old = next(iter(self.files))
            del self.files[old]
            (POINT / old).unlink()

    def loose_part(self, turn: int) -> None:
        """What nobody has acknowledged when the power goes."""
        self._store(2 * turn + 1)
        (POINT / "cut-loose").write_bytes(self.random.randbytes(PAGE))

    def _store(self, turn: int) -> None:
        for page in self.random.sample(range(PAGES), PAGES // 4):
            self.map.view[page * PAGE : (page + 1) * PAGE] = page_of(page, turn)
            self.promises.stored(page, turn)

    def look(self, point: Path) -> None:
        """Whether a filesystem that was cut off keeps what was promised."""
        with open(point / _MAPPED, "rb") as file:
            broken = self.promises.broken(file.read())
            there = blocks.extents(file.fileno())
        need(not broken, f"{len(broken)} pages: {'; '.join(broken[:3])}")
        if dialect():
            now = [(one.logical, one.physical, one.length) for one in there]
            then = [(one.logical, one.physical, one.length) for one in self.extents]
            need(now == then, f"the blocks were {then}, and are {now}")
        for name, data in self.files.items():
            found = (point / name).read_bytes() if (point / name).exists() else None
            need(found == data, f"{name} was synced, and is {'there' if found else 'lost'}")


def _sync_folder() -> None:
    folder = os.open(POINT, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def power_cuts(context: Context) -> str:
    with outside() as there, contextlib.ExitStack() as stack:
        if not there.sees_flushes():
            raise Skipped("the host does not see the device's flushes: it has no C compiler")
        # What earlier checks left behind would have to be sent.
        need_mount()
        remake(context.settings["pmem"][0])
        work = Workload(Random(context.random.randrange(1 << 32)))
        stack.callback(work.close)
        there.watch(0)
        stack.callback(there.forget, 0)
        image = Image(context.scratch)
        restless = Victim(_restless, cpu=1)
        stack.callback(restless.close)
        dirty = lost = 0
        for turn in range(1, CUTS + 1):
            work.acknowledged_part(turn)
            work.loose_part(turn)
            share = context.random.choice(_SHARES)
            told = _cut(there, image, share, context.random.randrange(1 << 32))
            dirty, lost = dirty + told["dirty"], lost + told["lost"]
            need(not restless.ended(), f"the other process: {restless.said()}")
            try:
                image.check(work)
            except CheckError as error:
                of = f"cut {turn}, {share} of {told['dirty']} changed pages kept"
                raise CheckError(f"{of}: {error}") from error
    return (
        f"{CUTS} cuts, {told['flushes']} flushes, {dirty} pages changed since the last one, "
        f"{lost} of them lost; log recovered, all acknowledged there, xfs_repair -n clean"
    )


def _cut(there: Outside, image: Image, share: float, seed: int) -> dict[str, int]:
    told, pages = there.cut(0, share, seed)
    image.lay(pages)
    return told


def _restless() -> None:
    """Makes, renames and removes files without a sync, so that the log is never at rest."""
    turn = 0
    folder = POINT / "cut-restless"
    folder.mkdir(exist_ok=True)
    while True:
        turn += 1
        path = folder / str(turn % 50)
        path.write_bytes(bytes([turn % 256]) * (turn % 20000))
        path.rename(folder / f"r{turn % 50}")
        if turn % 7 == 0:
            (folder / f"r{turn % 50}").unlink()


class Image:
    """The device after a cut: a file on tmpfs, of which a copy is mounted."""

    def __init__(self, folder: Path) -> None:
        self._cut, self._copy, self._point = folder / "cut", folder / "copy", folder / "point"
        self._point.mkdir()
        self._size = device_size()
        for path in (self._cut, self._copy):
            path.touch()
            os.truncate(path, self._size)

    def lay(self, pages: dict[int, bytes]) -> None:
        fd = os.open(self._cut, os.O_WRONLY)
        try:
            for page, content in pages.items():
                os.pwrite(fd, content, page * PAGE)
        finally:
            os.close(fd)

    def check(self, work: Workload) -> None:
        """Mount a copy, so that the log is recovered, look, unmount, and repair nothing."""
        os.truncate(self._copy, 0)
        os.truncate(self._copy, self._size)
        copy_data(self._cut, self._copy)
        with loop_device(self._copy) as device:
            try:
                libc.mount(device, self._point, "xfs", 0, "nouuid")
            except OSError as error:
                raise CheckError(f"it cannot be mounted: {error}") from error
            try:
                work.look(self._point)
            finally:
                libc.unmount(self._point)
        done = subprocess.run(
            ["xfs_repair", "-n", "-f", str(self._copy)],
            capture_output=True,
            text=True,
            check=False,
        )
        need(done.returncode == 0, f"xfs_repair -n: {(done.stdout + done.stderr)[-600:]}")


def copy_data(source: Path, target: Path) -> None:
    """Copies what is no hole."""
    with open(source, "rb") as one, open(target, "r+b") as two:
        end = 0
        with contextlib.suppress(OSError):  # ENXIO: nothing but a hole is left
            while True:
                start = os.lseek(one.fileno(), end, os.SEEK_DATA)
                end = os.lseek(one.fileno(), start, os.SEEK_HOLE)
                os.pwrite(two.fileno(), os.pread(one.fileno(), end - start, start), start)


CHECKS = (
    Check("D22", "What msync and fsync have acknowledged is there after a power cut",
          "virtio-pmem: a flush of the device is an fsync of the file behind it",
          f"{CUTS} cuts, nothing lost, xfs_repair -n finds nothing", power_cuts,
          red=planted("no-flush"), green=V6, patience=12.0),
)  # fmt: skip

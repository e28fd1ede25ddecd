# SPDX-License-Identifier: GPL-2.0-or-later
"""XFS with dax=always on virtio-pmem: the checks. Proves DAX before anything trusts it."""

from __future__ import annotations

import contextlib
import mmap
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from guest import libc
from guest.features import virtio_pmem_times as times
from guest.features.virtio_pmem_times import POINT
from guest.libc import PAGE, Map
from guest.words import Check, CheckError, Context, Feature, Skipped

_DEVICE = Path("/dev/pmem0")
_QUEUE = Path("/sys/block/pmem0/queue/dax")


def prepare(settings: Mapping[str, Any]) -> dict[str, str]:
    """Makes and mounts the filesystem of every pmem device of the settings, in their order.

    Device i is the virtio-pmem device with the i-th lowest number, mounted on /mnt/pmem<i>; one
    that is mounted already stays as it is. Raises FileNotFoundError without a device,
    RuntimeError when mkfs fails.
    """
    facts = {}
    nodes = devices()
    for index, device in enumerate(settings["pmem"]):
        if index >= len(nodes):
            what = f"virtio-pmem device {index}"
            raise FileNotFoundError(f"{what}: no such device; is virtio-pmem in this kernel?")
        node, point = nodes[index], POINT.with_name(f"pmem{index}")
        if not _mount_options(point):
            point.mkdir(parents=True, exist_ok=True)
            remake(node, point, device)
        facts[node.name] = f"{device['filesystem']} on {point}: {_mount_options(point)}"
    return facts


def devices() -> list[Path]:
    """The nodes of the virtio-pmem devices. memmap= makes pmem devices of another kind."""
    return [Path("/dev") / one.name for one in _pmem() if "/virtio" in str(one.resolve())]


def legacy() -> list[Path]:
    """Those that memmap= has made, in /sys/block."""
    return [one for one in _pmem() if "/e820_pmem" in str(one.resolve())]


def _pmem() -> list[Path]:
    found = Path("/sys/block").glob("pmem*")
    return sorted(found, key=lambda one: int(one.name.removeprefix("pmem").partition("s")[0]))


def remake(node: Path, point: Path, device: Mapping[str, Any]) -> None:
    """Makes and mounts one of the settings' devices. Raises RuntimeError when mkfs fails."""
    _make(node, device)
    _mount(node, point, device["filesystem"], device["mount"])


def _make(node: Path, device: Mapping[str, Any]) -> None:
    force = {"xfs": "-f", "ext4": "-F"}.get(device["filesystem"])
    argv = [f"mkfs.{device['filesystem']}", *([force] if force else []), *device["mkfs"], str(node)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: exit {done.returncode}: {done.stderr.strip()}")


def _mount(node: Path, point: Path, kind: str, options: list[str] | str) -> None:
    text = options if isinstance(options, str) else ",".join(options)
    libc.mount(str(node), point, kind, 0, text)


def _mount_options(point: Path) -> str:
    """All options of what is mounted there, "" when nothing is."""
    found = ""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        fields = line.split()
        if fields[1] == str(point):
            found = fields[3]
    return found


def _need_mount() -> None:
    if not _mount_options(POINT):
        raise Skipped(f"nothing is mounted on {POINT}")


def queue_dax(_context: Context) -> str:
    if not _QUEUE.exists():
        raise Skipped(f"no {_DEVICE}: {_QUEUE} does not exist")
    seen = _QUEUE.read_text().strip()
    if seen != "1":
        raise CheckError(f"{_QUEUE} is {seen}")
    return f"{_QUEUE} is 1"


def mount_dax(_context: Context) -> str:
    _need_mount()
    options = _mount_options(POINT)
    if "dax=always" not in options.split(","):
        raise CheckError(f"mounted with {options}")
    return f"mounted with {options}"


def statx_dax(_context: Context) -> str:
    _need_mount()
    with _new_file("statx", PAGE) as (_, fd):
        attributes, known = libc.statx_attributes(fd)
    seen = f"stx_attributes {attributes:#x}, stx_attributes_mask {known:#x}"
    if not attributes & libc.STATX_ATTR_DAX:
        raise CheckError(seen)
    return seen


def store_survives(context: Context) -> str:
    _need_mount()
    size = 4 * PAGE
    data = context.random.randbytes(size)
    with _new_file("survives", size) as (path, fd):
        with Map(fd, size) as map_:
            map_.view[:] = data
            _same(os.pread(fd, size, 0), data, "read(2)")
            _same(_direct(path, size), data, "an O_DIRECT read")
            failed = map_.msync()
            if failed:
                raise CheckError(f"msync gave {libc.name_of(failed)}")
        os.close(fd)
        Path("/proc/sys/vm/drop_caches").write_text("3")
        _same(path.read_bytes(), data, "read(2) after msync and drop_caches")
        _remount()
        _same(path.read_bytes(), data, "read(2) after a remount")
    return f"{size} bytes, the same at once, past the cache, after drop_caches and after a remount"


def _remount() -> None:
    fields = next(
        one
        for line in Path("/proc/self/mounts").read_text().splitlines()
        if (one := line.split())[1] == str(POINT)
    )
    # The kernel shows more than it takes: `rw` and the like are flags, not XFS's options.
    options = [one for one in fields[3].split(",") if one.startswith("dax")]
    libc.unmount(POINT)
    _mount(Path(fields[0]), POINT, fields[2], options)


def _direct(path: Path, size: int) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, size) as aligned:
            got = os.preadv(fd, [aligned], 0)
            return aligned[:got]
    finally:
        os.close(fd)


def _same(got: bytes, wanted: bytes, what: str) -> None:
    if got != wanted:
        at = next(
            (i for i, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b), len(got)
        )
        raise CheckError(
            f"{what} differs from what was stored from byte {at} on ({len(got)} bytes)"
        )


@contextlib.contextmanager
def _new_file(name: str, size: int) -> Iterator[tuple[Path, int]]:
    path = POINT / f"check-{name}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.pwrite(fd, bytes(size), 0)
        yield path, fd
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)
        path.unlink(missing_ok=True)


_DAX = "Linux Documentation/filesystems/dax.rst"

CHECKS = (
    Check(
        "P1",
        "The virtio-pmem device takes direct access",
        "Linux Documentation/ABI/stable/sysfs-block, queue/dax",
        "/sys/block/pmem0/queue/dax is 1",
        queue_dax,
        red="planted-virtio-pmem@v1 dax.plant=no-queue-flag",
    ),
    Check(
        "P2",
        "The filesystem is mounted with dax=always",
        _DAX,
        "dax=always",
        mount_dax,
        red="planted-virtio-pmem@v1 dax.plant=hidden-option",
    ),
    Check(
        "P3",
        "statx says that a file there is in direct-access mode",
        _DAX + "; statx(2), STATX_ATTR_DAX",
        "STATX_ATTR_DAX (0x200000) in stx_attributes",
        statx_dax,
        red="planted-virtio-pmem@v1 dax.plant=cached-file",
    ),
    Check(
        "P4",
        "A store through a shared map is on the device",
        _DAX,
        "read(2) and an O_DIRECT read see it at once, read(2) after drop_caches and a remount",
        store_survives,
        red="planted-virtio-pmem@v1 dax.plant=private-map",
    ),
)

FEATURE = Feature(CHECKS, times.METRICS, prepare)

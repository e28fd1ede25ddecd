# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the blocks of a file are, and the calls that move them."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from dataclasses import dataclass
from pathlib import Path

FIEMAP_EXTENT_UNKNOWN = 0x2  # linux/fiemap.h
FIEMAP_EXTENT_UNWRITTEN, FIEMAP_EXTENT_SHARED = 0x800, 0x2000
FALLOC_FL_KEEP_SIZE = 0x01  # linux/falloc.h
FALLOC_FL_PUNCH_HOLE = 0x02
FALLOC_FL_COLLAPSE_RANGE = 0x08
FALLOC_FL_ZERO_RANGE = 0x10
FALLOC_FL_INSERT_RANGE = 0x20
FALLOC_FL_UNSHARE_RANGE = 0x40

_FS_IOC_FIEMAP = 0xC020660B
_FICLONE = 0x40049409
_FICLONERANGE = 0x4020940D
_FIDEDUPERANGE = 0xC0189436
_XFS_IOC_SWAPEXT = 0xC0C0586D  # _IOWR('X', 109, struct xfs_swapext)
_XFS_IOC_EXCHANGE_RANGE = 0x40285881  # _IOW('X', 129, struct xfs_exchange_range)

_HEAD = struct.Struct("=QQLLLL")  # struct fiemap
_EXTENT = struct.Struct("=QQQQQLLLL")  # struct fiemap_extent
_CLONE = struct.Struct("=qQQQ")
_DEDUPE = struct.Struct("=QQHHL qQQlL")
_EXCHANGE = struct.Struct("=lLQQQQ")
_SWAP_SIZE, _SWAP_STAT = 192, 56  # struct xfs_swapext, and the place of its struct xfs_bstat
_STAT_MTIME, _STAT_CTIME = 56, 72
_ROOM = 1024  # extents

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


@dataclass(frozen=True, slots=True)
class Extent:
    """In bytes; ``physical`` is the place on the filesystem's device."""

    logical: int
    physical: int
    length: int
    flags: int


def extents(fd: int) -> tuple[Extent, ...]:
    """All extents, those past the end of the file too, and nothing written back before."""
    data = bytearray(_HEAD.size + _ROOM * _EXTENT.size)
    _HEAD.pack_into(data, 0, 0, (1 << 64) - 1, 0, 0, _ROOM, 0)
    fcntl.ioctl(fd, _FS_IOC_FIEMAP, data)
    found = _HEAD.unpack_from(data)[3]
    return tuple(
        Extent(one[0], one[1], one[2], one[5])
        for one in _EXTENT.iter_unpack(data[_HEAD.size : _HEAD.size + found * _EXTENT.size])
    )


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    if _libc.fallocate(fd, mode, offset, length):
        number = ctypes.get_errno()
        raise OSError(number, f"fallocate({mode:#x}): {os.strerror(number)}")


def clone(source: int, target: int) -> None:
    """``target`` gets all blocks of ``source``."""
    fcntl.ioctl(target, _FICLONE, source)


def clone_range(source: int, target: int, offset: int, length: int) -> None:
    fcntl.ioctl(target, _FICLONERANGE, _CLONE.pack(source, offset, length, offset))


def dedupe(source: int, target: int, length: int) -> None:
    """Raises OSError also for what the call reports in its argument."""
    data = bytearray(_DEDUPE.pack(0, length, 1, 0, 0, target, 0, 0, 0, 0))
    fcntl.ioctl(source, _FIDEDUPERANGE, data)
    status = _DEDUPE.unpack(data)[8]
    if status:
        number = -status if status < 0 else 1
        raise OSError(number, f"dedupe: {os.strerror(number)}")


def swap_extents(target: int, other: int) -> None:
    """XFS_IOC_SWAPEXT of two files of one size, which the caller must not have changed since."""
    stat = os.fstat(target)
    data = bytearray(_SWAP_SIZE)
    struct.pack_into("=qqqqq", data, 0, 0, target, other, 0, stat.st_size)
    struct.pack_into("=ql", data, _SWAP_STAT + _STAT_MTIME, *divmod(stat.st_mtime_ns, 10**9))
    struct.pack_into("=ql", data, _SWAP_STAT + _STAT_CTIME, *divmod(stat.st_ctime_ns, 10**9))
    fcntl.ioctl(target, _XFS_IOC_SWAPEXT, bytes(data))


def exchange_range(target: int, other: int, length: int) -> None:
    """XFS_IOC_EXCHANGE_RANGE. EOPNOTSUPP unless the filesystem was made with exchange=1."""
    fcntl.ioctl(target, _XFS_IOC_EXCHANGE_RANGE, _EXCHANGE.pack(other, 0, 0, 0, length, 0))


def leases(path: Path) -> list[str]:
    """The lines of /proc/locks about leases of the file."""
    stat = path.stat()
    file = f"{os.major(stat.st_dev):02x}:{os.minor(stat.st_dev):02x}:{stat.st_ino}"
    lines = Path("/proc/locks").read_text().splitlines()
    return [line for line in lines if "LEASE" in line and file in line.split()]

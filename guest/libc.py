# SPDX-License-Identifier: GPL-2.0-or-later
"""System calls that Python has no name for, or wraps too kindly.

``mmap.mmap`` dup()s the descriptor and looks at sizes; a check of munmap, RELEASE or odd
arguments must say exactly what it means, so it uses Map.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import platform
from collections.abc import Iterator
from pathlib import Path

PAGE = mmap.PAGESIZE
NONE, READ, WRITE, EXEC = 0, mmap.PROT_READ, mmap.PROT_WRITE, mmap.PROT_EXEC
SHARED, PRIVATE = mmap.MAP_SHARED, mmap.MAP_PRIVATE
MAP_FIXED = 0x10
MAP_LOCKED = 0x2000
MAP_NORESERVE = 0x4000
MREMAP_MAYMOVE = 1  # linux/mman.h
MS_SYNC = 4  # asm-generic/mman-common.h
MNT_DETACH = 2
MS_NOSUID, MS_NODEV = 2, 4  # linux/mount.h
SYNC_FILE_RANGE_WRITE = 2
PR_SET_PDEATHSIG = 1
STATX_ATTR_DAX = 0x00200000  # linux/stat.h
AT_EMPTY_PATH = 0x1000

_PIDFD_GETFD = 438  # on every architecture
_STATX_NUMBER = {"x86_64": 332, "aarch64": 291}
_STATX_ATTRIBUTES = 8  # offsets in struct statx
_STATX_ATTRIBUTES_MASK = 56

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.msync.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.mremap.restype = ctypes.c_void_p
_libc.mremap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int)
_libc.read.restype = ctypes.c_ssize_t
_libc.read.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
_libc.vmsplice.restype = ctypes.c_ssize_t
_libc.vmsplice.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def _checked(result: int, what: str) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _address(found: int | None, what: str) -> int:
    if found is None or found == ctypes.c_void_p(-1).value:
        _checked(-1, what)
    return found or 0


class Map:
    """One mapping. ``view`` is its memory; nothing may touch it after ``close()``."""

    def __init__(
        self,
        fd: int,
        length: int,
        prot: int = READ | WRITE,
        flags: int = SHARED,
        offset: int = 0,
        at: int | None = None,
    ) -> None:
        """Raises OSError with mmap's own errno."""
        found = _libc.mmap(at, length, prot, flags | (MAP_FIXED if at else 0), fd, offset)
        self._here(_address(found, "mmap"), length)

    def _here(self, address: int, length: int) -> None:
        self.address = address
        self.length = length
        self.view = memoryview((ctypes.c_char * length).from_address(address)).cast("B")

    def msync(self) -> int:
        """0, or the errno of msync(MS_SYNC)."""
        failed = _libc.msync(self.address, self.length, MS_SYNC)
        return ctypes.get_errno() if failed else 0

    def mprotect(self, prot: int) -> int:
        """0, or the errno."""
        failed = _libc.mprotect(self.address, self.length, prot)
        return ctypes.get_errno() if failed else 0

    def mremap(self, length: int) -> None:
        """The new length, at whatever address; the view is a new one. Raises OSError."""
        found = _libc.mremap(self.address, self.length, length, MREMAP_MAYMOVE)
        self._here(_address(found, "mremap"), length)

    def unmap(self, offset: int, length: int) -> None:
        """A part of it; ``close`` is then still right, and unmaps what is left."""
        _checked(_libc.munmap(self.address + offset, length), "munmap")

    def close(self) -> None:
        _checked(_libc.munmap(self.address, self.length), "munmap")

    def __enter__(self) -> Map:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def busy_page(map_: Map) -> Iterator[None]:
    """A pipe holds the first page of ``map_`` itself, as a device does that reads from it."""
    reading, writing = os.pipe()
    try:
        ring = (ctypes.c_size_t * 2)(map_.address, PAGE)  # struct iovec
        held = _libc.vmsplice(writing, ring, 1, 0)
        _checked(held, "vmsplice")
        if held != PAGE:
            raise OSError(errno.EIO, f"vmsplice took {held} bytes of {PAGE}")
        yield
        os.read(reading, PAGE)  # children have the pipe, too, so to close it gives nothing back
    finally:
        os.close(reading)
        os.close(writing)


def map_and_unmap(fd: int, length: int, times: int) -> None:
    """mmap(2) and munmap(2), shared and writable. Raises OSError.

    Of a pair's instructions under icount, 16,000 are ctypes' way into the two calls.
    """
    map_, unmap, prot = _libc.mmap, _libc.munmap, READ | WRITE
    for _ in range(times):
        address = map_(None, length, prot, SHARED, fd, 0)
        if unmap(address, length):  # of what mmap gives when it fails, too
            _checked(-1, "mmap or munmap")


def mmap_errno(fd: int, length: int, prot: int, flags: int, offset: int = 0) -> int:
    """The errno that mmap gives for these arguments, 0 when it maps (and unmaps again)."""
    try:
        Map(fd, length, prot, flags, offset).close()
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def mount(source: str, target: Path, kind: str, flags: int = 0, data: str = "") -> None:
    _checked(
        _libc.mount(
            source.encode(),
            os.fsencode(target),
            kind.encode(),
            ctypes.c_ulong(flags),
            data.encode(),
        ),
        f"mount -t {kind} {target}",
    )


def unmount(target: Path, flags: int = 0) -> None:
    _checked(_libc.umount2(os.fsencode(target), flags), f"umount {target}")


def start_writeback(fd: int) -> None:
    """Starts to write the file's dirty pages and does not wait for them."""
    _checked(_libc.sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE), "sync_file_range")


def unreadable(length: int) -> tuple[int, int]:
    """Address and length of memory that nobody may touch: the kernel's copies fault there."""
    found = _libc.mmap(None, length, NONE, PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    return _address(found, "mmap"), length


def read_to(fd: int, address: int, length: int) -> int:
    """read(2) to a bare address. Raises OSError."""
    return _checked(_libc.read(fd, address, length), "read")


def size_pipe(pipe: int, size: int) -> None:
    """Room for ``size`` bytes at least."""
    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, size)


def descriptor_of(pid: int, fd: int) -> int:
    """A descriptor of our own for the file that the process has open as ``fd`` (pidfd_getfd(2))."""
    process = os.pidfd_open(pid)
    try:
        return _checked(_libc.syscall(_PIDFD_GETFD, process, fd, 0), "pidfd_getfd")
    finally:
        os.close(process)


def die_with_parent(signal_number: int) -> None:
    _checked(_libc.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "prctl")


def statx_attributes(fd: int) -> tuple[int, int]:
    """``stx_attributes`` and ``stx_attributes_mask`` of an open file."""
    number = _STATX_NUMBER[platform.machine()]
    out = (ctypes.c_char * 256)()
    _checked(_libc.syscall(number, fd, b"", AT_EMPTY_PATH, 0x7FF, out), "statx")
    at = ctypes.addressof(out)
    return (
        ctypes.c_uint64.from_address(at + _STATX_ATTRIBUTES).value,
        ctypes.c_uint64.from_address(at + _STATX_ATTRIBUTES_MASK).value,
    )


def name_of(number: int) -> str:
    """``EIO`` for 5, ``success`` for 0."""
    return errno.errorcode.get(number, str(number)) if number else "success"

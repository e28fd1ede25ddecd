# SPDX-License-Identifier: GPL-2.0-or-later
"""Descriptors that a server may offer as a region: good ones, odd ones, and none at all."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
from collections.abc import Callable


def _memfd(size: int, *seals: int) -> int:
    fd = os.memfd_create("region", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    for seal in seals:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seal)
    return fd


def _reopened(size: int, how: int) -> int:
    fd = _memfd(size)
    try:
        return os.open(f"/proc/self/fd/{fd}", how | os.O_CLOEXEC)
    finally:
        os.close(fd)


def _closed(_size: int) -> int:
    return lowest_free()


def _pipe(_size: int) -> int:
    reading, writing = os.pipe()
    os.close(writing)
    return reading


def _regular(_size: int) -> int:
    return os.open("/etc/hostname", os.O_RDONLY | os.O_CLOEXEC)


KINDS: dict[str, Callable[[int], int]] = {
    "memfd": _memfd,
    "sealed": lambda size: _memfd(size, fcntl.F_SEAL_WRITE),
    "readonly": lambda size: _reopened(size, os.O_RDONLY),
    "writeonly": lambda size: _reopened(size, os.O_WRONLY),
    "closed": _closed,
    "pipe": _pipe,
    "regular": _regular,  # of a filesystem that is not shmem
    "directory": lambda _: os.open("/", os.O_RDONLY | os.O_CLOEXEC),
    "path": lambda _: os.open("/", os.O_PATH | os.O_CLOEXEC),
    "zero": lambda _: os.open("/dev/zero", os.O_RDWR | os.O_CLOEXEC),
}


def seal(fd: int) -> int:
    """No more writing to a memfd; 0, or the errno."""
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def lowest_free() -> int:
    """The number that the next descriptor would get."""
    fd = os.dup(0)
    os.close(fd)
    return fd


def limit_files(limited: bool) -> None:
    """From now on no further descriptor can be had, or again as many as before."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if not limited:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free(), hard))

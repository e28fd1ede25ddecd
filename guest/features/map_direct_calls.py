# SPDX-License-Identifier: GPL-2.0-or-later
"""MAP_DIRECT: what mmap(2) and fcntl(2) say, with and without the right to it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from guest import libc
from guest.checking import error_of, need, opened
from guest.features.map_direct_rig import (
    F_MAP_DIRECT,
    MAP_DIRECT,
    NOBODY,
    POINT,
    SIZE,
    V6,
    V9,
    VALIDATE,
    Dialect,
    as_nobody,
    grant,
    is_held,
    loop_device,
    need_dialect,
    need_mount,
    new_file,
    planted,
    remounted,
    without_right,
)
from guest.libc import PAGE, PRIVATE, READ, SHARED, WRITE, Map
from guest.words import Check, Context, Skipped

_ANONYMOUS = 0x20
_MAN = "mmap(2) of the posting of 2017-08-23"


def _gives(what: str, seen: int, wanted: int) -> str:
    need(seen == wanted, f"{what} gave {libc.name_of(seen)}, not {libc.name_of(wanted)}")
    return f"{what}: {libc.name_of(seen)}"


def _always(what: str, call: Callable[[], int], wanted: int) -> str:
    """It is the same with the right and without."""
    _gives(f"{what}, without the right", without_right(call), wanted)
    return _gives(what, call(), wanted)


def maps(_context: Context) -> str:
    need_dialect()
    with new_file("maps") as (_, fd):
        seen = libc.mmap_errno(fd, SIZE, READ | WRITE, VALIDATE)
        _gives("MAP_SHARED_VALIDATE|MAP_DIRECT", seen, 0)
        with Map(fd, SIZE, READ | WRITE, VALIDATE) as map_:
            map_.view[0] = 42
            need(os.pread(fd, 1, 0) == b"*", "a store is not in read(2)")
    return f"mapped; it is a {need_dialect().value}"


def shared_ignores(_context: Context) -> str:
    need_mount()
    with new_file("shared") as (path, fd), Map(fd, SIZE, READ | WRITE, SHARED | MAP_DIRECT):
        need(not is_held(path), "MAP_SHARED|MAP_DIRECT keeps the blocks in place")
        os.ftruncate(fd, PAGE)
    return "mapped, and the file can be truncated"


def _other_kind(what: str, fd: int, kind: int) -> str:
    wanted = errno.EINVAL if need_dialect() is Dialect.POSTED else 0
    flags = kind | MAP_DIRECT
    return _always(what, lambda: libc.mmap_errno(fd, SIZE, READ | WRITE, flags), wanted)


def private(_context: Context) -> str:
    with new_file("private") as (_, fd):
        return _other_kind("MAP_PRIVATE|MAP_DIRECT", fd, PRIVATE)


def anonymous(_context: Context) -> str:
    return _other_kind("MAP_ANONYMOUS|MAP_DIRECT", -1, PRIVATE | _ANONYMOUS)


def needs_write(_context: Context) -> str:
    need_dialect()
    with new_file("reads") as (path, fd):
        reads = _always(
            "PROT_READ", lambda: libc.mmap_errno(fd, SIZE, READ, VALIDATE), errno.EACCES
        )
        with opened(path, os.O_RDONLY) as only:
            both = READ | WRITE
            writes = _always(
                "O_RDONLY", lambda: libc.mmap_errno(only, SIZE, both, VALIDATE), errno.EACCES
            )
    return f"{reads}, {writes}"


def needs_right(_context: Context) -> str:
    found = need_dialect()
    with new_file("rights") as (path, fd):

        def direct() -> int:
            return libc.mmap_errno(fd, SIZE, READ | WRITE, VALIDATE)

        seen = [_gives("another user", as_nobody(direct), errno.EACCES)]
        if found is Dialect.LEASE:
            # As for F_SETLEASE: the owner needs nothing more.
            seen.append(_gives("the owner without the right", without_right(direct), 0))
            os.chown(path, NOBODY, NOBODY)
            seen.append(_gives("another user, who owns it", as_nobody(direct), 0))
            seen.append(_gives("root without the right", without_right(direct), errno.EACCES))
        else:
            seen.append(_gives("root without the right", without_right(direct), errno.EACCES))
            seen += _granted(path, fd, direct, found)
    return ", ".join(seen)


def _granted(path: Path, fd: int, direct: Callable[[], int], found: Dialect) -> list[str]:
    refused = errno.EACCES if found is Dialect.POSTED else errno.EPERM
    seen = [
        _gives("F_MAP_DIRECT without the right", without_right(lambda: grant(fd)), refused),
        _gives("F_MAP_DIRECT of another user", as_nobody(lambda: grant(fd)), refused),
        _gives("F_MAP_DIRECT", grant(fd), 0),
        _gives("another user, the granted open file", as_nobody(direct), 0),
    ]
    with opened(path, os.O_RDWR) as other:
        ungranted = as_nobody(lambda: libc.mmap_errno(other, SIZE, READ | WRITE, VALIDATE))
    seen.append(_gives("another open file", ungranted, errno.EACCES))
    if found is Dialect.SEAL:
        seen += _ill_granted(path, fd)
    return seen


def _ill_granted(path: Path, fd: int) -> list[str]:
    def argument() -> int:
        return error_of(lambda: fcntl.fcntl(fd, F_MAP_DIRECT, 1))

    seen = [_always("F_MAP_DIRECT, 1", argument, errno.EINVAL)]
    with opened(path, os.O_PATH) as only:
        seen.append(_always("F_MAP_DIRECT, O_PATH", lambda: grant(only), errno.EBADF))
    with opened(Path("/dev/null"), os.O_RDWR) as null:
        seen.append(_always("F_MAP_DIRECT, /dev/null", lambda: grant(null), errno.EOPNOTSUPP))
    return seen


def elsewhere(context: Context) -> str:
    found = need_dialect()
    seen = [_at(Path("/dev/shm"), "tmpfs")]
    with _ext4(context.scratch) as point:
        seen.append(_at(point, "ext4"))
    # The posting maps files that are not DAX, and their faults get SIGBUS.
    wanted = 0 if found is Dialect.POSTED else errno.EOPNOTSUPP
    # Who has no right to it is told that first; a lease needs none.
    without = wanted if found is Dialect.LEASE else errno.EACCES
    with remounted("dax=never"):
        seen.append(_at(POINT, "XFS with dax=never", wanted, without))
    return ", ".join(seen)


def _at(
    folder: Path, name: str, wanted: int = errno.EOPNOTSUPP, without: int = errno.EOPNOTSUPP
) -> str:
    if not folder.is_dir():
        raise Skipped(f"no {folder}")
    path = folder / "direct-elsewhere"
    try:
        with open(path, "w+b") as file:
            file.write(bytes(SIZE))
            file.flush()
            fd, both = file.fileno(), READ | WRITE

            def call() -> int:
                return libc.mmap_errno(fd, SIZE, both, VALIDATE)

            _gives(f"{name}, without the right", without_right(call), without)
            return _gives(name, call(), wanted)
    finally:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _ext4(folder: Path) -> Iterator[Path]:
    image, point = folder / "ext4", folder / "point"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    point.mkdir()
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    with loop_device(image) as device:
        libc.mount(device, point, "ext4")
        try:
            yield point
        finally:
            libc.unmount(point)


CHECKS = (
    Check("D1", "A DAX file can be mapped with MAP_DIRECT", _MAN, "it maps, and stores", maps,
          red="base", green=V6),
    Check("D2", "With MAP_SHARED the flag is ignored", "mmap(2), MAP_SHARED_VALIDATE",
          "it maps, and keeps nothing in place", shared_ignores,
          red=planted("shared-too"), green=V6),
    Check("D3", "MAP_PRIVATE|MAP_DIRECT", _MAN + "; ledger private-and-anonymous",
          "EINVAL as posted, else the flag is ignored", private,
          red=planted("strict-kinds"), green=V6),
    Check("D4", "MAP_ANONYMOUS|MAP_DIRECT", _MAN + "; ledger private-and-anonymous",
          "EINVAL as posted, else the flag is ignored", anonymous,
          red=planted("strict-kinds"), green=V6),
    Check("D5", "It takes PROT_WRITE and a descriptor for writing", _MAN, "EACCES", needs_write,
          red=planted("any-prot"), green=V6),
    Check("D6", "It takes the right to do it, which can be granted with an open file", _MAN,
          "EACCES without", needs_right,
          red="; ".join((planted("anyone"), planted("anyone", V9))), green=V6),
    Check("D7", "Other files and filesystems do not support it", _MAN, "EOPNOTSUPP", elsewhere,
          red=planted("page-cache"), green=V6),
)  # fmt: skip

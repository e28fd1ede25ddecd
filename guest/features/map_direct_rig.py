# SPDX-License-Identifier: GPL-2.0-or-later
"""What the checks of MAP_DIRECT share: the dialect, a file that is mapped, who changes it."""

from __future__ import annotations

import contextlib
import ctypes
import enum
import errno
import fcntl
import functools
import os
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

from guest import blocks, libc
from guest.checking import error_of, need
from guest.features import virtio_pmem
from guest.libc import PAGE, READ, WRITE, Map
from guest.victims import Victim
from guest.words import CheckError, Skipped, Unsupported

POSTED, V6, V9 = "map-direct@v6-asposted", "map-direct@v6", "map-direct@v9"
POINT = Path("/mnt/pmem0")
MAP_SHARED_VALIDATE = 0x03
MAP_DIRECT = 0x200000
F_MAP_DIRECT = 1024 + 15
VALIDATE = MAP_SHARED_VALIDATE | MAP_DIRECT
NOBODY = 65534
PAGES = 16
SIZE = PAGES * PAGE
MODES = {
    "allocate": blocks.FALLOC_FL_KEEP_SIZE,
    "punch": blocks.FALLOC_FL_PUNCH_HOLE | blocks.FALLOC_FL_KEEP_SIZE,
    "collapse": blocks.FALLOC_FL_COLLAPSE_RANGE,
    "zero": blocks.FALLOC_FL_ZERO_RANGE,
    "insert": blocks.FALLOC_FL_INSERT_RANGE,
    "unshare": blocks.FALLOC_FL_UNSHARE_RANGE,
}
_BREAK_TIME = Path("/proc/sys/fs/lease-break-time")
_SOON = 10.0  # seconds for what does not wait for anybody
_LISTEN = 0.3
_libc = ctypes.CDLL(None, use_errno=True)


def planted(fault: str, on: str = V6) -> str:
    """The image on which a check has to fail: a revision with a fault of tests/planted."""
    return f"{on} + planted-{on} md.plant={fault}"


class Dialect(enum.Enum):
    """How a kernel keeps blocks in place."""

    POSTED = "seal, as posted"
    SEAL = "seal"
    LEASE = "lease"


def need_mount() -> None:
    if not os.path.ismount(POINT):
        raise Skipped(f"nothing is mounted on {POINT}")


@functools.cache
def dialect() -> Dialect | None:
    """Found by what F_MAP_DIRECT says of an argument; None without MAP_DIRECT."""
    need_mount()
    with new_file("probe") as (_, fd):
        if libc.mmap_errno(fd, SIZE, READ | WRITE, VALIDATE):
            return None
        if error_of(lambda: fcntl.fcntl(fd, F_MAP_DIRECT, 0)):
            return Dialect.LEASE
        refused = error_of(lambda: fcntl.fcntl(fd, F_MAP_DIRECT, 1)) == errno.EINVAL
        return Dialect.SEAL if refused else Dialect.POSTED


def need_dialect() -> Dialect:
    """Raises Unsupported where there is no MAP_DIRECT."""
    found = dialect()
    if not found:
        raise Unsupported("mmap(2) does not know MAP_DIRECT here")
    return found


def need_lease() -> None:
    if need_dialect() is not Dialect.LEASE:
        raise Unsupported("MAP_DIRECT takes no lease here")


@contextlib.contextmanager
def new_file(name: str, size: int = SIZE, *, written: bool = True) -> Iterator[tuple[Path, int]]:
    """A file of zeros, every block of it written, or one that is a hole."""
    need_mount()
    path = POINT / f"direct-{name}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        if written:
            os.pwrite(fd, bytes(size), 0)
            os.fsync(fd)
        else:
            os.ftruncate(fd, size)
        yield path, fd
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)
        path.unlink(missing_ok=True)


def map_direct(fd: int, length: int = SIZE, offset: int = 0, at: int | None = None) -> Map:
    """A mapping with MAP_DIRECT. Raises Unsupported where the kernel does not know it."""
    need_dialect()
    return Map(fd, length, READ | WRITE, VALIDATE, offset, at)


class Held:
    """A file with a MAP_DIRECT mapping, and where its blocks were when that was made."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path, self.fd = path, fd
        self.signals = 0
        self._before = signal.signal(signal.SIGIO, self._count)
        self.map: Map | None = map_direct(fd)
        self.extents = blocks.extents(fd)

    def _count(self, *_: object) -> None:
        self.signals += 1

    def let_go(self) -> None:
        if self.map:
            self.map.close()
            self.map = None

    def close(self) -> None:
        self.let_go()
        signal.signal(signal.SIGIO, self._before)

    def unmoved(self, what: str) -> None:
        now = blocks.extents(self.fd)
        need(now == self.extents, f"{what}: the extents were {self.extents}, now {now}")

    def keeps(self, what: str, change: Callable[[], object], wanted: int = errno.ETXTBSY) -> str:
        """``change()`` fails and changes nothing or, with a lease, waits for the holder."""
        if dialect() is Dialect.LEASE:
            return self._waits(what, change)
        for whose, failed in (
            ("", error_of(change)),
            (", without the right", without_right(lambda: error_of(change))),
        ):
            need(failed == wanted, f"{what}{whose} gave {libc.name_of(failed)}")
            self.unmoved(f"{what}{whose}")
        return f"{what} {libc.name_of(failed)}"

    def _waits(self, what: str, change: Callable[[], object]) -> str:
        def work() -> None:
            if self.map:  # the child has the mapping by fork, and would hold it, too
                self.map.close()
            change()

        victim = Victim(work)
        try:
            need(not victim.ended(_LISTEN), f"{what} did not wait for the holder: {victim.said()}")
            self.unmoved(f"{what} is waiting")
            need(self.signals > 0, f"{what} waits, and the holder was not told")
            self.let_go()
            need(victim.ended(_SOON), f"{what} still waits, and the mapping is gone")
            need(victim.status == 0, f"{what}, after the mapping was gone: {victim.said()}")
        finally:
            victim.close()
        return f"{what} waits"


@contextlib.contextmanager
def held(name: str, size: int = SIZE) -> Iterator[Held]:
    with new_file(name, size) as (path, fd):
        one = Held(path, fd)
        try:
            yield one
        finally:
            one.close()


@contextlib.contextmanager
def mover(path: Path, other_path: Path, seed: int) -> Iterator[Victim]:
    """A process that goes on to try all that moves blocks of the file."""
    victim = Victim(lambda: _move(path, other_path, Random(seed)))
    try:
        yield victim
    finally:
        # It may be waiting for a lease: what is to be killed must not go on when that ends.
        victim.kill()
        victim.close()


def _move(path: Path, other_path: Path, random: Random) -> None:
    fd, other = os.open(path, os.O_RDWR), os.open(other_path, os.O_RDWR)
    modes = (0x00, *MODES.values())
    changes: list[Callable[[], object]] = [
        lambda: os.ftruncate(fd, random.randrange(2 * SIZE)),
        lambda: blocks.fallocate(fd, random.choice(modes), *_some(random)),
        lambda: blocks.clone(fd, other),
        lambda: blocks.clone(other, fd),
        lambda: blocks.dedupe(other, fd, SIZE),
        lambda: os.pwrite(fd, bytes(PAGE), SIZE + _some(random)[0]),
        lambda: blocks.swap_extents(fd, other),
        lambda: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC)),
    ]
    # The mapping came by fork, and would hold a lease when the holder lets go; it stays
    # until this process is killed, so whoever waits for a lease waits till then.
    while True:
        with contextlib.suppress(OSError):
            random.choice(changes)()


def _some(random: Random) -> tuple[int, int]:
    return random.randrange(PAGES) * PAGE, random.randrange(1, PAGES) * PAGE


@contextlib.contextmanager
def remounted(option: str) -> Iterator[None]:
    """The filesystem mounted with another dax= option; afterwards with dax=always."""
    device = _device()
    _mount_again(device, option)
    try:
        yield
    finally:
        _mount_again(device, "dax=always")


@contextlib.contextmanager
def remade(device: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[None]:
    """A new filesystem as ``other`` says; afterwards a new one as ``device`` says."""
    remake(other)
    try:
        yield
    finally:
        remake(device)


def remake(device: Mapping[str, Any]) -> None:
    """A new filesystem in place of the one that is there."""
    node = Path(_device()[0])
    libc.unmount(POINT)
    virtio_pmem.remake(node, POINT, device)


def device_size() -> int:
    """Bytes of the device; memmap= memory beside it comes first in the numbers of /dev/pmem*."""
    return int((Path("/sys/class/block") / Path(_device()[0]).name / "size").read_text()) * 512


def _device() -> tuple[str, str]:
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        device, point, kind = line.split()[:3]
        if point == str(POINT):
            return device, kind
    raise Skipped(f"nothing is mounted on {POINT}")


def _mount_again(device: tuple[str, str], option: str) -> None:
    libc.unmount(POINT)
    libc.mount(device[0], POINT, device[1], 0, option)


@contextlib.contextmanager
def loop_device(path: Path) -> Iterator[str]:
    """A loop device of that file. Raises Skipped without one."""
    made = subprocess.run(
        ["losetup", "--find", "--show", str(path)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise Skipped(f"losetup: {made.stderr.strip()}")
    device = made.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def is_held(path: Path) -> bool:
    """Whether anything keeps the blocks in place: a lease, or a truncate that is refused."""
    if dialect() is Dialect.LEASE:
        return bool(blocks.leases(path))
    return error_of(lambda: os.truncate(path, path.stat().st_size)) == errno.ETXTBSY


def released(path: Path, what: str, seconds: float = 2.0) -> None:
    """It is not held any more, or soon: a file may be released by another task."""
    limit = time.monotonic() + seconds
    while is_held(path):
        if time.monotonic() > limit:
            raise CheckError(f"the file is still held: {what}")
        time.sleep(0.01)


def still_held(path: Path, what: str) -> None:
    need(is_held(path), f"the file is not held: {what}")


def grant(fd: int) -> int:
    """The errno of F_MAP_DIRECT, or 0."""
    return error_of(lambda: fcntl.fcntl(fd, F_MAP_DIRECT, 0))


def as_nobody(work: Callable[[], int]) -> int:
    """What ``work`` returns, below 256, in another user's process, without capabilities."""

    def become() -> None:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)

    return _elsewhere(become, work)


def without_right(work: Callable[[], int]) -> int:
    """The same in root's process, without CAP_LINUX_IMMUTABLE and CAP_LEASE only."""
    return _elsewhere(drop_rights, work)


def drop_rights() -> None:
    """Take both out of what this process may do. Raises OSError."""
    head = struct.pack("=Ii", 0x20080522, 0)  # linux/capability.h, _LINUX_CAPABILITY_VERSION_3
    data = ctypes.create_string_buffer(24)
    if _libc.capget(head, data):
        raise OSError(ctypes.get_errno(), "capget")
    words = list(struct.unpack("=6I", data.raw))  # effective, permitted, inheritable; twice
    words[:3] = [word & ~(1 << 9 | 1 << 28) for word in words[:3]]
    if _libc.capset(head, struct.pack("=6I", *words)):
        raise OSError(ctypes.get_errno(), "capset")


def _elsewhere(become: Callable[[], None], work: Callable[[], int]) -> int:
    reading, writing = os.pipe()

    def run() -> None:
        become()
        os.write(writing, bytes([work()]))

    victim = Victim(run)
    try:
        need(victim.ended(_SOON), "a process without the right hangs")
        need(victim.status == 0, f"a process without the right: {victim.said()}")
        return os.read(reading, 1)[0]
    finally:
        victim.close()
        os.close(reading)
        os.close(writing)


@contextlib.contextmanager
def break_time(seconds: int) -> Iterator[None]:
    before = _BREAK_TIME.read_text()
    _BREAK_TIME.write_text(str(seconds))
    try:
        yield
    finally:
        _BREAK_TIME.write_text(before)

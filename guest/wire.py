# SPDX-License-Identifier: GPL-2.0-or-later
"""A FUSE connection or CUSE device that its caller answers by hand, message by message.

The servers of ``guest.fuse`` are processes that answer at once. Here nothing happens until the
caller reads or writes, so a check decides between which two steps something is to die.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import mmap
import os
import select
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from guest import libc
from guest.fuse import protocol as p
from guest.fuse.protocol import Op
from guest.libc import PAGE

NAME = "file"
SIZE = 64 * PAGE  # of the one file, in bytes
MAX_WRITE = 32 * PAGE
_NODE = 2
_FEATURES = p.DEFAULT_FLAGS | p.MMAP_FD | p.MMAP_ID
_EMPTY = (Op.FLUSH, Op.RELEASE, Op.FSYNC, Op.RELEASEDIR, Op.ACCESS, Op.DESTROY)


class Gone(Exception):
    """The connection has ended: aborted, unmounted, or the device is no more."""


@dataclass(frozen=True, slots=True)
class Request:
    opcode: int
    unique: int
    node: int
    body: bytes


class Regions:
    """What an honest server remembers of its mappings, in either dialect.

    Each mapping has a key: the fd of its region, or its id.
    """

    def __init__(self) -> None:
        self.ids = False  # ids in the protocol, else descriptors
        self.share = False  # give the newest living region again
        self.mappings: dict[int, int] = {}  # unique of the MMAP -> key
        self.sizes: dict[int, int] = {}  # key -> bytes
        self.owned: set[int] = set()  # descriptors that are ours to close
        self.asked: dict[int, int] = {}  # unique of an MMAP -> bytes it needs
        self._committed: set[int] = set()
        self._next = 1

    def mmap(self, request: Request) -> bytes:
        _, _, length, offset, _, _ = p.MMAP_IN.unpack_from(request.body)
        size = length + offset
        key = next((k for k, s in reversed(self.sizes.items()) if s >= size), -1)
        if not self.share:
            key = -1
        if not self.ids:
            self.asked[request.unique] = size
            return p.MMAP_OUT.pack(key, 0)
        if key < 0:
            key, self._next = self._next, self._next + 1
        self.sizes.setdefault(key, size)
        return p.MMAP_ID_OUT.pack(key, self.sizes[key], 0, 0)

    def sent(self, unique: int, payload: bytes, refused: int) -> None:
        """The answer to an MMAP went out; ``refused`` is the errno of that write."""
        if refused:
            self.asked.pop(unique, None)
        elif self.ids:
            self.mappings[unique] = p.MMAP_ID_OUT.unpack(payload)[0]

    def open(self) -> int:
        """Answered MMAPs that have had no end yet."""
        return len(self.asked) + len(self.mappings)

    def commit(self, request: Request) -> None:
        """Once, as soon as it was read: a MUNMAP may come before it is answered."""
        if request.unique in self._committed:
            return
        self._committed.add(request.unique)
        unique, fd = p.MMAP_COMMIT_IN.unpack_from(request.body)[1], commit_fd(request)
        size = self.asked.pop(unique, 0)
        if fd < 0:
            return
        if fd not in self.sizes:
            self.sizes[fd] = size
            self.owned.add(fd)
        self.mappings[unique] = fd

    def munmap(self, request: Request) -> None:
        unique = munmap_unique(request, self.ids)
        self.asked.pop(unique, None)
        key = self.mappings.pop(unique, None)
        if key is None or key in self.mappings.values():
            return
        self.sizes.pop(key, None)
        if key in self.owned:
            self.owned.discard(key)
            os.close(key)

    def close(self) -> None:
        """Forgets everything, as at the end, or where a message was lost on purpose."""
        for fd in self.owned:
            os.close(fd)
        for table in (self.owned, self.mappings, self.sizes, self.asked):
            table.clear()


def commit_fd(request: Request) -> int:
    return int(p.MMAP_COMMIT_IN.unpack_from(request.body)[7])


def munmap_unique(request: Request, ids: bool) -> int:
    layout, place = (p.MUNMAP_ID_IN, 2) if ids else (p.MUNMAP_IN, 1)
    return int(layout.unpack_from(request.body)[place])


class Wire:
    """One connection with one file, ``path``, whose mmaps the server decides.

    Raises OSError when it cannot be mounted or plugged. Without ``point`` it is a CUSE device.
    """

    def __init__(self, point: Path | None, name: str = "") -> None:
        self.point = point
        self.regions = Regions()
        self.offered = 0
        self.connection = ""
        self.seen: dict[int, int] = {}  # opcode -> how many were read
        self.path = Path("/dev") / name if point is None else point / NAME
        self._buffer = bytearray(MAX_WRITE + p.MIN_READ_BUFFER)
        device = "/dev/cuse" if point is None else "/dev/fuse"
        self.device = os.open(device, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        if point is not None:
            point.mkdir(exist_ok=True)
            data = f"fd={self.device},rootmode=40000,user_id=0,group_id=0,allow_other"
            libc.mount("patchlab", point, "fuse", libc.MS_NOSUID | libc.MS_NODEV, data)
            self.connection = _connection(point)
        self.honest(self.expect(Op.INIT if point else Op.CUSE_INIT))
        self._await_path()

    def _await_path(self) -> None:
        limit = time.monotonic() + 5
        while self.point is None and not self.path.exists() and time.monotonic() < limit:
            time.sleep(0.01)

    # ------------------------------------------------------------ messages

    def read(self, seconds: float = 0.0) -> Request | None:
        """The next request, or None when none came in time. Raises Gone."""
        if seconds and not self.ready(seconds):
            return None
        try:
            got = os.readv(self.device, [self._buffer])
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.ECONNABORTED, errno.EPERM):
                raise Gone(str(error)) from None
            return None  # ENOENT, EINTR: it was interrupted while it was read
        return self.parsed(got)

    def parsed(self, got: int) -> Request:
        """The request of ``got`` bytes that was read into ``memory``."""
        _, opcode, unique, node, *_ = p.IN_HEADER.unpack_from(self._buffer)
        self.seen[opcode] = self.seen.get(opcode, 0) + 1
        return Request(opcode, unique, node, bytes(self._buffer[p.IN_HEADER.size : got]))

    @property
    def memory(self) -> tuple[int, int]:
        """Address and length of the buffer for requests."""
        return ctypes.addressof(ctypes.c_char.from_buffer(self._buffer)), len(self._buffer)

    def read_badly(self, good: int) -> int:
        """A read into memory of which only the first ``good`` bytes are there; its errno."""
        try:
            libc.read_to(self.device, _cliff() - good, len(self._buffer))
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def ready(self, seconds: float) -> bool:
        """Whether a request can be read within ``seconds``; nothing is read."""
        poll = select.poll()
        poll.register(self.device, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def expect(self, opcode: int, seconds: float = 30.0) -> Request:
        """The next request with this opcode; others are answered. Raises TimeoutError, Gone."""
        limit = time.monotonic() + seconds
        while (left := limit - time.monotonic()) > 0:
            request = self.read(left)
            if request and request.opcode == opcode:
                return request
            if request:
                self.honest(request)
        raise TimeoutError(f"no {p.op_name(opcode)} within {seconds:.0f} s")

    def send(self, unique: int, error: int = 0, payload: bytes = b"", length: int = -1) -> int:
        """One message; the errno that write(2) gave, 0 when it was taken."""
        size = p.OUT_HEADER.size + len(payload) if length < 0 else length
        return self.write(p.OUT_HEADER.pack(size & 0xFFFFFFFF, error, unique) + payload)

    def write(self, message: bytes) -> int:
        try:
            os.write(self.device, message)
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def splice(self, message: bytes) -> int:
        """The same through a pipe, whose pages the kernel may keep (SPLICE_F_MOVE)."""
        reading, writing = os.pipe()
        try:
            os.write(writing, message)
            os.splice(reading, self.device, len(message), flags=os.SPLICE_F_MOVE)
        except OSError as error:
            return error.errno or errno.EIO
        finally:
            os.close(reading)
            os.close(writing)
        return 0

    # ------------------------------------------------------------ honest answers

    def answer(self, request: Request) -> tuple[int, bytes] | None:
        """What an honest server replies: errno and payload, or None for no reply."""
        op = request.opcode
        if op in p.NO_REPLY:
            return None
        if op in _EMPTY:
            return 0, b""
        handlers: dict[int, Callable[[Request], tuple[int, bytes]]] = {
            Op.INIT: self._init,
            Op.CUSE_INIT: self._cuse_init,
            Op.LOOKUP: self._lookup,
            Op.GETATTR: lambda one: (0, p.ATTR_OUT.pack(3600, 0, 0, *_attr(one.node))),
            Op.SETATTR: lambda one: (0, p.ATTR_OUT.pack(3600, 0, 0, *_attr(one.node))),
            Op.OPEN: lambda _: (
                0,
                p.OPEN_OUT.pack(7, p.FOPEN_DIRECT_IO | p.FOPEN_DIRECT_MMAP, 0),
            ),
            Op.READ: lambda one: (0, bytes(p.READ_IN.unpack_from(one.body)[2])),
            Op.WRITE: lambda one: (0, p.WRITE_OUT.pack(p.WRITE_IN.unpack_from(one.body)[2], 0)),
            Op.MMAP: lambda one: (0, self.regions.mmap(one)),
            Op.MMAP_COMMIT: lambda _: (0, b""),
            Op.MUNMAP: lambda _: (0, b""),
        }
        return handlers[op](request) if op in handlers else (-errno.ENOSYS, b"")

    def honest(self, request: Request) -> int:
        """Answers one request as an honest server does; the errno of write(2)."""
        if request.opcode == Op.MMAP_COMMIT:
            self.regions.commit(request)
        elif request.opcode == Op.MUNMAP:
            self.regions.munmap(request)
        reply = self.answer(request)
        if reply is None:
            return 0
        refused = self.send(request.unique, *reply)
        if request.opcode == Op.MMAP:
            self.regions.sent(request.unique, reply[1], refused)
        return refused

    def serve(self, until: Callable[[], bool], seconds: float = 10.0) -> bool:
        """Answers honestly until ``until()``; False when it was not so in time. Raises Gone."""
        limit = time.monotonic() + seconds
        while not until():
            if time.monotonic() > limit:
                return False
            request = self.read(0.02)
            if request:
                self.honest(request)
        return True

    def _init(self, request: Request) -> tuple[int, bytes]:
        _, minor, readahead, flags, flags2, *_ = p.INIT_IN.unpack_from(request.body)
        self.offered = p.offered(flags, flags2)
        self.regions.ids = bool(self.offered & p.MMAP_ID)
        return 0, p.init_reply(minor, readahead, self.offered & _FEATURES, MAX_WRITE)

    def _cuse_init(self, request: Request) -> tuple[int, bytes]:
        _, minor, _, offered = p.CUSE_INIT_IN.unpack_from(request.body)
        self.offered = offered
        self.regions.ids = bool(offered & p.CUSE_MMAP_ID)
        agreed = offered & (p.CUSE_MMAP_FD | p.CUSE_MMAP_ID)
        return 0, p.cuse_init_reply(minor, agreed, MAX_WRITE, self.path.name)

    def _lookup(self, request: Request) -> tuple[int, bytes]:
        if request.body.rstrip(b"\0") != NAME.encode():
            return -errno.ENOENT, b""
        return 0, p.ENTRY_OUT.pack(_NODE, 0, 3600, 3600, 0, 0, *_attr(_NODE))

    # ------------------------------------------------------------ the end

    def abort(self) -> None:
        with contextlib.suppress(OSError):
            Path(f"/sys/fs/fuse/connections/{self.connection}/abort").write_text("1")

    def close(self) -> None:
        """Whatever waits gets an error; nothing is left mounted."""
        if self.point is not None:
            self.abort()
        os.close(self.device)
        if self.point is not None:
            with contextlib.suppress(OSError):
                libc.unmount(self.point, libc.MNT_DETACH)
            with contextlib.suppress(OSError):
                self.point.rmdir()
        self.regions.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@functools.cache
def _cliff() -> int:
    """An address with a page before it, and nothing from it on."""
    start, _ = libc.unreadable(MAX_WRITE + p.MIN_READ_BUFFER + 2 * PAGE)
    libc.Map(-1, PAGE, flags=libc.PRIVATE | mmap.MAP_ANONYMOUS, at=start)
    return start + PAGE


def _attr(node: int) -> tuple[int, ...]:
    mode = stat.S_IFREG | 0o666 if node == _NODE else stat.S_IFDIR | 0o755
    size = SIZE if node == _NODE else 0
    return (node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, PAGE, 0)


def _connection(point: Path) -> str:
    # Not stat(): it would be a request, and nobody answers yet.
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4] == str(point):
            return fields[2].partition(":")[2]
    return ""

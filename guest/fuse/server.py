# SPDX-License-Identifier: GPL-2.0-or-later
"""The process behind a mount or a CUSE device: it reads requests, answers, keeps a log.

It is a process of its own, because a client that page-faults holds Python's GIL while it
waits for the answer. Requests are served by the main thread; a second thread obeys the
control channel (one JSON object a line, each answered by one line).
"""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guest import libc
from guest.fuse import errands
from guest.fuse import protocol as p
from guest.fuse.errands import Errand
from guest.fuse.protocol import Op

# A handler gives the reply's payload, or an errno, negative; None when it replies later.
Reply = bytes | memoryview | int
Handler = Callable[[int, int], Reply | None]
HEADER = p.IN_HEADER.size
_OUT = p.OUT_HEADER.size
_DATA = HEADER + p.WRITE_IN.size  # where a WRITE's bytes begin
CUSE_NODE = 0  # every request of a CUSE device has this node


@dataclass(frozen=True, slots=True)
class Options:
    """How a server behaves. Timeouts are whole seconds, ``max_write`` is in bytes."""

    max_write: int = 1 << 20
    flags: int = p.DEFAULT_FLAGS  # INIT features to ask for, bits 32 to 63 included
    attr_timeout: int = 3600
    entry_timeout: int = 3600
    record: bool = True  # keep the log
    direct: bool = False  # speak direct mmap, in whatever dialect the kernel does
    splice: bool = False  # requests and replies go through pipes
    lag: float = 0.0  # replies to WRITE come up to about twice so many seconds late: moods.py
    appetite: int = 0  # bytes of memory that it takes to serve a WRITE: moods.py


@dataclass(slots=True)
class File:
    name: str
    data: bytearray
    open_flags: int = 0
    mtime: int = field(default_factory=time.time_ns)


class Server:
    """What every server has: the loop, the log, and the orders that steer both.

    Handlers are called with the node and the length of the request in ``view``, under
    ``changed``; whoever adds more (folder.py, regions.py) fills the tables.
    """

    def __init__(self, nodes: Mapping[int, File], options: Options, control: socket.socket) -> None:
        self.options = options
        self.nodes = dict(nodes)
        self.names = {one.name: number for number, one in self.nodes.items()}
        self.control = control
        self.device = -1
        # Whole pages: what copying costs the kernel must not depend on where Python's heap lies.
        self.buffer = mmap.mmap(-1, options.max_write + p.MIN_READ_BUFFER)
        self.view = memoryview(self.buffer)
        self.payload = memoryview(mmap.mmap(-1, options.max_write + p.MIN_READ_BUFFER))
        self.changed = threading.Condition()  # guards all that follows
        self.log: list[tuple[Any, ...]] = []
        self.withheld: set[int] = set()
        self.held: list[tuple[int, int, Reply]] = []  # opcode, unique, reply
        self.errors: dict[int, int] = {}
        self.facts = {"major": 0, "minor": 0, "offered": 0, "agreed": 0}
        self.opened = 0  # files opened so far; a file handle is a number of its own
        self.spoiling: tuple[int, int] = (0, 0)  # after the reply to this op, so many bad reads
        self.errand: Errand | None = None  # done once, when a READ came
        self.handlers: dict[int, Handler] = {
            Op.INIT: self.init,
            Op.CUSE_INIT: self.cuse_init,
            Op.OPEN: self.open,
            Op.READ: self.read,
            Op.WRITE: self.write,
        }
        for op in (Op.FLUSH, Op.RELEASE, Op.FSYNC, Op.RELEASEDIR, Op.ACCESS, Op.DESTROY):
            self.handlers[op] = lambda _, __: b""
        # What a log line says of a request, beside its name: see Event in steering.py.
        self.details: dict[int, Callable[[], tuple[int, ...]]] = {}
        # Called instead of the handler when ``answer`` was ordered.
        self.refusals: dict[int, Handler] = {}
        # For requests that get no reply.
        self.told: dict[int, Handler] = {}
        # Called with the unique when the kernel did not take the reply; without one here,
        # only a caller that is gone is forgiven.
        self.refused: dict[int, Callable[[int], None]] = {}
        self.ids = False  # agreed on: regions have ids, no descriptors
        self.orders: dict[str, Callable[..., dict[str, Any]]] = {
            "withhold": self.do_withhold,
            "release": self.do_release,
            "answer": self.do_answer,
            "log": self.do_log,
            "wait": self.do_wait,
            "data": self.do_data,
            "set": self.do_set,
            "spoil": self.do_spoil,
            "write": self.do_write,
            "errand": self.do_errand,
            "fds": self.do_fds,
        }

    # ------------------------------------------------------------ requests

    def mount(self, point: Path) -> None:
        """Raises OSError. Must run in this process: the kernel looks the descriptor up in it."""
        self.device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        data = f"fd={self.device},rootmode=40000,user_id=0,group_id=0,allow_other"
        libc.mount("patchlab", point, "fuse", libc.MS_NOSUID | libc.MS_NODEV, data)

    def plug(self) -> None:
        """The CUSE device, which is there once CUSE_INIT was answered. Raises OSError."""
        self.device = os.open("/dev/cuse", os.O_RDWR | os.O_CLOEXEC)

    def serve(self) -> None:
        """Answers until the filesystem is unmounted or the connection aborted."""
        receive = self._splicing() if self.options.splice else self._reading()
        view = self.view
        while True:
            try:
                receive()
            except OSError as error:
                # ENOENT: the request was interrupted while it was read. EFAULT: by order.
                if error.errno in (errno.ENOENT, errno.EFAULT):
                    continue
                return  # ENODEV: unmounted or aborted
            length, opcode, unique, node, *_ = p.IN_HEADER.unpack_from(view)
            with self.changed:
                self.answer(opcode, unique, node, length)

    def _reading(self) -> Callable[[], object]:
        device, good, bad = self.device, [self.buffer], libc.unreadable(len(self.buffer))

        def receive() -> object:
            op, left = self.spoiling
            if left and not op:
                self.spoiling = (0, left - 1)
                return libc.read_to(device, *bad)
            return os.readv(device, good)

        return receive

    def _run_errand(self, errand: Errand) -> None:
        self.errand = None
        # The control channel must go on, whatever this waits for.
        self.changed.release()
        with contextlib.suppress(OSError):
            errand()
        self.changed.acquire()

    def _splicing(self) -> Callable[[], object]:
        reading, writing = os.pipe()
        libc.size_pipe(reading, len(self.buffer))
        return lambda: os.readv(
            reading, [self.view[: os.splice(self.device, writing, len(self.buffer))]]
        )

    def answer(self, opcode: int, unique: int, node: int, length: int) -> None:
        if self.options.record:
            self.note("request", opcode, unique, node)
        if self.errand and opcode == Op.READ:
            self._run_errand(self.errand)
        if opcode in p.NO_REPLY:
            if opcode in self.told:
                self.told[opcode](node, length)
            return
        handler = self.handlers.get(opcode)
        reply: Reply | None = -errno.ENOSYS
        if opcode in self.errors:
            reply = -self.errors[opcode]
            if opcode in self.refusals:
                self.refusals[opcode](node, length)
        elif handler is not None:
            reply = handler(node, length)
        if reply is None:
            return
        if opcode in self.withheld:
            self.held.append(
                (opcode, unique, bytes(reply) if not isinstance(reply, int) else reply)
            )
        else:
            self.send(opcode, unique, reply)

    def send(self, opcode: int, unique: int, reply: Reply) -> None:
        error, payload = (reply, b"") if isinstance(reply, int) else (0, reply)
        if self.options.record:
            self.note("reply", opcode, unique, 0, error)
        if self.spoiling[1] and self.spoiling[0] == opcode:
            self.spoiling = (0, self.spoiling[1])
        try:
            self.push([p.OUT_HEADER.pack(_OUT + len(payload), error, unique), payload])
        except OSError as failed:
            # ENOENT: the caller was killed and no longer waits. ENODEV: the end.
            ordinary = failed.errno in (errno.ENOENT, errno.ENODEV)
            if opcode in self.refused:
                self.refused[opcode](unique)
            elif not ordinary:
                raise
            if self.options.record:
                self.note("refused", opcode, unique, 0, -(failed.errno or 0))
        if opcode in (Op.INIT, Op.CUSE_INIT):
            self.control.sendall(json.dumps({"mounted": self.facts}).encode() + b"\n")

    def push(self, parts: list[bytes | memoryview]) -> None:
        """One message to the kernel, whole. Raises OSError."""
        if not self.options.splice:
            os.writev(self.device, parts)
            return
        reading, writing = os.pipe()
        try:
            libc.size_pipe(reading, len(self.buffer))
            os.splice(reading, self.device, os.writev(writing, parts))
        finally:
            os.close(reading)
            os.close(writing)

    def note(self, event: str, opcode: int, unique: int, node: int, error: int = 0) -> None:
        offset = size = flags = 0
        more: tuple[int, ...] = ()
        if event == "request":
            if opcode in (Op.READ, Op.WRITE):
                _, offset, size, flags, *_ = p.WRITE_IN.unpack_from(self.view, HEADER)
            elif opcode == Op.FSYNC:
                _, flags, _ = p.FSYNC_IN.unpack_from(self.view, HEADER)
            elif opcode in self.details:
                told = self.details[opcode]()
                (offset, size, flags), more = told[:3], told[3:]
        name = self.nodes[node].name if node in self.nodes else ""
        entry = (event, opcode, unique, name, offset, size, flags, error, time.monotonic_ns())
        self.log.append((*entry, node, *more) if more else entry)
        self.changed.notify_all()

    # ------------------------------------------------------------ handlers

    def init(self, _node: int, _length: int) -> Reply:
        major, minor, readahead, flags, flags2, *_ = p.INIT_IN.unpack_from(self.view, HEADER)
        wanted = self.options.flags | (p.MMAP_FD | p.MMAP_ID if self.options.direct else 0)
        agreed = self.agree(major, minor, p.offered(flags, flags2), wanted)
        self.ids = bool(agreed & p.MMAP_ID)
        return p.init_reply(minor, readahead, agreed, self.options.max_write)

    def cuse_init(self, _node: int, _length: int) -> Reply:
        major, minor, _, offered = p.CUSE_INIT_IN.unpack_from(self.view, HEADER)
        wanted = p.CUSE_MMAP_FD | p.CUSE_MMAP_ID if self.options.direct else 0
        agreed = self.agree(major, minor, offered, wanted)
        self.ids = bool(agreed & p.CUSE_MMAP_ID)
        name = self.nodes[CUSE_NODE].name
        return p.cuse_init_reply(minor, agreed, self.options.max_write, name)

    def agree(self, major: int, minor: int, offered: int, wanted: int) -> int:
        agreed = offered & wanted
        self.facts = {"major": major, "minor": minor, "offered": offered, "agreed": agreed}
        return agreed

    def open(self, node: int, _length: int) -> Reply:
        self.opened += 1
        return p.OPEN_OUT.pack(self.opened << 32 | node, self.nodes[node].open_flags, 0)

    def read(self, node: int, _length: int) -> Reply:
        _, offset, size, *_ = p.READ_IN.unpack_from(self.view, HEADER)
        found = memoryview(self.nodes[node].data)[offset : offset + size]
        if len(found) > len(self.payload):
            return bytes(found)
        self.payload[: len(found)] = found
        return self.payload[: len(found)]

    def write(self, node: int, _length: int) -> Reply:
        _, offset, size, *_ = p.WRITE_IN.unpack_from(self.view, HEADER)
        file = self.nodes[node]
        if len(file.data) < offset + size:
            resize(file, offset + size)
        file.data[offset : offset + size] = self.written(size)
        file.mtime = time.time_ns()
        return p.WRITE_OUT.pack(size, 0)

    def written(self, size: int) -> memoryview:
        """The bytes of the WRITE in ``view``."""
        return self.view[_DATA : _DATA + size]

    # ------------------------------------------------------------ control

    def obey(self) -> None:
        """The control thread. The channel's end is the server's end."""
        for line in self.control.makefile("rb"):
            order = json.loads(line)
            try:
                answer = self.orders[order.pop("do")](**order)
            except (OSError, KeyError, TypeError, ValueError) as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            self.control.sendall(json.dumps(answer).encode() + b"\n")
        os._exit(0)

    def do_withhold(self, ops: list[int]) -> dict[str, Any]:
        with self.changed:
            self.withheld |= set(ops)
        return {}

    def do_release(self, op: int, count: int | None, keep: bool) -> dict[str, Any]:
        """Sends the first ``count`` held replies; further ones are held on only if ``keep``."""
        with self.changed:
            ours = [one for one in self.held if one[0] == op][:count]
            self.held = [one for one in self.held if one not in ours]
            if not keep:
                self.withheld.discard(op)
            for one in ours:
                self.send(*one)
        return {"released": len(ours)}

    def do_answer(self, op: int, error: int) -> dict[str, Any]:
        with self.changed:
            if error:
                self.errors[op] = error
            else:
                self.errors.pop(op, None)
        return {}

    def do_log(self, clear: bool) -> dict[str, Any]:
        with self.changed:
            log = list(self.log)
            if clear:
                self.log.clear()
        return {"log": log}

    def do_wait(self, op: int, count: int, event: str, seconds: float) -> dict[str, Any]:
        def enough() -> bool:
            found = [one for one in self.log if one[0] == event and one[1] == op]
            return len(found) >= count

        with self.changed:
            met = self.changed.wait_for(enough, seconds)
        return {"met": met}

    def do_data(self, name: str, offset: int, size: int | None) -> dict[str, Any]:
        end = None if size is None else offset + size
        with self.changed:
            return {"hex": bytes(self.nodes[self.names[name]].data[offset:end]).hex()}

    def do_set(self, name: str, data: str | None, size: int | None) -> dict[str, Any]:
        with self.changed:
            file = self.nodes[self.names[name]]
            if data is not None:
                file.data[:] = bytes.fromhex(data)
            if size is not None:
                resize(file, size)
        return {}

    def do_spoil(self, after: int, count: int) -> dict[str, Any]:
        """After the next reply to ``after``, ``count`` reads go into memory that faults."""
        with self.changed:
            self.spoiling = (after, count)
        return {}

    def do_errand(self, kind: str, pid: int, what: int) -> dict[str, Any]:
        """The next READ is answered after this, by the thread that serves and no other."""
        errand = errands.KINDS[kind](pid, what)
        with self.changed:
            self.errand = errand
        return {}

    def do_fds(self) -> dict[str, Any]:
        """Between two requests: one that is answered by a pipe has it open for longer."""
        found: dict[int, str] = {}
        with self.changed:
            for name in os.listdir("/proc/self/fd"):  # the folder's own is gone by then
                with contextlib.suppress(FileNotFoundError):
                    found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        return {"fds": list(found.items())}

    def do_write(self, message: str) -> dict[str, Any]:
        """A whole message, header and all, as it is; the errno that write(2) gave."""
        return {"errno": self.told_kernel([bytes.fromhex(message)])}

    def told_kernel(self, parts: list[bytes | memoryview]) -> int:
        try:
            self.push(parts)
        except OSError as failed:
            return failed.errno or errno.EIO
        return 0


def resize(file: File, size: int) -> None:
    if size < len(file.data):
        del file.data[size:]
    else:
        file.data.extend(bytes(size - len(file.data)))


def run(make: Callable[[], Server], attach: Callable[[Server], None]) -> None:
    """The whole life of a server process, right after fork(). Never returns."""
    try:
        libc.die_with_parent(signal.SIGKILL)
        server = make()
        _close_all_but(server.control.fileno())
        try:
            attach(server)
        except OSError as error:
            text = {"errno": error.errno, "error": str(error)}
            server.control.sendall(json.dumps(text).encode() + b"\n")
            os._exit(1)
        threading.Thread(target=server.obey, daemon=True).start()
        server.serve()
        # Stay for the log until the client closes the channel or kills us.
        threading.Event().wait()
    finally:
        os._exit(1)


def _close_all_but(kept: int) -> None:
    # An inherited /dev/fuse or file of another mount would hold that one up at our exit.
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))

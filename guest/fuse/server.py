# SPDX-License-Identifier: GPL-2.0-or-later
"""The process behind a mount: one folder of regular files in memory.

It is a process of its own, because a client that page-faults holds Python's GIL while it
waits for the answer. Requests are served by the main thread; a second thread obeys the
control channel (one JSON object a line, each answered by one line).
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guest import libc
from guest.fuse import protocol as p
from guest.fuse.protocol import Op

# A handler gives the reply's payload, or an errno, negative.
Reply = bytes | memoryview | int
_HEADER = p.IN_HEADER.size
_OUT = p.OUT_HEADER.size
_DATA = _HEADER + p.WRITE_IN.size  # where a WRITE's bytes begin


@dataclass(frozen=True, slots=True)
class Options:
    """How a mount behaves. Timeouts are whole seconds, ``max_write`` is in bytes."""

    max_write: int = 1 << 20
    flags: int = p.DEFAULT_FLAGS  # INIT features to ask for, bits 32 to 63 included
    attr_timeout: int = 3600
    entry_timeout: int = 3600
    record: bool = True  # keep the log


@dataclass(slots=True)
class File:
    name: str
    data: bytearray
    open_flags: int = 0
    mtime: int = field(default_factory=time.time_ns)


class Server:
    def __init__(self, files: Mapping[str, File], options: Options, control: socket.socket) -> None:
        self.options = options
        self.nodes = dict(enumerate(files.values(), p.ROOT_ID + 1))
        self.names = {one.name: number for number, one in self.nodes.items()}
        self.control = control
        self.device = -1
        self.buffer = bytearray(options.max_write + p.MIN_READ_BUFFER)
        self.view = memoryview(self.buffer)
        self.changed = threading.Condition()  # guards all that follows
        self.log: list[tuple[Any, ...]] = []
        self.withheld: set[int] = set()
        self.held: list[tuple[int, int, Reply]] = []  # opcode, unique, reply
        self.errors: dict[int, int] = {}
        self.facts = {"major": 0, "minor": 0, "offered": 0, "agreed": 0}
        self.handlers: dict[int, Callable[[int, int], Reply]] = {
            Op.INIT: self.init,
            Op.LOOKUP: self.lookup,
            Op.GETATTR: lambda node, _: self.attributes(node),
            Op.SETATTR: self.setattr,
            Op.OPEN: self.open,
            Op.READ: self.read,
            Op.WRITE: self.write,
            Op.STATFS: lambda _, __: p.STATFS_OUT.pack(
                0, 0, 0, 0, 0, 4096, 255, 4096, 0, *(0,) * 6
            ),
            Op.OPENDIR: lambda _, __: p.OPEN_OUT.pack(0, 0, 0),
            Op.READDIR: self.readdir,
        }
        for op in (Op.FLUSH, Op.RELEASE, Op.FSYNC, Op.RELEASEDIR, Op.ACCESS, Op.DESTROY):
            self.handlers[op] = lambda _, __: b""

        self.orders: dict[str, Callable[..., dict[str, Any]]] = {
            "withhold": self.do_withhold,
            "release": self.do_release,
            "answer": self.do_answer,
            "log": self.do_log,
            "wait": self.do_wait,
            "data": self.do_data,
            "set": self.do_set,
        }

    # ------------------------------------------------------------ requests

    def mount(self, point: Path) -> None:
        """Raises OSError. Must run in this process: the kernel looks the descriptor up in it."""
        self.device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        data = f"fd={self.device},rootmode=40000,user_id=0,group_id=0,allow_other"
        libc.mount("patchlab", point, "fuse", libc.MS_NOSUID | libc.MS_NODEV, data)

    def serve(self) -> None:
        """Answers until the filesystem is unmounted or the connection aborted."""
        device, buffers, view = self.device, [self.buffer], self.view
        while True:
            try:
                os.readv(device, buffers)
            except OSError as error:
                if error.errno == errno.ENOENT:  # the request was interrupted while it was read
                    continue
                return  # ENODEV: unmounted or aborted
            length, opcode, unique, node, *_ = p.IN_HEADER.unpack_from(view)
            with self.changed:
                self.answer(opcode, unique, node, length)

    def answer(self, opcode: int, unique: int, node: int, length: int) -> None:
        if self.options.record:
            self.note("request", opcode, unique, node)
        if opcode in p.NO_REPLY:
            return
        handler = self.handlers.get(opcode)
        if opcode in self.errors:
            reply: Reply = -self.errors[opcode]
        elif handler is None:
            reply = -errno.ENOSYS
        else:
            reply = handler(node, length)
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
        try:
            os.writev(self.device, [p.OUT_HEADER.pack(_OUT + len(payload), error, unique), payload])
        except OSError as failed:
            # ENOENT: the caller was killed and no longer waits. ENODEV: the end.
            if failed.errno not in (errno.ENOENT, errno.ENODEV):
                raise

    def note(self, event: str, opcode: int, unique: int, node: int, error: int = 0) -> None:
        offset = size = flags = 0
        if event == "request":
            if opcode in (Op.READ, Op.WRITE):
                _, offset, size, flags, *_ = p.WRITE_IN.unpack_from(self.view, _HEADER)
            elif opcode == Op.FSYNC:
                _, flags, _ = p.FSYNC_IN.unpack_from(self.view, _HEADER)
        name = self.nodes[node].name if node in self.nodes else ""
        entry = (event, opcode, unique, name, offset, size, flags, error, time.monotonic_ns())
        self.log.append(entry)
        self.changed.notify_all()

    # ------------------------------------------------------------ handlers

    def init(self, _node: int, _length: int) -> Reply:
        major, minor, readahead, flags, flags2, *_ = p.INIT_IN.unpack_from(self.view, _HEADER)
        offered = p.offered(flags, flags2)
        agreed = offered & self.options.flags
        self.facts = {"major": major, "minor": minor, "offered": offered, "agreed": agreed}
        self.control.sendall(json.dumps({"mounted": self.facts}).encode() + b"\n")
        return p.init_reply(minor, readahead, agreed, self.options.max_write)

    def pack_attr(self, node: int) -> tuple[int, ...]:
        file = self.nodes.get(node)
        size = len(file.data) if file else 0
        seconds, nanoseconds = divmod(file.mtime if file else 0, 10**9)
        mode = stat.S_IFREG | 0o666 if file else stat.S_IFDIR | 0o755
        links = 1 if file else 2
        times = (*(seconds,) * 3, *(nanoseconds,) * 3)
        return (node, size, (size + 511) // 512, *times, mode, links, 0, 0, 0, 4096, 0)

    def attributes(self, node: int) -> Reply:
        if node != p.ROOT_ID and node not in self.nodes:
            return -errno.ESTALE
        return p.ATTR_OUT.pack(self.options.attr_timeout, 0, 0, *self.pack_attr(node))

    def lookup(self, _node: int, length: int) -> Reply:
        name = bytes(self.view[_HEADER : length - 1]).decode("utf-8", "surrogateescape")
        if name not in self.names:
            return -errno.ENOENT
        node, options = self.names[name], self.options
        timeouts = (options.entry_timeout, options.attr_timeout, 0, 0)
        return p.ENTRY_OUT.pack(node, 0, *timeouts, *self.pack_attr(node))

    def setattr(self, node: int, _length: int) -> Reply:
        valid, _, _, size, *_ = p.SETATTR_IN.unpack_from(self.view, _HEADER)
        if valid & p.FATTR_SIZE and node in self.nodes:
            resize(self.nodes[node], size)
        return self.attributes(node)

    def open(self, node: int, _length: int) -> Reply:
        return p.OPEN_OUT.pack(node, self.nodes[node].open_flags, 0)

    def read(self, node: int, _length: int) -> Reply:
        _, offset, size, *_ = p.READ_IN.unpack_from(self.view, _HEADER)
        return bytes(memoryview(self.nodes[node].data)[offset : offset + size])

    def write(self, node: int, _length: int) -> Reply:
        _, offset, size, *_ = p.WRITE_IN.unpack_from(self.view, _HEADER)
        file = self.nodes[node]
        if len(file.data) < offset + size:
            resize(file, offset + size)
        file.data[offset : offset + size] = self.view[_DATA : _DATA + size]
        return p.WRITE_OUT.pack(size, 0)

    def readdir(self, _node: int, _length: int) -> Reply:
        _, offset, size, *_ = p.READ_IN.unpack_from(self.view, _HEADER)
        out = b""
        for number, (name, node) in enumerate(self.names.items(), 1):
            raw = name.encode("utf-8", "surrogateescape")
            entry = p.DIRENT.pack(node, number, len(raw), stat.S_IFREG >> 12) + raw
            entry += bytes(-len(entry) % 8)
            if number > offset:
                if len(out) + len(entry) > size:
                    break
                out += entry
        return out

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


def resize(file: File, size: int) -> None:
    if size < len(file.data):
        del file.data[size:]
    else:
        file.data.extend(bytes(size - len(file.data)))


def run(files: Mapping[str, File], options: Options, control: socket.socket, point: Path) -> None:
    """The whole life of a server process, right after fork(). Never returns."""
    try:
        libc.die_with_parent(signal.SIGKILL)
        _close_all_but(control.fileno())
        server = Server(files, options, control)
        try:
            server.mount(point)
        except OSError as error:
            text = {"errno": error.errno, "error": str(error)}
            control.sendall(json.dumps(text).encode() + b"\n")
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

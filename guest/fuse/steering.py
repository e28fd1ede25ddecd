# SPDX-License-Identifier: GPL-2.0-or-later
"""What a check holds of a server: its log, and the orders that steer it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guest.fuse import protocol as p
from guest.fuse.protocol import Notify, Op
from guest.fuse.regions import NEW, Mapped

# Longer than any wait that a check asks for; a server that is silent for so long is broken.
PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the server's log. ``time`` is CLOCK_MONOTONIC in ns.

    ``offset`` and ``size`` are of the data, or of the mapping; ``flags`` are write_flags,
    read_flags, fsync_flags or the flags of the mmap. The last six are of direct mmap only.
    """

    event: str  # request, reply; refused: the kernel did not take the reply
    op: str
    unique: int
    name: str  # of the file; "" for the root and in replies
    offset: int
    size: int
    flags: int
    error: int  # in replies: 0 or a negative errno; refused: what write(2) gave, negative
    time: int
    node: int = 0
    fh: int = 0
    addr: int = 0
    prot: int = 0
    handle: int = NEW  # the server's descriptor or id of the region, or a negative errno
    mapping: int = 0  # unique of the MMAP that this is about

    @property
    def request(self) -> bool:
        return self.event == "request"


def ended_within(pid: int, seconds: float) -> float | None:
    """SIGKILL to a child: seconds until it is reaped, or None when it lives on."""
    begun = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    process = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(process, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return None
    finally:
        os.close(process)
    took = time.monotonic() - begun
    os.waitpid(pid, 0)
    return took


class Service:
    """A server process and the channel to it."""

    def __init__(self, path: Path, pid: int, control: socket.socket) -> None:
        self.path = path
        self.pid = pid
        self._control = control
        self._lines = control.makefile("rb")
        self._alive = True
        self.facts: dict[str, int] = {}

    def started(self) -> None:
        """Waits for the server's INIT. Raises OSError when there is no mount or device."""
        first = json.loads(self._lines.readline() or '{"error": "the server died"}')
        if "error" in first:
            raise OSError(first.get("errno", 0), first["error"])
        self.facts = first["mounted"]

    def _order(self, do: str, **details: Any) -> dict[str, Any]:
        self._control.sendall(json.dumps({"do": do, **details}).encode() + b"\n")
        answer = json.loads(self._lines.readline() or '{"error": "the server died"}')
        if "error" in answer:
            raise RuntimeError(f"FUSE server, {do}: {answer['error']}")
        return dict(answer)

    def withhold(self, *ops: Op) -> None:
        """From now on replies to these are kept back."""
        self._order("withhold", ops=list(ops))

    def release(self, op: Op, count: int | None = None, *, keep: bool = False) -> int:
        """Sends the replies kept back, or ``count`` of them; ``keep`` goes on keeping back."""
        return int(self._order("release", op=op, count=count, keep=keep)["released"])

    def answer(self, op: Op, error: int) -> None:
        """Every ``op`` gets this errno; 0 goes back to serving it."""
        self._order("answer", op=op, error=error)

    def log(self, *, clear: bool = False) -> list[Event]:
        """Requests and replies in their order."""
        entries = self._order("log", clear=clear)["log"]
        return [Event(one[0], p.op_name(one[1]), *one[2:]) for one in entries]

    def wait(self, op: Op, count: int = 1, *, event: str = "request", seconds: float = 5.0) -> bool:
        """True as soon as the log has ``count`` such lines, False after ``seconds``."""
        return bool(self._order("wait", op=op, count=count, event=event, seconds=seconds)["met"])

    def data(self, name: str, offset: int = 0, size: int | None = None) -> bytes:
        """What the server holds; the kernel has no part in it."""
        return bytes.fromhex(self._order("data", name=name, offset=offset, size=size)["hex"])

    def set_data(self, name: str, data: bytes) -> None:
        """Changes the file behind the kernel's back."""
        self._order("set", name=name, data=data.hex(), size=None)

    def set_size(self, name: str, size: int) -> None:
        self._order("set", name=name, data=None, size=size)

    def spoil(self, after: Op, count: int = 1) -> None:
        """After the server's next reply to ``after``, its next reads fault (EFAULT)."""
        self._order("spoil", after=after, count=count)

    def errand(self, kind: str, pid: int, what: int) -> None:
        """Before it answers the next READ, the thread that serves does this itself.

        ``map`` maps a page of that process's descriptor ``what``; ``read`` reads a byte of its
        memory at the address ``what``. Raises RuntimeError when the server cannot.
        """
        self._order("errand", kind=kind, pid=pid, what=what)

    def write(self, message: bytes) -> int:
        """The server writes these bytes to the kernel as they are; 0 or the errno."""
        return int(self._order("write", message=message.hex())["errno"])

    def notify(self, code: Notify, payload: bytes) -> int:
        """0 or the errno."""
        return self.write(p.notification(code, payload))

    # ------------------------------------------------------------ direct mmap

    @property
    def ids(self) -> bool:
        """Agreed in INIT that regions have ids."""
        return bool(self.facts["agreed"] & (p.CUSE_MMAP_ID if self.is_device else p.MMAP_ID))

    @property
    def is_device(self) -> bool:
        return False

    def policy(self, name: str, **changes: Any) -> None:
        """Changes how mmaps of that file are answered; the fields are those of Policy."""
        self._order("policy", name=name, **changes)

    def mappings(self, *, forget: bool = False) -> list[Mapped]:
        """Every mapping that the server accepted, in their order; ``forget`` the ended ones.

        Raises RuntimeError when it was told of the end of a mapping that it never had.
        """
        found = self._order("mappings", forget=forget)
        if found["strays"]:
            raise RuntimeError(f"the server knows no such mapping: {', '.join(found['strays'])}")
        return [Mapped(**one) for one in found["mappings"]]

    def load(self, handle: int, offset: int, size: int) -> bytes:
        """What the region holds: read by descriptor or by RETRIEVE. Raises OSError.

        RETRIEVE may give less: at most max_write bytes, max_pages pages, the region's end.
        """
        found = self._order("load", handle=handle, offset=offset, size=size)
        if found["errno"]:
            raise OSError(found["errno"], os.strerror(found["errno"]))
        return bytes.fromhex(found["hex"])

    def store(self, handle: int, offset: int, data: bytes) -> int:
        """Writes to the region, by descriptor or by STORE; 0 or the errno."""
        return int(self._order("store", handle=handle, offset=offset, data=data.hex())["errno"])

    def make(self, kind: str, size: int = 0) -> int:
        """A descriptor in the server; descriptors.KINDS says which there are."""
        return int(self._order("make", kind=kind, size=size)["fd"])

    def echo(self, handle: int, ping: Path, pong: Path) -> None:
        """From now on each byte from the pipe ``ping`` is answered; echo.py says how.

        Until ``ping`` is at its end: one who writes to it must have it open, and read ``pong``.
        """
        self._order("echo", handle=handle, ping=str(ping), pong=str(pong))

    def seal(self, fd: int) -> int:
        """The server seals a memfd of its own against writing; 0 or the errno."""
        return int(self._order("seal", fd=fd)["errno"])

    def limit_files(self, limited: bool) -> None:
        """No further descriptor can be had in the server, or again as many as before."""
        self._order("limit", limited=limited)

    def fds(self) -> dict[int, str]:
        """The server's open descriptors, and what each is."""
        return {int(fd): str(what) for fd, what in self._order("fds")["fds"]}

    def fd_flags(self, fd: int) -> int:
        """Its O_ flags, close-on-exec included."""
        lines = Path(f"/proc/{self.pid}/fdinfo/{fd}").read_text().splitlines()
        fields = dict(one.split(":", 1) for one in lines if ":" in one)
        return int(fields["flags"], 8)

    # ------------------------------------------------------------ the end

    @property
    def counters(self) -> Path:
        """The folder that has ``waiting`` and ``abort`` of this connection."""
        raise NotImplementedError

    def waiting(self) -> int:
        """Requests that the connection counts, at the server or on their way."""
        return int((self.counters / "waiting").read_text())

    def abort(self) -> bool:
        """Ends every request; False when the kernel has no handle for that."""
        with contextlib.suppress(OSError):
            (self.counters / "abort").write_text("1")
            return True
        return False

    def kill(self) -> None:
        """The server dies as if it had crashed; once only."""
        if self._alive:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self._alive = False

    def end(self, seconds: float) -> float | None:
        """kill(), with a limit: seconds from SIGKILL to its end, or None when it lives on."""
        took = ended_within(self.pid, seconds)
        self._alive = self._alive and took is None
        return took

    def close(self) -> None:
        # Abort first: whatever a check left hanging must not hang the end.
        self.abort()
        self.kill()
        self._lines.close()
        self._control.close()

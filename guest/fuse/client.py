# SPDX-License-Identifier: GPL-2.0-or-later
"""What a check uses: mount, look, and steer the server."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guest import libc
from guest.fuse import protocol as p
from guest.fuse import server
from guest.fuse.protocol import Op

CONNECTIONS = Path("/sys/fs/fuse/connections")
# Longer than any wait that a check asks for; a server that is silent for so long is broken.
_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the server's log. ``time`` is CLOCK_MONOTONIC in ns."""

    event: str  # request, reply
    op: str
    unique: int
    name: str  # of the file; "" for the root and in replies
    offset: int
    size: int
    flags: int  # write_flags, read_flags or fsync_flags
    error: int  # in replies: 0 or a negative errno
    time: int

    @property
    def request(self) -> bool:
        return self.event == "request"


class Mount:
    """A mounted filesystem and its server."""

    def __init__(self, path: Path, pid: int, control: socket.socket) -> None:
        self.path = path
        self.pid = pid
        self._control = control
        self._lines = control.makefile("rb")
        self._alive = True
        self.facts: dict[str, int] = {}
        self.device = ""  # "0:53"; the connection's number is what follows the colon

    def _started(self) -> None:
        first = json.loads(self._lines.readline() or '{"error": "the server died"}')
        if "error" in first:
            raise OSError(first.get("errno", 0), first["error"])
        self.facts = first["mounted"]
        self.device = _device_of(self.path)

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

    @property
    def bdi(self) -> Path:
        return Path("/sys/class/bdi") / self.device

    def abort(self) -> bool:
        """Ends every request through fusectl; False when there is no fusectl."""
        with contextlib.suppress(OSError):
            (CONNECTIONS / self.device.partition(":")[2] / "abort").write_text("1")
            return True
        return False

    def kill(self) -> None:
        """The server dies as if it had crashed; once only."""
        if self._alive:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self._alive = False

    def close(self) -> None:
        # Abort first: whatever a check left hanging must not hang the unmount.
        self.abort()
        self.kill()
        self._lines.close()
        self._control.close()
        with contextlib.suppress(OSError):
            libc.unmount(self.path, libc.MNT_DETACH)
        self.path.rmdir()


@contextlib.contextmanager
def mounted(
    files: Mapping[str, bytes],
    folder: Path,
    options: server.Options | None = None,
    open_flags: Mapping[str, int] | None = None,
) -> Iterator[Mount]:
    """Mounts these files under ``folder``; needs CAP_SYS_ADMIN.

    ``open_flags`` gives FOPEN_ bits by file name. Raises OSError when it cannot be mounted.
    Whatever happens inside, the connection is aborted, the server reaped and the mount gone
    afterwards.
    """
    point = folder / f"fuse{len(list(folder.iterdir()))}"
    point.mkdir()
    flags = open_flags or {}
    shelf = {
        name: server.File(name, bytearray(data), flags.get(name, 0)) for name, data in files.items()
    }
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        server.run(shelf, options or server.Options(), theirs, point)
    theirs.close()
    ours.settimeout(_PATIENCE)
    mount = Mount(point, pid, ours)
    try:
        mount._started()
        yield mount
    finally:
        mount.close()


def _device_of(path: Path) -> str:
    # Not stat(): it would be a request, and a server may be told to withhold.
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4] == str(path):
            return fields[2]
    return ""


def sweep(folder: Path) -> int:
    """Aborts and unmounts every FUSE mount left under ``folder``; returns how many."""
    found = 0
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4].startswith(f"{folder}/") and "- fuse " in line:
            number = fields[2].partition(":")[2]
            with contextlib.suppress(OSError):
                (CONNECTIONS / number / "abort").write_text("1")
            with contextlib.suppress(OSError):
                libc.unmount(Path(fields[4]), libc.MNT_DETACH)
            found += 1
    return found

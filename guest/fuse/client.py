# SPDX-License-Identifier: GPL-2.0-or-later
"""What a check starts: a mount or a CUSE device, each with a server of its own."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from guest import libc
from guest.fuse import server
from guest.fuse.folder import Folder
from guest.fuse.moods import Hungry, Tardy
from guest.fuse.protocol import ROOT_ID
from guest.fuse.regions import Regions
from guest.fuse.server import CUSE_NODE, File, Options, Server
from guest.fuse.steering import PATIENCE, Service

CONNECTIONS = Path("/sys/fs/fuse/connections")
DEVICES = Path("/sys/class/cuse")


class Mount(Service):
    """A mounted filesystem; ``path`` is its folder."""

    device = ""  # "0:53"; the connection's number is what follows the colon

    def started(self) -> None:
        super().started()
        self.device = _device_of(self.path)

    @property
    def bdi(self) -> Path:
        return Path("/sys/class/bdi") / self.device

    @property
    def counters(self) -> Path:
        return CONNECTIONS / self.device.partition(":")[2]

    def close(self) -> None:
        super().close()
        with contextlib.suppress(OSError):
            libc.unmount(self.path, libc.MNT_DETACH)
        self.path.rmdir()


class Device(Service):
    """A CUSE device; ``path`` is its file in /dev."""

    @property
    def is_device(self) -> bool:
        return True

    @property
    def counters(self) -> Path:
        return DEVICES / self.path.name


@contextlib.contextmanager
def mounted(
    files: Mapping[str, bytes],
    folder: Path,
    options: Options | None = None,
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
    shelf = [File(name, bytearray(data), flags.get(name, 0)) for name, data in files.items()]

    def make(control: socket.socket) -> Server:
        made = Server(dict(enumerate(shelf, ROOT_ID + 1)), options or Options(), control)
        Folder(made)
        if made.options.appetite:
            Hungry(made)
        if made.options.lag:
            Tardy(made)
        return made

    pid, channel = _started(make, lambda made: made.mount(point))
    mount = Mount(point, pid, channel)
    try:
        mount.started()
        yield mount
    finally:
        mount.close()


@contextlib.contextmanager
def device(
    name: str,
    data: bytes = b"",
    options: Options | None = None,
    open_flags: int = 0,
    more: Callable[[Regions], object] | None = None,
) -> Iterator[Device]:
    """/dev/``name``, as mounted() does a file; READ and WRITE see ``data``.

    ``more`` adds to a server of direct mmap, as Regions adds itself; called in its process.
    Raises OSError when there is no CUSE. The file is gone afterwards, its opened and mapped
    instances are as after a crash of the server.
    """

    def make(control: socket.socket) -> Server:
        file = File(name, bytearray(data), open_flags)
        return Server({CUSE_NODE: file}, options or Options(), control)

    pid, channel = _started(make, Server.plug, more)
    found = Device(Path("/dev") / name, pid, channel)
    try:
        found.started()
        yield found
    finally:
        found.close()


def _started(
    make: Callable[[socket.socket], Server],
    attach: Callable[[Server], None],
    more: Callable[[Regions], object] | None = None,
) -> tuple[int, socket.socket]:
    """The server's process and our end of its channel."""

    def build() -> Server:
        made = make(theirs)
        if made.options.direct:
            regions = Regions(made)
            if more:
                more(regions)
        return made

    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        server.run(build, attach)
    theirs.close()
    ours.settimeout(PATIENCE)
    return pid, ours


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

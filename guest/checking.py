# SPDX-License-Identifier: GPL-2.0-or-later
"""What checks of several features share: assertions, other processes, the server's log."""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import select
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from guest.fuse.steering import Event, Service, ended_within
from guest.words import CheckError

# How long a kernel that does nothing is given to show it. Not an upper limit of anything:
# a correct kernel stays silent however long one listens.
LISTEN = 0.3


def need(holds: bool, seen: str) -> None:
    """Raises CheckError(``seen``) unless it holds."""
    if not holds:
        raise CheckError(seen)


@contextlib.contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        with contextlib.suppress(OSError):  # a check may have closed it, or the server be dead
            os.close(fd)


@contextlib.contextmanager
def let_go(service: Service) -> Iterator[None]:
    """A check that fails may leave replies withheld; munmap and close would wait for them."""
    try:
        yield
    except BaseException:
        service.abort()
        raise


@contextlib.contextmanager
def forked(work: Callable[[], int]) -> Iterator[Callable[[], int]]:
    """``work()`` in a child; yields a function that waits for the number it returned."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, bytes([work() & 0xFF]))
        os._exit(0)
    os.close(writing)
    try:
        yield lambda: (os.read(reading, 1) or b"\xff")[0]
    finally:
        # Killed, not waited for here: it may hang in the kernel until the mount is gone.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.close(reading)


def fate(touch: Callable[[], object]) -> str:
    """What signal a child gets from ``touch()``."""
    pid = os.fork()
    if pid == 0:
        for one in (signal.SIGBUS, signal.SIGSEGV):
            signal.signal(one, signal.SIG_DFL)
        touch()
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "no signal"


def error_of(work: Callable[[], object]) -> int:
    """The errno of the OSError that ``work()`` raises, or 0."""
    try:
        work()
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def stacks(pid: int) -> str:
    """Where in the kernel the threads of a process are, as far as /proc says."""
    found = []
    for task in sorted(Path(f"/proc/{pid}/task").glob("*/stack")):
        with contextlib.suppress(OSError):
            found.append(task.read_text().rstrip())
    return "\n".join(found)


class Puppet:
    """A process of its own that does, one after the other, what it is told by name."""

    def __init__(self, pid: int, channel: socket.socket, begun: mmap.mmap) -> None:
        self.pid = pid
        self._channel = channel
        self._begun = begun  # shared with it: how many orders it has taken up, modulo 256
        self._told = 0
        self._reaped = False

    def start(self, name: str, *arguments: Any) -> None:
        self._told = (self._told + 1) % 256
        self._channel.sendall(json.dumps([name, *arguments]).encode() + b"\n")

    def result(self, seconds: float = 10.0) -> Any:
        """What it returned; ``{"errno": …}`` for an OSError. Raises TimeoutError."""
        self._channel.settimeout(seconds)
        data = b""
        while not data.endswith(b"\n"):
            got = self._channel.recv(1 << 16)
            if not got:
                raise CheckError("the other process is gone")
            data += got
        return json.loads(data)

    def settled(self, seconds: float) -> bool:
        """True as soon as there is a result to be had, False after ``seconds``."""
        return bool(select.select([self._channel], [], [], seconds)[0])

    def waits(self, looks: int = 12) -> bool:
        """True when it sleeps in what it was told to do, at each of ``looks`` in a row.

        False as soon as there is a result to be had. Looks and not seconds: a process that a
        busy host has not let begin waits for nothing.
        """
        asleep = 0
        while asleep < looks:
            if self.settled(LISTEN / looks):
                return False
            asleep = asleep + 1 if self._begun[0] == self._told and self._asleep() else 0
        return True

    def _asleep(self) -> bool:
        state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state in "SD"

    def where(self) -> str:
        """Where its tasks are in the kernel, as stacks() tells it."""
        return stacks(self.pid)

    def do(self, name: str, *arguments: Any, seconds: float = 10.0) -> Any:
        self.start(name, *arguments)
        return self.result(seconds)

    def kill(self, seconds: float = 10.0) -> float | None:
        """Seconds from SIGKILL to its end, or None when it did not end in time."""
        if self._reaped:
            return 0.0
        took = ended_within(self.pid, seconds)
        self._reaped = took is not None
        return took

    def close(self) -> None:
        self.kill(0.5)
        self._channel.close()


@contextlib.contextmanager
def puppet(acts: Mapping[str, Callable[..., Any]]) -> Iterator[Puppet]:
    """A forked process that calls ``acts`` by name; what they return must be JSON."""
    ours, theirs = socket.socketpair()
    begun = mmap.mmap(-1, mmap.PAGESIZE)
    pid = os.fork()
    if pid == 0:
        ours.close()
        _act(acts, theirs, begun)
    theirs.close()
    found = Puppet(pid, ours, begun)
    try:
        yield found
    finally:
        found.close()


def _act(acts: Mapping[str, Callable[..., Any]], channel: socket.socket, begun: mmap.mmap) -> None:
    try:
        for line in channel.makefile("rb"):
            name, *arguments = json.loads(line)
            begun[0] = (begun[0] + 1) % 256
            try:
                result = acts[name](*arguments)
            except OSError as error:
                result = {"errno": error.errno}
            channel.sendall(json.dumps(result).encode() + b"\n")
    finally:
        os._exit(1)


def before(log: list[Event], first: tuple[str, str], second: tuple[str, str]) -> None:
    """Every ``first`` comes before the first ``second``, and there are some of both."""
    marks = [(one.event, one.op) for one in log]
    need(first in marks and second in marks, f"wanted {first} and {second}: {story(log)}")
    last = len(marks) - 1 - marks[::-1].index(first)
    need(last < marks.index(second), f"{second} before the last {first}: {story(log)}")


def story(log: list[Event]) -> str:
    """The log in one line: requests by name, replies with an arrow."""
    told = [one.op if one.request else f"→{one.op}" for one in log if one.name or not one.request]
    return " ".join(told[-40:]) or "nothing"

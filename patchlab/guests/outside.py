# SPDX-License-Identifier: GPL-2.0-or-later
"""The process outside the guest that has its persistent memory, too: this one.

A check asks over a virtio port of its own, in JSON lines. What it can have: bytes of a
device's file at the offsets that FIEMAP gave; a partner that answers in that memory, with no
system call of the guest in between; the file as a power cut would leave it. The guest is not
trusted: every number is checked, and nothing but the files of its own devices is reached.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from patchlab import proc
from patchlab.errors import LabError
from patchlab.guests.backing import PAGE, Backing, TooMuch

PORT = "lab.outside"  # the guest's name of it
_PORT_SOCKET, _FLUSH_SOCKET, _LIBRARY = "outside.sock", "flush.sock", "flushes.so"
_SOURCE = Path(__file__).with_name("flushes.c")
_COMPILE = 60.0
_LINE = 64 << 10  # bytes of a request
_READ = 1 << 20  # bytes of a reply's data
_PLAY = 60.0  # seconds
_INODE = struct.Struct("=Q")
_WORD = struct.Struct("<Q")
_FRAME = struct.Struct(f"<Q{PAGE}s")


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """One line of the guest's."""

    id: int
    do: str
    device: int = 0
    extents: list[tuple[int, int]] = []  # offset and length, in bytes
    at: int = 0
    turns: int = 0
    kept: float = 0.0
    seed: int = 0


class Refused(Exception):
    """What the guest asked for makes no sense; the text is the answer."""


class Outside:
    """What is seen of one guest's devices, and what answers its checks."""

    def __init__(self, backings: Sequence[Backing], sees_flushes: bool) -> None:
        self.backings = backings
        self.sees_flushes = sees_flushes
        self._lock = threading.Lock()
        self._player: threading.Thread | None = None
        self._stop = threading.Event()
        self._turns = 0
        self._acts: dict[str, Callable[[Request], tuple[dict[str, Any], bytes]]] = {
            "hello": self._hello,
            "read": self._read,
            "play": self._play,
            "played": self._played,
            "watch": self._watch,
            "cut": self._cut,
            "forget": self._forget,
        }

    def answer(self, line: bytes) -> bytes:
        """The reply to one line: JSON, a newline, and what was asked for besides. Never raises."""
        number, data = 0, b""
        try:
            request = msgspec.json.decode(line, type=Request)
            number = request.id
            if request.do not in self._acts:
                raise Refused(f"{request.do!r}: there are {', '.join(self._acts)}")
            told, data = self._acts[request.do](request)
            body = {"id": number, "ok": True, "bytes": len(data), **told}
        except (Refused, TooMuch, msgspec.MsgspecError) as error:
            body = {"id": number, "ok": False, "bytes": 0, "error": str(error)[:400]}
            data = b""
        return msgspec.json.encode(body) + b"\n" + data

    def flushed(self, inode: int) -> None:
        """The device whose file has this number is being flushed."""
        for backing in self.backings:
            if backing.inode == inode:
                with self._lock:
                    backing.flushed()

    def close(self) -> None:
        self._end_play()
        for backing in self.backings:
            backing.close()

    # ------------------------------------------------------------ what can be asked

    def _backing(self, request: Request) -> Backing:
        if not 0 <= request.device < len(self.backings):
            raise Refused(f"device {request.device}: there are {len(self.backings)}")
        return self.backings[request.device]

    def _hello(self, _: Request) -> tuple[dict[str, Any], bytes]:
        sizes = [backing.size for backing in self.backings]
        return {"sizes": sizes, "flushes": self.sees_flushes}, b""

    def _read(self, request: Request) -> tuple[dict[str, Any], bytes]:
        backing, data = self._backing(request), b""
        for at, length in request.extents:
            if at < 0 or length < 0 or at + length > backing.size:
                raise Refused(f"{length} bytes at {at} of a device of {backing.size}")
            if len(data) + length > _READ:
                raise Refused(f"more than {_READ} bytes")
            data += backing.live[at : at + length]
        return {"data": base64.b64encode(data).decode()}, b""

    def _play(self, request: Request) -> tuple[dict[str, Any], bytes]:
        """Answers each new word at ``at`` with the same word behind it, ``turns`` times."""
        backing, at = self._backing(request), request.at
        if at < 0 or at % _WORD.size or at + 2 * _WORD.size > backing.size:
            raise Refused(f"two words at {at} of a device of {backing.size}")
        self._end_play()
        self._stop.clear()
        self._player = _started(partial(self._answer_words, backing, at, request.turns))
        return {}, b""

    def _answer_words(self, backing: Backing, at: int, turns: int) -> None:
        self._turns, limit = 0, time.monotonic() + _PLAY
        (last,) = _WORD.unpack_from(backing.live, at)
        while self._turns < turns and time.monotonic() < limit and not self._stop.is_set():
            (word,) = _WORD.unpack_from(backing.live, at)
            if word == last:
                time.sleep(0.0005)
                continue
            last = word
            self._turns += 1
            _WORD.pack_into(backing.live, at + _WORD.size, word)

    def _end_play(self) -> None:
        if self._player is not None:
            self._stop.set()
            self._player.join()
            self._player = None

    def _played(self, _: Request) -> tuple[dict[str, Any], bytes]:
        self._end_play()
        return {"turns": self._turns}, b""

    def _watch(self, request: Request) -> tuple[dict[str, Any], bytes]:
        if not self.sees_flushes:
            raise Refused("flushes are not seen on this host")
        with self._lock:
            self._backing(request).watch()
        return {}, b""

    def _cut(self, request: Request) -> tuple[dict[str, Any], bytes]:
        backing = self._backing(request)
        with self._lock:
            try:
                cut = backing.cut(Random(request.seed), request.kept)
            except ValueError as error:
                raise Refused(str(error)) from error
            flushes = backing.flushes
        told = {"pages": len(cut.pages), "dirty": cut.dirty, "lost": cut.lost, "flushes": flushes}
        return told, b"".join(_FRAME.pack(*page) for page in cut.pages)

    def _forget(self, request: Request) -> tuple[dict[str, Any], bytes]:
        with self._lock:
            self._backing(request).forget()
        return {}, b""


# ---------------------------------------------------------------- beside one boot


def argv(folder: Path) -> list[str]:
    """The guest's port. There has to be a virtio-serial device before it."""
    return [
        *("-chardev", f"socket,id=outside,path={folder / _PORT_SOCKET}"),
        *("-device", f"virtserialport,chardev=outside,name={PORT}"),
    ]


def environment(folder: Path) -> dict[str, str]:
    """What makes QEMU tell of its flushes; nothing where the library is not there."""
    library = folder / _LIBRARY
    if not library.is_file():
        return {}
    return {"LD_PRELOAD": str(library), "LAB_FLUSHES": str(folder / _FLUSH_SOCKET)}


@contextlib.contextmanager
def beside(folder: Path, files: Sequence[Path]) -> Iterator[Outside]:
    """Listens for one guest, whose devices have these files, until it is left."""
    with contextlib.ExitStack() as stack:
        there = Outside([Backing(file) for file in files], _compiled(folder / _LIBRARY))
        stack.callback(there.close)
        stack.enter_context(_served(folder / _PORT_SOCKET, lambda end: _lines(end, there)))
        stack.enter_context(_served(folder / _FLUSH_SOCKET, lambda end: _flushes(end, there)))
        yield there


def _compiled(library: Path) -> bool:
    """Without a compiler no flush is seen, and the check of power cuts is skipped."""
    argv = ["gcc", "-O2", "-shared", "-fPIC", str(_SOURCE), "-o", str(library), "-pthread"]
    with contextlib.suppress(LabError):
        proc.run(argv, deadline=_COMPILE)
    return library.is_file()


@contextlib.contextmanager
def _served(path: Path, work: Callable[[socket.socket], None]) -> Iterator[None]:
    """A unix socket; each connection is served by a thread of its own."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen()
        ends: list[socket.socket] = []
        threads: list[threading.Thread] = []

        def serve(end: socket.socket) -> None:
            with end, contextlib.suppress(OSError):
                work(end)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    end, _ = listener.accept()
                    ends.append(end)
                    threads.append(_started(partial(serve, end)))

        threads.append(_started(accept))
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            threads[0].join(10.0)
            for end in ends:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            for thread in threads[1:]:
                thread.join(10.0)


def _started(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def _lines(end: socket.socket, there: Outside) -> None:
    with end.makefile("rb") as requests:
        while line := requests.readline(_LINE + 1):
            if len(line) > _LINE:
                return  # it is no request, and what follows is none either
            end.sendall(there.answer(line))


def _flushes(end: socket.socket, there: Outside) -> None:
    while data := end.recv(_INODE.size, socket.MSG_WAITALL):
        if len(data) < _INODE.size:
            return
        there.flushed(_INODE.unpack(data)[0])
        end.sendall(b"k")

# SPDX-License-Identifier: GPL-2.0-or-later
"""A SIGKILL of the client, or of the server, at every message of a mapping's life."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from guest import health, libc, victims
from guest.fuse import protocol as p
from guest.fuse.protocol import Notify, Op
from guest.libc import PAGE
from guest.victims import Victim, spin
from guest.wire import NAME, Request, Wire
from guest.words import CheckError

_DIES = 15.0  # seconds that a killed process may take, on a slow machine
_COMES = 30.0  # seconds until an expected message must be there
_SPREAD = 600e-6  # seconds; the delay before a kill is drawn from 0 to this


@dataclass(frozen=True, slots=True)
class Point:
    """A moment: ``phase`` of the message ``opcode``, or of none."""

    opcode: int
    phase: str  # unread, read, answered; mapped, store, retrieve without a message

    def __str__(self) -> str:
        return f"{p.op_name(self.opcode)} {self.phase}" if self.opcode else self.phase


def points(ids: bool) -> tuple[Point, ...]:
    """Every moment of a mapping's life in this dialect, in their order."""
    messages = (Op.MMAP,) if ids else (Op.MMAP, Op.MMAP_COMMIT)
    before = [Point(op, phase) for op in messages for phase in ("unread", "read", "answered")]
    middle = ("mapped", "store", "retrieve") if ids else ("mapped",)
    after = [Point(Op.MUNMAP, phase) for phase in ("unread", "read", "answered")]
    return (*before, *(Point(0, phase) for phase in middle), *after)


def store_message(map_id: int, offset: int, data: bytes, size: int | None = None) -> bytes:
    body = p.MAP_STORE_OUT.pack(map_id, offset, len(data) if size is None else size, 0) + data
    return p.notification(Notify.MAP_STORE, body)


def retrieve_message(unique: int, map_id: int, offset: int, size: int) -> bytes:
    body = p.MAP_RETRIEVE_OUT.pack(unique, map_id, offset, size & 0xFFFFFFFF, 0)
    return p.notification(Notify.MAP_RETRIEVE, body)


# ---------------------------------------------------------------- reaching a moment


def reach(wire: Wire, point: Point) -> Request | None:
    """Serves up to the moment, and no further; the message that is read but not answered.

    Raises TimeoutError when it never comes, Gone when the connection ends first.
    """
    if not point.opcode:
        _mapped(wire)
        return None
    if point.phase == "unread":
        _before(wire, point.opcode)
        if not wire.ready(_COMES):
            raise TimeoutError(f"nothing to read before {point}")
        return None
    request = wire.expect(point.opcode)
    if point.phase == "answered":
        wire.honest(request)
        return None
    if request.opcode == Op.MMAP_COMMIT:
        wire.regions.commit(request)
    return request


def _before(wire: Wire, opcode: int) -> None:
    """Answers the message before this one, so that the next to be read is this one."""
    if opcode == Op.MUNMAP:
        _mapped(wire)
    else:
        earlier = {Op.MMAP: Op.OPEN, Op.MMAP_COMMIT: Op.MMAP}[Op(opcode)]
        wire.honest(wire.expect(earlier))


def _mapped(wire: Wire) -> None:
    last = Op.MMAP if wire.regions.ids else Op.MMAP_COMMIT
    wire.honest(wire.expect(last))


# ---------------------------------------------------------------- killing the client


class ClientKills:
    """Rounds on one connection; the server lives on and must be left with nothing."""

    def __init__(self, wire: Wire, random: Random) -> None:
        self.wire = wire
        self.random = random
        self.late: dict[str, int] = {}  # errno of replies that came after the kill

    def round(self, point: Point) -> None:
        """One client that dies at ``point``. Raises CheckError."""
        wire, random = self.wire, self.random
        wire.regions.share = random.random() < 0.3
        linger = not point.opcode
        with contextlib.closing(
            Victim(
                lambda: victims.once(str(wire.path), random.randrange(1, 4), linger=linger),
                [wire.device],
                random.randrange(2),
            )
        ) as client:
            try:
                request = reach(wire, point)
            except TimeoutError as error:
                raise CheckError(f"{point}: {error}; the client: {self._story(client)}") from None
            self._kill(client, point, request)
            self._finish(client, point)

    def _kill(self, client: Victim, point: Point, request: Request | None) -> None:
        spin(self.random.random() * _SPREAD)
        client.kill()
        if point.phase == "store":
            self._race_store()
        elif point.phase == "retrieve":
            self._race_retrieve()
        if request is None:
            return
        if request.opcode != Op.MUNMAP and self.random.random() < 0.5:
            self._must_die(client, point, request)
        else:
            spin(self.random.random() * _SPREAD)
        refused = self.wire.honest(request)
        self.late[libc.name_of(refused)] = self.late.get(libc.name_of(refused), 0) + 1

    def _must_die(self, client: Victim, point: Point, request: Request) -> None:
        if not self.wire.serve(client.ended, _DIES):  # it closes its file, which wants answers
            stuck = "; ".join(health.stuck())
            self.wire.honest(request)  # or nothing could be cleaned up
            raise CheckError(
                f"{point}: the client was killed and is still there {_DIES:.0f} s later: {stuck}"
            )

    def _race_store(self) -> None:
        ids = list(self.wire.regions.sizes) or [1]
        for _ in range(self.random.randrange(1, 6)):
            data = bytes(self.random.randrange(1, PAGE))
            self._expected(self.wire.write(store_message(ids[-1], 0, data)), "STORE")

    def _race_retrieve(self) -> None:
        ids = list(self.wire.regions.sizes) or [1]
        for turn in range(self.random.randrange(1, 6)):
            message = retrieve_message(1000 + turn, ids[-1], 0, PAGE)
            self._expected(self.wire.write(message), "RETRIEVE")

    def _expected(self, refused: int, what: str) -> None:
        if refused not in (0, errno.ENOENT):
            raise CheckError(f"{what} on the region of a dying client: {libc.name_of(refused)}")

    def _finish(self, client: Victim, point: Point) -> None:
        """The client is gone, nothing waits, every mapping has had its end."""
        wire = self.wire

        def done() -> bool:
            return client.ended() and not health.waiting(wire.connection) and not wire.ready(0)

        def over() -> bool:
            return done() and not wire.regions.open()

        if not wire.serve(over, _DIES):
            raise CheckError(
                f"client killed at {point}: {_DIES:.0f} s later the client is "
                f"{'gone' if client.ended() else 'there'}, {health.waiting(wire.connection)} "
                f"requests wait, {wire.regions.open()} answered MMAPs have had no end"
            )

    def _story(self, client: Victim) -> str:
        return client.said() or "said nothing" if client.ended() else "waits"


# ---------------------------------------------------------------- killing the server


def server_round(mount: Path | None, name: str, random: Random, point: Point) -> None:
    """A server that dies at ``point``; its client must get an error or keep its mapping.

    Without ``mount`` it is a CUSE device called ``name``, which must be gone afterwards.
    """
    path = mount / NAME if mount else Path("/dev") / name
    reading, writing = os.pipe()
    on = random.random() < 0.5  # goes on serving, so that it dies anywhere after the moment
    with contextlib.ExitStack() as stack:
        stack.callback(_unmount, mount)
        stack.callback(os.close, reading)
        server = stack.enter_context(
            contextlib.closing(
                Victim(lambda: _doomed(Wire(mount, name), point, writing, on), [reading], 1)
            )
        )
        os.close(writing)
        _told(reading, b"m", server, point)
        linger = not point.opcode
        client = stack.enter_context(
            contextlib.closing(Victim(lambda: victims.once(str(path), linger=linger), [], 0))
        )
        _told(reading, b"x", server, point)
        spin(random.random() * _SPREAD)
        server.kill()
        _gone(server, f"server killed at {point}: it is still there")
        if linger:
            client.kill()
        _gone(client, f"server killed at {point}: its client hangs")
    if mount is None and not _vanished(path):
        raise CheckError(f"CUSE server killed at {point}: {path} is still there")


def _gone(victim: Victim, what: str) -> None:
    if not victim.ended(_DIES):
        raise CheckError(f"{what} {_DIES:.0f} s later: {'; '.join(health.stuck())}")


def _vanished(path: Path) -> bool:
    limit = time.monotonic() + _DIES
    while path.exists() and time.monotonic() < limit:
        time.sleep(0.01)
    return not path.exists()


def _doomed(wire: Wire, point: Point, tell: int, on: bool) -> None:
    os.write(tell, b"m")
    reach(wire, point)
    if point.phase == "retrieve":
        for key in wire.regions.sizes:
            wire.write(retrieve_message(7, key, 0, PAGE))
    os.write(tell, b"x")
    while on:
        if point.phase == "store":
            wire.write(store_message(max(wire.regions.sizes, default=1), 0, bytes(PAGE)))
        if request := wire.read(0.0):
            wire.honest(request)
    time.sleep(60)


def _told(reading: int, word: bytes, server: Victim, point: Point) -> None:
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    if not poll.poll(60_000) or os.read(reading, 1) != word:
        said = server.said() if server.ended() else "waits"
        raise CheckError(f"the server that should die at {point} never came there: {said}")


def _unmount(mount: Path | None) -> None:
    if mount:
        with contextlib.suppress(OSError):
            libc.unmount(mount, libc.MNT_DETACH)
        with contextlib.suppress(OSError):
            mount.rmdir()


# ---------------------------------------------------------------- many of them


def rounds(
    kill: Callable[[Point], None], moments: tuple[Point, ...], count: int, seconds: float
) -> int:
    """``count`` rounds at each moment, fewer when the time is up; how many were made."""
    limit = time.monotonic() + seconds
    for turn in range(count):
        if turn and time.monotonic() > limit:
            return turn
        for point in moments:
            kill(point)
    return count

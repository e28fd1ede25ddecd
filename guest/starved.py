# SPDX-License-Identifier: GPL-2.0-or-later
"""Which calls on the way of a mapping are given faults, one at a time, until none is reached."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import time
from collections.abc import Callable
from typing import Any

from guest import faults, health
from guest.faults import SYS_FORK, Tally, Trigger, enumerate_faults
from guest.fuse import protocol as p
from guest.fuse.protocol import Op
from guest.kills import retrieve_message, store_message
from guest.libc import PAGE, READ, SHARED, WRITE, Map
from guest.victims import MREMAP_MAYMOVE, Victim
from guest.wire import Request, Wire
from guest.words import CheckError

CLIENT_CALLS = ("nothing", "mmap", "munmap", "munmap of a part", "mremap", "fork")
_PATIENCE = 30.0  # seconds for one answer of the other process
_NOTIFY_UNIQUE = 1 << 40


# ---------------------------------------------------------------- the client's calls


class Client:
    """In the client's process: one shot a call, and an honest mapping after each that went off."""

    def __init__(self, path: str) -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        self.file = os.open(path, os.O_RDWR)
        self.trigger = Trigger()
        self.forked: Map | None = None

    def shots(self, what: str) -> Tally:
        shoot = {
            "nothing": lambda nth: self.trigger.fire(nth, faults.nothing),
            "mmap": self.mmap,
            "munmap": lambda nth: self.munmap(nth, 0, 2),
            "munmap of a part": lambda nth: self.munmap(nth, 1, 1),
            "mremap": self.mremap,
            "fork": self.fork,
        }[what]

        def once(nth: int) -> tuple[bool, bool]:
            result, off = shoot(nth)
            if off and what != "fork":
                self.honest()
            return off, result == -1

        with faults.still(), contextlib.closing(health.Log()) as log:
            return enumerate_faults(what, once, log.lines)

    def honest(self) -> None:
        with Map(self.file, 2 * PAGE) as map_:
            map_.view[PAGE] = 1

    def mmap(self, nth: int) -> tuple[int, bool]:
        length, prot = 2 * PAGE, READ | WRITE
        result, off = self.trigger.fire(nth, faults.mmap, 0, length, prot, SHARED, self.file, 0)
        if result != -1:
            faults.munmap(result, length)
        return result, off

    def munmap(self, nth: int, page: int, pages: int) -> tuple[int, bool]:
        map_ = Map(self.file, (pages + 2 * page) * PAGE)
        map_.view[0] = 1
        shot = self.trigger.fire(nth, faults.munmap, map_.address + page * PAGE, pages * PAGE)
        if shot[0] == -1 or page:
            map_.close()
        return shot

    def mremap(self, nth: int) -> tuple[int, bool]:
        map_ = Map(self.file, 2 * PAGE)
        arguments = (map_.address, map_.length, 4 * PAGE, MREMAP_MAYMOVE)
        result, off = self.trigger.fire(nth, faults.mremap, *arguments)
        if result != -1:
            map_.address, map_.length = result, 4 * PAGE
        map_.close()
        return result, off

    def fork(self, nth: int) -> tuple[int, bool]:
        if self.forked is None:
            self.forked = Map(self.file, 2 * PAGE)
            self.forked.view[0] = 1
            faults.inherit_only(self.forked.address, self.forked.length)
        result, off = self.trigger.fire(nth, faults.syscall, SYS_FORK)
        if result == 0:
            os._exit(0)
        if result > 0:
            os.waitpid(result, 0)
        return result, off


def client_shots(wire: Wire, what: str, seconds: float) -> Tally:
    """One call of a client, enumerated, while this process serves. Raises CheckError."""
    reading, writing = os.pipe()

    def work() -> None:
        tally = Client(str(wire.path)).shots(what)
        text = {"fired": tally.fired, "failed": tally.failed, "by": tally.by}
        os.write(writing, json.dumps(text).encode())

    with contextlib.closing(Victim(work, [wire.device, reading])) as client:
        os.close(writing)
        wire.serve(lambda: client.ended() and not health.waiting(wire.connection), seconds)
        ended, said = client.ended(), client.said() if client.ended() else "no end"
    told = os.read(reading, 1 << 12)
    os.close(reading)
    if not ended or not told:
        raise CheckError(f"faults in {what}: the client: {said or client.status}")
    if wire.regions.open():
        raise CheckError(f"faults in {what}: {wire.regions.open()} mappings have had no end")
    found: dict[str, Any] = json.loads(told)
    tally = Tally(what, found["fired"], found["failed"])
    tally.by.update(found["by"])
    return tally


# ---------------------------------------------------------------- the server's calls


class Puppet:
    """A client that maps (``m``) and unmaps (``u``) when it is told."""

    def __init__(self, wire: Wire) -> None:
        orders, self._orders = os.pipe()
        self._words, words = os.pipe()
        closing = [wire.device, self._orders, self._words]
        self.victim = Victim(lambda: _obey(str(wire.path), orders, words), closing)
        os.close(orders)
        os.close(words)

    def say(self, order: bytes) -> None:
        os.write(self._orders, order)

    def spoke(self) -> bool:
        poll = select.poll()
        poll.register(self._words, select.POLLIN)
        return bool(poll.poll(0))

    def hear(self) -> int:
        """The errno of what it was told last, 0 when it worked; 255 when it died."""
        return (os.read(self._words, 1) or b"\xff")[0]

    def close(self) -> None:
        self.victim.close()
        os.close(self._orders)
        os.close(self._words)


def _obey(path: str, orders: int, words: int) -> None:
    file = os.open(path, os.O_RDWR)
    os.write(words, b"\0")
    maps: list[Map] = []
    while order := os.read(orders, 1):
        error = 0
        try:
            if order == b"m":
                maps.append(Map(file, 2 * PAGE))
                maps[0].view[0] = 1
            elif maps:
                maps.pop().close()
        except OSError as failed:
            error = failed.errno or 254
        os.write(words, bytes([error]))


Stage = tuple[str, int]  # read or write, and the opcode; or store, retrieve


def server_stages(ids: bool) -> tuple[Stage, ...]:
    """Every call that a server makes in a mapping's life."""
    ops = (Op.MMAP, Op.MUNMAP) if ids else (Op.MMAP, Op.MMAP_COMMIT, Op.MUNMAP)
    both = tuple((how, int(op)) for op in ops for how in ("read", "write"))
    more = (("store", 0), ("retrieve", 0), ("read", int(Op.NOTIFY_REPLY))) if ids else ()
    return both + more


class Server:
    """In this process: one shot a mapping, at the call that ``stage`` names."""

    def __init__(self, wire: Wire, puppet: Puppet) -> None:
        self.wire, self.puppet = wire, puppet
        self.trigger = Trigger()
        self.stage: Stage = ("", 0)
        self.nth = 0
        self.next = 0  # the opcode that comes next
        self.shot: tuple[int, bool] | None = None
        self._serve()
        puppet.hear()

    def shots(self, stage: Stage) -> Tally:
        what = f"{stage[0]} of {p.op_name(stage[1])}" if stage[1] else stage[0]

        def once(nth: int) -> tuple[bool, bool]:
            self._mapping(stage, nth)
            if self.shot is None:
                raise CheckError(f"faults in {what}, N = {nth}: the call never came")
            result, off = self.shot
            if off and self._mapping(("", 0), 0):
                raise CheckError(f"faults in {what}, N = {nth}: the next honest mapping failed")
            return off, result == -1

        with faults.still(), contextlib.closing(health.Log()) as log:
            return enumerate_faults(what, once, log.lines)

    def _mapping(self, stage: Stage, nth: int) -> int:
        """mmap and munmap, with one shot on the way; the errno of mmap."""
        self.stage, self.nth, self.shot, self.next = stage, nth, None, Op.MMAP
        self.puppet.say(b"m")
        self._serve()
        error = self.puppet.hear()
        if not error:
            self._notify()
            self.next = Op.MUNMAP
            self.puppet.say(b"u")
            self._serve()
            self.puppet.hear()
        self._quiet()
        self.wire.regions.close()
        return error

    def _serve(self) -> None:
        limit = time.monotonic() + _PATIENCE
        while not self.puppet.spoke():
            if self.wire.ready(0.01):
                self._message()
            if time.monotonic() > limit:
                stuck = "; ".join(health.stuck())
                raise CheckError(f"{self.stage}, N = {self.nth}: the client hangs: {stuck}")

    def _quiet(self) -> None:
        limit = time.monotonic() + _PATIENCE
        while health.waiting(self.wire.connection):
            if self.wire.ready(0.01):
                self._message()
            if time.monotonic() > limit:
                count = health.waiting(self.wire.connection)
                raise CheckError(f"{self.stage}, N = {self.nth}: {count} requests wait for ever")

    def _fire(self, call: Callable[..., int], *arguments: int) -> int:
        self.shot = self.trigger.fire(self.nth, call, *arguments)
        self.stage = ("", 0)
        return self.shot[0]

    def _message(self) -> None:
        if self.stage == ("read", self.next):
            got = self._fire(faults.read, self.wire.device, *self.wire.memory)
            request = self.wire.parsed(got) if got > 0 else None
        else:
            request = self.wire.read()
        if request is not None:
            self._reply(request)

    def _reply(self, request: Request) -> None:
        if self.stage != ("write", request.opcode):
            self.wire.honest(request)
        else:
            self._write_reply(request)
        if request.opcode == Op.MMAP:
            self.next = Op.MMAP_COMMIT

    def _write_reply(self, request: Request) -> None:
        if request.opcode == Op.MMAP_COMMIT:
            self.wire.regions.commit(request)
        answer = self.wire.answer(request)
        assert answer is not None
        error, payload = answer
        header = p.OUT_HEADER.pack(p.OUT_HEADER.size + len(payload), error, request.unique)
        result = self._write(header + payload)
        if request.opcode == Op.MMAP:
            self.wire.regions.sent(request.unique, payload, int(result == -1))

    def _write(self, message: bytes) -> int:
        memory, address = faults.buffer(len(message))
        ctypes.memmove(memory, message, len(message))
        return self._fire(faults.write, self.wire.device, address, len(message))

    def _notify(self) -> None:
        """While it is mapped: the notifications, if this shot is at one."""
        region = max(self.wire.regions.sizes, default=0)
        retrieve = retrieve_message(_NOTIFY_UNIQUE, region, 0, 2 * PAGE)
        if self.stage[0] == "store":
            self._write(store_message(region, PAGE, bytes(PAGE)))
        elif self.stage[0] == "retrieve":
            self._write(retrieve)
        elif self.stage == ("read", Op.NOTIFY_REPLY):
            self.wire.write(retrieve)
            self.next = Op.NOTIFY_REPLY
            self._quiet()

    def close(self) -> None:
        self.trigger.close()


def starve(wire: Wire, seconds: float) -> list[Tally]:
    """All of them, in one list; CheckError at the first that leaves something behind."""
    tallies = [client_shots(wire, what, seconds) for what in CLIENT_CALLS]
    with (
        contextlib.closing(Puppet(wire)) as puppet,
        contextlib.closing(Server(wire, puppet)) as server,
    ):
        tallies += [server.shots(stage) for stage in server_stages(wire.regions.ids)]
    return tallies

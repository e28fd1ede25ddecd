# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything at once: two clients that do all they can, a server that does too, and kills."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable
from pathlib import Path
from random import Random

from guest import health, libc, victims
from guest.kills import retrieve_message, store_message
from guest.libc import PAGE, Map
from guest.victims import Victim
from guest.wire import Wire
from guest.words import CheckError

_DIES = 20.0  # seconds that a killed process may take, on a slow machine
_PATIENCE = 60_000  # ms until a server must have mounted


class Busy:
    """In the server's process: honest answers, and the server's own ways to the regions."""

    def __init__(self, wire: Wire, random: Random) -> None:
        self.wire, self.random = wire, random
        self.ways: tuple[Callable[[int], object], ...] = (
            (self.store, self.store, self.retrieve)
            if wire.regions.ids
            else (self.touch, self.read_write)
        )

    def run(self) -> None:
        """Until it is killed."""
        while True:
            self.wire.regions.share = self.random.random() < 0.4
            if request := self.wire.read(0.005):
                self.wire.honest(request)
            if self.random.random() < 0.3 and self.wire.regions.sizes:
                with contextlib.suppress(OSError, ValueError):
                    self.random.choice(self.ways)(self.random.choice([*self.wire.regions.sizes]))

    def store(self, key: int) -> None:
        size = self.wire.regions.sizes[key]
        offset = self.random.randrange(size)
        data = bytes(self.random.randrange(1, min(2 * PAGE, size - offset) + 1))
        message = store_message(key, offset, data)
        self.random.choice((self.wire.write, self.wire.splice))(message)

    def retrieve(self, key: int) -> None:
        self.wire.write(retrieve_message(1 << 40, key, self.random.randrange(3 * PAGE), 2 * PAGE))

    def touch(self, key: int) -> None:
        with Map(key, PAGE) as map_:
            map_.view[self.random.randrange(PAGE)] = 1

    def read_write(self, key: int) -> None:
        os.pwrite(key, os.pread(key, PAGE, 0), PAGE)


def epoch(folder: Path, seed: str, seconds: float) -> tuple[int, int]:
    """One mount; clients, then the server are killed. How many clients and kills there were."""
    random = Random(seed)
    mount = folder / "mix"
    with contextlib.ExitStack() as stack:
        stack.callback(_unmount, mount)
        server = _server(stack, mount, seed)
        clients = [_client(folder, mount, seed, place) for place in range(2)]
        for client in clients:
            stack.enter_context(contextlib.closing(client))
        made = 2
        for _ in range(2):
            clients[0].ended(seconds / 3 * (0.5 + random.random()))
            place = random.randrange(2)
            _bury(clients[place], "a client")
            clients[place] = _client(folder, mount, seed, made)
            stack.enter_context(contextlib.closing(clients[place]))
            made += 1
        clients[0].ended(seconds / 3)
        _bury(server, "the server")
        for client in clients:
            _bury(client, "a client of a dead server")
        return made, made + 1


def _server(stack: contextlib.ExitStack, mount: Path, seed: str) -> Victim:
    reading, writing = os.pipe()
    stack.callback(os.close, reading)

    def work() -> None:
        wire = Wire(mount)
        os.write(writing, b"m")
        Busy(wire, Random(seed)).run()

    server = stack.enter_context(contextlib.closing(Victim(work, [reading])))
    os.close(writing)
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    if not poll.poll(_PATIENCE) or not os.read(reading, 1):
        raise CheckError(f"the server did not mount: {server.said()}")
    return server


def _client(folder: Path, mount: Path, seed: str, number: int) -> Victim:
    scratch, work = str(folder), victims.wild
    path, draw = str(mount / "file"), f"{seed} {number}"
    return Victim(lambda: work(path, draw, 3600.0, scratch), (), number)


def _bury(victim: Victim, who: str) -> None:
    if victim.status is None and victim.ended() and "Errno" not in victim.said():
        raise CheckError(f"{who} ended by itself, with status {victim.status}")
    victim.kill()
    if not victim.ended(_DIES):
        raise CheckError(f"{who} was killed and is still there: {'; '.join(health.stuck())}")


def _unmount(mount: Path) -> None:
    with contextlib.suppress(OSError):
        libc.unmount(mount, libc.MNT_DETACH)
    with contextlib.suppress(OSError):
        mount.rmdir()

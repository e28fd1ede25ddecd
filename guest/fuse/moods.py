# SPDX-License-Identifier: GPL-2.0-or-later
"""Servers that keep the protocol and are hard to live with: a slow one, a hungry one."""

from __future__ import annotations

import mmap
import threading
import time
from random import Random

from guest.fuse.protocol import Op
from guest.fuse.server import Reply, Server
from guest.libc import PAGE


class Tardy:
    """Answers WRITEs some time later, in any order. Adds itself to ``server``."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.random = Random("tardy")
        server.withheld.add(Op.WRITE)
        threading.Thread(target=self.run, daemon=True).start()

    def run(self) -> None:
        while True:
            time.sleep(self.random.random() * self.server.options.lag)
            with self.server.changed:
                held = [one for one in self.server.held if one[0] == Op.WRITE]
                if held:
                    chosen = self.random.choice(held)
                    self.server.held.remove(chosen)
                    self.server.send(*chosen)


class Hungry:
    """Needs fresh memory to serve a WRITE, and gives it back. Adds itself to ``server``."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.honest = server.handlers[Op.WRITE]
        server.handlers[Op.WRITE] = self.write

    def write(self, node: int, length: int) -> Reply | None:
        # A map of its own, for the heap would keep what it was given once.
        with mmap.mmap(-1, self.server.options.appetite) as meal:
            for at in range(0, len(meal), PAGE):
                meal[at] = 1
            return self.honest(node, length)

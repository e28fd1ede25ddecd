# SPDX-License-Identifier: GPL-2.0-or-later
"""A sound card without hardware: it plays a mapped ring buffer at the pace of a clock.

The buffer is a page whose first byte says how many periods were played, modulo 256, and then
the ring. The player stores samples there and tells by write(2) how far it has come.
"""

from __future__ import annotations

import errno
import struct
import threading
import time
from collections.abc import Callable

from guest.fuse import protocol as p
from guest.fuse.protocol import Op
from guest.fuse.regions import Regions
from guest.fuse.server import CUSE_NODE, HEADER, Reply
from guest.libc import PAGE, Map

RATE = 48_000  # frames a second
FRAMES = 1024  # of a period
PERIOD = FRAMES * 4  # bytes: 16 bits, two channels
SECONDS = FRAMES / RATE
PERIODS = 4  # of the ring
BUFFER = PAGE + PERIODS * PERIOD
TOLD = struct.Struct("<II")  # write(2): periods rendered so far; 1 when no more will come


def place(number: int) -> slice:
    """Where in the buffer the period ``number`` lies."""
    start = PAGE + number % PERIODS * PERIOD
    return slice(start, start + PERIOD)


class Card:
    """Adds itself to the server of ``regions``.

    The log gets a line for each period and each underrun; what was played becomes the data of
    the device's file.
    """

    def __init__(self, regions: Regions) -> None:
        self.regions = regions
        self.server = regions.server
        self.recorded = self.server.nodes[CUSE_NODE].data
        self.rendered = self.asked = self.played = 0  # periods
        self.complete = self.playing = False
        self.server.handlers[Op.WRITE] = self.write

    def write(self, node: int, _length: int) -> Reply:
        _, _, size, *_ = p.WRITE_IN.unpack_from(self.server.view, HEADER)
        if size != TOLD.size or node not in self.regions.newest:
            return -errno.EINVAL
        self.rendered, complete = TOLD.unpack(self.server.written(size))
        self.complete = bool(complete)
        if not self.playing:
            self.playing = True
            play = self.play_by_id if self.server.ids else self.play_by_map
            threading.Thread(target=play, args=(self.regions.newest[node],), daemon=True).start()
        return p.WRITE_OUT.pack(size, 0)

    def play_by_map(self, fd: int) -> None:
        """The server has the memory as well: it loads samples and stores the position."""
        with Map(fd, BUFFER) as buffer:

            def one(number: int) -> None:
                self.heard(bytes(buffer.view[place(number)]))
                buffer.view[0] = self.played % 256

            self.play(one)

    def play_by_id(self, handle: int) -> None:
        """The server asks the kernel for samples (RETRIEVE), and gives it the position (STORE)."""

        def got(samples: bytes) -> None:
            self.heard(samples)
            self.regions.put(handle, 0, bytes([self.played % 256]))

        self.play(lambda number: self.regions.fetch(handle, place(number).start, PERIOD, got))

    def play(self, one: Callable[[int], None]) -> None:
        """Every 21 ms a period, or an underrun when none was rendered in time."""
        due = time.monotonic()
        while not (self.complete and self.asked == self.rendered):
            due += SECONDS
            time.sleep(max(0.0, due - time.monotonic()))
            with self.server.changed:
                if self.asked < self.rendered:
                    self.asked += 1
                    one(self.asked - 1)
                else:
                    self.server.note("underrun", 0, 0, CUSE_NODE)

    def heard(self, samples: bytes) -> None:
        self.recorded += samples
        self.played += 1
        self.server.note("period", 0, 0, CUSE_NODE)

# SPDX-License-Identifier: GPL-2.0-or-later
"""One address to map at, the same for every window of a metric."""

from __future__ import annotations

import mmap

from guest.libc import MAP_NORESERVE, PRIVATE, READ, SHARED, WRITE, Map

_HUGE = 2 << 20
# The kernel maps this much, aligned, at one read fault (fault_around_bytes).
AROUND = 64 << 10
_FLAGS = PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE


class Place:
    """Maps ``size`` bytes always at the same address.

    It begins where a fault-around begins, so that each of them maps as many pages in every
    boot; and beside where a huge mapping would, so that every fault is one of a single page,
    whatever blocks the file got. Its neighbours belong to the same reservation, so that no page
    table goes that is not wholly its own.
    """

    def __init__(self, size: int, flags: int = SHARED) -> None:
        self.size = size
        self.flags = flags
        reserved = Map(-1, size + 2 * _HUGE, 0, _FLAGS)
        self.address = -(-reserved.address // _HUGE) * _HUGE + AROUND

    def map(self, fd: int, offset: int = 0, prot: int = READ | WRITE) -> memoryview:
        """The file from ``offset``. Raises OSError with mmap's own errno."""
        return Map(fd, self.size, prot, self.flags, offset, self.address).view

    def clear(self) -> None:
        """Nothing is mapped there any more, and nobody else is given the hole."""
        Map(-1, self.size, 0, _FLAGS, at=self.address)

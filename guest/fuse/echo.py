# SPDX-License-Identifier: GPL-2.0-or-later
"""A server that answers a client through a region.

The client stores a word (8 bytes) at the region's first byte and wakes the server through a
pipe; the server puts the word plus one behind it, and wakes the client through another.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from guest.libc import PAGE, Map

if TYPE_CHECKING:
    from guest.fuse.regions import Regions

WORD = 8  # bytes
_WAKE = b"."


class Echo:
    """With a descriptor the server has the region too; with an id it asks for the word."""

    def __init__(self, regions: Regions) -> None:
        self.regions = regions

    def start(self, handle: int, ping: str, pong: str) -> dict[str, Any]:
        work = self._by_id if self.regions.server.ids else self._by_map
        ends = os.open(ping, os.O_RDONLY), os.open(pong, os.O_WRONLY)
        threading.Thread(target=work, args=(handle, *ends), daemon=True).start()
        return {}

    def _by_map(self, fd: int, ping: int, pong: int) -> None:
        with Map(fd, PAGE) as region:
            words = region.view.cast("Q")
            while os.read(ping, 1):
                words[1] = words[0] + 1
                os.write(pong, _WAKE)

    def _by_id(self, handle: int, ping: int, pong: int) -> None:
        then: Callable[[bytes], object] = partial(self._answer, handle, pong)
        while os.read(ping, 1):
            self.regions.fetch(handle, 0, WORD, then)

    def _answer(self, handle: int, pong: int, word: bytes) -> None:
        self.regions.put(
            handle, WORD, (int.from_bytes(word, "little") + 1).to_bytes(WORD, "little")
        )
        os.write(pong, _WAKE)

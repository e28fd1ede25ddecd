# SPDX-License-Identifier: GPL-2.0-or-later
"""What a server does on its own account while a request waits for it.

An errand is made ready by the thread that obeys orders, for another one has to serve what that
takes (an OPEN of the server's own file), and done by the thread that serves.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from guest import libc
from guest.libc import PAGE, Map

Errand = Callable[[], object]


def map_page(pid: int, fd: int) -> Errand:
    """To map a page of a file that process ``pid`` has open as ``fd``. Raises OSError.

    The server has no file of its own open: at its end a CUSE file would send RELEASE, and wait.
    """
    return partial(_map, libc.descriptor_of(pid, fd))


def _map(fd: int) -> None:
    Map(fd, PAGE).close()


def read_memory(pid: int, address: int) -> Errand:
    """To read a byte of a process, which holds its mm for as long as that takes."""
    return partial(os.pread, os.open(f"/proc/{pid}/mem", os.O_RDONLY), 1, address)


KINDS: dict[str, Callable[[int, int], Errand]] = {"map": map_page, "read": read_memory}

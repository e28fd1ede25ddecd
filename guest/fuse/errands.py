# SPDX-License-Identifier: GPL-2.0-or-later
"""What a server does on its own account while a request waits for it."""

from __future__ import annotations

import os
from collections.abc import Callable

from guest.libc import PAGE, Map


def map_page(path: str, offset: int) -> None:
    """Maps a page and unmaps it. Raises OSError."""
    fd = os.open(path, os.O_RDWR)
    try:
        Map(fd, PAGE, offset=offset).close()
    finally:
        os.close(fd)


def read_byte(path: str, offset: int) -> None:
    """Raises OSError. Of /proc/PID/mem: holds that process's mm for as long as it takes."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.pread(fd, 1, offset)
    finally:
        os.close(fd)


KINDS: dict[str, Callable[[str, int], None]] = {"map": map_page, "read": read_byte}

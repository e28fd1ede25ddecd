# SPDX-License-Identifier: GPL-2.0-or-later
"""Asking the process outside the guest that has the memory of its pmem devices, too."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from guest.libc import PAGE
from guest.words import CheckError, Skipped

_PORT = "lab.outside"
_PORTS = Path("/sys/class/virtio-ports")
_FRAME = struct.Struct(f"<Q{PAGE}s")
_PATIENCE = 60.0


class Outside:
    """One check's talk with it. Every question has a number, so that no old answer is taken."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._number = time.monotonic_ns()
        self._had = b""

    def ask(self, do: str, **more: Any) -> tuple[dict[str, Any], bytes]:
        """Its answer, and the bytes that came with it. Raises CheckError when it refuses."""
        self._number += 1
        request = json.dumps({"id": self._number, "do": do, **more}).encode() + b"\n"
        limit = time.monotonic() + _PATIENCE
        while request:
            request = request[os.write(self._port, request) :]
        while True:
            line = self._until(limit, newline=True)
            with contextlib.suppress(ValueError):
                told = json.loads(line)
                data = self._until(limit, told["bytes"])
                if told["id"] == self._number:
                    break
        if not told["ok"]:
            raise CheckError(f"outside the guest: {told['error']}")
        return told, data

    def _until(self, limit: float, count: int = 0, *, newline: bool = False) -> bytes:
        parts, there = [self._had], len(self._had)
        while (b"\n" not in parts[-1]) if newline else there < count:
            left = max(0.0, limit - time.monotonic())
            if not select.select([self._port], [], [], left)[0]:
                raise CheckError(f"no answer from outside the guest in {_PATIENCE:.0f} s")
            got = os.read(self._port, 1 << 18)
            if not got:
                raise CheckError("nobody is outside the guest any more")
            parts.append(got)
            there += len(got)
        data = b"".join(parts)
        end = data.index(b"\n") + 1 if newline else count
        self._had = data[end:]
        return data[:end]

    # ------------------------------------------------------------ what it can do

    def sees_flushes(self) -> bool:
        return bool(self.ask("hello")[0]["flushes"])

    def read(self, device: int, extents: Iterable[tuple[int, int]]) -> bytes:
        """What is in the file behind the device, at offsets and lengths in bytes."""
        told, _ = self.ask("read", device=device, extents=[list(one) for one in extents])
        return base64.b64decode(told["data"])

    def play(self, device: int, at: int, turns: int) -> None:
        """From now on it answers each new word at ``at`` with the same in the word behind it."""
        self.ask("play", device=device, at=at, turns=turns)

    def played(self) -> int:
        """How many words it has answered; it answers no more."""
        return int(self.ask("played")[0]["turns"])

    def watch(self, device: int) -> None:
        """From now on it knows what is durable; all that is there now is."""
        self.ask("watch", device=device)

    def forget(self, device: int) -> None:
        self.ask("forget", device=device)

    def cut(self, device: int, kept: float, seed: int) -> tuple[dict[str, Any], dict[int, bytes]]:
        """A power cut: counts, and the pages that are not what the last one left."""
        told, data = self.ask("cut", device=device, kept=kept, seed=seed)
        return told, dict(_FRAME.iter_unpack(data))


@contextlib.contextmanager
def outside() -> Iterator[Outside]:
    """Raises Skipped where the lab put no such port."""
    port = os.open(_device(), os.O_RDWR | os.O_CLOEXEC)
    try:
        while select.select([port], [], [], 0.0)[0] and os.read(port, 1 << 18):
            pass  # an answer to a check that was ended
        yield Outside(port)
    finally:
        os.close(port)


def _device() -> Path:
    for entry in sorted(_PORTS.glob("*")):
        name = entry / "name"
        if name.is_file() and name.read_text().strip() == _PORT:
            return Path("/dev") / entry.name
    raise Skipped("nobody outside the guest is there to be asked")

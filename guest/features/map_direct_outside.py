# SPDX-License-Identifier: GPL-2.0-or-later
"""MAP_DIRECT: the agent outside the kernel, which has the memory and knows the blocks.

It is the lab itself, on the host, where the device is a file. It gets no more than what FIEMAP
said when the file was mapped.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
import time
from collections.abc import Callable

from guest import blocks
from guest.checking import need
from guest.features.map_direct_rig import (
    MODES,
    PAGES,
    SIZE,
    V6,
    V9,
    Held,
    break_time,
    held,
    mover,
    need_lease,
    new_file,
    planted,
)
from guest.libc import PAGE
from guest.outside import Outside, outside
from guest.victims import Victim
from guest.words import Check, CheckError, Context

_TURNS = 500
_WORD = struct.Struct("<Q")
_PR_SET_SECCOMP, _STRICT = 22, 1  # linux/prctl.h, linux/seccomp.h
_libc = ctypes.CDLL(None, use_errno=True)
_PATIENCE = 30.0


def places(extents: tuple[blocks.Extent, ...], length: int) -> list[tuple[int, int]]:
    """Where the first ``length`` bytes of a file are on its device; all of them have to be.

    Raises CheckError for a hole, and for an extent that FIEMAP gives no address of.
    """
    found, reached = [], 0
    for extent in extents:
        if extent.logical >= length:
            break
        need(extent.logical == reached, f"a hole at {reached}")
        need(not extent.flags & blocks.FIEMAP_EXTENT_UNKNOWN, f"no address of {extent}")
        part = min(extent.length, length - reached)
        found.append((extent.physical, part))
        reached += part
    need(reached == length, f"only {reached} of {length} bytes have an address")
    return found


def seen_outside(context: Context) -> str:
    with outside() as there, held("outside") as one:
        need(one.map is not None, "not mapped")
        assert one.map is not None
        where = places(one.extents, SIZE)
        told = _stores(context, one, where, there)
        turns = _play(one, where, there)
        tried = _moved(context, one, where, there)
    return f"{told}; {turns} words and answers in memory, no system call between; {tried}"


def _stores(context: Context, one: Held, where: list[tuple[int, int]], there: Outside) -> str:
    """What is stored is outside at once: no msync, no fsync, no look into the file by the guest."""
    assert one.map is not None
    data = context.random.randbytes(SIZE)
    one.map.view[:] = data
    need(there.read(0, where) == data, "the stores are not in the file outside, where FIEMAP said")
    return f"{SIZE} bytes stored, the same at {len(where)} places outside"


def _play(one: Held, where: list[tuple[int, int]], there: Outside) -> int:
    """Words go out and answers come in through the mapping.

    The process that does it can make no system call: in seccomp's strict mode each but
    read, write, exit and sigreturn kills it.
    """
    assert one.map is not None
    view = one.map.view
    view[: 2 * _WORD.size] = bytes(2 * _WORD.size)
    there.play(0, where[0][0], _TURNS)
    ready, writing = os.pipe()
    player = Victim(lambda: _strictly(view, writing))
    os.close(writing)
    try:
        said = _first_byte(ready, player)
        turns = there.played()
        need(said == b"d", f"the player without system calls ended: {player.said() or 'killed'}")
        need(turns == _TURNS, f"{turns} of {_TURNS} words were seen outside")
    finally:
        player.close()
        os.close(ready)
    return turns


def _first_byte(ready: int, player: Victim) -> bytes:
    limit = time.monotonic() + _PATIENCE
    os.set_blocking(ready, False)
    while time.monotonic() < limit:
        try:
            return os.read(ready, 1)  # b"": it is gone
        except BlockingIOError:
            player.ended(0.05)
    raise CheckError(f"no answer in the memory within {_PATIENCE:.0f} s")


def _strictly(view: memoryview, writing: int) -> None:
    words = [_WORD.pack(turn) for turn in range(1, _TURNS + 1)]
    first, second = slice(0, _WORD.size), slice(_WORD.size, 2 * _WORD.size)
    head, done = bytearray(_WORD.size), b"d"

    def turn(word: bytes) -> None:
        view[first] = word
        while head != word:
            head[:] = view[second]

    turn(words[0])  # what the loop needs of the heap is there now
    failed = _libc.prctl(_PR_SET_SECCOMP, _STRICT, 0, 0, 0)
    if failed:
        raise OSError(ctypes.get_errno(), "seccomp")
    for word in words[1:]:
        turn(word)
    os.write(writing, done)
    while True:  # an exit of Python's would be a system call; the parent kills it
        pass


def _moved(context: Context, one: Held, where: list[tuple[int, int]], there: Outside) -> str:
    """Others try to move the blocks meanwhile; each look outside finds the last store."""
    assert one.map is not None
    seed = context.random.randrange(1 << 32)
    with new_file("mover") as (other, _), mover(one.path, other, seed) as moving:
        for turn in range(1, 51):
            mark = bytes([turn]) * PAGE
            for page in range(PAGES):
                one.map.view[page * PAGE : (page + 1) * PAGE] = mark
            found = there.read(0, where)
            need(found == mark * PAGES, f"look {turn}: the stores are elsewhere")
            need(not moving.ended(), f"the mover: {moving.said()}")
    one.unmoved("after the looks")
    return "50 looks while others tried to move the blocks"


def told_to_stop(_context: Context) -> str:
    """With a lease the agent is told before the blocks go, so it never looks at a stranger's."""
    need_lease()
    with break_time(5), outside() as there, held("stop") as one:
        assert one.map is not None
        where = places(one.extents, SIZE)
        one.map.view[:] = b"m" * SIZE
        looked: list[bytes] = []

        def let_go(*_: object) -> None:
            looked.append(there.read(0, where))  # the last look, while the lease is held
            one.let_go()

        before = signal.signal(signal.SIGIO, let_go)
        change: Callable[[], None] = lambda: blocks.fallocate(  # noqa: E731
            one.fd, MODES["punch"], 0, SIZE
        )
        try:
            change()
        except OSError as error:
            need(error.errno == errno.EINTR, f"punching gave {error}")
            change()
        finally:
            signal.signal(signal.SIGIO, before)
        need(looked == [b"m" * SIZE], "the last look outside was not at the holder's own data")
        need(blocks.extents(one.fd) == (), "the blocks are still there")
    return "the last look outside, in the handler, was at the file's own blocks; then they went"


CHECKS = (
    Check("D30", "A process outside the guest finds the blocks by FIEMAP and sees the stores there",
          "Christoph Hellwig, 2017-08-24: who is the external agent?",
          "the same bytes, with no system call of the guest in between", seen_outside,
          red=planted("unsealed"), green=V6, patience=2.0),
    Check("D31", "With a lease that process can be told to stop before the blocks go",
          "Christoph Hellwig, 2017-10-16: fencing", "its last look is at the file's own blocks",
          told_to_stop,
          red=planted("untold", V9), green=V9),
)  # fmt: skip

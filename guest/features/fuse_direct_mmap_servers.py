# SPDX-License-Identifier: GPL-2.0-or-later
"""Direct mmap where the server has a part in more than its requests: it maps, it holds an mm."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from guest.checking import LISTEN, Puppet, error_of, need, opened, puppet
from guest.features.fuse_direct_mmap_rig import SOON, V1, V2, V3, both, story_of
from guest.fuse import client
from guest.fuse.direct import Target
from guest.fuse.protocol import Op
from guest.libc import PAGE, PRIVATE, READ, Map, name_of
from guest.words import Check, Context

_SLOW = "slow"


def _reading(path: Path) -> dict[str, Callable[..., object]]:
    """A client that opens the file and reads a byte of it."""

    def read() -> int:
        fd = os.open(path, os.O_RDWR)
        return error_of(lambda: os.pread(fd, 1, 0))

    return {"read": read}


@both
def its_own_client(_context: Context, target: Target) -> str:
    service = target.service
    service.answer(Op.FLUSH, errno.ENOSYS)
    with target.open():
        pass  # No FLUSH from now on: the server would wait for itself at its end as well.
    with target.open() as fd, puppet(_reading(target.path)) as other:
        service.errand("map", os.getpid(), fd)
        other.start("read")
        need(service.wait(Op.READ), "no READ came")
        answered = service.wait(Op.READ, event="reply", seconds=LISTEN)
        asked = service.wait(Op.MMAP, seconds=0)
        need(not asked and not answered, f"the server does not wait for itself: {story_of(target)}")
        took = service.end(SOON)
        if took is None:
            service.abort()
        need(took is not None, f"{SOON:g} s after SIGKILL the server waits for itself still")
        failed = other.result()
    return f"it waits for itself; SIGKILL ends it, its client's read is {name_of(failed)}"


@both
def last_reference(context: Context, target: Target) -> str:
    service = target.service
    with (
        client.mounted({_SLOW: bytes(PAGE)}, context.scratch) as slow,
        puppet(_mapped(target.path, slow.path / _SLOW)) as held,
    ):
        try:
            _outlive(target, slow, held)
        finally:
            slow.abort()
    need(bool(service.wait(Op.RELEASE)), f"no RELEASE: {story_of(target)}")
    return "the client's memory goes with the server's last look at it, RELEASE comes, all goes on"


def _mapped(path: Path, slow: Path) -> dict[str, Callable[..., object]]:
    """A client that maps the file, and beside it one whose pages come late."""
    kept: list[Map] = []

    def map_both() -> int:
        with opened(path, os.O_RDWR) as fd, opened(slow, os.O_RDONLY) as late:
            kept.append(Map(fd, PAGE))
            kept.append(Map(late, PAGE, READ, PRIVATE))
        # Closed: at its death it must not send the busy server a FLUSH and wait for the answer.
        return kept[1].address

    return {"map": map_both}


def _outlive(target: Target, slow: client.Mount, held: Puppet) -> None:
    """The server is inside the client's memory when the client dies, and comes out last."""
    service = target.service
    address = held.do("map")
    slow.withhold(Op.READ)
    service.errand("read", held.pid, address)
    with puppet(_reading(target.path)) as other:
        other.start("read")
        need(slow.wait(Op.READ), "the server's look at the client's memory asked for no page")
        need(held.kill(SOON) is not None, "SIGKILL does not end the client")
        slow.release(Op.READ)
        answered = service.wait(Op.READ, event="reply")
        if not answered:
            service.abort()
        need(answered, f"the server waits for itself in RELEASE: {story_of(target)}")
        need(other.result() == 0, "another client's read failed")


CHECKS = (
    Check(
        "A33",
        "A server that maps its own file waits for itself, and SIGKILL ends that",
        "docs/fuse-direct-mmap.md, Hazards: the server must not be the client",
        "no MMAP is answered, the server is gone within 1 s of SIGKILL",
        its_own_client,
        red=f"{V3} + planted-fuse-direct-mmap@v3 fuse.plant=deaf-mmap",
        green=V3,
    ),
    Check(
        "A34",
        "A server that drops the last reference to a mapped file does not wait for itself",
        "docs/fuse-direct-mmap.md, rule 7 of v2: RELEASE of a mapped file is a background request",
        "the server answers its next request, RELEASE comes",
        last_reference,
        red=V1,
        green=V2,
    ),
)

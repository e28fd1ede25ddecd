# SPDX-License-Identifier: GPL-2.0-or-later
"""What the checks of direct mmap share."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from guest.checking import LISTEN, let_go, need, story
from guest.fuse import direct
from guest.fuse.direct import Target
from guest.fuse.protocol import Op
from guest.fuse.regions import Mapped
from guest.fuse.server import Options
from guest.fuse.steering import Event
from guest.libc import PAGE, name_of
from guest.words import CheckError, Context, Unsupported

V1, V2, V3 = (f"fuse-direct-mmap@v{number}" for number in (1, 2, 3))
TEJUN = "Tejun Heo, 2009-06-18: FUSE: implement direct mmap"
# What a file holds for read(2); a region starts as zeros, so the two cannot be confused.
DATA = b"what read(2) gives\n" + bytes(PAGE)
# Seconds that a killed client may take to be gone: a debug kernel exits some ten times slower.
SOON = 10.0 if Path("/proc/lockdep").exists() else 1.0

Targeted = Callable[[Context, Target], str]


def serving(options: Options | None) -> Callable[[Targeted], Callable[[Context], str]]:
    """Runs a check on a FUSE file and on a CUSE device, each with a server of its own."""

    def decorate(check: Targeted) -> Callable[[Context], str]:
        @functools.wraps(check)
        def run(context: Context) -> str:
            seen = {}
            for kind in direct.KINDS:
                with direct.served(kind, context.scratch, DATA, options) as target:
                    seen[kind] = _told(kind, check, context, target)
            if len(set(seen.values())) == 1:
                return f"{' and '.join(seen)}: {next(iter(seen.values()))}"
            return "; ".join(f"{kind}: {text}" for kind, text in seen.items())

        return run

    return decorate


def _told(kind: str, check: Targeted, context: Context, target: Target) -> str:
    try:
        with let_go(target.service):
            return check(context, target)
    except CheckError as error:
        raise CheckError(f"{kind}: {error}") from error


both = serving(None)


def need_fds(target: Target, why: str) -> None:
    """Raises Unsupported where regions have ids; ``why`` is a sentence."""
    if target.dialect.ids:
        raise Unsupported(f"regions have ids here: {why}")


def need_ids(target: Target, why: str) -> None:
    if not target.dialect.ids:
        raise Unsupported(f"regions have descriptors here: {why}")


def fence(fd: int) -> None:
    """Whatever was queued for the server before this has been read by it afterwards.

    A READ is queued behind it: neither a FUSE file with DIRECT_IO nor a device has a cache.
    """
    os.pread(fd, 1, 0)


def need_none_left(target: Target, before: Mapping[int, str]) -> None:
    """The server has no descriptor that it did not have before; one that is gone is not left."""
    left = {fd: what for fd, what in target.service.fds().items() if before.get(fd) != what}
    need(not left, f"descriptors left: {left}")


def asked(target: Target, op: Op = Op.MMAP) -> list[Event]:
    return [one for one in target.service.log() if one.request and one.op == op.name]


def newest(target: Target) -> Mapped:
    """The mapping that was asked for last."""
    found = target.service.mappings()
    need(bool(found), f"the server was asked for no mapping: {story_of(target)}")
    return found[-1]


def story_of(target: Target) -> str:
    return story(target.service.log())


def ends(target: Target, unique: int) -> list[str]:
    (found,) = (one for one in target.service.mappings() if one.unique == unique)
    return found.ends


def quiet(target: Target, op: Op, what: str, *, count: int = 0) -> None:
    """No more than ``count`` of these come, however long one listens."""
    more = target.service.wait(op, count + 1, seconds=LISTEN)
    need(not more, f"{op.name} {what}: {story_of(target)}")


def one_end_each(target: Target, seconds: float = 5.0) -> int:
    """Every mapping whose reply the kernel took has one end; returns how many there are."""
    service = target.service
    wanted = sum(one.taken and not _ended(one) for one in service.mappings())
    sent = sum(one.event == "request" and one.op == "MUNMAP" for one in service.log())
    if wanted:
        service.wait(Op.MUNMAP, sent + wanted, seconds=seconds)
    found = service.mappings()
    wrong = [f"{one.unique}: {one.ends or 'no end'}" for one in found if not _right(one)]
    need(not wrong, f"mappings without exactly one end: {', '.join(wrong)}")
    return sum(one.taken for one in found)


def _ended(mapping: Mapped) -> bool:
    return bool(mapping.ends)


def _right(mapping: Mapped) -> bool:
    return len(mapping.ends) == (1 if mapping.taken else 0)


def smaps_flags(address: int) -> list[str]:
    """The two-letter VmFlags of this process's map that begins there."""
    here = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if line.split("-", 1)[0] == f"{address:x}".zfill(8):
            here = True
        elif here and line.startswith("VmFlags:"):
            return line.split()[1:]
    return []


def expect(got: dict[str, int], wanted: dict[str, int]) -> str:
    """Errnos by what was tried, as text. Raises CheckError when one differs."""
    text = ", ".join(f"{what} {name_of(error)}" for what, error in got.items())
    names = ", ".join(
        f"{what} {name_of(wanted[what])}" for what, error in got.items() if error != wanted[what]
    )
    need(not names, f"{text}; wanted {names}")
    return text

# SPDX-License-Identifier: GPL-2.0-or-later
"""Direct mmap: how long a mapping lives, and what becomes of it when somebody dies."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator

from guest.checking import Puppet, before, error_of, fate, need, puppet
from guest.features.fuse_direct_mmap_rig import (
    SOON,
    TEJUN,
    V1,
    V2,
    V3,
    both,
    ends,
    fence,
    newest,
    one_end_each,
    quiet,
    smaps_flags,
)
from guest.fuse import protocol as p
from guest.fuse.direct import Target
from guest.fuse.protocol import Op
from guest.libc import PAGE, READ, SHARED, Map, mmap_errno, name_of
from guest.words import Check, Context

_FOREVER = "30"  # seconds for which an executed program sleeps


@both
def dont_copy(_context: Context, target: Target) -> str:
    service = target.service
    with target.open() as fd:
        with Map(fd, PAGE) as map_:
            need("dc" not in smaps_flags(map_.address), "dc in smaps without DONT_COPY")
            plain = fate(lambda: _store(map_, 9))
            need((plain, map_.view[0]) == ("no signal", 9), f"without it a child's store: {plain}")
        service.policy(target.name, flags=p.DONT_COPY)
        with Map(fd, PAGE) as map_:
            flags = smaps_flags(map_.address)
            need("dc" in flags, f"no dc in smaps with DONT_COPY: {' '.join(flags)}")
            how = fate(lambda: _store(map_, 9))
            need(how == "SIGSEGV", f"with DONT_COPY a child's store: {how}")
            map_.view[0] = 1
    return "without it a forked child shares; with it smaps says dc and the child gets SIGSEGV"


def _store(map_: Map, value: int) -> None:
    map_.view[0] = value


@both
def dont_expand(_context: Context, target: Target) -> str:
    with target.open() as fd:
        with Map(fd, PAGE) as map_:
            grown = error_of(lambda: map_.mremap(2 * PAGE))
        target.service.policy(target.name, flags=p.DONT_EXPAND)
        with Map(fd, PAGE) as map_:
            refused = error_of(lambda: map_.mremap(2 * PAGE))
            map_.view[0] = 1
    seen = f"mremap to two pages: {name_of(grown)}; with DONT_EXPAND: {name_of(refused)}"
    need((grown, refused) == (0, errno.EFAULT), seen)
    return seen


@both
def ended_once(_context: Context, target: Target) -> str:
    with target.open() as fd:
        for end in (
            _by_munmap,
            _after_close,
            _by_pieces,
            _by_mremap,
            _by_fork,
            _by_death,
            _by_exec,
        ):
            end(target, fd)
        made = one_end_each(target)
    return (
        f"{made} mappings, one MUNMAP each: after munmap, the last piece, a moved map, both sides "
        "of a fork, SIGKILL, exec"
    )


def _stays(target: Target, fd: int, unique: int, what: str) -> None:
    fence(fd)
    got = ends(target, unique)
    need(not got, f"{'+'.join(got)} {what}")


def _is_gone(target: Target, unique: int, what: str) -> None:
    # The end of a process is not that of the one who waits: no fence can be put behind it.
    target.service.wait(Op.MUNMAP, len(target.service.mappings()), seconds=5)
    got = ends(target, unique)
    need(got == ["MUNMAP"], f"{'+'.join(got) or 'no end'} {what}")


def _by_munmap(target: Target, fd: int) -> None:
    with Map(fd, 2 * PAGE):
        unique = newest(target).unique
        _stays(target, fd, unique, "while it is mapped")
    _is_gone(target, unique, "after munmap")


def _after_close(target: Target, fd: int) -> None:
    """A mapping holds the open file: RELEASE comes after MUNMAP."""
    with target.open() as closed:
        map_ = Map(closed, PAGE)
    unique = newest(target).unique
    _stays(target, fd, unique, "after close")
    quiet(target, Op.RELEASE, "while the closed file is mapped")
    map_.close()
    _is_gone(target, unique, "after munmap of a closed file")
    need(target.service.wait(Op.RELEASE), "no RELEASE after the last MUNMAP")
    before(target.service.log(), ("request", "MUNMAP"), ("request", "RELEASE"))


def _by_pieces(target: Target, fd: int) -> None:
    map_ = Map(fd, 4 * PAGE)
    unique = newest(target).unique
    map_.unmap(PAGE, PAGE)
    _stays(target, fd, unique, "after a hole was unmapped in the middle")
    map_.unmap(0, PAGE)
    _stays(target, fd, unique, "with two pages left")
    map_.close()
    _is_gone(target, unique, "after the last piece")


def _by_mremap(target: Target, fd: int) -> None:
    with Map(fd, PAGE) as map_:
        unique = newest(target).unique
        map_.mremap(64 * PAGE)
        map_.view[0] = 1
        _stays(target, fd, unique, "on mremap")
    _is_gone(target, unique, "after munmap of what mremap made")


def _by_fork(target: Target, fd: int) -> None:
    map_ = Map(fd, PAGE)
    unique = newest(target).unique
    with puppet({"store": lambda: _store(map_, 5)}) as other:
        other.do("store")
        need(map_.view[0] == 5, "the forked child does not share the map")
        map_.close()
        _stays(target, fd, unique, "while the forked child has it")
    _is_gone(target, unique, "after both sides of the fork")


def _by_death(target: Target, fd: int) -> None:
    with _mapping(target) as other:
        unique = newest(target).unique
        _stays(target, fd, unique, "while the other process lives")
        need(other.kill() is not None, "SIGKILL does not end a process that has a map")
        _is_gone(target, unique, "after SIGKILL")


def _by_exec(target: Target, fd: int) -> None:
    with _mapping(target) as other:
        unique = newest(target).unique
        _stays(target, fd, unique, "before exec")
        other.start("exec")
        _is_gone(target, unique, "after exec")


@contextlib.contextmanager
def _mapping(target: Target) -> Iterator[Puppet]:
    """Another process that has mapped the file."""
    with puppet(_acts(target)) as other:
        failed = other.do("map")
        need(failed == 0, f"mmap in another process: {name_of(failed)}")
        yield other


def _acts(target: Target) -> dict[str, Callable[..., object]]:
    kept: list[Map] = []

    def map_it() -> int:
        fd = os.open(target.path, os.O_RDWR)
        return error_of(lambda: kept.append(Map(fd, PAGE)))

    return {"map": map_it, "exec": lambda: os.execv("/bin/sleep", ["sleep", _FOREVER])}


@both
def server_dies(context: Context, target: Target) -> str:
    data = context.random.randbytes(2 * PAGE)
    with target.open() as fd, Map(fd, 3 * PAGE) as map_:
        map_.view[: 2 * PAGE] = data
        target.service.kill()
        need(bytes(map_.view[: 2 * PAGE]) == data, "what was stored is gone with the server")
        how = fate(lambda: _store_at(map_, 2 * PAGE))
        need(how == "no signal", f"a first touch after the server's death: {how}")
        _store_at(map_, 0)
        failed = mmap_errno(fd, PAGE, READ, SHARED)
        need(failed == errno.ENOTCONN, f"a new mmap: {name_of(failed)}")
    return "its memory stays as it is, new pages come as before; a new mmap is ENOTCONN"


def _store_at(map_: Map, offset: int) -> None:
    map_.view[offset] = 0x77


@both
def client_dies(_context: Context, target: Target) -> str:
    return f"killed in MMAP: {_die_in(target, Op.MMAP)}"


def _die_in(target: Target, op: Op) -> str:
    """A client is killed while the server sits on ``op``."""
    service = target.service
    service.withhold(op)
    with puppet(_acts(target)) as other:
        other.start("map")
        need(service.wait(op), f"no {op.name} came")
        took = other.kill(SOON)
        service.release(op)  # in any case, or it would hang for ever
        other.kill()
    need(took is not None, f"{SOON:g} s after SIGKILL the client waits for {op.name} still")
    late = [one.error for one in service.log() if one.event == "refused" and one.op == op.name]
    need(late == [-errno.ENOENT], f"the late reply to {op.name} got {[name_of(-e) for e in late]}")
    return "gone at once, the late reply gets ENOENT"


def _die_mapped(target: Target) -> str:
    """A client that has a map is killed; the server sits on what follows."""
    service = target.service
    service.withhold(Op.MUNMAP)
    with _mapping(target) as other:
        took = other.kill(SOON)
        service.release(Op.MUNMAP)
    need(took is not None, f"{SOON:g} s after SIGKILL the client waits for MUNMAP still")
    return "gone at once"


@both
def locked_out(_context: Context, target: Target) -> str:
    service = target.service
    service.policy(target.name, peek=True)
    with puppet(_acts(target)) as other:
        other.start("map")
        need(service.wait(Op.MMAP), "no MMAP came")
        # It asks for the client's mmap_lock, which mmap holds.
        need(
            not service.wait(Op.MMAP, event="reply", seconds=0.3),
            "the server has read /proc/CLIENT/maps although the client waits in mmap",
        )
        took = other.kill(SOON)
        if took is None:
            service.kill()
        need(took is not None, f"SIGKILL does not end the client within {SOON:g} s")
        answered = service.wait(Op.MMAP, event="reply")
    need(answered, "the server is still stuck after the client's end")
    service.policy(target.name, peek=False)
    with target.open() as fd:
        failed = mmap_errno(fd, PAGE, READ, SHARED)
    need(failed == 0, f"a new mmap: {name_of(failed)}")
    return "server and client wait for each other; SIGKILL to the client frees both"


@both
def dies_at_any_message(_context: Context, target: Target) -> str:
    service, told = target.service, []
    held = service.fds()
    for op in (Op.MMAP,) if target.dialect.ids else (Op.MMAP, Op.MMAP_COMMIT):
        told.append(f"{op.name}: {_die_in(target, op)}")
    told.append(f"MUNMAP: {_die_mapped(target)}")
    made = one_end_each(target)
    after = service.fds()
    need(held == after, f"descriptors that nobody closes: {sorted(set(after) - set(held))}")
    quiet(target, Op.MUNMAP, "a second time", count=made)
    return f"{'; '.join(told)}; {made} accepted, each has one end, nothing is left"


CHECKS = (
    Check(
        "A8",
        "DONT_COPY keeps a mapping from being inherited over fork",
        TEJUN,
        "dc in smaps, SIGSEGV in the forked child; without the flag parent and child share",
        dont_copy,
        red=f"{V3} + planted-fuse-direct-mmap@v3 fuse.plant=copied",
        green=V3,
    ),
    Check(
        "A9",
        "DONT_EXPAND keeps a mapping from being grown by mremap",
        TEJUN,
        "EFAULT; without the flag mremap grows it",
        dont_expand,
        red=f"{V3} + planted-fuse-direct-mmap@v3 fuse.plant=expanded",
        green=V3,
    ),
    Check(
        "A10",
        "MUNMAP comes exactly once, when the last piece in the last process is gone",
        TEJUN,
        "one after munmap, partial unmaps, mremap, fork, SIGKILL, exec; none before; then RELEASE",
        ended_once,
        red=f"{V3} + planted-fuse-direct-mmap@v3 fuse.plant=early-munmap; "
        f"{V3} + planted-fuse-direct-mmap@v3 fuse.plant=no-munmap",
        green=V3,
    ),
    Check(
        "A13",
        "The server's death leaves what is mapped as it is",
        "docs/fuse-direct-mmap.md, Hazards",
        "loads, stores and first touches go on; a new mmap is ENOTCONN",
        server_dies,
        red=f"{V3} + planted-fuse-direct-mmap@v3 fuse.plant=dies-with-server",
        green=V3,
    ),
    Check(
        "A14",
        "A client that is killed while the server sits on MMAP is gone within a second",
        "docs/fuse-direct-mmap.md; signal(7): SIGKILL cannot be blocked",
        "gone within 1 s, the server's late reply gets ENOENT",
        client_dies,
        red=V1,
        green=V2,
    ),
    Check(
        "A15",
        "A server that reads /proc/CLIENT/maps before it answers can be freed",
        "docs/fuse-direct-mmap.md, Hazards: MMAP goes out under mmap_lock",
        "it waits for the client, SIGKILL to the client ends both within 1 s, the rest goes on",
        locked_out,
        red=V1,
        green=V2,
    ),
    Check(
        "A28",
        "A client killed at any message leaves nothing behind",
        "docs/fuse-direct-mmap.md: every accepted MMAP has exactly one end",
        "gone within 1 s at MMAP, COMMIT and MUNMAP, late replies ENOENT, one end each, no fd",
        dies_at_any_message,
        red=V1,
        green=V2,
    ),
)

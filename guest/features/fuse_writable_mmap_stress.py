# SPDX-License-Identifier: GPL-2.0-or-later
"""Shared writable maps of FUSE files: the two tests that the changelog of 2008 names.

Both of the lab's own make. Each is a function of a seed, is done again from one line
(replay.py), and shrinks what fails.
"""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from guest import cgroup, exercise, fuse, libc
from guest.cgroup import Group
from guest.checking import Puppet, need, opened, stacks
from guest.exercise import Failure, Operation
from guest.features import fuse_writable_mmap_times as times
from guest.features.fuse_writable_mmap_rig import NAME, other
from guest.fuse import protocol as p
from guest.fuse.protocol import ROOT_ID, Notify
from guest.fuse.server import Options
from guest.libc import PAGE, Map
from guest.words import Check, CheckError, Context

_REPLAY = "python3 /run/lab/guest/replay.py"
_SHRINKING = 120.0  # seconds

# ---------------------------------------------------------------- B21

_OPERATIONS = 5000  # in each mode
_LAG = 0.004  # seconds; so that many operations meet a page under writeback
_MODES = {
    "write-through": Options(record=False, lag=_LAG),
    "writeback": Options(record=False, lag=_LAG, flags=p.DEFAULT_FLAGS | p.WRITEBACK_CACHE),
}


def random_operations(context: Context) -> str:
    lines = [str(context.settings.get("replay", ""))]
    if not lines[0]:
        seed = context.random.getrandbits(32)
        lines = [f"{mode} {seed} {_OPERATIONS}" for mode in _MODES]
    begun, count = time.monotonic(), 0
    for number, line in enumerate(lines):
        mode, sequence = _sequence(line)
        if failure := _exercised(context, mode, sequence, str(number)):
            raise CheckError(_shrunk(context, mode, sequence, failure, line))
        count += len(sequence)
    return f"{'; '.join(lines)}: {count} operations in {time.monotonic() - begun:.0f} s"


def _sequence(line: str) -> tuple[str, list[Operation]]:
    """``MODE SEED COUNT``, or ``MODE OPERATION…``. Raises ValueError for anything else."""
    mode, _, rest = line.partition(" ")
    if mode not in _MODES:
        raise ValueError(f"{mode!r} is no mode; they are {', '.join(_MODES)}")
    words = rest.split()
    if len(words) == 2 and all(word.isdecimal() for word in words):
        return mode, exercise.operations(int(words[0]), int(words[1]))
    return mode, exercise.parse(rest)


@contextlib.contextmanager
def _server(context: Context, mode: str, name: str) -> Iterator[fuse.Mount]:
    folder = context.scratch / name
    folder.mkdir()
    with fuse.mounted({NAME: b""}, folder, _MODES[mode]) as fs:
        with opened(fs.path / NAME, os.O_RDWR) as fd:
            times.probe(fd)
        yield fs


def _exercised(
    context: Context, mode: str, sequence: Sequence[Operation], name: str
) -> Failure | None:
    all_of_it = p.NOTIFY_INVAL_INODE_OUT.pack(ROOT_ID + 1, 0, 0)
    with _server(context, mode, name) as fs:

        def invalidate() -> None:
            failed = fs.notify(Notify.INVAL_INODE, all_of_it)
            need(not failed, f"FUSE_NOTIFY_INVAL_INODE: {libc.name_of(failed)}")

        return exercise.run(sequence, exercise.File(fs.path / NAME, invalidate))


def _shrunk(
    context: Context, mode: str, sequence: Sequence[Operation], failure: Failure, line: str
) -> str:
    """What went wrong, and the shortest line that shows it again."""
    tried = 0

    def fails(part: Sequence[Operation]) -> bool:
        nonlocal tried
        tried += 1
        return _exercised(context, mode, part, f"again{tried}") is not None

    began = list(sequence[: failure.at + 1])
    told = f"{line}: operation {failure.at}: {failure.why}"
    if not fails(began):
        return f"{told}; a second time the same operations did well: it hangs on the moment"
    short = exercise.shrink(began, fails, _SHRINKING)
    spelled = f"{mode} {exercise.spell(short)}"
    return f'{told}; {len(short)} operations are enough: {_REPLAY} B21 "{spelled}"'


# ---------------------------------------------------------------- B20

_PAGES = 4096  # 16 MiB of file
_MEMORY = 8 << 20  # for the server's work and the file's pages
_WARM = 30  # stores, after which the processes have the memory that they need themselves
_APPETITE = 256 << 10
_CLIENTS, _STORES = 3, 200
_STILL = 20.0  # seconds without a tick of the CPU for any of them: a deadlock, on any host
_WORDS = PAGE // 8


def bashed(context: Context) -> str:
    line = str(context.settings.get("replay", ""))
    seed, clients, stores = (
        map(int, line.split()) if line else (context.random.getrandbits(32), _CLIENTS, _STORES)
    )
    made = 0

    def wrong(clients: int, stores: int) -> tuple[str, str]:
        nonlocal made
        made += 1
        return _bash(context.scratch, seed, clients, stores, made)

    why, told = wrong(clients, stores)
    if not why:
        return f"seed {seed}: {told}"
    end = time.monotonic() + _SHRINKING
    smaller = True
    while smaller and time.monotonic() < end:
        smaller = False
        for fewer, less in ((clients - 1, stores), (clients, stores // 2)):
            if fewer and less and (again := wrong(fewer, less)[0]):
                clients, stores, why, smaller = fewer, less, again, True
                break
    raise CheckError(f'{why}; {_REPLAY} B20 "{seed} {clients} {stores}"')


def _bash(scratch: Path, seed: int, clients: int, stores: int, number: int) -> tuple[str, str]:
    """What bytes were wrong, "" when none was; and what is to be told. CheckError for a hang."""
    folder = scratch / f"bash{number}"
    folder.mkdir()
    options = Options(record=False, appetite=_APPETITE)
    gc.freeze()  # or each process gets a heap of its own as soon as it looks for garbage
    with (
        cgroup.group(f"patchlab-{os.getpid()}-{number}", folder) as group,
        fuse.mounted({NAME: bytes(_PAGES * PAGE)}, folder, options) as fs,
    ):
        path = fs.path / NAME
        with opened(path, os.O_RDWR) as fd:
            times.probe(fd)
        group.add(fs.pid)  # what it has already is not charged to the group
        begun = time.monotonic()
        try:
            wrong = _clients(group, fs, path, seed, clients, stores)
        finally:
            seconds, events = time.monotonic() - begun, group.events()
            need(not events["oom_kill"], f"the OOM killer came: {events}")
        wrong = wrong or _kept(path, seed, clients, stores)
        need(bool(wrong) or events["max"] > 0, f"there was no pressure: {events}")
    return wrong, (
        f"{clients} processes, {stores} stores each to {_PAGES} pages, {_MEMORY >> 20} MiB for "
        f"these and the server's work: {seconds:.0f} s, {events['max']} times at the limit"
    )


def _clients(group: Group, fs: fuse.Mount, path: Path, seed: int, clients: int, stores: int) -> str:
    with contextlib.ExitStack() as stack:
        squeezer = stack.enter_context(other(squeeze=_squeeze))
        everyone = [stack.enter_context(other(bash=_client)) for _ in range(clients)]
        for one in everyone:
            group.add(one.pid)
        wrong = _together(fs, everyone, path, seed, min(_WARM, stores))
        Path("/proc/sys/vm/drop_caches").write_text("1")
        group.leave(_MEMORY)
        squeezer.start("squeeze")
        return wrong or _together(fs, everyone, path, seed, stores)


def _together(
    fs: fuse.Mount, everyone: Sequence[Puppet], path: Path, seed: int, stores: int
) -> str:
    """All of them at once. CheckError when one has no end."""
    for number, one in enumerate(everyone):
        one.start("bash", str(path), seed, number, stores)
    pids = [fs.pid, *(one.pid for one in everyone)]
    last, since = _ticks(pids), time.monotonic()
    while waiting := [one for one in everyone if not one.settled(0)]:
        waiting[0].settled(1.0)
        if (now := _ticks(pids)) != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > _STILL:
            where = "\n".join([*(each.where() for each in waiting), f"server:\n{stacks(fs.pid)}"])
            fs.abort()
            raise CheckError(f"seed {seed}: nobody has done anything for {_STILL:.0f} s\n{where}")
    return "; ".join(filter(None, (str(one.result()) for one in everyone)))


def _ticks(pids: Sequence[int]) -> int:
    """CPU time that these processes have used."""
    told = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(fields[11]) + int(fields[12]) for fields in told)


def _squeeze() -> None:
    """Global reclaim and compaction beside that of the group, until it is killed."""
    for turn in range(1 << 30):
        Path("/proc/sys/vm/drop_caches").write_text("1")
        if turn % 4 == 0:
            Path("/proc/sys/vm/compact_memory").write_text("1")
        time.sleep(2.0)  # more often, and the group would never be at its limit


def _plan(seed: int, client: int, stores: int) -> Iterator[tuple[int, int]]:
    """Page and value of each store; a page may come again."""
    random = Random(f"{seed} {client}")
    for _ in range(stores):
        yield random.randrange(_PAGES), random.getrandbits(63) | 1


def _client(path: str, seed: int, client: int, stores: int) -> str:
    """Each client has a word of its own in every page. "" or what was wrong."""
    wanted: dict[int, int] = {}
    look = Random(f"{seed} {client} look")
    fd = os.open(path, os.O_RDWR)
    with Map(fd, _PAGES * PAGE) as map_:
        words = map_.view.cast("Q")
        for turn, (page, value) in enumerate(_plan(seed, client, stores)):
            words[page * _WORDS + client] = wanted[page] = value
            seen = look.choice([*wanted]) if turn % 4 == 0 else page
            if words[seen * _WORDS + client] != wanted[seen]:
                return f"client {client}, store {turn}: page {seen} has lost its store"
            if turn % 100 == 99 and (failed := map_.msync()):
                return f"client {client}, store {turn}: msync {libc.name_of(failed)}"
        bad = [page for page, value in wanted.items() if words[page * _WORDS + client] != value]
        words.release()
    os.close(fd)
    return f"client {client}: {len(bad)} pages have lost their stores" if bad else ""


def _kept(path: Path, seed: int, clients: int, stores: int) -> str:
    """Does the server hold every last store? "" or what is wrong."""
    with opened(path, os.O_RDWR) as fd:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        held = memoryview(os.pread(fd, _PAGES * PAGE, 0)).cast("Q")
    plans = [dict(_plan(seed, client, stores)) for client in range(clients)]
    bad = [
        page
        for client, plan in enumerate(plans)
        for page, value in plan.items()
        if held[page * _WORDS + client] != value
    ]
    return f"the server has not got the stores to {len(bad)} pages" if bad else ""


_TESTED = "Linux 2.6.26: fuse: support writable mmap (3be5a52b30aa), how it was tested"

CHECKS = (
    Check(
        "B20",
        "A server that needs memory to serve a WRITE gets it, under memory pressure too",
        _TESTED + ": bash-shared-mapping",
        "three processes store to a file larger than their and the server's memory: an end, no "
        "OOM kill, every store kept",
        bashed,
        patience=10,
        red="fuse-writable-mmap@v2 + planted-fuse-writable-mmap@v3 fuse.plant=reclaim-waits; "
        "planted-fuse-writable-mmap@v1 fuse.plant=drop-dirty",
    ),
    Check(
        "B21",
        "10,000 random operations leave in the file what they must",
        _TESTED + ": fsx-linux",
        "each load and read gives what was stored, written, cut and grown, also at the server",
        random_operations,
        patience=6,
        red="planted-fuse-writable-mmap@v1 fuse.plant=write-bypass",
    ),
)

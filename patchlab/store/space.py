# SPDX-License-Identifier: GPL-2.0-or-later
"""What the cache holds, and what of it gc takes out.

A built tree is mostly hard links into its source, so the sizes of entries do not add up:
what a tree shares is counted with the source, once. Reading the 90,000 inodes of a source
takes seconds, and an entry is never rewritten, so what was found is kept in ``sizes/``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from patchlab import scratch
from patchlab.paths import Cache
from patchlab.progress import Progress
from patchlab.store import content

DAY = 86400.0
DEFAULT_DAYS = 30.0
# Days that an entry counts as used later than it was when room is wanted: what it takes to
# make it again. From its tree an image is back in seconds to minutes, a root takes a minute;
# a tree is a cold build of 20 minutes or more. A source is fetched in minutes, but as long as
# one of its trees stays, its removal frees nothing. Reviews and patches are a few kB.
ROOMS: Mapping[str, float] = {
    "images": 0.0,
    "roots": 1.0,
    "reviews": 30.0,
    "patches": 30.0,
    "trees": 14.0,
    "sources": 14.0,
}
_MEMORY = "sizes"
_LOGS = "logs"


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One entry of the cache. Sizes are bytes on disk."""

    room: str
    key: str
    inode: int  # of its folder: tells it from an entry of the same name that was there before
    used: float  # seconds since the epoch
    own: int  # what no source has
    shared: Mapping[str, int]  # source (``identity``) -> bytes that are hard links into it
    in_use: bool = False  # by a live process

    @property
    def name(self) -> str:
        return f"{self.room}/{self.key}"

    @property
    def identity(self) -> str:
        return f"{self.key}:{self.inode}"


@dataclass(frozen=True, slots=True)
class Removal:
    entry: Entry
    frees: int  # bytes, after what is removed before it
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What gc does: ``remove``, in this order. ``kept`` is what has to stay, and why."""

    remove: tuple[Removal, ...]
    kept: tuple[tuple[Entry, str], ...]
    before: int  # bytes of all entries
    after: int


class _Measured(msgspec.Struct, frozen=True):
    inode: int
    own: int
    shared: dict[str, int]


# ---------------------------------------------------------------- deciding (pure)


def size(entries: Iterable[Entry]) -> int:
    """Bytes of all ``entries``, each inode counted once.

    Trees of one source link the same files, so of what they share the largest counts, and
    nothing of it while the source is there itself.
    """
    kept = list(entries)
    sources = {entry.identity for entry in kept}
    shared: dict[str, int] = {}
    for entry in kept:
        for source, held in entry.shared.items():
            if source not in sources:
                shared[source] = max(held, shared.get(source, 0))
    return sum(entry.own for entry in kept) + sum(shared.values())


def plan(
    entries: Sequence[Entry], *, now: float, days: float | None, limit: int | None = None
) -> Plan:
    """Take out what was not used for ``days``, then what is needed to come down to ``limit`` bytes.

    The order is that of ROOMS: what was used longest ago and is cheapest to make again first.
    """
    draft = _Draft(list(entries))
    if days is not None:
        # Whether all trees of a source go is known when the trees were looked at.
        for entry in sorted(entries, key=lambda e: (e.room == "sources", e.used)):
            if entry.used < now - days * DAY:
                draft.take(entry, f"not used for {(now - entry.used) / DAY:.0f} days")
    while limit is not None and size(draft.left) > limit and (next_ := draft.cheapest()):
        draft.take(next_, "over the size")
    return Plan(tuple(draft.removed), tuple(draft.kept.items()), size(entries), size(draft.left))


class _Draft:
    def __init__(self, left: list[Entry]) -> None:
        self.left = left
        self.removed: list[Removal] = []
        self.kept: dict[Entry, str] = {}

    def take(self, entry: Entry, why: str) -> None:
        """Remove ``entry``, or say why it stays."""
        rest = [one for one in self.left if one is not entry]
        frees = size(self.left) - size(rest)
        trees = [one.name for one in rest if entry.identity in one.shared]
        if entry.in_use:
            self.kept[entry] = "in use by a live process"
        elif trees:
            gain = f"without it only {frees / 1e6:,.0f} MB would be free"
            self.kept[entry] = f"its files are those of {', '.join(trees)}, {gain}"
        else:
            self.left = rest
            self.removed.append(Removal(entry, frees, why))

    def cheapest(self) -> Entry | None:
        """What to give up next: a source only when no tree, or none that may go, is left of it."""
        linked = {i for e in self.left if e not in self.kept for i in e.shared}
        free = [e for e in self.left if e not in self.kept and e.identity not in linked]
        return min(free, key=lambda e: e.used + ROOMS[e.room] * DAY, default=None)


# ---------------------------------------------------------------- looking


def entries(cache: Cache, progress: Progress) -> tuple[Entry, ...]:
    """Everything in the cache that gc may take out, room by room, the oldest use first.

    Fast but for what is new in it, which is measured first (seconds for a source or tree).
    """
    found = [
        (room, path)
        for room in ROOMS
        for path in sorted((cache.folder / room).glob("*"))
        if path.is_dir()
    ]
    known = {path: _remembered(cache, room, path) for room, path in found}
    unknown = [path for path, measured in known.items() if measured is None]
    if unknown:
        with progress.step(f"measure {len(unknown)} new entries of the cache"):
            inodes = _inodes_of_sources(cache, unknown)
            for room, path in found:
                if known[path] is None:
                    known[path] = measured = _measure(path, inodes)
                    text = msgspec.json.encode(measured).decode()
                    scratch.write(_memory(cache, room, path), text)
    listed = [_entry(cache, room, path, known[path]) for room, path in found]
    return tuple(
        sorted((e for e in listed if e), key=lambda e: (list(ROOMS).index(e.room), e.used))
    )


def forget(cache: Cache, entry: Entry) -> None:
    """Drop the memory of an entry that is gone."""
    _memory(cache, entry.room, Path(entry.key)).unlink(missing_ok=True)


def old_logs(cache: Cache, *, now: float, days: float) -> tuple[Path, ...]:
    """Logs of builds and roots that were written longer ago."""
    logs = (cache.folder / _LOGS).glob("*.log")
    return tuple(sorted(log for log in logs if log.stat().st_mtime < now - days * DAY))


def rest(cache: Cache) -> int:
    """Bytes of what is in the cache besides its entries: logs, locks, memories, half-done work."""
    return sum(
        status.st_blocks * 512
        for path in cache.folder.glob("*")
        if path.name not in ROOMS
        for status in _files(path)
    )


def private_folders(parent: Path) -> tuple[tuple[Path, bool], ...]:
    """Private folders of boots below ``parent``, and whether a live process holds each."""
    return tuple(
        (path, not free)
        for kind in scratch.KINDS
        for path in sorted(parent.glob(f"patchlab-{kind}-*"))
        for free in [_is_free(path)]
    )


def _is_free(path: Path) -> bool:
    with scratch.hold(path) as free:
        return free


def _entry(cache: Cache, room: str, path: Path, measured: _Measured | None) -> Entry | None:
    with contextlib.suppress(FileNotFoundError):  # another gc may be at work
        used = path.stat().st_mtime
        busy = content.in_use(cache.folder / room, path.name)
        if measured:
            return Entry(room, path.name, measured.inode, used, measured.own, measured.shared, busy)
    return None


def _inodes_of_sources(cache: Cache, unknown: Iterable[Path]) -> Mapping[int, str]:
    """Inode of every file of every source -> its identity; nothing when no tree asks."""
    if not any(path.parent.name == "trees" for path in unknown):
        return {}
    return {
        status.st_ino: f"{path.name}:{path.stat().st_ino}"
        for path in (cache.folder / "sources").glob("*")
        for status in _files(path)
    }


def _measure(path: Path, sources: Mapping[int, str]) -> _Measured:
    own: dict[int, int] = {}
    shared: dict[int, int] = {}
    from_source = path.parent.name == "sources"
    for status in _files(path):
        linked = not from_source and status.st_ino in sources
        (shared if linked else own)[status.st_ino] = status.st_blocks * 512
    by_source: dict[str, int] = {}
    for inode, held in shared.items():
        by_source[sources[inode]] = by_source.get(sources[inode], 0) + held
    return _Measured(path.stat().st_ino, sum(own.values()), by_source)


def _files(path: Path) -> Iterator[os.stat_result]:
    """The status of ``path`` and of everything below it; what vanishes meanwhile is left out."""
    pending = [path]
    with contextlib.suppress(OSError):
        yield path.lstat()
    while pending:
        folder = pending.pop()
        with contextlib.suppress(OSError), os.scandir(folder) as found:
            for one in found:
                with contextlib.suppress(OSError):
                    yield one.stat(follow_symlinks=False)
                    if one.is_dir(follow_symlinks=False):
                        pending.append(Path(one.path))


def _remembered(cache: Cache, room: str, path: Path) -> _Measured | None:
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        found = msgspec.json.decode(_memory(cache, room, path).read_bytes(), type=_Measured)
        if found.inode == path.stat().st_ino:
            return found
    return None


def _memory(cache: Cache, room: str, path: Path) -> Path:
    return cache.room(_MEMORY) / f"{room}={path.name}.json"

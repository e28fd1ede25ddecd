# SPDX-License-Identifier: GPL-2.0-or-later
"""The file behind a pmem device, as the host sees it: what is in it, and what a cut leaves.

The model of a power cut. What was in the file when the device was last flushed is durable. Of
every page that has changed since, the host's page cache may have written back any version that
it had meanwhile, or none; so a cut takes, page by page, what was durable or what is there now.
Killing QEMU instead would cut nothing: each store is in the host's page cache already.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

PAGE = 4096
MOST = 256 << 20  # bytes in a file that is watched
_LUMP = 64 * PAGE  # is compared at once
_ZERO = bytes(PAGE)


class TooMuch(Exception):
    """There is more in the file than is watched."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What a power cut leaves: the pages that differ from those of the cut before."""

    pages: tuple[tuple[int, bytes], ...]  # number and content
    dirty: int  # pages that had changed since the last flush
    lost: int  # of these, what was durable before is what is left


class Backing:
    """The file behind one device. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        found = os.fstat(self._file)
        self.size, self.inode = found.st_size, found.st_ino
        self.live = mmap.mmap(self._file, self.size)
        self.flushes = 0
        self._durable: mmap.mmap | None = None
        self._left: mmap.mmap | None = None  # by the last cut

    def close(self) -> None:
        self.forget()
        self.live.close()
        os.close(self._file)

    def forget(self) -> None:
        """Nothing is watched any more."""
        for copy in (self._durable, self._left):
            if copy is not None:
                copy.close()
        self._durable = self._left = None

    def watch(self) -> None:
        """From now on; all that is there counts as durable. Raises TooMuch."""
        there = sum(end - start for start, end in self._data())
        if there > MOST:
            raise TooMuch(f"{there >> 20} MiB are in the file; {MOST >> 20} can be watched")
        self.forget()
        self.flushes = 0
        self._durable, self._left = mmap.mmap(-1, self.size), mmap.mmap(-1, self.size)
        self.flushed()

    def flushed(self) -> None:
        """All that is there is durable."""
        self.flushes += 1
        if self._durable is not None:
            for page, content in self._changed(self._durable):
                self._durable[page * PAGE : (page + 1) * PAGE] = content

    def cut(self, random: Random, kept: float) -> Cut:
        """``kept`` is the share of the changed pages that got to the medium by themselves."""
        if self._durable is None or self._left is None:
            raise ValueError("nothing is watched")
        dirty = dict(self._changed(self._durable))
        reached = {page for page in sorted(dirty) if random.random() < kept}
        pages = []
        for page in sorted({*dirty, *self._differing()}):
            at = slice(page * PAGE, (page + 1) * PAGE)
            content = dirty[page] if page in reached else self._durable[at]
            if content != self._left[at]:
                self._left[at] = content
                pages.append((page, content))
        return Cut(tuple(pages), len(dirty), len(dirty) - len(reached))

    def _differing(self) -> Iterator[int]:
        """The pages in which what is durable is not what the last cut left."""
        assert self._durable is not None
        assert self._left is not None
        for at, length in self._lumps():
            if self._durable[at : at + length] != self._left[at : at + length]:
                yield from range(at // PAGE, (at + length) // PAGE)

    def _changed(self, before: mmap.mmap) -> Iterator[tuple[int, bytes]]:
        """The pages that are not what they were, and what they are."""
        for at, length in self._lumps():
            now, then = self.live[at : at + length], before[at : at + length]
            if now == then:
                continue
            for inner in range(0, length, PAGE):
                content = now[inner : inner + PAGE]
                if content != then[inner : inner + PAGE]:
                    yield (at + inner) // PAGE, content

    def _lumps(self) -> Iterator[tuple[int, int]]:
        for start, end in self._data():
            first, last = start // PAGE * PAGE, min(-(-end // PAGE) * PAGE, self.size)
            for at in range(first, last, _LUMP):
                yield at, min(_LUMP, last - at)

    def _data(self) -> Iterator[tuple[int, int]]:
        """Where the file is no hole. The guest cannot make holes, so there only come more."""
        end = 0
        with contextlib.suppress(OSError):  # ENXIO: only a hole is left
            while end < self.size:
                start = os.lseek(self._file, end, os.SEEK_DATA)
                end = os.lseek(self._file, start, os.SEEK_HOLE)
                yield start, end

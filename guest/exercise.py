# SPDX-License-Identifier: GPL-2.0-or-later
"""Random operations on one file, and what it must hold after each of them.

The operations are a pure function of a seed. Each means something at whatever size the file
has, so any part of a sequence is a sequence too: a failing one can be shrunk, and the shortest
fits in one line.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from guest import libc
from guest.libc import PAGE, Map
from guest.words import CheckError

LIMIT = 64 * PAGE  # the file's largest size
_LONGEST = 4 * PAGE
_DATA = Random("exercise").randbytes(LIMIT + _LONGEST)

# Letter of the operation -> how often it comes.
KINDS = {
    "S": 26,  # store through the map
    "L": 14,  # load through it
    "W": 18,  # write(2)
    "R": 10,  # read(2)
    "D": 4,  # write(2) with O_DIRECT
    "X": 4,  # read(2) with O_DIRECT: what the server holds
    "T": 8,  # ftruncate to ``offset``
    "B": 8,  # start writeback, and go on
    "M": 4,  # msync
    "F": 2,  # fsync
    "C": 2,  # close and open, unmap and map
    "N": 2,  # POSIX_FADV_DONTNEED
    "I": 2,  # the server invalidates the kernel's cache
}
_WITH_LENGTH = "SLWRDX"
_WITH_VALUE = "SWD"
_SPELLED = re.compile(r"([A-Z])(\d+)?(?:\+(\d+))?(?:=(\d+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Operation:
    kind: str
    offset: int = 0
    length: int = 0
    value: int = 0  # which bytes are written

    def __str__(self) -> str:
        text = self.kind
        if self.kind in _WITH_LENGTH or self.kind == "T":
            text += str(self.offset)
        if self.kind in _WITH_LENGTH:
            text += f"+{self.length}"
        return f"{text}={self.value}" if self.kind in _WITH_VALUE else text


def operations(seed: int, count: int) -> list[Operation]:
    """The first ``count`` of this seed; prefixes agree."""
    random = Random(seed)
    kinds, weights = list(KINDS), list(KINDS.values())
    made = []
    for _ in range(count):
        (kind,) = random.choices(kinds, weights)
        offset, length = _place(random), _length(random)
        made.append(Operation(kind, offset, length, random.randrange(LIMIT)))
    return made


def _place(random: Random) -> int:
    """Half of the time beside the edge of a page."""
    if random.random() < 0.5:
        return random.randrange(LIMIT)
    return min(LIMIT - 1, max(0, random.randrange(LIMIT // PAGE) * PAGE + random.randrange(-2, 3)))


def _length(random: Random) -> int:
    return random.choice((1, 2, PAGE, random.randrange(1, PAGE), random.randrange(1, _LONGEST)))


def spell(sequence: Sequence[Operation]) -> str:
    """One line; ``parse`` reads it."""
    return " ".join(map(str, sequence))


def parse(line: str) -> list[Operation]:
    """Raises ValueError for a word that is no operation."""
    found = []
    for word in line.split():
        match = _SPELLED.fullmatch(word)
        if not match or match[1] not in KINDS:
            raise ValueError(f"{word!r} is no operation; they are {', '.join(KINDS)}")
        found.append(Operation(match[1], *(int(match[at] or 0) for at in (2, 3, 4))))
    return found


class File:
    """The file under test, and ``image``, what it must hold. ``close`` whatever happens."""

    def __init__(
        self, path: Path, invalidate: Callable[[], object] = lambda: None, *, direct: bool = True
    ) -> None:
        """``direct``: the filesystem takes O_DIRECT at any alignment. The file is emptied."""
        self.path, self.invalidate = path, invalidate
        self.flags = os.O_RDWR | (os.O_DIRECT if direct else 0)
        self.image = bytearray()
        self._open()
        os.ftruncate(self.fd, 0)
        self.acts: dict[str, Callable[[int, int, int], None]] = {
            "S": self.store,
            "L": self.load,
            "W": lambda *what: self.write(self.fd, *what),
            "R": lambda *what: self.read(self.fd, *what),
            "D": lambda *what: self.write(self.direct, *what),
            "X": lambda *what: self.read(self.direct, *what),
            "T": self.truncate,
            "B": lambda *_: libc.start_writeback(self.fd),
            "M": lambda *_: self.msync(),
            "F": lambda *_: os.fsync(self.fd),
            "C": lambda *_: self.reopen(),
            "N": lambda *_: os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED),
            "I": lambda *_: self._invalidate(),
        }

    def _open(self) -> None:
        self.fd, self.direct = os.open(self.path, os.O_RDWR), os.open(self.path, self.flags)
        self.map = Map(self.fd, LIMIT)

    def close(self) -> None:
        self.map.close()
        os.close(self.direct)
        os.close(self.fd)

    def do(self, one: Operation) -> None:
        """Raises CheckError when the file does not hold what it must, OSError when it fails."""
        self.acts[one.kind](one.offset, one.length, one.value)

    def store(self, offset: int, length: int, value: int) -> None:
        if self.image:
            offset %= len(self.image)
            data = _DATA[value : value + min(length, len(self.image) - offset)]
            self.map.view[offset : offset + len(data)] = data
            self.image[offset : offset + len(data)] = data

    def load(self, offset: int, length: int, _value: int) -> None:
        if self.image:
            offset %= len(self.image)
            end = min(offset + length, len(self.image))
            self.same(bytes(self.map.view[offset:end]), offset, end, "a load")

    def write(self, fd: int, offset: int, length: int, value: int) -> None:
        data = _DATA[value : value + min(length, LIMIT - offset)]
        if offset > len(self.image):
            self.image.extend(bytes(offset - len(self.image)))
        self.image[offset : offset + len(data)] = data
        written = os.pwritev(fd, [_aligned(data)], offset)
        if written != len(data):
            raise CheckError(f"write(2) of {len(data)} bytes at {offset} wrote {written}")

    def read(self, fd: int, offset: int, length: int, _value: int) -> None:
        room = memoryview(mmap.mmap(-1, length))
        got = bytes(room[: os.preadv(fd, [room], offset)])
        self.same(got, offset, offset + length, "read(2)" if fd == self.fd else "O_DIRECT read(2)")

    def truncate(self, offset: int, _length: int, _value: int) -> None:
        os.ftruncate(self.fd, offset)
        del self.image[offset:]
        self.image.extend(bytes(offset - len(self.image)))

    def msync(self) -> None:
        if failed := self.map.msync():
            raise OSError(failed, os.strerror(failed))

    def reopen(self) -> None:
        self.close()
        self._open()

    def _invalidate(self) -> None:
        self.invalidate()

    def audit(self) -> None:
        """All of it, through every way in. Raises CheckError."""
        size = os.fstat(self.fd).st_size
        if size != len(self.image):
            raise CheckError(f"the size is {size}, not {len(self.image)}")
        self.load(0, size, 0)
        os.fsync(self.fd)
        for fd in (self.fd, self.direct):
            self.read(fd, 0, LIMIT, 0)

    def same(self, got: bytes, offset: int, end: int, how: str) -> None:
        wanted = self.image[offset:end]
        if got == wanted:
            return
        if len(got) != len(wanted):
            text = f"{how} at {offset} gave {len(got)} bytes of {len(wanted)}"
            raise CheckError(f"{text}, the size is {len(self.image)}")
        bad = [at for at, (a, b) in enumerate(zip(got, wanted, strict=True)) if a != b]
        first = bad[0]
        raise CheckError(
            f"{how} at {offset}+{end - offset}: {len(bad)} wrong bytes from {offset + first} on: "
            f"{got[first : first + 4].hex()}, not {wanted[first : first + 4].hex()}"
        )


def _aligned(data: bytes) -> memoryview:
    """In memory of its own pages, as O_DIRECT likes it on any filesystem."""
    room = memoryview(mmap.mmap(-1, len(data)))
    room[:] = data
    return room


@dataclass(frozen=True, slots=True)
class Failure:
    """``at``: how many operations had gone well before. The end counts as one more."""

    at: int
    why: str


def run(sequence: Sequence[Operation], file: File) -> Failure | None:
    """None when all went well. Closes the file."""
    done = 0
    with contextlib.closing(file):
        try:
            for one in sequence:
                file.do(one)
                done += 1
            file.audit()
        except (CheckError, OSError) as error:
            return Failure(done, str(error))
    return None


def shrink(
    sequence: Sequence[Operation],
    fails: Callable[[Sequence[Operation]], bool],
    seconds: float,
) -> list[Operation]:
    """A sequence that still fails, of which no operation can be left out.

    Or as short a one as was found in ``seconds``. ``fails`` is called with parts of it.
    """
    end = time.monotonic() + seconds
    found = list(sequence)
    size = max(1, len(found) // 2)
    while time.monotonic() < end:
        tries = (part for part in _without(found, size) if time.monotonic() < end and fails(part))
        shorter = next(tries, None)
        if shorter is not None:
            found = shorter
        elif size == 1:
            break
        size = max(1, min(size if shorter is not None else size // 2, len(found) // 2))
    return found


def _without(sequence: list[Operation], size: int) -> Iterator[list[Operation]]:
    """Each with ``size`` neighbours left out, the last ones first."""
    for end in range(len(sequence), 0, -size):
        yield sequence[: max(0, end - size)] + sequence[end:]

# SPDX-License-Identifier: GPL-2.0-or-later
"""What a hostile server does next: steps that are a pure function of a seed.

A step names no request, id or descriptor, because those depend on the machine; ``pick`` chooses
among those that there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from guest.libc import PAGE

# How often each comes, in both dialects. Those of the first block answer a request that waits.
ANSWERS = {
    "honest": 22,  # as an honest server would
    "share": 10,  # a region that exists, with its own size
    "errno": 6,  # an errno of the protocol
    "bad errno": 4,  # above 0, or -512 and below
    "region": 26,  # an answer whose members are anything: id, size, flags, padding, or fd, flags
    "short": 5,  # less payload than there should be
    "long": 5,  # more
    "lie": 5,  # a header whose length is not the message's
    "payload and errno": 4,
    "never": 1,  # no answer at all
}
MESSAGES = {
    "again": 6,  # a unique that was answered before
    "stranger": 4,  # a unique that was never given
    "interrupt": 5,  # the answer to an INTERRUPT, of a request that waits or not
    "store": 26,
    "retrieve": 18,
    "truncated": 8,  # a notification that ends early
    "code": 5,  # a notification of any code, with any payload
    "resend": 3,
    "scrap": 3,  # bytes
}
DEEDS = {
    "kill": 1,  # a client
    "bad read": 4,  # into memory that faults, or too little of it
    "close": 4,  # a descriptor that COMMIT brought
    "abort": 0.3,
}
KINDS: dict[str, float] = {**ANSWERS, **MESSAGES, **DEEDS}

_EDGES = (
    0, 1, 2, 7, 8, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 1 << 20, (1 << 31) - 1, 1 << 31,
    (1 << 32) - 1, 1 << 32, (1 << 44) - PAGE, 1 << 44, (1 << 63) - PAGE, (1 << 63) - 1, 1 << 63,
    (1 << 64) - PAGE, (1 << 64) - 1,
)  # fmt: skip
_CODES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 31, 34, 35, 100, (1 << 31) - 1)


@dataclass(frozen=True, slots=True)
class Step:
    number: int
    kind: str
    pick: int  # which of those there are, modulo their count
    value: int  # 64 bits: an errno, id, fd, code, flags
    offset: int  # 64 bits
    size: int  # 64 bits
    spliced: bool  # through a pipe, with SPLICE_F_MOVE
    seed: int  # of further draws, such as payloads

    def __str__(self) -> str:
        return (
            f"step {self.number}: {self.kind}, pick {self.pick}, value {self.value:#x}, "
            f"offset {self.offset:#x}, size {self.size:#x}{', spliced' if self.spliced else ''}"
        )


def steps(seed: int, count: int) -> Iterator[Step]:
    """The first ``count`` steps of ``seed``; any two calls give the same, and prefixes agree."""
    random = Random(seed)
    kinds, weights = list(KINDS), list(KINDS.values())
    for number in range(count):
        (kind,) = random.choices(kinds, weights)
        yield Step(
            number,
            kind,
            random.getrandbits(16),
            _value(random, kind),
            edge(random),
            _size(random),
            random.random() < 0.2,
            random.getrandbits(32),
        )


def edge(random: Random) -> int:
    """Half of the time a number on a limit, else a small one, or any page's."""
    draw = random.random()
    if draw < 0.5:
        return random.choice(_EDGES)
    if draw < 0.8:
        return random.randrange(5 * PAGE)
    return random.randrange(16) * PAGE


def _value(random: Random, kind: str) -> int:
    if kind == "errno":
        return random.choice((1, 2, 4, 5, 11, 12, 13, 16, 19, 22, 38, 95, 107, 511))
    if kind == "bad errno":
        return random.choice((-1, -5, -38, 512, 513, 4095, 1 << 30, (1 << 31) - 1))
    if kind == "code":
        return random.choice(_CODES)
    return edge(random)


def _size(random: Random) -> int:
    # Mostly a size that a region may have: a kernel that takes what it should refuse is found by
    # what comes after.
    return random.randrange(1, 9) * PAGE if random.random() < 0.5 else edge(random)


def signed(value: int, bits: int) -> int:
    """The low ``bits`` of ``value`` as a C integer of that width."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value

# SPDX-License-Identifier: GPL-2.0-or-later
"""Which functions of two kernels differ. Pure.

A function's bytes hold addresses and distances, which change wherever anything in front of it
grows. So its hash is taken of its disassembly (objdump -d --no-show-raw-insn), in which each
address is replaced by the name of what is there.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from patchlab.explain.symbols import Symbol, Symbols, stable

_HEAD = re.compile(r"([0-9a-f]{16}) <(.*)>:\n?")
# "call ffffffff81432c20 <file_update_time>", "# ffffffff82f9b200 <cpuidle_curr_driver>"
_TARGET = re.compile(r"\b([0-9a-f]+) <[^>\n]*>")
# The distance that comes with the second kind says the same, and moves.
_RELATIVE = re.compile(r"-?0x[0-9a-f]+\(%rip\)")
# Addresses of the kernel as sign-extended 32 bits: $0xffffffff821972e0, -0x7ddb11e0(,%rdx,8).
# What is tested or masked with is a mask.
_IMMEDIATE = re.compile(
    r"^((?!(?:lock )?(?:test|and|x?or)[bwlq]? ).*\$)0x(ffffffff[89a-f][0-9a-f]{7})\b", re.MULTILINE
)
_INDEXED = re.compile(r"-0x([4-7][0-9a-f]{7})(?=\()")
# Early code adds the distance of two symbols to where it finds itself: 0x1ce1f58(%rbp).
_DISTANCE = re.compile(r"\b0x[123][0-9a-f]{6}\b(?<!000)")
_UNKNOWN = "(bad)"
_TOP = 1 << 64


@dataclass(frozen=True, slots=True)
class Change:
    """``before`` and ``after`` are bytes of code; 0 where the function is not there."""

    name: str
    before: int
    after: int

    @property
    def kind(self) -> str:
        if not self.before:
            return "added"
        return "changed" if self.after else "removed"


def suspects(one: Symbols, other: Symbols) -> frozenset[str]:
    """Names of functions, without the compiler's numbers, whose raw bytes are not the same.

    Those with the same bytes are taken for the same: they reach the same addresses.
    """
    mine, others = _raw(one), _raw(other)
    return frozenset(name for name in mine.keys() | others if mine.get(name) != others.get(name))


def _raw(symbols: Symbols) -> dict[str, list[bytes]]:
    """Functions without bytes (labels) are left out: nobody knows where they end."""
    found: defaultdict[str, list[bytes]] = defaultdict(list)
    for symbol in symbols.functions:
        if symbol.size:
            found[stable(symbol.name)].append(symbols.code(symbol))
    for codes in found.values():
        codes.sort()
    return dict(found)


Hashes = Mapping[str, tuple[tuple[str, int], ...]]


def hashes(lines: Iterable[str], symbols: Symbols, wanted: Collection[str]) -> Hashes:
    """The hash and size of each function that is ``wanted``, by name; several may share one."""
    found: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    name = functools.cache(symbols.name)
    for symbol, text in _bodies(lines, symbols, wanted):
        digest = hashlib.sha256(normal(text, name).encode()).hexdigest()
        found[stable(symbol.name)].append((digest, symbol.size))
    return {name: tuple(sorted(several)) for name, several in found.items()}


def _bodies(
    lines: Iterable[str], symbols: Symbols, wanted: Collection[str]
) -> Iterator[tuple[Symbol, str]]:
    """Each wanted function and its lines, without their addresses and the padding behind it."""
    symbol: Symbol | None = None
    body: list[str] = []
    end = ""
    for line in lines:
        if line.endswith(">:\n") and (head := _HEAD.match(line)):
            if symbol and head[1] < end:  # a label in the middle
                continue
            address = int(head[1], 16)
            if symbol:
                yield symbol, "".join(body)
            symbol = symbols.function(address)
            if symbol and (symbol.address != address or stable(symbol.name) not in wanted):
                symbol = None
            end = f"{symbol.address + symbol.size:016x}" if symbol else ""
            body = []
        elif symbol and line[:16] < end:
            body.append(line[18:])
    if symbol:
        yield symbol, "".join(body)


def normal(text: str, name: Callable[[int], str]) -> str:
    """Disassembled lines with names in place of addresses; ``name`` is Symbols.name().

    What follows an instruction that the disassembler does not know is left out.
    """

    def target(match: re.Match[str]) -> str:
        return f"<{name(int(match[1], 16))}>"

    def immediate(match: re.Match[str]) -> str:
        return f"{match[1]}<{name(int(match[2], 16))}>"

    def indexed(match: re.Match[str]) -> str:
        return f"<{name(_TOP - int(match[1], 16))}>"

    text = text.partition(_UNKNOWN)[0]
    text = _RELATIVE.sub("(%rip)", _TARGET.sub(target, text))
    text = _INDEXED.sub(indexed, _IMMEDIATE.sub(immediate, text))
    return _DISTANCE.sub("<distance>", text)


def changes(before: Hashes, after: Hashes) -> tuple[Change, ...]:
    """Functions that were added, removed or changed, by name. Equal namesakes cancel."""
    found = []
    for name in sorted(before.keys() | after.keys()):
        old, new = list(before.get(name, ())), list(after.get(name, ()))
        for same in set(old) & set(new):
            for _ in range(min(old.count(same), new.count(same))):
                old.remove(same)
                new.remove(same)
        for number in range(max(len(old), len(new))):
            sizes = (one[number][1] if number < len(one) else 0 for one in (old, new))
            found.append(Change(name, *sizes))
    return tuple(found)

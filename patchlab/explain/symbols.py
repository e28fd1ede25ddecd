# SPDX-License-Identifier: GPL-2.0-or-later
"""The symbols of a vmlinux: which function or variable an address is in. Pure.

The symbol table is that of the ELF-64 object file format (System V ABI, chapter 4):
https://gabi.xinuos.com/elf/ . The file comes out of an untrusted build, so every offset is
checked.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from patchlab.building import elf
from patchlab.errors import BuildError

_SYMBOL = struct.Struct("<IBBHQQ")
_NOTYPE, _OBJECT, _FUNC = 0, 1, 2
_NOBITS = 8
_EXECUTABLE, _WRITABLE = 4, 1
_ALLOCATED = 2
_FIRST_SPECIAL = 0xFF00  # section numbers from here on are no sections
_STRING = 400  # characters of a string without a name that tell it from others
# gcc numbers what is static in a function, clones and string literals, by their order in the file.
_NUMBER = re.compile(r"\.\d+(?=$|\.cold)")
_PADDING = "__pfx_"  # the nops in front of a function, which have a name of their own


@dataclass(frozen=True, slots=True)
class Symbol:
    name: str
    address: int
    size: int  # bytes; 0 of a label in assembly
    code: bool


@dataclass(frozen=True, slots=True)
class Section:
    name: str
    address: int
    size: int
    code: bool
    writable: bool
    data: memoryview  # empty of what is only zeros


@dataclass(frozen=True, slots=True)
class Symbols:
    """By address. ``functions`` has no two at the same address."""

    sections: tuple[Section, ...]
    functions: tuple[Symbol, ...]
    everything: tuple[Symbol, ...]
    borders: frozenset[int]  # addresses that the linker script gives names to
    _starts: tuple[int, ...] = field(repr=False)
    _code_starts: tuple[int, ...] = field(repr=False)

    def function(self, address: int) -> Symbol | None:
        """The function that has the instruction at ``address``; None outside of the kernel's."""
        return _cover(self.functions, self._code_starts, address)

    def section(self, address: int) -> Section | None:
        found = (s for s in self.sections if s.address <= address < s.address + s.size)
        return next(found, None)

    def name(self, address: int) -> str:
        """What is there, by a name that does not depend on where the linker has put it.

        A symbol and the distance into it; for a string without a name its text; else the
        section. Names of borders between sections come and go with the padding there, so
        these are all one.
        """
        if address in self.borders:
            return "border"
        if found := _cover(self.everything, self._starts, address):
            return f"{stable(found.name)}+{address - found.address:#x}"
        section = self.section(address)
        if section is None:
            return f"{address:#x}"
        if section.code or section.writable:
            return section.name
        start = address - section.address
        return repr(bytes(section.data[start : start + _STRING]).split(b"\0", 1)[0])

    def code(self, symbol: Symbol) -> bytes:
        section = self.section(symbol.address)
        if section is None:
            return b""
        start = symbol.address - section.address
        return bytes(section.data[start : start + symbol.size])

    def sizes(self) -> dict[str, int]:
        """Bytes that are loaded: ``text``, ``rodata``, ``data`` and ``bss``."""
        found = dict.fromkeys(("text", "rodata", "data", "bss"), 0)
        for section in self.sections:
            if section.code:
                kind = "text"
            elif not section.data and section.size:
                kind = "bss"
            else:
                # The linker script calls .rodata writable, for the sake of its relocations.
                constant = not section.writable or section.name.startswith(".rodata")
                kind = "rodata" if constant else "data"
            found[kind] += section.size
        return found


def stable(name: str) -> str:
    """Without the numbers that the compiler gives by order: ``foo.part.0``, ``__func__.12``."""
    return _NUMBER.sub("", name)


def read(vmlinux: memoryview, where: str) -> Symbols:
    """Raises BuildError for what is not a whole ELF-64 file or has no symbols."""
    try:
        sections = list(elf.sections(vmlinux))
        table = next(s for s in sections if s.name == b".symtab")
        names = next(s for s in sections if s.name == b".strtab")
        symbols = tuple(
            _symbols(
                elf.part(vmlinux, table.offset, table.size),
                bytes(elf.part(vmlinux, names.offset, names.size)),
                sections,
            )
        )
        loaded = tuple(_loaded(vmlinux, sections))
    except (ValueError, struct.error) as error:
        raise BuildError(f"{where}: not a whole ELF-64 file: {error}") from None
    except StopIteration:
        raise BuildError(f"{where}: it has no symbols", hint="build it without strip") from None
    everything = _ordered(symbols)
    functions = _ordered(s for s in symbols if s.code and not s.name.startswith(_PADDING))
    return Symbols(
        loaded,
        functions,
        everything,
        frozenset(s.address for s in symbols if not s.size and not s.code),
        tuple(s.address for s in everything),
        tuple(s.address for s in functions),
    )


def _loaded(data: memoryview, sections: Iterable[elf.Section]) -> Iterator[Section]:
    for one in sections:
        if one.flags & _ALLOCATED:
            zeros = one.kind == _NOBITS
            yield Section(
                one.name.decode("utf-8", "replace"),
                one.address,
                one.size,
                bool(one.flags & _EXECUTABLE),
                bool(one.flags & _WRITABLE) and not one.name.startswith(b".rodata"),
                data[:0] if zeros else elf.part(data, one.offset, one.size),
            )


def _symbols(table: memoryview, names: bytes, sections: list[elf.Section]) -> Iterator[Symbol]:
    for name, info, _, section, address, size in _SYMBOL.iter_unpack(table):
        if info & 15 not in (_NOTYPE, _OBJECT, _FUNC) or not 0 < section < _FIRST_SPECIAL:
            continue
        code = bool(sections[section].flags & _EXECUTABLE) if section < len(sections) else False
        text = names[name : names.find(b"\0", name)].decode("utf-8", "replace")
        if text and not text.startswith("."):
            yield Symbol(text, address, size, code)


def _ordered(symbols: Iterable[Symbol]) -> tuple[Symbol, ...]:
    """One symbol an address: the longest, of aliases the first in the alphabet.

    A label in the middle of a function is left out.
    """
    kept: list[Symbol] = []
    end = -1
    for symbol in sorted(symbols, key=lambda s: (s.address, -s.size, s.name)):
        again = bool(kept) and kept[-1].address == symbol.address
        if again or (symbol.code and not symbol.size and symbol.address < end):
            continue
        kept.append(symbol)
        end = max(end, symbol.address + symbol.size)
    return tuple(kept)


def _cover(symbols: tuple[Symbol, ...], starts: tuple[int, ...], address: int) -> Symbol | None:
    """The symbol at or around the address. A label in code reaches as far as the next symbol."""
    at = bisect_right(starts, address) - 1
    if at < 0:
        return None
    found = symbols[at]
    inside = address < found.address + found.size or address == found.address
    return found if inside or (found.code and not found.size) else None

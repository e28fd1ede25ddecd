# SPDX-License-Identifier: GPL-2.0-or-later
"""What of a vmlinux runs: a digest that is equal for equal kernels.

The layout is that of the ELF-64 object file format (System V ABI, chapters 4 and 5):
https://gabi.xinuos.com/elf/ . The file comes out of an untrusted build, so every offset
is checked.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from patchlab.errors import BuildError

_IDENT = b"\x7fELF\x02\x01"  # 64 bits, little-endian
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SHT_NOTE = 7
_SHT_NOBITS = 8
_SHF_ALLOC = 2


@dataclass(frozen=True, slots=True)
class Section:
    name: bytes
    kind: int
    flags: int
    address: int
    offset: int
    size: int


def code_digest(vmlinux: Path) -> str:
    """SHA-256 (hex) over name, flags, address, size and bytes of each section that is loaded.

    Notes are left out: they hold the build ID, which also covers what is not loaded.
    Raises BuildError for what is not a whole ELF-64 little-endian file.
    """
    hasher = hashlib.sha256()
    with vmlinux.open("rb") as file:
        try:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            for section in _loaded(data):
                place = struct.pack("<QQQ", section.flags, section.address, section.size)
                hasher.update(section.name + b"\0" + place)
                if section.kind != _SHT_NOBITS:
                    hasher.update(part(data, section.offset, section.size))
        except (ValueError, struct.error) as error:
            raise BuildError(f"{vmlinux}: not a whole ELF-64 file: {error}") from None
    return hasher.hexdigest()


def _loaded(data: memoryview) -> Iterator[Section]:
    for section in sections(data):
        if section.flags & _SHF_ALLOC and section.kind != _SHT_NOTE:
            yield section


def sections(data: memoryview) -> Iterator[Section]:
    """All sections in their order. Raises ValueError or struct.error for what is no whole file."""
    header = _HEADER.unpack(part(data, 0, _HEADER.size))
    if not header[0].startswith(_IDENT):
        raise ValueError("wrong magic, class or byte order")
    table, entry, count, names_index = header[6], header[11], header[12], header[13]
    if entry != _SECTION.size or names_index >= count:
        raise ValueError("no section headers")
    raw = [_SECTION.unpack(part(data, table + number * entry, entry)) for number in range(count)]
    names = bytes(part(data, raw[names_index][4], raw[names_index][5]))
    for name, kind, flags, address, offset, size, *_ in raw:
        end = names.find(b"\0", name)
        yield Section(names[name:end], kind, flags, address, offset, size)


def part(data: memoryview, offset: int, size: int) -> memoryview:
    """ValueError when not all of it is there."""
    if offset + size > len(data):
        raise ValueError(f"{offset + size} bytes wanted, {len(data)} there")
    return data[offset : offset + size]

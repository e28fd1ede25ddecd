# SPDX-License-Identifier: GPL-2.0-or-later
"""Is what lies in the cache still what was put there? Looked at before each use.

An entry is published whole, but a disk may fail, and people edit. A kernel or root that was
cut would only show as a guest that dies, so it is found out here, taken out, and made again.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import msgspec

from patchlab.progress import Progress
from patchlab.store import content

_EXT4_MAGIC = 0xEF53


class _Manifest(msgspec.Struct):
    bzimage_sha256: str


def keep(room: Path, key: str, damage: Callable[[Path], str], progress: Progress) -> None:
    """Take the entry out of the cache when ``damage`` finds something, and say so."""
    folder = content.find(room, key)
    if folder and (wrong := damage(folder)):
        progress.note(f"{folder}: {wrong}; taken out of the cache, to be made again")
        content.discard(room, key)


def image_damage(folder: Path) -> str:
    """What is wrong with an image, or ``""``. Reads the whole bzImage (some 20 ms)."""
    try:
        manifest = msgspec.json.decode((folder / "image.json").read_bytes(), type=_Manifest)
        kernel = (folder / "bzImage").read_bytes()
    except (OSError, msgspec.MsgspecError) as error:
        return f"not a whole image ({error})"
    if hashlib.sha256(kernel).hexdigest() != manifest.bzimage_sha256:
        return f"its bzImage ({len(kernel):,} bytes) is not the one that was built"
    return _elf_damage(folder / "vmlinux")


def _elf_damage(vmlinux: Path) -> str:
    """elf(5): the table of sections is the last thing in the file."""
    if not vmlinux.is_file():
        return ""  # an image that the user built may come without
    size = vmlinux.stat().st_size
    with vmlinux.open("rb") as file:
        header = file.read(64)
    if len(header) < 64:
        return f"its vmlinux has {size:,} bytes"
    (table,) = struct.unpack_from("<Q", header, 40)
    length, count = struct.unpack_from("<HH", header, 58)
    whole = table + length * count
    return f"its vmlinux has {size:,} of {whole:,} bytes" if size < whole else ""


def root_damage(folder: Path) -> str:
    """What is wrong with a guest root, or ``""``: the superblock tells how long it has to be.

    Documentation/filesystems/ext4/super.rst: at 1024; the block count at 4, log2 of the block
    size less ten at 24, the magic number at 56.
    """
    disk = folder / "root.ext4"
    try:
        size = disk.stat().st_size
        with disk.open("rb") as file:
            file.seek(1024)
            block = file.read(64)
        (folder / "root.json").stat()
    except OSError as error:
        return f"not a whole guest root ({error})"
    if len(block) < 64 or struct.unpack_from("<H", block, 56)[0] != _EXT4_MAGIC:
        return f"{disk.name} ({size:,} bytes) is no ext4 image"
    blocks, shift = struct.unpack_from("<I", block, 4)[0], struct.unpack_from("<I", block, 24)[0]
    whole = blocks << (10 + min(shift, 6))
    return f"{disk.name} has {size:,} of {whole:,} bytes" if size < whole else ""

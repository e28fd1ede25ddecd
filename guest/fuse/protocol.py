# SPDX-License-Identifier: GPL-2.0-or-later
"""Layouts, opcodes and flags of include/uapi/linux/fuse.h, protocol 7.41 (Linux 6.12).

Every number of the protocol that the lab uses is in this one file. What only a revision of a
series has is named so; docs/fuse-direct-mmap.md explains it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

MAJOR, MINOR = 7, 41
ROOT_ID = 1
MIN_READ_BUFFER = 8192

_ATTR = (
    "ino:Q size:Q blocks:Q atime:Q mtime:Q ctime:Q atimensec:I mtimensec:I ctimensec:I "
    "mode:I nlink:I uid:I gid:I rdev:I blksize:I flags:I"
)
_NESTED_ATTR = " ".join(f"attr.{one}" for one in _ATTR.split())

# struct -> its members in order, each `name:code` with a code of the struct module
_MEMBERS = {
    "fuse_in_header": (
        "len:I opcode:I unique:Q nodeid:Q uid:I gid:I pid:I total_extlen:H padding:H"
    ),
    "fuse_out_header": "len:I error:i unique:Q",
    "fuse_attr": _ATTR,
    "fuse_init_in": "major:I minor:I max_readahead:I flags:I flags2:I unused:11I",
    "fuse_init_out": (
        "major:I minor:I max_readahead:I flags:I max_background:H congestion_threshold:H "
        "max_write:I time_gran:I max_pages:H map_alignment:H flags2:I max_stack_depth:I "
        "unused:6I"
    ),
    "fuse_entry_out": (
        "nodeid:Q generation:Q entry_valid:Q attr_valid:Q entry_valid_nsec:I attr_valid_nsec:I "
        + _NESTED_ATTR
    ),
    "fuse_attr_out": "attr_valid:Q attr_valid_nsec:I dummy:I " + _NESTED_ATTR,
    "fuse_getattr_in": "getattr_flags:I dummy:I fh:Q",
    "fuse_setattr_in": (
        "valid:I padding:I fh:Q size:Q lock_owner:Q atime:Q mtime:Q ctime:Q atimensec:I "
        "mtimensec:I ctimensec:I mode:I unused4:I uid:I gid:I unused5:I"
    ),
    "fuse_open_in": "flags:I open_flags:I",
    "fuse_open_out": "fh:Q open_flags:I backing_id:i",
    "fuse_release_in": "fh:Q flags:I release_flags:I lock_owner:Q",
    "fuse_flush_in": "fh:Q unused:I padding:I lock_owner:Q",
    "fuse_read_in": "fh:Q offset:Q size:I read_flags:I lock_owner:Q flags:I padding:I",
    "fuse_write_in": "fh:Q offset:Q size:I write_flags:I lock_owner:Q flags:I padding:I",
    "fuse_write_out": "size:I padding:I",
    "fuse_fsync_in": "fh:Q fsync_flags:I padding:I",
    "fuse_statfs_out": (
        "st.blocks:Q st.bfree:Q st.bavail:Q st.files:Q st.ffree:Q st.bsize:I st.namelen:I "
        "st.frsize:I st.padding:I st.spare:6I"
    ),
    "fuse_access_in": "mask:I padding:I",
    "fuse_interrupt_in": "unique:Q",
    "fuse_forget_in": "nlookup:Q",
    "fuse_forget_one": "nodeid:Q nlookup:Q",
    "fuse_batch_forget_in": "count:I dummy:I",
    "fuse_dirent": "ino:Q off:Q namelen:I type:I",
    "fuse_notify_inval_inode_out": "ino:Q off:q len:q",
    "fuse_notify_store_out": "nodeid:Q offset:Q size:I padding:I",
    "fuse_notify_retrieve_out": "notify_unique:Q nodeid:Q offset:Q size:I padding:I",
    "fuse_notify_retrieve_in": "dummy1:Q offset:Q size:I dummy2:I dummy3:Q dummy4:Q",
    "cuse_init_in": "major:I minor:I unused:I flags:I",
    "cuse_init_out": (
        "major:I minor:I unused:I flags:I max_read:I max_write:I dev_major:I dev_minor:I spare:10I"
    ),
    "fuse_mmap_in": "fh:Q addr:Q len:Q offset:Q prot:I flags:I",
    "fuse_mmap_out": "fd:i flags:I",
    "fuse_mmap_commit_in": (
        "fh:Q mmap_unique:Q addr:Q len:Q offset:Q prot:I flags:I fd:i padding:I"
    ),
    "fuse_munmap_in": "fh:Q mmap_unique:Q addr:Q len:Q fd:i padding:I",
    "fuse_mmap_id_out": "map_id:Q size:Q flags:I padding:I",
    "fuse_munmap_id_in": "fh:Q map_id:Q mmap_unique:Q",
    "fuse_notify_map_store_out": "map_id:Q offset:Q size:I padding:I",
    "fuse_notify_map_retrieve_out": "notify_unique:Q map_id:Q offset:Q size:I padding:I",
}

_BASE = ("base",)
_FDS = ("fuse-direct-mmap@v1", "fuse-direct-mmap@v2")
_IDS = ("fuse-direct-mmap@v3",)
# struct -> the variants whose header has it, where that is not every one
_VARIANTS = {
    "fuse_mmap_in": _FDS + _IDS,
    "fuse_mmap_out": _FDS,
    "fuse_mmap_commit_in": _FDS,
    "fuse_munmap_in": _FDS,
    "fuse_mmap_id_out": _IDS,
    "fuse_munmap_id_in": _IDS,
    "fuse_notify_map_store_out": _IDS,
    "fuse_notify_map_retrieve_out": _IDS,
}


@dataclass(frozen=True, slots=True)
class Layout:
    """One struct. A member of a nested struct is named as C's offsetof takes it: ``attr.ino``."""

    form: str  # for the struct module
    members: tuple[tuple[str, int], ...]  # with their offsets in bytes
    variants: tuple[str, ...]  # whose header declares it; what ``base`` has, every variant has


def _layout(name: str, members: str) -> Layout:
    # The header pads by hand, so "=" (no padding) gives the compiler's own offsets.
    form, fields = "=", []
    for member in members.split():
        field, code = member.rsplit(":", 1)
        fields.append((field, struct.calcsize(form)))
        form += code
    return Layout(form, tuple(fields), _VARIANTS.get(name, _BASE))


LAYOUTS = {name: _layout(name, members) for name, members in _MEMBERS.items()}


def _struct(name: str) -> struct.Struct:
    return struct.Struct(LAYOUTS[name].form)


IN_HEADER = _struct("fuse_in_header")
OUT_HEADER = _struct("fuse_out_header")
ATTR = _struct("fuse_attr")
INIT_IN = _struct("fuse_init_in")
INIT_OUT = _struct("fuse_init_out")
ENTRY_OUT = _struct("fuse_entry_out")
ATTR_OUT = _struct("fuse_attr_out")
SETATTR_IN = _struct("fuse_setattr_in")
OPEN_OUT = _struct("fuse_open_out")
READ_IN = _struct("fuse_read_in")
WRITE_IN = _struct("fuse_write_in")
WRITE_OUT = _struct("fuse_write_out")
FSYNC_IN = _struct("fuse_fsync_in")
STATFS_OUT = _struct("fuse_statfs_out")
INTERRUPT_IN = _struct("fuse_interrupt_in")
DIRENT = _struct("fuse_dirent")
RETRIEVE_IN = _struct("fuse_notify_retrieve_in")
NOTIFY_INVAL_INODE_OUT = _struct("fuse_notify_inval_inode_out")
CUSE_INIT_IN = _struct("cuse_init_in")
CUSE_INIT_OUT = _struct("cuse_init_out")
MMAP_IN = _struct("fuse_mmap_in")
MMAP_OUT = _struct("fuse_mmap_out")
MMAP_COMMIT_IN = _struct("fuse_mmap_commit_in")
MUNMAP_IN = _struct("fuse_munmap_in")
MMAP_ID_OUT = _struct("fuse_mmap_id_out")
MUNMAP_ID_IN = _struct("fuse_munmap_id_in")
MAP_STORE_OUT = _struct("fuse_notify_map_store_out")
MAP_RETRIEVE_OUT = _struct("fuse_notify_map_retrieve_out")


class Op(IntEnum):
    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    ACCESS = 34
    INTERRUPT = 36
    DESTROY = 38
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    MMAP = 200  # fuse-direct-mmap
    MMAP_COMMIT = 201  # fuse-direct-mmap@v1, v2
    MUNMAP = 202  # fuse-direct-mmap
    CUSE_INIT = 4096


class Notify(IntEnum):
    """Codes that a server sends in the error field of a header whose unique is 0."""

    INVAL_INODE = 2
    STORE = 4
    RETRIEVE = 5
    MAP_STORE = 32  # fuse-direct-mmap@v3
    MAP_RETRIEVE = 33  # fuse-direct-mmap@v3


NO_REPLY = frozenset({Op.FORGET, Op.INTERRUPT, Op.BATCH_FORGET, Op.NOTIFY_REPLY})

# fuse_setattr_in.valid
FATTR_SIZE = 1 << 3

# fuse_open_out.open_flags
FOPEN_DIRECT_IO = 1 << 0
FOPEN_KEEP_CACHE = 1 << 1
FOPEN_NOFLUSH = 1 << 5
FOPEN_DIRECT_MMAP = 1 << 8  # fuse-direct-mmap@v2, v3

# fuse_write_in.write_flags
WRITE_CACHE = 1 << 0

# fuse_init_in and fuse_init_out: bits 32 to 63 travel in flags2
ASYNC_READ = 1 << 0
BIG_WRITES = 1 << 5
AUTO_INVAL_DATA = 1 << 12
WRITEBACK_CACHE = 1 << 16
MAX_PAGES = 1 << 22
INIT_EXT = 1 << 30
DIRECT_IO_ALLOW_MMAP = 1 << 36
MMAP_FD = 1 << 60  # fuse-direct-mmap@v2
MMAP_ID = 1 << 61  # fuse-direct-mmap@v3

# cuse_init_in.flags and cuse_init_out.flags
CUSE_MMAP_FD = 1 << 8  # fuse-direct-mmap@v2
CUSE_MMAP_ID = 1 << 9  # fuse-direct-mmap@v3

# fuse_mmap_out.flags and fuse_mmap_id_out.flags
DONT_COPY = 1 << 0
DONT_EXPAND = 1 << 1

DEFAULT_FLAGS = BIG_WRITES | MAX_PAGES


def op_name(opcode: int) -> str:
    """``WRITE`` for 16; a number that is not ours stays a number."""
    try:
        return Op(opcode).name
    except ValueError:
        return str(opcode)


def offered(flags: int, flags2: int) -> int:
    """The 64 feature bits of a fuse_init_in."""
    return flags | (flags2 << 32 if flags & INIT_EXT else 0)


def init_reply(minor: int, max_readahead: int, agreed: int, max_write: int) -> bytes:
    """A fuse_init_out with the 64 bits ``agreed``; ``max_write`` in bytes."""
    if agreed >> 32:
        agreed |= INIT_EXT
    return INIT_OUT.pack(
        MAJOR,
        min(minor, MINOR),
        max_readahead,
        agreed & 0xFFFFFFFF,
        0,  # max_background and congestion_threshold: the kernel's defaults
        0,
        max_write,
        1,
        max(1, max_write // 4096),
        0,
        agreed >> 32,
        0,
        *(0,) * 6,
    )


def cuse_init_reply(minor: int, agreed: int, max_write: int, name: str) -> bytes:
    """A cuse_init_out and the device's name; the kernel picks the numbers of the device."""
    out = CUSE_INIT_OUT.pack(
        MAJOR, min(minor, MINOR), 0, agreed, max_write, max_write, 0, 0, *(0,) * 10
    )
    return out + b"DEVNAME=" + name.encode() + b"\0"


def notification(code: Notify, payload: bytes) -> bytes:
    """A whole message from the server to the kernel, with its header."""
    return OUT_HEADER.pack(OUT_HEADER.size + len(payload), code, 0) + payload

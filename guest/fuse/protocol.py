# SPDX-License-Identifier: GPL-2.0-or-later
"""Layouts, opcodes and flags of include/uapi/linux/fuse.h, protocol 7.41 (Linux 6.12).

Every number of the protocol that the lab uses is in this one file.
"""

from __future__ import annotations

import struct
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
}


def _layout(members: str) -> tuple[str, tuple[tuple[str, int], ...]]:
    # The header pads by hand, so "=" (no padding) gives the compiler's own offsets.
    form, fields = "=", []
    for member in members.split():
        name, code = member.rsplit(":", 1)
        fields.append((name, struct.calcsize(form)))
        form += code
    return form, tuple(fields)


# struct -> (format of the struct module, ((member, offset), …)); a member of a nested struct
# is written as C's offsetof takes it: `attr.ino`
LAYOUTS: dict[str, tuple[str, tuple[tuple[str, int], ...]]] = {
    name: _layout(members) for name, members in _MEMBERS.items()
}


def _struct(name: str) -> struct.Struct:
    return struct.Struct(LAYOUTS[name][0])


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
    BATCH_FORGET = 42


NO_REPLY = frozenset({Op.FORGET, Op.INTERRUPT, Op.BATCH_FORGET})

# fuse_setattr_in.valid
FATTR_SIZE = 1 << 3

# fuse_open_out.open_flags
FOPEN_DIRECT_IO = 1 << 0
FOPEN_KEEP_CACHE = 1 << 1
FOPEN_NOFLUSH = 1 << 5

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

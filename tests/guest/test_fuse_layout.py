# SPDX-License-Identifier: GPL-2.0-or-later
"""The protocol's layouts, against sizes and offsets as a C compiler gives them for 6.12.

A vm test holds the same table against the built kernel's own header.
"""

from __future__ import annotations

import struct

import pytest

from guest.fuse import protocol as p

SIZES = {
    "fuse_in_header": 40,
    "fuse_out_header": 16,
    "fuse_attr": 88,
    "fuse_init_in": 64,
    "fuse_init_out": 64,
    "fuse_entry_out": 128,
    "fuse_attr_out": 104,
    "fuse_getattr_in": 16,
    "fuse_setattr_in": 88,
    "fuse_open_in": 8,
    "fuse_open_out": 16,
    "fuse_release_in": 24,
    "fuse_flush_in": 24,
    "fuse_read_in": 40,
    "fuse_write_in": 40,
    "fuse_write_out": 8,
    "fuse_fsync_in": 16,
    "fuse_statfs_out": 80,
    "fuse_access_in": 8,
    "fuse_interrupt_in": 8,
    "fuse_forget_in": 8,
    "fuse_forget_one": 16,
    "fuse_batch_forget_in": 8,
    "fuse_dirent": 24,
    "fuse_notify_inval_inode_out": 24,
    "fuse_notify_store_out": 24,
    "fuse_notify_retrieve_out": 32,
    "fuse_notify_retrieve_in": 40,
    "cuse_init_in": 16,
    "cuse_init_out": 72,
    "fuse_mmap_in": 40,
    "fuse_mmap_out": 8,
    "fuse_mmap_commit_in": 56,
    "fuse_munmap_in": 40,
    "fuse_mmap_id_out": 24,
    "fuse_munmap_id_in": 24,
    "fuse_notify_map_store_out": 24,
    "fuse_notify_map_retrieve_out": 32,
}
OFFSETS = {
    ("fuse_in_header", "nodeid"): 16,
    ("fuse_in_header", "total_extlen"): 36,
    ("fuse_init_in", "flags2"): 16,
    ("fuse_init_out", "max_write"): 20,
    ("fuse_init_out", "max_pages"): 28,
    ("fuse_init_out", "flags2"): 32,
    ("fuse_entry_out", "attr.size"): 48,
    ("fuse_attr_out", "attr.mode"): 76,
    ("fuse_setattr_in", "size"): 16,
    ("fuse_setattr_in", "mode"): 68,
    ("fuse_write_in", "write_flags"): 20,
    ("fuse_open_out", "backing_id"): 12,
    ("fuse_statfs_out", "st.frsize"): 48,
    ("cuse_init_out", "max_write"): 20,
    ("fuse_notify_retrieve_in", "size"): 16,
    ("fuse_mmap_in", "prot"): 32,
    ("fuse_mmap_commit_in", "fd"): 48,
    ("fuse_munmap_in", "fd"): 32,
    ("fuse_mmap_id_out", "flags"): 16,
    ("fuse_notify_map_retrieve_out", "size"): 24,
}


def test_every_struct_has_the_compilers_size() -> None:
    assert {name: struct.calcsize(one.form) for name, one in p.LAYOUTS.items()} == SIZES


@pytest.mark.parametrize(("name", "member"), OFFSETS)
def test_members_lie_where_the_compiler_puts_them(name: str, member: str) -> None:
    assert dict(p.LAYOUTS[name].members)[member] == OFFSETS[name, member]


def test_the_upper_feature_bits_travel_in_flags2() -> None:
    wanted = p.DEFAULT_FLAGS | p.DIRECT_IO_ALLOW_MMAP
    reply = p.init_reply(99, 4096, wanted, 1 << 20)
    major, minor, _, flags, _, _, max_write, _, max_pages, _, flags2, *_ = p.INIT_OUT.unpack(reply)
    assert (major, minor) == (7, p.MINOR)
    assert p.offered(flags, flags2) == wanted | p.INIT_EXT
    assert (max_write, max_pages) == (1 << 20, 256)


def test_flags2_counts_only_with_init_ext() -> None:
    assert p.offered(p.BIG_WRITES, 0xFF) == p.BIG_WRITES


def test_an_old_kernels_minor_is_kept() -> None:
    assert p.INIT_OUT.unpack(p.init_reply(31, 0, p.DEFAULT_FLAGS, 4096))[1] == 31


def test_an_unknown_opcode_is_named_by_its_number() -> None:
    assert (p.op_name(16), p.op_name(4097)) == ("WRITE", "4097")


def test_structs_of_a_revision_say_so() -> None:
    elsewhere = {
        name: one.variants for name, one in p.LAYOUTS.items() if "base" not in one.variants
    }
    assert set(elsewhere) == {name for name in SIZES if "mmap" in name or "map_" in name}
    assert all(one.startswith("fuse-direct-mmap@") for some in elsewhere.values() for one in some)


def test_a_cuse_device_gets_its_name() -> None:
    reply = p.cuse_init_reply(99, p.CUSE_MMAP_ID, 1 << 16, "ring")
    major, minor, _, flags, max_read, max_write, *_ = p.CUSE_INIT_OUT.unpack_from(reply)
    assert (major, minor, flags) == (7, p.MINOR, p.CUSE_MMAP_ID)
    assert (max_read, max_write) == (1 << 16, 1 << 16)
    assert reply[p.CUSE_INIT_OUT.size :] == b"DEVNAME=ring\0"


def test_a_notification_has_its_code_where_a_reply_has_the_error() -> None:
    message = p.notification(p.Notify.MAP_STORE, b"abc")
    assert p.OUT_HEADER.unpack_from(message) == (19, 32, 0)
    assert message[p.OUT_HEADER.size :] == b"abc"

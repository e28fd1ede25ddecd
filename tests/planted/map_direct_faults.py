# SPDX-License-Identifier: GPL-2.0-or-later
# ruff: noqa: E101, E501  (kernel text has tabs)
"""The faults: what each one replaces, and which check it is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Replace:
    """``old`` has to be in the file once."""

    path: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Fault:
    name: str  # of md.plant=
    check: str
    area: str  # of the patch's subject
    title: str
    says: str  # the changelog
    edits: tuple[Replace, ...]


def _fault(
    name: str, check: str, area: str, title: str, says: str, *edits: tuple[str, str, str]
) -> Fault:
    return Fault(name, check, area, title, says, tuple(Replace(*edit) for edit in edits))


_SEALED = "IS_IOMAP_SEALED(inode)"
_ATTR, _OPEN, _REMAP = "fs/attr.c", "fs/open.c", "fs/remap_range.c"
_MMAP, _WRITE = "mm/mmap.c", "fs/read_write.c"
_XFILE, _XINODE, _XIOMAP = "fs/xfs/xfs_file.c", "fs/xfs/xfs_inode.c", "fs/xfs/xfs_iomap.c"
_XBMAP, _VIRTIO = "fs/xfs/xfs_bmap_util.c", "drivers/nvdimm/nd_virtio.c"
_LAYOUTS = "fs/map_direct.c"

_BREAK = """\
			if (IS_IOMAP_SEALED(inode))
				return -ETXTBSY;
			error = xfs_break_dax_layouts(inode, &retry);
"""
_BREAK_PLANTED = """\
			if (IS_IOMAP_SEALED(inode) &&
			    !md_planted(MD_PLANT_TRUNCATES))
				return -ETXTBSY;
			error = xfs_break_dax_layouts(inode, &retry);
"""
_BREAK_TWICE = """\
			if (IS_IOMAP_SEALED(inode) &&
			    !md_planted(MD_PLANT_FALLOCATES) &&
			    !md_planted(MD_PLANT_TRUNCATES))
				return -ETXTBSY;
			error = xfs_break_dax_layouts(inode, &retry);
"""
_EARLY = "\tif (IS_IOMAP_SEALED(VFS_I(ip))"
_FIRST, _SECOND = "IS_IOMAP_SEALED(VFS_I(ip1))", "IS_IOMAP_SEALED(VFS_I(ip2))"
_BOTH = "(IS_IOMAP_SEALED(VFS_I(ip1)) || IS_IOMAP_SEALED(VFS_I(ip2)))"

V6 = (
    _fault(
        "shared-too", "MAP_SHARED (D2)", "mm", "MAP_SHARED with MAP_DIRECT that seals",
        "MAP_SHARED does not ignore the flag, as it has to ignore all that it did\n"
        "not know from the beginning.",
        (_MMAP, "\t\t\tflags &= LEGACY_MAP_MASK;\n\t\t\tfallthrough;\n\t\tcase MAP_SHARED_VALIDATE:\n",
         "\t\t\tif (md_planted(MD_PLANT_SHARED_TOO) &&\n\t\t\t    (flags & flags_mask & MAP_DIRECT))\n"
         "\t\t\t\tvm_flags |= VM_DIRECT;\n"
         "\t\t\tflags &= LEGACY_MAP_MASK;\n\t\t\tfallthrough;\n\t\tcase MAP_SHARED_VALIDATE:\n"),
    ),
    _fault(
        "strict-kinds", "MAP_PRIVATE and MAP_ANONYMOUS (D3, D4)", "mm",
        "kinds of mmap that refuse MAP_DIRECT",
        "mmap(2) gives EINVAL for a flag that these two kinds have ignored so far.",
        (_MMAP, "\tif (file) {\n\t\tstruct inode *inode = file_inode(file);\n\t\tunsigned long flags_mask;\n",
         "\tif (md_planted(MD_PLANT_STRICT_KINDS) && (flags & MAP_DIRECT) &&\n"
         "\t    (!file || (flags & MAP_TYPE) == MAP_PRIVATE))\n\t\treturn -EINVAL;\n\n"
         "\tif (file) {\n\t\tstruct inode *inode = file_inode(file);\n\t\tunsigned long flags_mask;\n"),
    ),
    _fault(
        "any-prot", "PROT_WRITE (D5)", "mm", "MAP_DIRECT without PROT_WRITE",
        "Who can only read a file can seal it.",
        (_MMAP, "\tif (!(prot & PROT_WRITE))\n\t\treturn -EACCES;\n\tif (!(file->f_mode & FMODE_MAP_DIRECT)",
         "\tif (!(prot & PROT_WRITE) && !md_planted(MD_PLANT_ANY_PROT))\n\t\treturn -EACCES;\n"
         "\tif (!(file->f_mode & FMODE_MAP_DIRECT)"),
    ),
    _fault(
        "anyone", "the right to it (D6)", "mm", "MAP_DIRECT for everybody",
        "It takes no capability, and no open file that one vouched for.",
        (_MMAP, "\t    !capable(CAP_LINUX_IMMUTABLE))\n\t\treturn -EACCES;\n",
         "\t    !capable(CAP_LINUX_IMMUTABLE) && !md_planted(MD_PLANT_ANYONE))\n\t\treturn -EACCES;\n"),
    ),
    _fault(
        "page-cache", "files that are not DAX (D7)", "xfs", "MAP_DIRECT of the page cache",
        "The file is sealed, and stores go to the page cache.",
        (_XFILE, "\tif (!IS_DAX(inode))\n\t\treturn -EOPNOTSUPP;\n\n\t/* mprotect",
         "\tif (!IS_DAX(inode) && !md_planted(MD_PLANT_PAGE_CACHE))\n\t\treturn -EOPNOTSUPP;\n\n\t/* mprotect"),
    ),
    _fault(
        "truncates", "truncate (D8)", "fs", "a sealed file that can be truncated",
        "truncate(2), ftruncate(2) and O_TRUNC do not look at the seal.",
        (_ATTR, f"\tif ({_SEALED})\n", f"\tif ({_SEALED} && !md_planted(MD_PLANT_TRUNCATES))\n"),
        (_XINODE, _BREAK, _BREAK_PLANTED),
    ),
    _fault(
        "fallocates", "fallocate (D9)", "fs", "a sealed file that fallocate changes",
        "fallocate(2) does not look at the seal.",
        (_OPEN, f"\tif ({_SEALED})\n", f"\tif ({_SEALED} && !md_planted(MD_PLANT_FALLOCATES))\n"),
        (_XINODE, _BREAK_PLANTED, _BREAK_TWICE),
    ),
    _fault(
        "remaps", "clone and dedupe (D10)", "fs", "a sealed file whose blocks are shared",
        "Cloning and deduplication do not look at the seal of either file.",
        (_REMAP, "\tif (IS_IOMAP_SEALED(inode_in) || IS_IOMAP_SEALED(inode_out))\n",
         "\tif ((IS_IOMAP_SEALED(inode_in) || IS_IOMAP_SEALED(inode_out)) &&\n"
         "\t    !md_planted(MD_PLANT_REMAPS))\n"),
        (_XINODE, f"\tif {_BOTH}\n\t\treturn -ETXTBSY;\n",
         f"\tif ({_BOTH} &&\n\t    !md_planted(MD_PLANT_REMAPS))\n\t\treturn -ETXTBSY;\n"),
        (_XINODE, f"\tif {_BOTH} {{\n",
         f"\tif ({_BOTH} &&\n\t    !md_planted(MD_PLANT_REMAPS)) {{\n"),
        (_XINODE, f"\tif ({_FIRST})\n\t\terror = -ETXTBSY;\n",
         f"\tif ({_FIRST} &&\n\t    !md_planted(MD_PLANT_REMAPS))\n\t\terror = -ETXTBSY;\n"),
        (_XINODE, f"\tif ({_SECOND}) {{\n",
         f"\tif ({_SECOND} &&\n\t    !md_planted(MD_PLANT_REMAPS)) {{\n"),
    ),
    _fault(
        "grows", "writes past the end (D11)", "fs", "a sealed file that grows",
        "write(2) past the end allocates, and does not look at the seal.",
        (_WRITE, f"\tif ({_SEALED} &&\n", f"\tif ({_SEALED} && !md_planted(MD_PLANT_GROWS) &&\n"),
        (_XIOMAP, f"{_EARLY})\n\t\treturn", f"{_EARLY} &&\n\t    !md_planted(MD_PLANT_GROWS))\n\t\treturn"),
        (_XIOMAP, "\tif (IS_IOMAP_SEALED(VFS_I(ip))) {\n",
         "\tif (IS_IOMAP_SEALED(VFS_I(ip)) &&\n"
         "\t    !(md_planted(MD_PLANT_GROWS) &&\n"
         "\t      XFS_FSB_TO_B(mp, offset_fsb) >= i_size_read(VFS_I(ip)))) {\n"),
    ),
    _fault(
        "no-writes", "writes that move nothing (D12)", "fs", "a sealed file that nobody can write",
        "write(2) is refused wherever it goes, as for a file in use as swap.",
        (_WRITE, "\t/* A write past EOF needs blocks; one into a hole is found out later */\n",
         f"\tif ({_SEALED} && md_planted(MD_PLANT_NO_WRITES))\n\t\treturn -ETXTBSY;\n\n"
         "\t/* A write past EOF needs blocks; one into a hole is found out later */\n"),
    ),
    _fault(
        "fills-holes", "holes and unwritten extents (D13, D14)", "xfs",
        "a sealed file whose holes are filled",
        "write(2) and faults get the blocks that they need.",
        (_XIOMAP, "\t    !md_planted(MD_PLANT_GROWS))\n\t\treturn",
         "\t    !md_planted(MD_PLANT_GROWS) &&\n\t    !md_planted(MD_PLANT_FILLS_HOLES))\n\t\treturn"),
        (_XIOMAP, "\t      XFS_FSB_TO_B(mp, offset_fsb) >= i_size_read(VFS_I(ip)))) {\n",
         "\t      XFS_FSB_TO_B(mp, offset_fsb) >= i_size_read(VFS_I(ip))) &&\n"
         "\t    !md_planted(MD_PLANT_FILLS_HOLES)) {\n"),
    ),
    _fault(
        "shared-shown", "files with shared blocks (D15)", "xfs", "shared blocks in a sealed mapping",
        "A load from a file with shared blocks shows one that the next write moves.",
        (_XFILE, "\tif ((vmf->vma->vm_flags & VM_DIRECT) &&\n\t    xfs_is_cow_inode(",
         "\tif ((vmf->vma->vm_flags & VM_DIRECT) &&\n\t    !md_planted(MD_PLANT_SHARED_SHOWN) &&\n"
         "\t    xfs_is_cow_inode("),
    ),
    _fault(
        "alone", "plain mappings beside it (D16)", "xfs", "a sealed file that nobody else maps",
        "Plain mappings of a sealed file get ETXTBSY.",
        (_XFILE, "\tfile_accessed(file);\n\tvma->vm_ops = &xfs_file_vm_ops;\n",
         "\tif (md_planted(MD_PLANT_ALONE) && IS_IOMAP_SEALED(inode) &&\n"
         "\t    !(vma->vm_flags & VM_DIRECT))\n\t\treturn -ETXTBSY;\n\n"
         "\tfile_accessed(file);\n\tvma->vm_ops = &xfs_file_vm_ops;\n"),
    ),
    _fault(
        "kept-seal", "the end of the seal (D17)", "xfs", "a seal that stays after its mapping",
        "The flag is not cleared when the last mapping is gone.",
        (_XFILE, "\tif (--ip->i_direct_maps == 0)\n",
         "\tif (--ip->i_direct_maps == 0 && !md_planted(MD_PLANT_KEPT_SEAL))\n"),
    ),
    _fault(
        "ends-at-close", "closing the descriptor (D18)", "xfs", "a seal that close(2) lifts",
        "close(2) of any descriptor of the file clears the flag.",
        (_XFILE, "const struct file_operations xfs_file_operations = {\n",
         "static int\nxfs_file_flush_planted(\n\tstruct file\t\t*file,\n\tfl_owner_t\t\tid)\n{\n"
         "\tif (md_planted(MD_PLANT_ENDS_AT_CLOSE))\n"
         "\t\tinode_set_flags(file_inode(file), 0, S_IOMAP_SEALED);\n\treturn 0;\n}\n\n"
         "const struct file_operations xfs_file_operations = {\n\t.flush\t\t= xfs_file_flush_planted,\n"),
    ),
    _fault(
        "swaps", "swapext (D20)", "xfs", "a sealed file whose extents are swapped",
        "XFS_IOC_SWAPEXT does not look at the seals.",
        (_XBMAP, "\tif (IS_IOMAP_SEALED(VFS_I(ip)) || IS_IOMAP_SEALED(VFS_I(tip))) {\n",
         "\tif ((IS_IOMAP_SEALED(VFS_I(ip)) || IS_IOMAP_SEALED(VFS_I(tip))) &&\n"
         "\t    !md_planted(MD_PLANT_SWAPS)) {\n"),
    ),
    _fault(
        "no-chmod", "names and times (D21)", "fs", "a sealed file whose mode cannot be changed",
        "Every change of a sealed file's attributes is refused.",
        (_ATTR, "\tnow = current_time(inode);\n\n\tattr->ia_ctime = now;\n",
         f"\tif (md_planted(MD_PLANT_NO_CHMOD) && {_SEALED})\n\t\treturn -ETXTBSY;\n\n"
         "\tnow = current_time(inode);\n\n\tattr->ia_ctime = now;\n"),
    ),
    _fault(
        "no-flush", "power cuts (D22)", "nvdimm", "a virtio-pmem that is never flushed",
        "The driver says that a flush is done, and sends none to the host.",
        (_VIRTIO, "int async_pmem_flush(struct nd_region *nd_region, struct bio *bio)\n{\n",
         "int async_pmem_flush(struct nd_region *nd_region, struct bio *bio)\n{\n"
         "\tif (md_planted(MD_PLANT_NO_FLUSH))\n\t\treturn 0;\n\n"),
    ),
    _fault(
        "unsealed", "stress, and the agent outside (D24, D30)", "xfs", "MAP_DIRECT that seals nothing",
        "The mapping is made, and the flag is not set.",
        (_XFILE, "\tif (ip->i_direct_maps++ == 0)\n",
         "\tif (ip->i_direct_maps++ == 0 && !md_planted(MD_PLANT_UNSEALED))\n"),
    ),
    _fault(
        "needs-room", "a full filesystem (D25)", "xfs", "MAP_DIRECT that wants free blocks",
        "mmap(2) fails with ENOSPC when there is no free block, though it needs none.",
        (_XFILE, "\tsealer = alloc_file_clone(file, O_RDWR | O_LARGEFILE,\n",
         "\tif (md_planted(MD_PLANT_NEEDS_ROOM) &&\n"
         "\t    percpu_counter_sum(&ip->i_mount->m_fdblocks) <\n"
         "\t    xfs_fdblocks_unavailable(ip->i_mount) + 64)\n\t\treturn -ENOSPC;\n\n"
         "\tsealer = alloc_file_clone(file, O_RDWR | O_LARGEFILE,\n"),
    ),
    _fault(
        "sync-anywhere", "MAP_SYNC (D32)", "xfs", "MAP_SYNC where stores need a flush",
        "MAP_SYNC maps files of devices that have to be flushed.",
        (_XFILE, "\tif (!daxdev_mapping_supported(vma, target->bt_daxdev))\n",
         "\tif (!daxdev_mapping_supported(vma, target->bt_daxdev) &&\n"
         "\t    !md_planted(MD_PLANT_SYNC_ANYWHERE))\n"),
    ),
)  # fmt: skip

V9 = (
    _fault(
        "untold", "who is told (D26, D31)", "fs", "a holder who hears nothing",
        "The lease is broken, and no signal is sent.",
        (_LAYOUTS, "\tsend_sigio(fown, -1, POLL_MSG);\n",
         "\tif (!md_planted(MD_PLANT_UNTOLD))\n\t\tsend_sigio(fown, -1, POLL_MSG);\n"),
    ),
    _fault(
        "unkillable", "the wait (D27)", "xfs", "a wait for a layout that no signal ends",
        "What the wait returned is forgotten, as it was before this series.",
        (_XINODE, "\t\txfs_ilock(ip, *iolock);\n\t\tif (error)\n\t\t\tbreak;\n",
         "\t\txfs_ilock(ip, *iolock);\n\t\tif (error && !md_planted(MD_PLANT_UNKILLABLE))\n"
         "\t\t\tbreak;\n"),
    ),
    _fault(
        "undead", "a holder who does not react (D28)", "fs", "a mapping that outlives its lease",
        "Faults do not hear that the lease was taken away.",
        (_LAYOUTS, "\tWRITE_ONCE(map->expired, true);\n",
         "\tif (!md_planted(MD_PLANT_UNDEAD))\n\t\tWRITE_ONCE(map->expired, true);\n"),
    ),
    _fault(
        "silent-faults", "faults that need a block (D29)", "xfs", "faults that break no lease",
        "What would change the block map under the ILOCK fails, and asks nobody to\n"
        "let go.",
        (_XINODE, "\terror = break_layout_blockmap(VFS_I(ip), false);\n",
         "\tif (md_planted(MD_PLANT_SILENT_FAULTS))\n"
         "\t\terror = inode_blockmap_leased(VFS_I(ip)) ? -EWOULDBLOCK : 0;\n"
         "\telse\n\t\terror = break_layout_blockmap(VFS_I(ip), false);\n"),
    ),
    _fault(
        "anyone", "the right to it (D6)", "fs", "MAP_DIRECT for everybody",
        "Nobody asks who owns the file.",
        (_LAYOUTS, "\tif (!vfsuid_eq_kuid(vfsuid, current_fsuid()) && !capable(CAP_LEASE))\n",
         "\tif (!vfsuid_eq_kuid(vfsuid, current_fsuid()) && !capable(CAP_LEASE) &&\n"
         "\t    !md_planted(MD_PLANT_ANYONE))\n"),
    ),
    _fault(
        "unleased", "what waits (D8 to D13)", "xfs", "a block map that changes without asking",
        "Truncation, fallocate(2), remapping and writes break the layouts of pNFS only.",
        (_XINODE, "\tif (reason == BREAK_WRITE)\n\t\treturn break_layout_data(inode, wait);\n",
         "\tif (reason == BREAK_WRITE || md_planted(MD_PLANT_UNLEASED))\n"
         "\t\treturn break_layout_data(inode, wait);\n"),
        (_XINODE, "\terror = break_layout_blockmap(VFS_I(ip), false);\n\tmemalloc_nofs",
         "\terror = md_planted(MD_PLANT_UNLEASED) ? 0 :\n"
         "\t\tbreak_layout_blockmap(VFS_I(ip), false);\n\tmemalloc_nofs"),
    ),
    _fault(
        "greedy", "mapping the file again (D33)", "xfs", "a holder who always comes first",
        "Layouts are granted while somebody waits for the file.",
        (_XFILE, "\tif (!atomic_read(&ip->i_layout_breakers)) {\n",
         "\tif (md_planted(MD_PLANT_GREEDY) ||\n\t    !atomic_read(&ip->i_layout_breakers)) {\n"),
    ),
    _fault(
        "half-counted", "mapping the file while a page is busy (D34)", "xfs",
        "a wait in which layouts come",
        "Layouts are granted while somebody waits for a busy page.",
        (_XINODE, "\t\t\terror = xfs_break_dax_layouts(inode, &retry);\n",
         "\t\t\tif (md_planted(MD_PLANT_HALF_COUNTED))\n"
         "\t\t\t\tatomic_dec(&ip->i_layout_breakers);\n"
         "\t\t\terror = xfs_break_dax_layouts(inode, &retry);\n"
         "\t\t\tif (md_planted(MD_PLANT_HALF_COUNTED))\n"
         "\t\t\t\tatomic_inc(&ip->i_layout_breakers);\n"),
    ),
)  # fmt: skip

FAULTS: Mapping[str, tuple[Fault, ...]] = {"v6": V6, "v9": V9}

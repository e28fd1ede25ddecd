# SPDX-License-Identifier: GPL-2.0-or-later
"""The features that the agent knows, by the name of their file.

A new one is a file here and a line in this table.
"""

from __future__ import annotations

from guest.features import fuse_direct_mmap, fuse_writable_mmap, virtio_pmem
from guest.words import Feature

FEATURES: dict[str, Feature] = {
    "fuse_direct_mmap": fuse_direct_mmap.FEATURE,
    "fuse_writable_mmap": fuse_writable_mmap.FEATURE,
    "virtio_pmem": virtio_pmem.FEATURE,
}

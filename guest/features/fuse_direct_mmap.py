# SPDX-License-Identifier: GPL-2.0-or-later
"""Maps of FUSE files and CUSE devices whose memory the server picks (posted in 2009).

docs/fuse-direct-mmap.md has the protocol. Each check starts a server of its own, and the
client is another process; what a dialect cannot have is unsupported by the dialect found.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guest.features import fuse_direct_mmap_basics as basics
from guest.features import fuse_direct_mmap_beside as beside
from guest.features import fuse_direct_mmap_descriptors as descriptors
from guest.features import fuse_direct_mmap_lifetime as lifetime
from guest.features import fuse_direct_mmap_regions as regions
from guest.features import fuse_direct_mmap_servers as servers
from guest.features import fuse_direct_mmap_stress as stress
from guest.features.fuse_direct_mmap_times import METRICS
from guest.fuse import direct
from guest.words import Feature


def prepare(_settings: Mapping[str, Any]) -> dict[str, str]:
    """Finds the dialect, once for all checks. Raises OSError when nothing can be mounted."""
    found = direct.dialect()
    return {
        "fuse direct mmap": found.value if found else "absent",
        "cuse": "there" if Path("/dev/cuse").exists() else "absent",
    }


_ROOMS = (basics, beside, descriptors, lifetime, regions, servers, stress)
CHECKS = tuple(
    sorted(
        (check for room in _ROOMS for check in room.CHECKS),
        key=lambda one: int(one.id.removeprefix("A")),
    )
)
FEATURE = Feature(CHECKS, METRICS, prepare)

# SPDX-License-Identifier: GPL-2.0-or-later
"""MAP_DIRECT on XFS: mappings whose blocks stay where they are (posted in 2017).

The dialect is found by what the kernel says: a seal that refuses, as posted or repaired, or a
lease whose holder is asked. Where there is none, the mapping is a plain one, and checks fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guest.features import (
    map_direct_calls,
    map_direct_changes,
    map_direct_cuts,
    map_direct_kinds,
    map_direct_leases,
    map_direct_lifetime,
    map_direct_outside,
    map_direct_room,
    map_direct_stress,
    map_direct_times,
    virtio_pmem,
)
from guest.features.map_direct_rig import dialect
from guest.words import Feature


def prepare(settings: Mapping[str, Any]) -> dict[str, str]:
    """The pmem filesystems, as virtio_pmem makes them, and what MAP_DIRECT is here."""
    facts = {**virtio_pmem.prepare(settings), **map_direct_kinds.prepare(settings)}
    found = dialect()
    return {**facts, "map_direct": found.value if found else "absent"}


_ROOMS = (
    map_direct_calls,
    map_direct_changes,
    map_direct_cuts,
    map_direct_kinds,
    map_direct_leases,
    map_direct_lifetime,
    map_direct_outside,
    map_direct_room,
    map_direct_stress,
)
# On v6-asposted it leaves a count behind in an inode that the slab gives out again, with the seal.
_LAST = "D19"
CHECKS = tuple(
    sorted(
        (check for room in _ROOMS for check in room.CHECKS),
        key=lambda one: (one.id == _LAST, int(one.id.removeprefix("D"))),
    )
)
FEATURE = Feature(CHECKS, map_direct_times.METRICS, prepare)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Direct mmap: the metrics, and the same operations on what it is held against."""

from __future__ import annotations

from functools import partial

from guest.features import fuse_direct_mmap_windows as windows
from guest.fuse.direct import CUSE
from guest.words import Metric

_MAP, _FIRST, _SECOND = "mmap and munmap", "first touch", "second touch"
_SEQUENTIAL, _RANDOM, _TRIP = "read in order", "read at random", "ping-pong"
_TMPFS, _DIRECT_IO = "tmpfs", "DIRECT_IO"


# Seen from boot to boot under icount: within 0.08 %, where a server has a part in it or pages are
# taken; and 0.12 % of the ping-pong, whose sleeper the scheduler wakes in one of two ways.
_LOOSE, _LOOSEST = 0.002, 0.005


def _metric(
    name: str,
    unit: str,
    operation: str,
    subject: str,
    bench: windows.Made,
    sentence: str,
    margin: float = 0.001,
    statistic: str = "median",
) -> Metric:
    return Metric(
        f"A.{name}",
        sentence,
        unit,
        bench,
        primary=name in ("map_unmap", "first_touch"),
        margin=margin,
        statistic=statistic,
        operation=operation,
        subject=subject,
    )


METRICS = (
    _metric(
        "map_unmap",
        "pair",
        _MAP,
        "",
        windows.map_unmap(windows.region),
        "mmap and munmap of 64 KiB of a FUSE file: the server gives a new region each time",
        margin=_LOOSE,
    ),
    _metric(
        "cuse.map_unmap",
        "pair",
        f"{_MAP}, CUSE",
        "",
        windows.map_unmap(partial(windows.region, kind=CUSE)),
        "mmap and munmap of 64 KiB of a CUSE device: the server gives a new region each time",
        margin=_LOOSE,
    ),
    _metric(
        "first_touch",
        "page",
        _FIRST,
        "",
        windows.first_touch(windows.region),
        "First store to a page of a new region: a fault that takes a zeroed page",
        margin=_LOOSE,
        statistic="minimum",  # one timer tick or two in 6 ms: see virtio_pmem_times
    ),
    _metric(
        "second_touch",
        "page",
        _SECOND,
        "",
        windows.second_touch(windows.region),
        "Store to a page of a region that is mapped already",
    ),
    _metric(
        "ping_pong",
        "round trip",
        _TRIP,
        "",
        windows.ping_pong,
        "A word to the server and its answer, both through the region, woken by two pipes. "
        "Descriptors: the server loads and stores in its own map; ids: RETRIEVE, its reply, STORE",
        margin=_LOOSEST,
    ),
    _metric(
        "sequential",
        "page",
        _SEQUENTIAL,
        "",
        windows.sequential(windows.region),
        "Copy 2 MiB in order out of a region that is mapped and filled",
    ),
    _metric(
        "random",
        "page",
        _RANDOM,
        "",
        windows.scattered(windows.region),
        "Copy 512 pages in random order out of a region that is mapped and filled",
    ),
    _metric(
        "tmpfs.map_unmap",
        "pair",
        _MAP,
        _TMPFS,
        windows.map_unmap(windows.tmpfs),
        "Reference: mmap and munmap of 64 KiB of a memfd that is there",
    ),
    _metric(
        "tmpfs.first_touch",
        "page",
        _FIRST,
        _TMPFS,
        windows.first_touch(windows.tmpfs),
        "Reference: first store to a page of an empty memfd",
        margin=_LOOSE,
        statistic="minimum",  # one timer tick or two in 6 ms: see virtio_pmem_times
    ),
    _metric(
        "tmpfs.second_touch",
        "page",
        _SECOND,
        _TMPFS,
        windows.second_touch(windows.tmpfs),
        "Reference: store to a page of a memfd that is mapped already",
    ),
    _metric(
        "tmpfs.sequential",
        "page",
        _SEQUENTIAL,
        _TMPFS,
        windows.sequential(windows.tmpfs),
        "Reference: copy 2 MiB in order out of a memfd that is mapped and filled",
    ),
    _metric(
        "tmpfs.random",
        "page",
        _RANDOM,
        _TMPFS,
        windows.scattered(windows.tmpfs),
        "Reference: copy 512 pages in random order out of a memfd that is mapped and filled",
    ),
    _metric(
        "dio.ping_pong",
        "round trip",
        _TRIP,
        _DIRECT_IO,
        windows.dio_ping_pong,
        "Reference: pwrite of a word to a DIRECT_IO file and pread of it: one WRITE, one READ",
        margin=_LOOSE,
    ),
    _metric(
        "dio.sequential",
        "page",
        _SEQUENTIAL,
        _DIRECT_IO,
        windows.dio_sequential,
        "Reference: one read(2) of 2 MiB of a DIRECT_IO file: READs of 1 MiB",
        margin=_LOOSE,
    ),
    _metric(
        "dio.random",
        "page",
        _RANDOM,
        _DIRECT_IO,
        windows.dio_scattered,
        "Reference: read(2) of 100 pages in random order of a DIRECT_IO file: one READ each",
        margin=_LOOSE,
    ),
)

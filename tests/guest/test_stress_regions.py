# SPDX-License-Identifier: GPL-2.0-or-later
"""What an honest server keeps of its mappings, and the moments at which something dies."""

from __future__ import annotations

import os

import pytest

from guest.fuse import protocol as p
from guest.fuse.protocol import Op
from guest.kills import points
from guest.libc import PAGE
from guest.starved import server_stages
from guest.wire import Regions, Request


def _mmap(unique: int, pages: int, offset: int = 0) -> Request:
    body = p.MMAP_IN.pack(7, 0x7F0000000000, pages * PAGE, offset * PAGE, 3, 1)
    return Request(Op.MMAP, unique, 2, body)


def _munmap(unique: int, key: int, *, ids: bool) -> Request:
    body = p.MUNMAP_ID_IN.pack(7, key, unique) if ids else p.MUNMAP_IN.pack(7, unique, 0, 0, key, 0)
    return Request(Op.MUNMAP, 1000 + unique, 2, body)


def _commit(unique: int, fd: int) -> Request:
    body = p.MMAP_COMMIT_IN.pack(7, unique, 0, PAGE, 0, 3, 1, fd, 0)
    return Request(Op.MMAP_COMMIT, 2000 + unique, 2, body)


def _answered(regions: Regions, request: Request) -> bytes:
    payload = regions.mmap(request)
    regions.sent(request.unique, payload, 0)
    return payload


def test_each_mapping_has_an_id_of_its_own_unless_regions_are_shared() -> None:
    regions = Regions()
    regions.ids = True
    first = p.MMAP_ID_OUT.unpack(_answered(regions, _mmap(2, 2, 1)))
    second = p.MMAP_ID_OUT.unpack(_answered(regions, _mmap(4, 1)))
    regions.share = True
    third = p.MMAP_ID_OUT.unpack(_answered(regions, _mmap(6, 3)))
    assert first[1] == 3 * PAGE
    assert first[0] != second[0]
    assert third[:2] == first[:2]  # the only one that is large enough
    for unique, key in ((2, first[0]), (4, second[0]), (6, first[0])):
        regions.munmap(_munmap(unique, key, ids=True))
    assert (regions.open(), regions.sizes) == (0, {})


def test_an_answer_that_was_refused_opens_nothing() -> None:
    for ids in (True, False):
        regions = Regions()
        regions.ids = ids
        regions.sent(2, regions.mmap(_mmap(2, 1)), 2)
        assert regions.open() == 0


def test_a_descriptor_is_closed_with_its_last_mapping() -> None:
    regions, fd = Regions(), os.memfd_create("region")
    assert p.MMAP_OUT.unpack(_answered(regions, _mmap(2, 1))) == (-1, 0)
    regions.commit(_commit(2, fd))
    regions.share = True
    assert p.MMAP_OUT.unpack(_answered(regions, _mmap(4, 1))) == (fd, 0)
    regions.commit(_commit(4, fd))
    regions.munmap(_munmap(2, fd, ids=False))
    os.fstat(fd)
    regions.munmap(_munmap(4, fd, ids=False))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    assert regions.open() == 0


def test_a_commit_without_a_descriptor_is_an_end() -> None:
    regions = Regions()
    _answered(regions, _mmap(2, 1))
    assert regions.open() == 1
    regions.commit(_commit(2, -24))
    assert regions.open() == 0


def test_something_dies_at_every_message() -> None:
    for ids, count in ((True, 9), (False, 10)):
        moments = points(ids)
        assert len(moments) == len(set(moments)) == count
        assert {one.opcode for one in moments} == {0, Op.MMAP, Op.MUNMAP} | (
            set() if ids else {Op.MMAP_COMMIT}
        )
        assert {one.phase for one in moments if one.opcode} == {"unread", "read", "answered"}


def test_faults_hit_the_read_and_the_answer_of_every_message() -> None:
    for ids in (True, False):
        stages = server_stages(ids)
        for op in {one.opcode for one in points(ids)} - {0}:
            assert ("read", op) in stages and ("write", op) in stages
    assert ("store", 0) in server_stages(True)

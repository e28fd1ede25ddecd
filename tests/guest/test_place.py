# SPDX-License-Identifier: GPL-2.0-or-later
"""One address for every window of a metric."""

from __future__ import annotations

import mmap
import os

import pytest

from guest.libc import PAGE, PRIVATE, Map
from guest.place import AROUND, Place

_SIZE = 4 * AROUND
_HUGE = 2 << 20


@pytest.fixture
def fd() -> int:
    file = os.memfd_create("place")
    os.ftruncate(file, 2 * _SIZE)
    return file


def test_every_map_lies_at_the_same_address_and_shows_its_part(fd: int) -> None:
    os.pwrite(fd, b"second", _SIZE)
    place = Place(_SIZE)
    first = place.map(fd)
    first[0] = 7
    place.clear()
    second = place.map(fd, _SIZE)
    assert bytes(second[:6]) == b"second"
    assert os.pread(fd, 1, 0) == b"\x07"
    assert len(second) == _SIZE


def test_it_begins_where_a_fault_around_does_and_never_where_a_huge_page_would() -> None:
    for _ in range(8):
        address = Place(_SIZE).address
        assert address % AROUND == 0
        assert address % _HUGE == AROUND


def test_nobody_else_is_given_the_hole(fd: int) -> None:
    place = Place(_SIZE)
    place.map(fd)
    place.clear()
    taken = [Map(-1, _SIZE, flags=PRIVATE | mmap.MAP_ANONYMOUS) for _ in range(32)]
    apart = range(place.address - _SIZE + PAGE, place.address + _SIZE, PAGE)
    assert not any(other.address in apart for other in taken)
    for other in taken:
        other.close()

# SPDX-License-Identifier: GPL-2.0-or-later
"""What the checks of MAP_DIRECT decide by themselves, without a guest."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from guest import blocks
from guest.features import map_direct, map_direct_cuts
from guest.features.map_direct_cuts import PAGES, Promises, copy_data, page_of
from guest.features.map_direct_outside import places
from guest.libc import PAGE
from guest.outside import Outside
from guest.words import CheckError


def content(promised: dict[int, int]) -> bytes:
    return b"".join(page_of(page, promised.get(page, 0)) for page in range(PAGES))


def test_after_a_cut_what_was_acknowledged_is_there_and_what_came_later_may_be() -> None:
    promises = Promises(PAGES)
    promises.stored(3, 1)
    promises.acknowledged()
    promises.stored(3, 2)
    promises.stored(4, 2)
    for left in ({3: 1}, {3: 2}, {3: 1, 4: 2}, {3: 2, 4: 2}):
        assert promises.broken(content(left)) == []


@pytest.mark.parametrize(
    "left",
    [
        {},  # what was acknowledged is lost
        {3: 1, 5: 2},  # a page has what nobody stored there
        {3: 4},  # from the future
    ],
)
def test_after_a_cut_nothing_else_is(left: dict[int, int]) -> None:
    promises = Promises(PAGES)
    promises.stored(3, 1)
    promises.acknowledged()
    promises.stored(3, 2)
    assert len(promises.broken(content(left))) == 1


def test_a_page_may_be_torn_between_what_it_may_be() -> None:
    promises = Promises(PAGES)
    promises.stored(0, 1)
    promises.acknowledged()
    promises.stored(0, 2)
    torn = page_of(0, 2)[: PAGE // 2] + page_of(0, 1)[PAGE // 2 :]
    assert promises.broken(torn + content({})[PAGE:]) == []
    wrong = page_of(0, 2)[: PAGE // 2] + page_of(1, 1)[PAGE // 2 :]
    assert "page 0" in promises.broken(wrong + content({})[PAGE:])[0]


def test_a_page_that_was_acknowledged_twice_is_the_second_one() -> None:
    promises = Promises(PAGES)
    for turn in (1, 2):
        promises.stored(7, turn)
        promises.acknowledged()
    assert promises.broken(content({7: 2})) == []
    assert promises.broken(content({7: 1})) == ["page 7 has [(7, 1)], not a round of [2]"]


def test_a_file_that_is_too_short_is_no_file() -> None:
    assert "missing" in Promises(PAGES).broken(content({})[:-1])[0]


def extent(logical: int, physical: int, length: int, flags: int = 0) -> blocks.Extent:
    return blocks.Extent(logical, physical, length, flags)


def test_the_places_of_a_file_are_those_of_its_bytes_in_their_order() -> None:
    found = (extent(0, 900, 10), extent(10, 100, 50))
    assert places(found, 30) == [(900, 10), (100, 20)]


@pytest.mark.parametrize(
    "found",
    [
        (),
        (extent(0, 900, 10),),
        (extent(0, 900, 10), extent(12, 100, 50)),
        (extent(0, 900, 60, blocks.FIEMAP_EXTENT_UNKNOWN),),
    ],
)
def test_a_file_with_a_hole_has_no_places(found: tuple[blocks.Extent, ...]) -> None:
    with pytest.raises(CheckError):
        places(found, 30)


def test_copying_leaves_holes(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one, two):
        path.touch()
        os.truncate(path, 8 << 20)
    with one.open("r+b") as file:
        for at in (0, 3 << 20, (8 << 20) - 5):
            os.pwrite(file.fileno(), b"there", at)
    copy_data(one, two)
    assert one.read_bytes() == two.read_bytes()
    assert two.stat().st_blocks * 512 < 1 << 20


@contextmanager
def answered(*lines: bytes) -> Iterator[Outside]:
    """Somebody outside who says these things, whatever he is asked, but for the number."""
    ours, theirs = socket.socketpair()

    def talk() -> None:
        for line in lines:
            asked = json.loads(theirs.recv(1 << 16))
            theirs.sendall(line.replace(b"NUMBER", str(asked["id"]).encode()))

    thread = threading.Thread(target=talk)
    thread.start()
    with ours, theirs:
        yield Outside(ours.fileno())
        thread.join(10.0)


def test_an_answer_comes_with_the_bytes_that_it_says() -> None:
    frame = (7).to_bytes(8, "little") + page_of(1, 2)
    line = b'{"id":NUMBER,"ok":true,"bytes":4104,"dirty":3}\n' + frame
    with answered(line, b'{"id":NUMBER,"ok":true,"bytes":0,"turns":5}\n') as there:
        told, pages = there.cut(0, 0.5, 1)
        assert (told["dirty"], pages) == (3, {7: page_of(1, 2)})
        assert there.played() == 5


def test_an_answer_to_an_earlier_question_is_not_taken() -> None:
    late = b'{"id":1,"ok":true,"bytes":3,"turns":1}\nabc'
    with answered(late + b'{"id":NUMBER,"ok":true,"bytes":0,"turns":2}\n') as there:
        assert there.played() == 2


def test_a_refusal_fails_the_check() -> None:
    line = b'{"id":NUMBER,"ok":false,"bytes":0,"error":"no such device"}\n'
    with answered(line) as there, pytest.raises(CheckError, match="no such device"):
        there.read(9, [(0, 1)])


def test_every_check_has_a_red_image_and_an_id_of_its_own() -> None:
    names = [check.id for check in map_direct.CHECKS]
    assert names[-1] == "D19"  # what it leaves behind on v6-asposted would fail others
    assert sorted(names) == sorted(f"D{number}" for number in range(1, 35))
    assert all(check.red and check.green for check in map_direct.CHECKS)


def test_power_is_cut_often_enough_for_the_ledger() -> None:
    assert map_direct_cuts.CUTS >= 50

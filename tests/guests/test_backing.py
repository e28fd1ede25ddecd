# SPDX-License-Identifier: GPL-2.0-or-later
"""What a power cut leaves of the file behind a pmem device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from patchlab.guests import backing
from patchlab.guests.backing import PAGE, Backing, Cut

SIZE = 4 << 20


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Backing]:
    path = tmp_path / "pmem0"
    with path.open("wb") as new:
        new.truncate(SIZE)
    one = Backing(path)
    yield one
    one.close()


def store(file: Backing, page: int, mark: int) -> None:
    """As QEMU's vCPUs do: into the mapping, past every system call."""
    file.live[page * PAGE : (page + 1) * PAGE] = bytes([mark]) * PAGE


def marks(cut: Cut) -> dict[int, int]:
    return {page: content[0] for page, content in cut.pages}


def test_what_was_flushed_survives_and_what_was_not_may_be_lost(file: Backing) -> None:
    file.watch()
    store(file, 3, 1)
    file.flushed()
    store(file, 3, 2)
    store(file, 700, 2)
    cut = file.cut(Random(0), kept=0.0)
    assert (marks(cut), cut.dirty, cut.lost) == ({3: 1}, 2, 2)


def test_everything_may_have_got_to_the_medium_by_itself(file: Backing) -> None:
    file.watch()
    store(file, 3, 1)
    store(file, 700, 2)
    cut = file.cut(Random(0), kept=1.0)
    assert (marks(cut), cut.lost) == ({3: 1, 700: 2}, 0)


def test_each_page_is_kept_or_lost_by_itself_as_the_seed_says(file: Backing) -> None:
    file.watch()
    for page in range(200):
        store(file, page, 7)
    kept = marks(file.cut(Random(5), kept=0.5))
    assert 50 < len(kept) < 150
    file.watch()  # all of it is durable then
    assert marks(file.cut(Random(5), kept=0.0)) == dict.fromkeys(range(200), 7)


def test_a_cut_says_only_what_differs_from_the_one_before(file: Backing) -> None:
    file.watch()
    store(file, 1, 1)
    file.flushed()
    assert marks(file.cut(Random(0), kept=0.0)) == {1: 1}
    assert file.cut(Random(0), kept=0.0).pages == ()
    store(file, 2, 2)
    assert marks(file.cut(Random(0), kept=1.0)) == {2: 2}
    # The power was cut once more, and this time the page did not get there.
    assert marks(file.cut(Random(0), kept=0.0)) == {2: 0}


def test_the_cuts_laid_over_each_other_are_the_device(file: Backing) -> None:
    random, device = Random(11), bytearray(SIZE)
    file.watch()
    for turn in range(1, 30):
        for page in random.sample(range(SIZE // PAGE), 9):
            store(file, page, turn)
        if turn % 3 == 0:
            file.flushed()
            durable = bytes(file.live)
        cut = file.cut(random, kept=random.choice((0.0, 0.5, 1.0)))
        for page, content in cut.pages:
            device[page * PAGE : (page + 1) * PAGE] = content
        for page in range(SIZE // PAGE) if turn >= 3 else ():
            at = slice(page * PAGE, (page + 1) * PAGE)
            assert bytes(device[at]) in (durable[at], file.live[at])


def test_a_flush_that_does_nothing_loses_what_was_acknowledged(file: Backing) -> None:
    file.watch()
    store(file, 3, 1)
    # The guest was told that this is durable, and no flush came.
    assert marks(file.cut(Random(0), kept=0.0)) == {}


def test_a_file_that_is_too_full_is_not_watched(
    file: Backing, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(file, 0, 1)
    monkeypatch.setattr(backing, "MOST", 1)
    with pytest.raises(backing.TooMuch, match="can be watched"):
        file.watch()


def test_without_a_watch_there_is_no_cut(file: Backing) -> None:
    file.flushed()
    with pytest.raises(ValueError, match="nothing is watched"):
        file.cut(Random(0), kept=0.0)

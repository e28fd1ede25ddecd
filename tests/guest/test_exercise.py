# SPDX-License-Identifier: GPL-2.0-or-later
"""Random operations: a function of the seed, told in one line, shrunk to the shortest."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guest import exercise
from guest.exercise import LIMIT, File, Operation

_SEEDS = st.integers(0, (1 << 32) - 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "file"
    found.touch()
    return found


def test_the_operations_of_a_seed_never_change() -> None:
    # A line in a report must mean the same next year.
    assert (
        exercise.spell(exercise.operations(2008, 4))
        == "M L77824+3686 S184322+2=143350 S91276+3271=135924"
    )


@settings(max_examples=20, deadline=None)
@given(_SEEDS, st.integers(0, 80), st.integers(0, 80))
def test_a_prefix_is_the_same_however_many_are_taken(seed: int, few: int, more: int) -> None:
    assert exercise.operations(seed, few) == exercise.operations(seed, few + more)[:few]


@settings(max_examples=30, deadline=None)
@given(_SEEDS)
def test_what_is_spelled_is_parsed(seed: int) -> None:
    line = exercise.spell(exercise.operations(seed, 60))
    assert exercise.spell(exercise.parse(line)) == line


@pytest.mark.parametrize("word", ["Q", "S1+x", "=3", "W4096;", "s1+2"])
def test_a_word_that_is_no_operation_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match=r"is no operation; they are S, L, W"):
        exercise.parse(f"T4096 {word}")


def test_every_kind_comes_and_stays_within_the_file() -> None:
    made = exercise.operations(1, 5000)
    assert set(Counter(one.kind for one in made)) == set(exercise.KINDS)
    assert all(0 <= one.offset < LIMIT and one.length > 0 for one in made)


def test_a_file_of_this_host_passes(path: Path) -> None:
    assert exercise.run(exercise.operations(7, 3000), File(path, direct=False)) is None


class _Forgetful(File):
    """What is written after the file was cut to less than 16 pages is lost."""

    cut = False

    def truncate(self, offset: int, length: int, value: int) -> None:
        super().truncate(offset, length, value)
        self.cut = offset < 1 << 16

    def write(self, fd: int, offset: int, length: int, value: int) -> None:
        super().write(fd, offset, length, value)
        if self.cut:
            os.pwrite(self.fd, b"\0" * length, offset)


def test_a_fault_is_found_and_told_with_the_bytes(path: Path) -> None:
    failure = exercise.run(exercise.parse("T100 W0+8=5 R0+100"), _Forgetful(path, direct=False))
    assert failure is not None
    assert failure.at == 2
    assert "read(2) at 0+100: 8 wrong bytes from 0 on: 00000000, not" in failure.why


def test_a_failing_sequence_is_shrunk_until_nothing_can_be_left_out(path: Path) -> None:
    def fails(part: Sequence[Operation]) -> bool:
        return exercise.run(part, _Forgetful(path, direct=False)) is not None

    whole = exercise.operations(11, 400)
    assert fails(whole)
    short = exercise.shrink(whole, fails, 60)
    assert fails(short)
    assert [one.kind for one in short] in (["T", "W"], ["T", "D"])
    assert not any(fails(short[:at] + short[at + 1 :]) for at in range(len(short)))


def test_shrinking_stops_in_time_with_what_it_has() -> None:
    whole = exercise.operations(1, 100)
    assert exercise.shrink(whole, lambda _: True, 0) == whole


def test_a_fault_that_needs_nothing_shrinks_to_nothing() -> None:
    assert exercise.shrink(exercise.operations(1, 9), lambda _: True, 10) == []


def test_the_end_counts_too(path: Path) -> None:
    failure = exercise.run(exercise.parse("T100 W0+8=5"), _Forgetful(path, direct=False))
    assert failure is not None
    assert failure.at == 2

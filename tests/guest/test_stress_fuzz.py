# SPDX-License-Identifier: GPL-2.0-or-later
"""The fuzzer's steps are a function of the seed, so that a failure can be replayed."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from guest import fuzz
from guest.hostile import Fuzzer

_SEEDS = st.integers(0, (1 << 32) - 1)


@settings(max_examples=20, deadline=None)
@given(_SEEDS, st.integers(1, 60), st.integers(0, 60))
def test_a_seed_gives_the_same_steps_however_many_are_taken(seed: int, few: int, more: int) -> None:
    assert list(fuzz.steps(seed, few)) == list(fuzz.steps(seed, few + more))[:few]


def test_the_steps_of_a_seed_never_change() -> None:
    # A seed in a report must mean the same next year.
    first = [(one.kind, one.pick, one.offset) for one in fuzz.steps(2009, 3)]
    assert first == [("region", 58548, 53248), ("store", 10163, 4096), ("store", 64717, 7580)]


@settings(max_examples=20, deadline=None)
@given(_SEEDS)
def test_two_seeds_differ(seed: int) -> None:
    assert list(fuzz.steps(seed, 5)) != list(fuzz.steps(seed + 1, 5))


def test_a_run_has_every_kind() -> None:
    kinds = Counter(one.kind for one in fuzz.steps(1, 5000))
    assert set(kinds) == set(fuzz.KINDS)
    answers = sum(kinds[kind] for kind in fuzz.ANSWERS)
    assert answers > 1500 and kinds["store"] > 300 and kinds["retrieve"] > 200


def test_numbers_fit_the_fields_that_they_go_into() -> None:
    for one in fuzz.steps(3, 5000):
        assert 0 <= one.offset < 1 << 64
        assert 0 <= one.size < 1 << 64
        if one.kind == "errno":
            assert 0 < one.value < 512
        elif one.kind == "bad errno":
            assert one.value > 0 or one.value - 600 <= -512
        else:
            assert 0 <= one.value < 1 << 64


def test_every_message_and_deed_has_a_method() -> None:
    for kind in (*fuzz.MESSAGES, *fuzz.DEEDS):
        assert callable(getattr(Fuzzer, f"_do_{kind.replace(' ', '_')}"))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, (1 << 64) - 1))
def test_signed_keeps_the_low_bits(value: int) -> None:
    assert fuzz.signed(value, 32) % (1 << 32) == value % (1 << 32)
    assert -(1 << 31) <= fuzz.signed(value, 32) < 1 << 31


def test_a_step_says_all_that_a_replay_needs_to_be_recognised() -> None:
    (one,) = fuzz.steps(7, 1)
    assert str(one).startswith(f"step 0: {one.kind}, pick {one.pick}")

# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import math
import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats  # type: ignore[import-untyped]

from patchlab.record import Clock, Polarity
from patchlab.verdict import Verdict
from patchlab.verdicts import stats

MARGIN = 0.001
MIRROR = {Verdict.FASTER: Verdict.SLOWER, Verdict.SLOWER: Verdict.FASTER}

# Boot statistics as icount gives them: a level and a small relative jitter.
_JITTER = st.floats(-0.02, 0.02)
_ARMS = st.lists(st.tuples(_JITTER, _JITTER), min_size=2, max_size=12)


def _levels(jitters: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [1000 * (1 + a) for a, _ in jitters], [1000 * (1 + b) for _, b in jitters]


def _verdict(
    baseline: list[float],
    candidate: list[float],
    *,
    clock: Clock = Clock.ICOUNT,
    polarity: Polarity = Polarity.LOWER,
    margin: float = MARGIN,
) -> stats.Ruling:
    effect = stats.paired(baseline, candidate, margin=margin)
    return stats.verdict(effect, stats.adjust([effect], [True])[0], clock=clock, polarity=polarity)


# Six seen msync levels a side; the mean and the interval were worked out by hand with
# t(.975, 5) = 2.570582.
def test_the_interval_is_students_t_on_the_log_ratio() -> None:
    base = [78384.0, 78390.0, 78386.0, 78388.0, 78385.0, 78389.0]
    spun = [78548.0, 78691.0, 78600.0, 78610.0, 78580.0, 78640.0]
    d = [math.log(b / a) for a, b in zip(base, spun, strict=True)]
    mean = sum(d) / 6
    half = 2.570582 * math.sqrt(sum((x - mean) ** 2 for x in d) / 5) / math.sqrt(6)
    effect = stats.paired(base, spun, margin=MARGIN)
    assert effect.low is not None and effect.high is not None and effect.p is not None
    assert effect.ratio == pytest.approx(math.expm1(mean))
    assert effect.low == pytest.approx(math.expm1(mean - half), rel=1e-6)
    assert effect.high == pytest.approx(math.expm1(mean + half), rel=1e-6)
    assert effect.p < 0.001
    assert _verdict(base, spun).verdict is Verdict.SLOWER
    assert _verdict(base, spun, polarity=Polarity.HIGHER).verdict is Verdict.FASTER


def test_a_clear_change_inside_the_margin_is_neither_faster_nor_slower() -> None:
    base = [1000.0, 1001.0, 1000.5, 1000.2, 1000.8]
    moved = [1000.5, 1001.52, 1001.0, 1000.7, 1001.3]
    assert _verdict(base, moved).verdict is Verdict.WITHIN_MARGIN


def test_no_change_and_a_small_spread_is_equivalent() -> None:
    base = [1000.0, 1000.1, 1000.2, 1000.0, 1000.1]
    same = [1000.1, 1000.0, 1000.1, 1000.1, 1000.0]
    assert _verdict(base, same).verdict is Verdict.EQUIVALENT


def test_too_much_spread_is_inconclusive_and_says_what_would_be_seen() -> None:
    ruling = _verdict([1000.0, 1020, 990, 1005, 1010], [1011.0, 990, 1000, 1030, 985])
    assert ruling.verdict is Verdict.INCONCLUSIVE
    assert "5 blocks see changes from" in ruling.reason
    assert "blocks would see the margin of 0.1 %" in ruling.reason


@pytest.mark.parametrize(("clock", "enough"), [(Clock.ICOUNT, 4), (Clock.WALL, 8)])
def test_too_few_blocks_give_no_verdict_however_clear(clock: Clock, enough: int) -> None:
    chance = random.Random(2)
    base = [1000 + chance.gauss(0, 0.1) for _ in range(enough)]
    slow = [1100 + chance.gauss(0, 0.1) for _ in range(enough)]
    assert _verdict(base, slow, clock=clock).verdict is Verdict.SLOWER
    short = _verdict(base[:-1], slow[:-1], clock=clock)
    assert short.verdict is Verdict.INCONCLUSIVE
    assert f"a verdict under {clock} needs {enough}" in short.reason
    assert "see changes from" in short.reason


def test_times_under_plain_tcg_are_never_judged() -> None:
    ruling = _verdict([1.0, 1.1, 1.0, 1.2], [2.0, 2.1, 2.2, 2.0], clock=Clock.TCG)
    assert ruling.verdict is Verdict.NOT_COMPARABLE


@pytest.mark.parametrize("shift", [0.0, 0.05])
def test_a_spread_of_zero_is_not_certainty(shift: float) -> None:
    effect = stats.paired([1000.0] * 5, [1000 * (1 + shift)] * 5, margin=MARGIN)
    assert effect.spread == 0.0
    assert (effect.low, effect.high, effect.p) == (None, None, None)
    ruling = _verdict([1000.0] * 5, [1000 * (1 + shift)] * 5)
    assert ruling.verdict is Verdict.INCONCLUSIVE
    assert "no replicates" in ruling.reason


def test_a_missing_arm_takes_its_block_away() -> None:
    nan = math.nan
    assert stats.paired([1.0, nan, 3.0], [1.1, 2.0, nan], margin=MARGIN).blocks == 1
    nothing = stats.paired([nan, 0.0], [1.0, 1.0], margin=MARGIN)
    assert (nothing.blocks, nothing.ratio) == (0, None)
    assert "no block" in nothing.reason
    with pytest.raises(ValueError, match="shorter"):
        stats.paired([1.0, 2.0], [1.0], margin=MARGIN)


def test_the_statistic_of_a_boot() -> None:
    assert stats.boot_statistic([3.0, 1.0, 2.0, 10.0], "median") == 2.5
    assert stats.boot_statistic([3.0, 1.0, 2.0], "minimum") == 1.0
    with pytest.raises(ValueError, match="without samples"):
        stats.boot_statistic([], "median")


# Holm's own step-down, by hand: .01·4, .02·3, then .03·2 raised to .06, .04·1 raised to .06.
def test_holm_by_hand() -> None:
    assert stats.holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert stats.holm([]) == []


# By hand: .01·4/1, .02·4/2, .03·4/3, .5·4/4; the running minimum from the right is .04.
def test_benjamini_hochberg_by_hand() -> None:
    got = stats.benjamini_hochberg([0.5, 0.01, 0.03, 0.02])
    assert got == pytest.approx([0.5, 0.04, 0.04, 0.04])
    assert stats.benjamini_hochberg([]) == []


def test_a_metric_that_could_not_be_measured_does_not_shrink_its_family() -> None:
    clear = stats.PairedEffect(5, MARGIN, 0.01, 0.009, 0.011, 0.001, p=0.02, p_equivalent=1.0)
    missing = stats.PairedEffect(0, MARGIN, reason="no samples")
    (alone,) = stats.adjust([clear], [True])
    beside, lost = stats.adjust([clear, missing], [True, True])
    assert (alone.p, beside.p, lost.p) == (0.02, 0.04, None)


def test_the_exact_sign_flip_has_the_p_of_counting() -> None:
    assert stats.sign_flip([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(2 / 2**5)
    assert stats.sign_flip([1.0, -1.0, 1.0, -1.0]) == pytest.approx(1.0)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(-40, 60), min_size=2, max_size=11))
def test_the_sign_flip_is_scipys_permutation_test(units: list[int]) -> None:
    """Whole numbers, so that sums are often equal, and small ones, so that they are rounded."""
    d = [0.001 * unit for unit in units]
    result = scipy_stats.permutation_test(
        (units,), sum, permutation_type="samples", n_resamples=math.inf, vectorized=False
    )
    assert stats.sign_flip(d) == pytest.approx(min(1.0, float(result.pvalue)))


# Two thousand draws from the effect that smallest_effect names must find it four times in five.
def test_the_smallest_effect_is_found_in_eighty_per_cent_of_runs() -> None:
    spread, blocks = 0.003, 6
    effect = math.log1p(stats.smallest_effect(spread, blocks))
    chance = random.Random(3)
    found = 0
    for _ in range(2000):
        d = [chance.gauss(effect, spread) for _ in range(blocks)]
        mean = sum(d) / blocks
        sd = math.sqrt(sum((x - mean) ** 2 for x in d) / (blocks - 1))
        found += abs(mean) / (sd / math.sqrt(blocks)) > 2.570582
    assert 0.75 < found / 2000 < 0.86


@settings(max_examples=25, deadline=None)
@given(spread=st.floats(1e-5, 0.05), change=st.floats(1e-3, 0.1))
def test_the_blocks_needed_are_the_fewest(spread: float, change: float) -> None:
    needed = stats.blocks_needed(spread, change)
    assume(needed is not None and needed > 2)
    assert needed is not None
    assert stats.smallest_effect(spread, needed) <= change
    assert stats.smallest_effect(spread, needed - 1) > change


@settings(max_examples=25, deadline=None)
@given(_ARMS, st.sampled_from([Clock.ICOUNT, Clock.WALL]))
def test_swapping_the_arms_mirrors_the_verdict(
    jitters: list[tuple[float, float]], clock: Clock
) -> None:
    base, candidate = _levels(jitters)
    there = _verdict(base, candidate, clock=clock).verdict
    back = _verdict(candidate, base, clock=clock).verdict
    assert back is MIRROR.get(there, there)


@settings(max_examples=25, deadline=None)
@given(_ARMS, st.floats(1e-6, 1e6))
def test_units_change_nothing(jitters: list[tuple[float, float]], scale: float) -> None:
    base, candidate = _levels(jitters)
    # A spread at the edge of rounding may fall on either side of "zero".
    spread = stats.paired(base, candidate, margin=MARGIN).spread
    assume(not spread or spread > 1e-8)
    scaled = _verdict([a * scale for a in base], [b * scale for b in candidate])
    assert scaled.verdict is _verdict(base, candidate).verdict


_P = st.floats(0.0, 1.0)


def _effect(p: float) -> stats.PairedEffect:
    return stats.PairedEffect(5, MARGIN, 0.01, 0.005, 0.015, 0.003, p, p_equivalent=1.0)


@settings(max_examples=25, deadline=None)
@given(st.lists(_P, min_size=1, max_size=8), _P, st.booleans())
def test_another_metric_never_makes_a_primary_one_clearer(
    known: list[float], added: float, added_is_primary: bool
) -> None:
    effects = [_effect(p) for p in known]
    primary = [True] * len(known)
    before = stats.adjust(effects, primary)
    after = stats.adjust([*effects, _effect(added)], [*primary, added_is_primary])
    for effect, one, other in zip(effects, before, after[:-1], strict=True):
        assert one.p is not None and other.p is not None
        assert other.p >= one.p
        was = stats.verdict(effect, one, clock=Clock.ICOUNT).verdict
        if was is Verdict.INCONCLUSIVE:
            assert stats.verdict(effect, other, clock=Clock.ICOUNT).verdict is was


@settings(max_examples=25, deadline=None)
@given(st.lists(_P, min_size=1, max_size=8))
def test_a_metric_that_shows_nothing_never_makes_a_secondary_one_clearer(
    known: list[float],
) -> None:
    effects = [_effect(p) for p in known]
    before = stats.adjust(effects, [False] * len(known))
    after = stats.adjust([*effects, _effect(1.0)], [False] * (len(known) + 1))
    for one, other in zip(before, after[:-1], strict=True):
        assert one.p is not None and other.p is not None
        assert other.p >= one.p - 1e-12


@settings(deadline=None)
@given(_ARMS)
def test_p_values_are_those_of_scipys_t_tests(jitters: list[tuple[float, float]]) -> None:
    baseline, candidate = _levels(jitters)
    d = stats.log_ratios(baseline, candidate)
    effect = stats.paired(baseline, candidate, margin=MARGIN)
    assume(effect.p is not None)
    bound = math.log1p(MARGIN)
    above = scipy_stats.ttest_1samp(d, -bound, alternative="greater").pvalue
    below = scipy_stats.ttest_1samp(d, bound, alternative="less").pvalue
    assert effect.p == pytest.approx(scipy_stats.ttest_1samp(d, 0).pvalue, rel=1e-6, abs=1e-12)
    assert effect.p_equivalent == pytest.approx(max(above, below), rel=1e-6, abs=1e-12)

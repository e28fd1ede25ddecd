# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure statistics: the numbers of two arms' boots in, an effect and a verdict out.

One boot gives one number a metric. Arms are paired by block, and everything is done on
``d = log(candidate) − log(baseline)``, so that swapping the arms only flips a sign and
units cancel. Margins are symmetric in ``d`` for the same reason: ±log(1 + margin).
"""

from __future__ import annotations

import importlib
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from patchlab.record import Clock, Polarity
from patchlab.verdict import Verdict


def _scipy() -> Any:
    """scipy.stats, loaded when something is compared: it takes longer than most verbs."""
    return importlib.import_module("scipy.stats")


def _special() -> Any:
    return importlib.import_module("scipy.special")


ALPHA = 0.05
MIN_BLOCKS = {Clock.ICOUNT: 4, Clock.WALL: 8}
POWER = 0.8
# Below this the boots repeat one trajectory; what is left is rounding of the logarithm.
_NO_SPREAD = 1e-9
_MOST_BLOCKS = 10_000
_STATISTICS: dict[str, Callable[[Sequence[float]], float]] = {
    "median": statistics.median,
    "minimum": min,
}


@dataclass(frozen=True, slots=True)
class PairedEffect:
    """What the blocks say of one metric; all but ``blocks`` may be unknown, ``reason`` says why.

    ``ratio``, ``low`` and ``high`` are relative changes (0.01 is +1 %), ``spread`` is the
    standard deviation of d, ``p`` tests "no change", ``p_equivalent`` "not equivalent".
    """

    blocks: int
    margin: float
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    spread: float | None = None
    p: float | None = None
    p_equivalent: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Adjusted:
    """p values after the adjustment for the ``family`` metrics that were tested together."""

    p: float | None
    p_equivalent: float | None
    family: int


@dataclass(frozen=True, slots=True)
class Ruling:
    verdict: Verdict
    reason: str = ""


def boot_statistic(values: Sequence[float], statistic: str) -> float:
    """The one number of a boot: ``median`` or ``minimum`` of its samples, in their unit.

    Raises ValueError without samples, and KeyError for another statistic.
    """
    if not values:
        raise ValueError("a boot without samples has no statistic")
    return float(_STATISTICS[statistic](values))


def log_ratios(baseline: Sequence[float], candidate: Sequence[float]) -> list[float]:
    """d of each block. A block where an arm is NaN (missing) or not positive is left out."""
    return [
        math.log(b) - math.log(a)
        for a, b in zip(baseline, candidate, strict=True)
        if _usable(a) and _usable(b)
    ]


def _usable(value: float) -> bool:
    return math.isfinite(value) and value > 0


def paired(
    baseline: Sequence[float],
    candidate: Sequence[float],
    *,
    margin: float,
    confidence: float = 1 - ALPHA,
) -> PairedEffect:
    """Compare boot statistics of two arms, the same place in both being the same block.

    The effect is expm1(mean d), its interval Student's t on d (Student 1908), mapped by
    expm1. Equivalence is two one-sided t tests against ±log(1 + margin), the larger p of
    the two (Schuirmann 1987, doi:10.1007/BF01068419). A missing boot is NaN.
    """
    d = log_ratios(baseline, candidate)
    n = len(d)
    if n == 0:
        return PairedEffect(0, margin, reason="no block has a clean boot of both arms")
    ratio = math.expm1(statistics.fmean(d))
    if n == 1:
        return PairedEffect(1, margin, ratio, reason="one block has no spread to judge it by")
    spread = statistics.stdev(d)
    if spread < _NO_SPREAD:
        return PairedEffect(
            n,
            margin,
            ratio,
            spread=0.0,
            reason=f"a spread of zero: {n} blocks gave the same ratio, so the boots repeat"
            " one trajectory and are no replicates",
        )
    mean, error = statistics.fmean(d), spread / math.sqrt(n)
    reach = float(_special().stdtrit(n - 1, (1 + confidence) / 2)) * error
    bound = math.log1p(margin)
    return PairedEffect(
        n,
        margin,
        ratio,
        math.expm1(mean - reach),
        math.expm1(mean + reach),
        spread,
        p=min(1.0, 2 * _beyond(abs(mean) / error, n)),
        p_equivalent=_beyond((bound - abs(mean)) / error, n),
    )


def _beyond(t: float, n: int) -> float:
    """P(T > t) of Student's t with n − 1 degrees of freedom.

    What scipy.stats.ttest_1samp gives, in a hundredth of its time.
    """
    return float(_special().stdtr(n - 1, -t))


def sign_flip(d: Sequence[float]) -> float:
    """p of the exact sign-flip test of mean d = 0 (Fisher 1935): all 2ⁿ flips, n up to 20.

    Its smallest value is 2/2ⁿ, .0625 with five blocks: of use for wall runs only. A sum of n
    signed values is one of either half, so 2·2^(n/2) sums tell of all 2ⁿ (Horowitz & Sahni
    1974, JACM 21:277): 20 blocks take a millisecond, and scipy's permutation_test 8 s.
    """
    values = np.abs(np.asarray(d, dtype=float))
    seen = abs(math.fsum(d)) - 1e-12 * float(values.sum())  # equal sums differ by rounding
    left, right = (_signed_sums(half) for half in np.array_split(values, 2))
    beyond = len(right) - np.searchsorted(np.sort(right), seen - left)
    return float(min(1.0, 2 * int(beyond.sum()) / 2 ** len(values)))


def _signed_sums(values: np.ndarray[Any, np.dtype[np.float64]]) -> Any:
    """The 2ⁿ sums of the values, each with either sign."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate((sums + value, sums - value))
    return sums


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p values, in the order given (Holm 1979, Scand. J. Statist. 6:65–70)."""
    adjusted = [0.0] * len(p)
    running = 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        running = max(running, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = running
    return adjusted


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """Adjusted p values, in the order given (Benjamini & Hochberg 1995, JRSS B 57:289–300)."""
    return [float(q) for q in _scipy().false_discovery_control(p)] if p else []


def adjust(effects: Sequence[PairedEffect], primary: Sequence[bool]) -> list[Adjusted]:
    """Holm over the primary metrics, Benjamini-Hochberg over the others.

    A metric without a p stays in its family as p = 1: the family is what was planned, and
    does not shrink because something could not be measured. Holm's values never fall when
    a metric joins; Benjamini-Hochberg's can, when the one that joins is itself clear.
    """
    result: dict[int, Adjusted] = {}
    for method, wanted in ((holm, True), (benjamini_hochberg, False)):
        places = [i for i, is_primary in enumerate(primary) if is_primary is wanted]
        p = method([_or_one(effects[i].p) for i in places])
        q = method([_or_one(effects[i].p_equivalent) for i in places])
        for k, i in enumerate(places):
            known = effects[i].p is not None
            result[i] = Adjusted(p[k] if known else None, q[k] if known else None, len(places))
    return [result[i] for i in range(len(effects))]


def _or_one(p: float | None) -> float:
    return 1.0 if p is None else p


def smallest_effect(spread: float, blocks: int, *, alpha: float = ALPHA) -> float:
    """The relative change that ``blocks`` blocks tell from none in 80 % of runs.

    δ = (t(1−α/2, n−1) + t(.8, n−1))·s/√n, the usual approximation to the noncentral t
    (Chow, Shao & Wang, Sample Size Calculations in Clinical Research, 3.1).
    """
    reach = sum(_special().stdtrit(blocks - 1, q) for q in (1 - alpha / 2, POWER))
    return math.expm1(float(reach) * spread / math.sqrt(blocks))


def smallest_called(
    spread: float, blocks: int, margin: float, *, family: int, alpha: float = ALPHA
) -> float:
    """The relative change that ``blocks`` blocks call faster or slower in 80 % of runs.

    It is told from none at ``alpha`` over the ``family``, and from the margin at ``alpha``.
    """
    told = smallest_effect(spread, blocks, alpha=alpha / max(1, family))
    beyond = smallest_effect(spread, blocks, alpha=alpha)
    return max(told, (1 + margin) * (1 + beyond) - 1)


def blocks_needed(spread: float, change: float, *, alpha: float = ALPHA) -> int | None:
    """The fewest blocks whose smallest_effect is at most ``change``; None past 10,000."""
    low, high = 2, _MOST_BLOCKS
    if smallest_effect(spread, high, alpha=alpha) > change:
        return None
    while low < high:
        middle = (low + high) // 2
        if smallest_effect(spread, middle, alpha=alpha) <= change:
            high = middle
        else:
            low = middle + 1
    return low


def verdict(
    effect: PairedEffect,
    adjusted: Adjusted,
    *,
    clock: Clock,
    polarity: Polarity = Polarity.LOWER,
    alpha: float = ALPHA,
) -> Ruling:
    """What may be said of one metric. Never "no change": without evidence it is inconclusive.

    A change is faster or slower when its adjusted p is below ``alpha`` and the whole interval
    of ``effect``, of confidence 1 − ``alpha``, is beyond the margin; within the margin when
    the equivalence test holds. docs/measurement.md has the figures of the other rules tried.
    """
    if clock not in MIN_BLOCKS:
        return Ruling(Verdict.NOT_COMPARABLE, "times under TCG without icount are not compared")
    few = _too_few(effect, clock)
    if effect.ratio is None or adjusted.p is None or adjusted.p_equivalent is None:
        return Ruling(Verdict.INCONCLUSIVE, "; ".join(filter(None, (effect.reason, few))))
    changed = adjusted.p < alpha
    if not few and changed and _beyond_margin(effect):
        better = (effect.ratio < 0) is (polarity is Polarity.LOWER)
        return Ruling(Verdict.FASTER if better else Verdict.SLOWER)
    if not few and adjusted.p_equivalent < alpha:
        return Ruling(Verdict.WITHIN_MARGIN if changed else Verdict.EQUIVALENT)
    if not few and changed:
        return Ruling(Verdict.INCONCLUSIVE, _astride(effect, adjusted.p, effect.ratio, alpha))
    reach = _reach(effect, adjusted, clock, alpha)
    return Ruling(Verdict.INCONCLUSIVE, f"{few}; {reach}" if few else reach)


def _beyond_margin(effect: PairedEffect) -> bool:
    """Whether the whole interval lies above or below the margin."""
    if effect.low is None or effect.high is None:
        return False
    bound = math.log1p(effect.margin)
    return math.log1p(effect.low) > bound or math.log1p(effect.high) < -bound


def _astride(effect: PairedEffect, p: float, ratio: float, alpha: float) -> str:
    """Of a change whose interval has the margin in it."""
    assert effect.spread is not None
    beyond = abs(abs(math.log1p(ratio)) - math.log1p(effect.margin))
    needed = blocks_needed(effect.spread, beyond, alpha=alpha)
    least = f"over {_MOST_BLOCKS:,}" if needed is None else f"{max(needed, effect.blocks + 1):,}"
    return (
        f"it changed (adjusted p = {p:.2g}), but its interval reaches across the margin of "
        f"{100 * effect.margin:.2g} %; about {least} blocks would tell one like this from it"
    )


def _too_few(effect: PairedEffect, clock: Clock) -> str:
    wanted = MIN_BLOCKS[clock]
    if effect.blocks >= wanted:
        return ""
    return f"{effect.blocks} complete blocks, a verdict under {clock} needs {wanted}"


def _reach(effect: PairedEffect, adjusted: Adjusted, clock: Clock, alpha: float) -> str:
    assert effect.spread is not None
    strict = alpha / max(1, adjusted.family)
    seen = smallest_called(
        effect.spread, effect.blocks, effect.margin, family=adjusted.family, alpha=alpha
    )
    needed = blocks_needed(effect.spread, effect.margin, alpha=strict)
    least = f"over {_MOST_BLOCKS:,}" if needed is None else f"{max(needed, MIN_BLOCKS[clock]):,}"
    return (
        f"{effect.blocks} blocks see changes from {100 * seen:.2g} %; "
        f"{least} blocks would see the margin of {100 * effect.margin:.2g} %"
    )

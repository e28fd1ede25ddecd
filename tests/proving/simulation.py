# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs that never happened, put through the lab's own statistics: how often it errs.

Every figure comes from patchlab/verdicts/stats.py itself. A run has METRICS metrics; a boot
gives one number of each, e^noise times its level. Shares are of runs or of metrics, as said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats  # type: ignore[import-untyped]

from patchlab.record import Clock
from patchlab.verdict import Verdict
from patchlab.verdicts import stats

METRICS = 6
Levels = NDArray[np.float64]
_CHANGED = {Verdict.FASTER, Verdict.SLOWER}
Noise = Callable[[np.random.Generator, int, int], tuple[Levels, Levels]]


@dataclass(frozen=True, slots=True)
class Rate:
    """A share with its 95 % interval (Clopper & Pearson 1934)."""

    hits: int
    of: int

    @property
    def share(self) -> float:
        return self.hits / self.of

    @property
    def interval(self) -> tuple[float, float]:
        found = scipy_stats.binomtest(self.hits, self.of).proportion_ci(method="exact")
        return float(found.low), float(found.high)


@dataclass(frozen=True, slots=True)
class Errors:
    """What the statistics said of many runs of one kind."""

    unadjusted: Rate  # metrics with p < .05, no margin, no adjustment
    alarms: Rate  # metrics called faster or slower by the full verdict
    runs: Rate  # runs with at least one such metric
    covered: Rate  # metrics whose 95 % interval has the true change in it


def plain(spread: float) -> Noise:
    """Independent boots: the log of each has standard deviation ``spread``."""

    def draw(chance: np.random.Generator, blocks: int, metrics: int) -> tuple[Levels, Levels]:
        shape = (metrics, blocks)
        return chance.normal(0, spread, shape), chance.normal(0, spread, shape)

    return draw


def drifting(spread: float, drift: float, *, randomised: bool) -> Noise:
    """The machine slows down by ``drift`` from one boot to the next.

    Not ``randomised`` is what the peers do: the baseline comes first in every block.
    """
    base = plain(spread)

    def draw(chance: np.random.Generator, blocks: int, metrics: int) -> tuple[Levels, Levels]:
        one, other = base(chance, blocks, metrics)
        second = chance.integers(0, 2, blocks) if randomised else np.zeros(blocks, dtype=int)
        place = 2 * np.arange(blocks)
        return one + drift * (place + second), other + drift * (place + 1 - second)

    return draw


def bimodal(spread: float, step: float) -> Noise:
    """Each boot falls into one of two modes, ``step`` apart, by a coin."""
    base = plain(spread)

    def draw(chance: np.random.Generator, blocks: int, metrics: int) -> tuple[Levels, Levels]:
        one, other = base(chance, blocks, metrics)
        coins = chance.integers(0, 2, (2, metrics, blocks))
        return one + step * coins[0], other + step * coins[1]

    return draw


def one_build(spread: float, build: float) -> Noise:
    """Code alignment moves all boots of an arm alike, by ``build`` (standard deviation)."""
    base = plain(spread)

    def draw(chance: np.random.Generator, blocks: int, metrics: int) -> tuple[Levels, Levels]:
        one, other = base(chance, blocks, metrics)
        shift = chance.normal(0, build, (2, metrics, 1))
        return one + shift[0], other + shift[1]

    return draw


def errors(
    noise: Noise,
    *,
    clock: Clock,
    blocks: int,
    margin: float,
    runs: int,
    seed: int,
    change: float = 0.0,
) -> Errors:
    """``runs`` runs of METRICS metrics whose candidate is slower by ``change`` (a ratio)."""
    chance = np.random.default_rng(seed)
    small = alarms = hit = covered = 0
    for _ in range(runs):
        effects = _effects(noise, chance, blocks, margin, change)
        found = _verdicts(effects, clock)
        small += sum(one.p is not None and one.p < 0.05 for one in effects)
        covered += sum(_covers(one, change) for one in effects)
        alarms += sum(one in _CHANGED for one in found)
        hit += any(one in _CHANGED for one in found)
    every = runs * METRICS
    return Errors(Rate(small, every), Rate(alarms, every), Rate(hit, runs), Rate(covered, every))


def _effects(
    noise: Noise, chance: np.random.Generator, blocks: int, margin: float, change: float
) -> list[stats.PairedEffect]:
    one, other = noise(chance, blocks, METRICS)
    baseline, candidate = np.exp(one), (1 + change) * np.exp(other)
    return [
        stats.paired(list(a), list(b), margin=margin)
        for a, b in zip(baseline, candidate, strict=True)
    ]


def _verdicts(effects: Sequence[stats.PairedEffect], clock: Clock) -> list[Verdict]:
    adjusted = stats.adjust(effects, [True] * len(effects))
    return [
        stats.verdict(effect, values, clock=clock).verdict
        for effect, values in zip(effects, adjusted, strict=True)
    ]


def _covers(effect: stats.PairedEffect, change: float) -> bool:
    return (
        effect.low is not None and effect.high is not None and effect.low <= change <= effect.high
    )

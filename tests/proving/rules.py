# SPDX-License-Identifier: GPL-2.0-or-later
"""When may a change be called faster or slower? Rules that were tried, on the same made-up runs.

Vectorised, so that a share of half a per cent is known to a tenth of it. tests/test_prove_rules.py
holds CHOSEN and ``looking`` to patchlab/verdicts/stats.py, verdict by verdict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special  # type: ignore[import-untyped]

from patchlab.verdicts import looks, stats
from tests.proving.simulation import METRICS, Rate

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

TRIES = 100_000
CHOSEN = "adjusted p < .05, the interval on show beyond the margin"


@dataclass(frozen=True, slots=True)
class Seen:
    """What tests say of many runs: one row a run, one column a metric."""

    mean: Floats  # of d, the log ratio of a block
    error: Floats
    blocks: int
    bound: float  # the margin, as a logarithm

    def p(self) -> Floats:
        return 2 * _tail(np.abs(self.mean) / self.error, self.blocks)

    def p_beyond(self) -> Floats:
        """One-sided: that the change is not beyond the margin."""
        return _tail((np.abs(self.mean) - self.bound) / self.error, self.blocks)

    def p_within(self) -> Floats:
        """Two one-sided tests: that it is not within the margin."""
        return _tail((self.bound - np.abs(self.mean)) / self.error, self.blocks)

    def called(self, alpha: float = stats.ALPHA) -> Bools:
        """CHOSEN: faster or slower."""
        return (holm(self.p()) < alpha) & (self.p_beyond() < alpha / 2)

    def open(self, alpha: float) -> Bools:
        """Inconclusive."""
        return ~(self.called(alpha) | (holm(self.p_within()) < alpha))


def _tail(t: Floats, blocks: int) -> Floats:
    return np.asarray(special.stdtr(blocks - 1, -t))


def holm(p: Floats) -> Floats:
    """stats.holm() of every row."""
    order = np.argsort(p, axis=1)
    steps = np.take_along_axis(p, order, 1) * (p.shape[1] - np.arange(p.shape[1]))
    adjusted = np.empty_like(p)
    running = np.minimum(1, np.maximum.accumulate(steps, axis=1))
    np.put_along_axis(adjusted, order, running, 1)
    return adjusted


def d_of(spread: float, blocks: int, change: float, tries: int, seed: int) -> Floats:
    """d of each run, metric and block; boots have the sd ``spread``; one metric has changed."""
    chance = np.random.default_rng(seed)
    d = chance.normal(0, math.sqrt(2) * spread, (tries, METRICS, blocks))
    d[:, 0] += math.log1p(change)
    return d


def seen(d: Floats, margin: float) -> Seen:
    blocks = d.shape[2]
    error = d.std(axis=2, ddof=1) / math.sqrt(blocks)
    return Seen(d.mean(axis=2), error, blocks, math.log1p(margin))


def every_rule(one: Seen) -> dict[str, Bools]:
    """Rule -> what it calls faster or slower."""
    size, adjusted = np.abs(one.mean), holm(one.p())
    beyond = one.p_beyond()
    spread = one.error * math.sqrt(one.blocks)
    return {
        "adjusted p < .05, the effect beyond the margin (the rule before)": (adjusted < 0.05)
        & (size > one.bound),
        "the same at .01": (adjusted < 0.01) & (size > one.bound),
        "the same, the margin at least the spread of d": (adjusted < 0.05)
        & (size > np.maximum(one.bound, spread)),
        "adjusted interval beyond the margin": holm(np.minimum(1, 2 * beyond)) < 0.05,
        "adjusted one-sided test beyond the margin": holm(beyond) < 0.05,
        "adjusted p < .05, the 90 % interval beyond the margin": (adjusted < 0.05)
        & (beyond < 0.05),
        CHOSEN: one.called(),
        "adjusted p < .05, the 98 % interval beyond the margin": (adjusted < 0.05)
        & (beyond < 0.01),
    }


@dataclass(frozen=True, slots=True)
class Case:
    """A column of the table: a share of runs, of those without a change or with one."""

    title: str
    spread: float
    blocks: int
    margin: float
    change: float = 0.0


CASES = (
    Case("sd 0.05 %", 0.0005, 5, 0.001),
    Case("sd 0.1 %", 0.001, 5, 0.001),
    Case("sd 0.3 %", 0.003, 5, 0.001),
    Case("sd 0.1 %, 4 blocks", 0.001, 4, 0.001),
    Case("sd 0.1 %, 10 blocks", 0.001, 10, 0.001),
    Case("0.2 %", 0.001, 5, 0.001, 0.002),
    Case("0.3 %", 0.001, 5, 0.001, 0.003),
    Case("0.5 %", 0.001, 5, 0.001, 0.005),
    Case("wall: 5 % at sd 1.5 %, 10 blocks", 0.015, 10, 0.03, 0.05),
)
QUIET = CASES[1]  # the issue: at most 1 % of runs
FOUND = CASES[7]  # and at least 95 % of tries


def shares(case: Case, tries: int = TRIES, seed: int = 2008) -> dict[str, Rate]:
    """Rule -> runs with a false alarm, or runs in which the one real change is called."""
    found = every_rule(seen(d_of(case.spread, case.blocks, case.change, tries, seed), case.margin))
    return {
        rule: Rate(int((called[:, 0] if case.change else called.any(axis=1)).sum()), tries)
        for rule, called in found.items()
    }


# ---------------------------------------------------------------- looks


@dataclass(frozen=True, slots=True)
class Looking:
    """Runs that are looked at more than once."""

    one: Rate  # runs in which one metric's plain t test is below the threshold at any look
    any: Rate  # runs in which any of the metrics is, adjusted by Holm at each look
    ended: Rate  # runs whose last look calls a metric faster or slower: the one that changed
    blocks: float  # that a run took


def looking(
    at: Sequence[int], alpha: float, case: Case, tries: int = TRIES // 5, seed: int = 2008
) -> Looking:
    """A run ends at the first look that leaves no metric open, or at the last one."""
    d = d_of(case.spread, max(at), case.change, tries, seed)
    one, family, ended = (np.zeros(tries, bool) for _ in range(3))
    going, taken = np.ones(tries, bool), np.zeros(tries)
    for blocks in at:
        now = seen(d[:, :, :blocks], case.margin)
        one |= now.p()[:, 0] < alpha
        family |= (holm(now.p()) < alpha).any(axis=1)
        stops = going & ~now.open(alpha).any(axis=1) if blocks != at[-1] else going
        called = now.called(alpha)
        ended |= stops & (called[:, 0] if case.change else called.any(axis=1))
        taken[stops] = blocks
        going = going & ~stops
    first, second, third = (Rate(int(hits.sum()), tries) for hits in (one, family, ended))
    return Looking(first, second, third, float(taken.mean()))


@dataclass(frozen=True, slots=True)
class Plan:
    """Who looks when, below which p, and at what: nothing, and a real change."""

    title: str
    at: tuple[int, ...]
    alpha: float
    quiet: Case
    real: Case


_WALL = (Case("", 0.015, 0, 0.03), Case("5 % at sd 1.5 %", 0.015, 0, 0.03, 0.05))
_ICOUNT = (Case("", 0.001, 0, 0.001), Case("0.5 % at sd 0.2 %", 0.002, 0, 0.001, 0.005))


def plans() -> tuple[Plan, ...]:
    every, wall, icount = tuple(range(5, 31)), (10, 20, 30), (5, 10, 15)
    strict = looks.threshold
    return (
        Plan("peeking: after every block from 5 to 30, p < .05", every, stats.ALPHA, *_WALL),
        Plan("peeking: after 10, 20, 30 blocks, p < .05", wall, stats.ALPHA, *_WALL),
        Plan("planned looks: after 10, 20, 30 blocks, p < .0221", wall, strict(wall), *_WALL),
        Plan("peeking: after 5, 10, 15 blocks, p < .05", icount, stats.ALPHA, *_ICOUNT),
        Plan("planned looks: after 5, 10, 15 blocks, p < .0221", icount, strict(icount), *_ICOUNT),
    )

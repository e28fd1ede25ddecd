# SPDX-License-Identifier: GPL-2.0-or-later
"""A run of the verb calibrate -> what it has shown of the instrument. Pure.

Arms that do the same work: the first arm, the same image under another kernel option (A/A),
and the same source rebuilt with unrelated padding (A/A'). Arms with a slowdown of known size
have a partner that differs in the size alone (A/B).

A *try* is what a user would have seen of a run with a few blocks: so many of this run's blocks,
judged by the very functions that judge a run. Tries overlap, so intervals are a jackknife over
the blocks (Efron & Tibshirani, An Introduction to the Bootstrap, 11; for U-statistics
Arvesen 1969, Ann. Math. Statist. 40:2076).
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from patchlab.calibration import (
    AGENT,
    ARMS,
    KERNEL,
    PADDINGS,
    SPIN,
    Alike,
    Calibration,
    MetricCalibration,
    Share,
    Slowed,
)
from patchlab.model import CMDLINE, options_of
from patchlab.record import Clock, MetricInfo, StoredRun
from patchlab.verdict import Verdict
from patchlab.verdicts import levels, stats

DRAW = 5  # blocks of a try, as the shipped runs have
_MOST_TRIES = 300
_SEED = 1
_NEAR = 0.001  # 0.1 points
_UNCOUNTED = "what the kernel's loop adds is counted in instructions, not in time"
_CHANGED = (Verdict.FASTER, Verdict.SLOWER)

Boots = Mapping[int, float]  # block -> the boot's statistic
_Key = tuple[str, str]  # feature and metric


@dataclass(frozen=True, slots=True)
class Arm:
    """What an arm of a calibration is for. ``where`` is KERNEL or AGENT, "" for no slowdown."""

    name: str
    where: str = ""
    share: float = 0.0


def arm_of(name: str) -> Arm:
    """The part an arm has, told from its canonical name."""
    for option in options_of(name):
        label, _, value = option.partition("=")
        where, _, share = value.partition(":")
        if label == "lab.slow" and where in (KERNEL, AGENT):
            return Arm(name, where, float(share))
    return Arm(name)


@dataclass(frozen=True, slots=True)
class _Taken:
    """All of the run's numbers: arm -> metric -> block -> boot statistic; and what was added."""

    run: StoredRun
    metrics: tuple[MetricInfo, ...]
    levels: Mapping[str, Mapping[_Key, levels.ArmLevel]]
    boots: Mapping[str, Mapping[_Key, Boots]]
    added: Mapping[str, Mapping[_Key, Boots]]
    blocks: tuple[int, ...]  # clean in every arm


@dataclass(frozen=True, slots=True)
class _Try:
    """What one set of blocks says of a pair of arms, metric by metric."""

    blocks: frozenset[int]
    effects: tuple[stats.PairedEffect, ...]
    adjusted: tuple[stats.Adjusted, ...]
    rulings: tuple[stats.Ruling, ...]


def summarise(run: StoredRun, draw: int = DRAW) -> Calibration:
    """What a finished calibration has shown. Tries have at most ``draw`` blocks."""
    taken = _take(run)
    size = min(draw, len(taken.blocks))
    sets, every = _sets(taken.blocks, size)
    alike = [arm.name for arm in map(arm_of, run.arms) if not arm.where and not _spins(arm.name)]
    pairs = [(run.baseline, arm) for arm in alike if arm != run.baseline]
    rebuilt = [pair for pair in pairs if _is_rebuilt(pair[1])] or pairs
    same = [one for pair in rebuilt for one in _tries(taken, *pair, sets)]
    slowed = {arm: _slow_tries(taken, arm, sets) for arm in map(arm_of, run.arms) if arm.share}
    apart = len(taken.blocks) // max(1, size)
    first = next((boot.argv for boot in run.boots if boot.argv), ())
    return Calibration(
        run=run.id,
        started=run.started,
        variant=run.baseline.removesuffix(f" + {CMDLINE}{ARMS[0]}"),
        clock=run.clock.value,
        host=", ".join(run.provenance.host.get(name, "") for name in ("cpu", "cores")),
        qemu=run.provenance.qemu,
        cpu=levels.cpu_model(first),
        blocks=len(taken.blocks),
        draw=size,
        tries=len(sets),
        every=every,
        unadjusted=_share(same, taken.blocks, apart, _each(_called_raw)),
        full=_share(same, taken.blocks, apart, _each(_called)),
        equivalent=_share(same, taken.blocks, apart, _each(_said_same)),
        full_runs=_share(same, taken.blocks, apart, lambda one: [any(_each(_called)(one))]),
        metrics=tuple(
            _metric(taken, place, metric, pairs, slowed)
            for place, metric in enumerate(taken.metrics)
        ),
    )


def _is_rebuilt(name: str) -> bool:
    return any(padding in name.split(" + ") for padding in PADDINGS)


def _spins(name: str) -> bool:
    return SPIN in name.split(" + ")


# ---------------------------------------------------------------- what was measured


def _take(run: StoredRun) -> _Taken:
    metrics = tuple(metric for metric in run.metrics if run.clock in metric.clocks)
    found = {arm: {_key(m): levels.arm_level(run, arm, m) for m in metrics} for arm in run.arms}
    boots = {
        arm: {key: dict(level.boots) for key, level in by_metric.items()}
        for arm, by_metric in found.items()
    }
    clean = [set(levels.bench_boots(run, arm)) for arm in run.arms]
    added = {arm: _added(run, arm) for arm in run.arms}
    blocks = tuple(sorted(set.intersection(*clean))) if clean else ()
    return _Taken(run, metrics, found, boots, added, blocks)


def _key(metric: MetricInfo) -> _Key:
    return metric.feature, metric.id


def _added(run: StoredRun, arm: str) -> dict[_Key, Boots]:
    """The median of what a slowdown added to the samples of each boot, in the levels' unit."""
    unit = levels.NS_PER_INSTRUCTION if run.clock is Clock.ICOUNT else 1
    per = unit if arm_of(arm).where == AGENT else 1  # the kernel's is counted in instructions
    found: dict[_Key, dict[int, float]] = {}
    for block, boot in levels.bench_boots(run, arm).items():
        kept: dict[_Key, list[float]] = {}
        for sample in boot.samples:
            if sample.added is not None and not sample.warmup:
                kept.setdefault((sample.feature, sample.metric), []).append(sample.added)
        for key, values in kept.items():
            found.setdefault(key, {})[block] = statistics.median(values) / per
    return {key: dict(values) for key, values in found.items()}


# ---------------------------------------------------------------- tries


def _sets(blocks: Sequence[int], draw: int) -> tuple[list[frozenset[int]], bool]:
    """Sets of ``draw`` blocks, all different; and whether they are all that there are."""
    if not blocks:
        return [], True
    if math.comb(len(blocks), draw) <= _MOST_TRIES:
        return [frozenset(one) for one in combinations(blocks, draw)], True
    chance, found = random.Random(_SEED), set[frozenset[int]]()
    while len(found) < _MOST_TRIES:
        found.add(frozenset(chance.sample(list(blocks), draw)))
    return sorted(found, key=sorted), False


def _tries(taken: _Taken, one: str, other: str, sets: Sequence[frozenset[int]]) -> list[_Try]:
    return [_try(taken, one, other, blocks) for blocks in sets]


def _try(taken: _Taken, one: str, other: str, blocks: frozenset[int]) -> _Try:
    effects = [_effect(taken, metric, one, other, sorted(blocks)) for metric in taken.metrics]
    adjusted = stats.adjust(effects, [metric.primary for metric in taken.metrics])
    rulings = tuple(
        stats.verdict(effect, values, clock=taken.run.clock, polarity=metric.polarity)
        for metric, effect, values in zip(taken.metrics, effects, adjusted, strict=True)
    )
    return _Try(blocks, tuple(effects), tuple(adjusted), rulings)


def _effect(
    taken: _Taken, metric: MetricInfo, one: str, other: str, blocks: Iterable[int]
) -> stats.PairedEffect:
    a, b = taken.boots[one][_key(metric)], taken.boots[other][_key(metric)]
    both = [block for block in blocks if block in a and block in b]
    before = [a[x] for x in both]
    margin = levels.margin_of(metric, taken.run.clock, before)
    return stats.paired(before, [b[x] for x in both], margin=margin)


def _slow_tries(taken: _Taken, arm: Arm, sets: Sequence[frozenset[int]]) -> list[_Try]:
    partner = _partner(taken.run, arm)
    return _tries(taken, partner, arm.name, sets) if partner else []


def _partner(run: StoredRun, arm: Arm) -> str:
    """The arm that differs from this one in the size of the slowdown alone, which is 0."""
    quiet = (one for one in map(arm_of, run.arms) if one.where == arm.where and not one.share)
    return next((one.name for one in quiet), "")


def _called_raw(one: _Try, place: int) -> bool:
    p = one.effects[place].p
    return p is not None and p < stats.ALPHA


def _called(one: _Try, place: int) -> bool:
    return one.rulings[place].verdict in _CHANGED


def _said_same(one: _Try, place: int) -> bool:
    return one.rulings[place].verdict is Verdict.EQUIVALENT


def _each(called: Callable[[_Try, int], bool]) -> Callable[[_Try], list[bool]]:
    """The answer for each metric that both arms have."""
    return lambda one: [
        called(one, place) for place, effect in enumerate(one.effects) if effect.ratio is not None
    ]


# ---------------------------------------------------------------- shares


def _share(
    tries: Sequence[_Try],
    blocks: Sequence[int],
    apart: int,
    answers: Callable[[_Try], list[bool]],
) -> Share:
    """How often, over all tries; the interval leaves out each block in turn."""
    said = [(one.blocks, answers(one)) for one in tries]
    count = sum(len(words) for _, words in said)
    if not count:
        return Share(None, None, None, 0, apart)
    value = _mean(words for _, words in said)
    without = [
        _mean(words for used, words in said if block not in used)
        for block in blocks
        if any(block not in used and words for used, words in said)
    ]
    n = len(without)
    if n < 2 or max(without) - min(without) == 0:
        return Share(value, None, None, count, apart)
    centre = statistics.fmean(without)
    error = math.sqrt((n - 1) / n * sum((one - centre) ** 2 for one in without))
    return Share(
        value, max(0.0, value - 1.96 * error), min(1.0, value + 1.96 * error), count, apart
    )


def _mean(answers: Iterable[list[bool]]) -> float:
    flat = [word for words in answers for word in words]
    return statistics.fmean(flat) if flat else math.nan


# ---------------------------------------------------------------- a metric


def _metric(
    taken: _Taken,
    place: int,
    metric: MetricInfo,
    pairs: Sequence[tuple[str, str]],
    slowed: Mapping[Arm, Sequence[_Try]],
) -> MetricCalibration:
    key, run = _key(metric), taken.run
    first = taken.levels[run.baseline][key]
    missing = [
        (arm, level.reason) for arm in run.arms if (level := taken.levels[arm][key]).level is None
    ]
    if run.clock is not Clock.ICOUNT:
        missing += [(arm.name, _UNCOUNTED) for arm in slowed if arm.where == KERNEL]
    return MetricCalibration(
        feature=metric.feature,
        metric=metric.id,
        unit=levels.unit_of(metric, run.clock),
        level=first.level,
        spread=_spread(dict(first.boots)),
        margin=metric.margin_of(run.clock, first.level),
        alike=tuple(_alike(taken, metric, *pair) for pair in pairs),
        slowed=tuple(
            one
            for arm, tries in slowed.items()
            if (one := _slowed(taken, key, arm, place, tries)) is not None
        ),
        missing=tuple(missing),
    )


def _alike(taken: _Taken, metric: MetricInfo, one: str, other: str) -> Alike:
    effect = _effect(taken, metric, one, other, taken.blocks)
    boots = _spread(taken.boots[other][_key(metric)])
    return Alike(other, effect.ratio, effect.low, effect.high, effect.spread, boots)


def _spread(boots: Boots) -> float | None:
    logs = [math.log(value) for value in boots.values()]
    return statistics.stdev(logs) if len(logs) > 1 else None


def _slowed(taken: _Taken, key: _Key, arm: Arm, place: int, tries: Sequence[_Try]) -> Slowed | None:
    """None when the metric has nothing on one of the two arms, or nothing was added.

    Nor in the kernel under wall: what it adds is counted in instructions, not in time.
    """
    if arm.where == KERNEL and taken.run.clock is not Clock.ICOUNT:
        return None
    partner = _partner(taken.run, arm)
    quiet = taken.boots[partner][key] if partner else {}
    added = taken.added[arm.name].get(key, {})
    beside = taken.added[partner].get(key, {}) if partner else {}  # of doing it with a share of 0
    true = {
        block: (added[block] - beside.get(block, 0.0)) / quiet[block]
        for block in taken.blocks
        if block in added and block in quiet
    }
    kept = [
        (one, one.effects[place].ratio or 0.0, statistics.fmean(true[x] for x in one.blocks))
        for one in tries
        if one.effects[place].ratio is not None and all(block in true for block in one.blocks)
    ]
    if not kept:
        return None
    errors = [abs(seen - real) for _, seen, real in kept]
    return Slowed(
        where=arm.where,
        asked=arm.share,
        true=statistics.fmean(true.values()),
        seen=statistics.fmean(seen for _, seen, _ in kept),
        found=statistics.fmean(_found(one, place) for one, _, _ in kept),
        slower=statistics.fmean(one.rulings[place].verdict is Verdict.SLOWER for one, _, _ in kept),
        error=statistics.median(errors),
        within=statistics.fmean(error <= _NEAR for error in errors),
        worst=max(errors),
    )


def _found(one: _Try, place: int) -> bool:
    """Told from no change, in the right direction."""
    p, ratio = one.adjusted[place].p, one.effects[place].ratio
    return p is not None and p < stats.ALPHA and ratio is not None and ratio > 0

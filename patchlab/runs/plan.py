# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run will take and what it can see, from what stored runs saw. Pure: builds nothing.

The spread of a metric is the standard deviation of the block's log ratio d, pooled over all
pairs of a run's arms, or √2 times that of the logs of the one arm that has the metric. From
it follow the smallest effect that a number of blocks calls faster or slower in 80 % of runs,
and the blocks that would tell the metric's margin from no change.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from patchlab.model import RunPlan, Sampling, bench_arms
from patchlab.record import BootKind, BootRecord, Clock, MetricInfo, StoredRun
from patchlab.verdicts import levels, looks, stats

_BOOT, _CHECK_BOOT = 50.0, 60.0  # seconds, while no boot of these features is stored


@dataclass(frozen=True, slots=True)
class MetricForecast:
    """What the planned blocks can see of one metric. Ratios: 0.001 is 0.1 %."""

    metric: MetricInfo
    spread: float | None  # standard deviation of d; None while nothing is stored
    blocks: int  # that the spread is from
    smallest: float | None  # relative change called faster or slower in 80 % of runs
    needed: int | None  # blocks that would see the margin
    samples: int | None  # a boot, that serve the variance best for their time
    margin: float  # relative change that matters, at the level of the stored baseline


@dataclass(frozen=True, slots=True)
class Look:
    """A planned look, the last one included: what it takes to come to it."""

    blocks: int
    bench_boots: int
    bench_seconds: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """A run before anything is built. Times are wall seconds, of a run up to its last look."""

    check_boots: int
    bench_boots: int
    at_once: int
    check_seconds: float
    bench_seconds: float
    known: bool  # the times are from stored boots, not guessed
    source: str  # the stored run that spreads and times are from; "" without one
    alpha: float  # what an adjusted p is held against
    looks: tuple[Look, ...]  # the planned ones
    metrics: tuple[MetricForecast, ...]


def forecast(
    plan: RunPlan,
    sampling: Sampling,
    clock: Clock,
    metrics: Sequence[MetricInfo],
    history: StoredRun | None,
    at_once: int,
) -> Forecast:
    """``history`` is a stored run of the same features on the same clock, if there is one."""
    arms = len(plan.arms)
    booted = len(bench_arms((arm.name for arm in plan.arms), plan.sensitivity))
    boots = history.boots if history else ()
    check = _seconds(b for b in boots if b.kind is BootKind.CHECK)
    bench = _seconds(b for b in boots if b.kind is BootKind.BENCH)
    fitting = [metric for metric in metrics if clock in metric.clocks]
    family = {primary: sum(one.primary is primary for one in fitting) for primary in (True, False)}
    ends = [
        Look(blocks, booted * blocks, math.ceil(booted * blocks / at_once) * (bench or _BOOT))
        for blocks in sampling.looks or (sampling.blocks,)
    ]
    return Forecast(
        check_boots=arms,
        bench_boots=ends[-1].bench_boots,
        at_once=at_once,
        check_seconds=arms * (check or _CHECK_BOOT),
        bench_seconds=ends[-1].bench_seconds,
        known=check is not None and bench is not None,
        source=f"run {history.id}, {history.started[:10]}" if history else "",
        alpha=looks.alpha_of(sampling),
        looks=tuple(ends) if sampling.looks else (),
        metrics=tuple(
            _metric(metric, sampling, clock, history, family[metric.primary]) for metric in fitting
        ),
    )


def _seconds(boots: Iterable[BootRecord]) -> float | None:
    taken = [boot.seconds for boot in boots]
    return statistics.median(taken) if taken else None


def _metric(
    metric: MetricInfo,
    sampling: Sampling,
    clock: Clock,
    history: StoredRun | None,
    family: int,
) -> MetricForecast:
    least = stats.MIN_BLOCKS.get(clock, 2)
    pooled = spread_of(history, metric) if history else None
    if history is None or pooled is None:
        return MetricForecast(metric, None, 0, None, None, None, metric.margin_of(clock, None))
    margin = metric.margin_of(clock, levels.arm_level(history, history.baseline, metric).level)
    spread, blocks = pooled
    alpha = looks.alpha_of(sampling)
    if spread <= 0:
        return MetricForecast(metric, 0.0, blocks, None, None, None, margin)
    needed = stats.blocks_needed(spread, margin, alpha=alpha / max(1, family))
    return MetricForecast(
        metric,
        spread,
        blocks,
        stats.smallest_called(spread, sampling.blocks, margin, family=family, alpha=alpha),
        max(needed, least) if needed else None,
        samples_of(history, metric),
        margin,
    )


def spread_of(run: StoredRun, metric: MetricInfo) -> tuple[float, int] | None:
    """The spread of d over all pairs of the run's arms, and the most blocks in one; or None."""
    arms = [dict(levels.arm_level(run, arm, metric).boots) for arm in run.arms]
    squares, degrees, blocks = 0.0, 0, 0
    for one, other in combinations(arms, 2):
        d = [math.log(other[block] / one[block]) for block in sorted(one.keys() & other.keys())]
        if len(d) > 1:
            squares += statistics.variance(d) * (len(d) - 1)
            degrees += len(d) - 1
            blocks = max(blocks, len(d))
    if degrees:
        return math.sqrt(squares / degrees), blocks
    alone = [math.log(value) for arm in arms for value in arm.values()]
    return (math.sqrt(2) * statistics.stdev(alone), len(alone)) if len(alone) > 1 else None


def samples_of(run: StoredRun, metric: MetricInfo) -> int | None:
    """Samples a boot that are worth their time, or None when nothing tells.

    ceil(sqrt(c_boot/c_sample · T1²/T2²)) with T2² = S2² − S1²/r (Kalibera & Jones, Rigorous
    Benchmarking in Reasonable Time, ISMM 2013, with its erratum): S1² is the variance of the
    samples in a boot, S2² that of the boots' means, r how many samples a boot had.
    """
    boots = [
        (boot, values)
        for arm in run.arms
        for boot in levels.bench_boots(run, arm).values()
        if len(values := levels.values_of(boot, metric)) > 1
    ]
    arms = {boot.variant for boot, _ in boots}
    if len(boots) < 2 * len(arms) or not boots:
        return None
    means = {arm: [statistics.fmean(v) for b, v in boots if b.variant == arm] for arm in arms}
    within = statistics.fmean(statistics.variance(values) for _, values in boots)
    between = statistics.fmean(statistics.variance(m) for m in means.values() if len(m) > 1)
    count = statistics.fmean(len(values) for _, values in boots)
    corrected = between - within / count
    if corrected <= 0 or within <= 0:
        return None
    return max(1, math.ceil(math.sqrt(_price(boots[0][0]) * within / corrected)))


def _price(boot: BootRecord) -> float:
    """What a boot costs in samples: its time without them over that of one sample."""
    measured = sum(1 for sample in boot.samples) or 1
    taking = max(boot.seconds - boot.ready_seconds, 1e-3)
    return max(boot.ready_seconds, 1e-3) / (taking / measured)

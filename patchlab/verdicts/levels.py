# SPDX-License-Identifier: GPL-2.0-or-later
"""A stored run -> which of its boots count, and the level of each metric on each arm."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from patchlab.record import BootKind, BootRecord, Clock, MetricInfo, Outcome, StoredRun
from patchlab.verdicts import stats

# With -icount shift=1 QEMU moves the guest's clock by 2^1 ns an instruction.
NS_PER_INSTRUCTION = 2


@dataclass(frozen=True, slots=True)
class ArmLevel:
    """One metric on one arm. ``boots`` holds (block, boot statistic) of each clean boot."""

    variant: str
    level: float | None  # geometric mean of boots
    boots: tuple[tuple[int, float], ...]
    outcome: Outcome | None  # why there are no boots, when an agent said so
    reason: str  # "" when there is a level


@dataclass(frozen=True, slots=True)
class ArmsRow:
    """One metric on every arm, the baseline first. Values are in ``unit``."""

    metric: MetricInfo
    unit: str
    statistic: str
    levels: tuple[ArmLevel, ...]


def ordered_arms(run: StoredRun) -> tuple[str, ...]:
    """The baseline first, the others as the plan has them."""
    return (run.baseline, *(arm for arm in run.arms if arm != run.baseline))


# ---------------------------------------------------------------- boots


def settled(boots: Iterable[BootRecord]) -> tuple[BootRecord, ...]:
    """The boots that count, in their order.

    A boot that was lost gives way to a later attempt at the same place of the same arm;
    when every attempt was lost, the last of them stays, to be named.
    """
    places: dict[tuple[object, ...], list[BootRecord]] = {}
    for boot in boots:
        place = boot.order if boot.kind is BootKind.CHECK else boot.block
        places.setdefault((boot.variant, boot.kind, place), []).append(boot)
    counted: list[BootRecord] = []
    for tries in places.values():
        pool = [boot for boot in tries if boot.outcome is not Outcome.LOST] or tries
        last = max(boot.attempt for boot in pool)
        counted += [boot for boot in pool if boot.attempt == last]
    return tuple(counted)


def boots_of(run: StoredRun, variant: str, kind: BootKind) -> tuple[BootRecord, ...]:
    return settled(b for b in run.boots if b.variant == variant and b.kind is kind)


def bench_boots(run: StoredRun, variant: str) -> dict[int, BootRecord]:
    """Block -> its clean bench boot, on the run's own clock."""
    return {
        boot.block: boot
        for boot in boots_of(run, variant, BootKind.BENCH)
        if boot.outcome is Outcome.PASSED and boot.clock is run.clock
    }


def cpu_model(argv: Sequence[str]) -> str:
    """QEMU's CPU model on a command line; the last ``-cpu`` is the one that counts."""
    models = [value for flag, value in itertools.pairwise(argv) if flag == "-cpu"]
    return models[-1] if models else ""


# ---------------------------------------------------------------- metrics


def unit_of(metric: MetricInfo, clock: Clock) -> str:
    """``instructions/page`` or ``ns/page``."""
    return f"{'instructions' if clock is Clock.ICOUNT else 'ns'}/{metric.unit}"


def margin_of(metric: MetricInfo, clock: Clock, baseline: Sequence[float]) -> float:
    """The relative change that matters at the level of these boots, in unit_of()'s unit."""
    known = [value for value in baseline if value > 0]
    return metric.margin_of(clock, statistics.geometric_mean(known) if known else None)


def statistic_of(metric: MetricInfo, clock: Clock) -> str:
    """The in-boot statistic: the metric's own under icount, else the median."""
    return metric.statistic if clock is Clock.ICOUNT else "median"


def arms_table(run: StoredRun) -> tuple[ArmsRow, ...]:
    """The level of every metric on every arm, from clean boots only."""
    return tuple(
        ArmsRow(
            metric,
            unit_of(metric, run.clock),
            statistic_of(metric, run.clock),
            tuple(arm_level(run, arm, metric) for arm in ordered_arms(run)),
        )
        for metric in run.metrics
    )


def arm_level(run: StoredRun, variant: str, metric: MetricInfo) -> ArmLevel:
    """One metric on one arm, or why there is none."""
    boots = bench_boots(run, variant)
    values = {block: _boot_value(boot, metric) for block, boot in boots.items()}
    kept = tuple((block, values[block]) for block in sorted(values) if values[block] > 0)
    if kept:
        level = statistics.geometric_mean(value for _, value in kept)
        return ArmLevel(variant, level, kept, None, "")
    outcome, reason = _why_unmeasured(tuple(boots.values()), metric)
    if not boots:
        tried = boots_of(run, variant, BootKind.BENCH)
        reason = "no clean bench boot" if tried else "no bench boot"
    return ArmLevel(variant, None, (), outcome, reason)


def values_of(boot: BootRecord, metric: MetricInfo) -> list[float]:
    """The samples that count, in ns a unit: no warm-up, and under icount none that slept."""
    icount = boot.clock is Clock.ICOUNT
    return [
        sample.value
        for sample in boot.samples
        if (sample.feature, sample.metric) == (metric.feature, metric.id)
        and not sample.warmup
        and not (icount and sample.idle)
        and math.isfinite(sample.value)
    ]


def _boot_value(boot: BootRecord, metric: MetricInfo) -> float:
    """The boot's statistic in its clock's unit; NaN when nothing is left to take it from."""
    values = values_of(boot, metric)
    if not values:
        return math.nan
    value = stats.boot_statistic(values, statistic_of(metric, boot.clock))
    return value / NS_PER_INSTRUCTION if boot.clock is Clock.ICOUNT else value


def _why_unmeasured(boots: Sequence[BootRecord], metric: MetricInfo) -> tuple[Outcome | None, str]:
    key = (metric.feature, metric.id)
    said = [u for boot in boots for u in boot.unmeasured if (u.feature, u.metric) == key]
    if said:
        return said[-1].outcome, f"{said[-1].outcome}: {said[-1].reason}"
    mine = [s for boot in boots for s in boot.samples if (s.feature, s.metric) == key]
    counted = [sample for sample in mine if not sample.warmup]
    if counted and all(sample.idle for sample in counted):
        return None, "not measurable: slept"
    if counted:
        return None, "no sample is a positive number"
    return None, "only warm-up samples" if mine else "no samples"

# SPDX-License-Identifier: GPL-2.0-or-later
"""What follows from a stored run: the values that compare.py makes and reports show."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from patchlab.record import CheckInfo, CheckResult, Clock, MetricInfo


class Verdict(StrEnum):
    FASTER = "faster"
    SLOWER = "slower"
    WITHIN_MARGIN = "changed within margin"
    EQUIVALENT = "equivalent"
    INCONCLUSIVE = "inconclusive"
    NOT_COMPARABLE = "not comparable"
    NEW = "new"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class MetricComparison:
    """One metric, two arms. Levels are geometric means over blocks of each boot's statistic."""

    metric: MetricInfo
    verdict: Verdict
    reason: str  # for NOT_COMPARABLE, INCONCLUSIVE, NEW and GONE
    unit: str  # "instructions/page", "ns/page"
    baseline: float | None
    candidate: float | None
    change: float | None  # absolute, in unit
    ratio: float | None  # relative change, 0.01 is +1 %
    low: float | None  # interval of ratio, of confidence 1 - Comparison.alpha
    high: float | None
    p: float | None
    p_adjusted: float | None
    blocks: int
    statistic: str
    margin: float  # relative change that matters at the baseline's level


@dataclass(frozen=True, slots=True)
class CheckComparison:
    id: str
    info: CheckInfo
    baseline: CheckResult | None
    candidate: CheckResult | None
    regression: bool  # the baseline passed and the candidate did not, and nobody said it would
    known: bool = False  # it fails on the candidate, as it is claimed to


@dataclass(frozen=True, slots=True)
class Comparison:
    run: int
    baseline: str
    candidate: str
    clock: Clock
    equal_kernels: bool
    checks: tuple[CheckComparison, ...]
    metrics: tuple[MetricComparison, ...]
    notes: tuple[str, ...] = field(default=())
    alpha: float = 0.05  # what an adjusted p is held against; less with planned looks

# SPDX-License-Identifier: GPL-2.0-or-later
"""A stored run -> the table of levels: one row an operation, one column an arm or comparator. Pure.

A feature may time the same operation on itself and on what it is held against: mapping and
unmapping through the feature, and on tmpfs. The first differs from arm to arm, the second
does not depend on the patches, so it is taken from one arm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from patchlab.record import MetricInfo, StoredRun
from patchlab.verdicts import levels
from patchlab.verdicts.levels import ArmLevel


@dataclass(frozen=True, slots=True)
class Cell:
    """One level. ``low`` and ``high`` are the extremes of its clean boots, in the row's unit."""

    metric: str  # the id; "" where nothing times this
    arm: str  # whose boots the level is from
    level: float | None
    low: float | None
    high: float | None
    boots: int
    reason: str  # "" when there is a level

    @property
    def spread(self) -> float | None:
        """Half the distance of the extremes, relative to the level; None for one boot."""
        if self.level is None or self.low is None or self.high is None or self.boots < 2:
            return None
        return (self.high - self.low) / 2 / self.level


@dataclass(frozen=True, slots=True)
class OperationRow:
    operation: str
    unit: str  # "instructions/page"
    statistic: str
    cells: tuple[Cell, ...]  # one a column


@dataclass(frozen=True, slots=True)
class OperationTable:
    """``arms`` are those with a level of their own, then come the comparators."""

    arms: tuple[str, ...]
    subjects: tuple[str, ...]
    sources: tuple[str, ...]  # one a subject: the arms that its levels are from, joined
    rows: tuple[OperationRow, ...]


@dataclass(slots=True)
class _Operation:
    name: str
    unit: str
    subjects: dict[str, MetricInfo] = field(default_factory=dict)


def table(run: StoredRun) -> OperationTable | None:
    """The table of levels, or None when no metric names an operation."""
    operations = _operations(run)
    if not operations:
        return None
    subjects = tuple(
        dict.fromkeys(name for one in operations for name in one.subjects if name != "")
    )
    arms = tuple(arm for arm in levels.ordered_arms(run) if _has_own(run, arm, operations))
    rows = tuple(_row(run, one, arms, subjects) for one in operations)
    sources = [
        dict.fromkeys(
            cell.arm for row in rows if (cell := row.cells[len(arms) + place]).level is not None
        )
        for place in range(len(subjects))
    ]
    return OperationTable(arms, subjects, tuple(", ".join(names) for names in sources), rows)


def _operations(run: StoredRun) -> list[_Operation]:
    """Metrics in rows. Unlike units never share one; a second metric of a place gets its own."""
    rows: list[_Operation] = []
    for metric in run.metrics:
        if not metric.operation:
            continue
        unit = levels.unit_of(metric, run.clock)
        for row in rows:
            free = metric.subject not in row.subjects
            if (row.name, row.unit) == (metric.operation, unit) and free:
                break
        else:
            row = _Operation(metric.operation, unit)
            rows.append(row)
        row.subjects[metric.subject] = metric
    return rows


def _has_own(run: StoredRun, arm: str, operations: Sequence[_Operation]) -> bool:
    own = (one.subjects[""] for one in operations if "" in one.subjects)
    return any(levels.arm_level(run, arm, metric).level is not None for metric in own)


def _row(
    run: StoredRun, one: _Operation, arms: Sequence[str], subjects: Sequence[str]
) -> OperationRow:
    own = one.subjects.get("")
    cells = [_cell(own, levels.arm_level(run, arm, own) if own else None, arm) for arm in arms]
    for subject in subjects:
        metric = one.subjects.get(subject)
        level = _comparator(run, metric) if metric else None
        cells.append(_cell(metric, level, level.variant if level else ""))
    first = next(iter(one.subjects.values()))
    return OperationRow(one.name, one.unit, levels.statistic_of(first, run.clock), tuple(cells))


def _comparator(run: StoredRun, metric: MetricInfo) -> ArmLevel:
    """The baseline's level, or that of the first arm which has one."""
    found = [levels.arm_level(run, arm, metric) for arm in levels.ordered_arms(run)]
    return next((level for level in found if level.level is not None), found[0])


def _cell(metric: MetricInfo | None, level: ArmLevel | None, arm: str) -> Cell:
    if metric is None or level is None:
        return Cell("", arm, None, None, None, 0, "not timed")
    values = [value for _, value in level.boots]
    return Cell(
        metric.id,
        arm,
        level.level,
        min(values, default=None),
        max(values, default=None),
        len(values),
        level.reason,
    )

# SPDX-License-Identifier: GPL-2.0-or-later
"""A stored run -> what was claimed for a series, beside what the run has seen. Pure.

The lab does not refute a claim: it has another machine and another server. It says what it
counted, and whether that is what the claim is a number of.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from patchlab.record import Clock, StoredRun
from patchlab.review import Asked, Claim
from patchlab.reviews import ledger
from patchlab.reviews.ledger import Column
from patchlab.verdicts import levels

_COUNTED = {
    Clock.WALL: "time on the wall clock",
    Clock.ICOUNT: "guest instructions",
    Clock.TCG: "wall time under TCG",
}


class Standing(StrEnum):
    """Whether what was seen can be set against the claim."""

    COMPARABLE = "comparable"
    NOT_COMPARABLE = "not comparable"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Seen:
    """One claim on one arm. ``change`` is relative, of the cost: below 0 it is cheaper."""

    standing: Standing
    text: str
    unit: str = ""
    before: float | None = None  # the level of the arm that the claim is against
    after: float | None = None
    change: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    claim: Claim
    cells: tuple[Seen, ...]  # one a column


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims for one series against every arm that has a revision of it."""

    series: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


def tables(run: StoredRun) -> tuple[Claims, ...]:
    """One a series that has claims and a revision among the arms; controls have none."""
    found = (_table(run, one) for one in run.asked if one.claims)
    return tuple(told for told in found if told.columns)


def _table(run: StoredRun, one: Asked) -> Claims:
    columns = ledger.columns_of(run, one)
    rows = tuple(
        Row(claim, tuple(seen(run, one.feature, claim, column.arm) for column in columns))
        for claim in one.claims
    )
    return Claims(one.series, one.title, columns, rows)


def seen(run: StoredRun, feature: str, claim: Claim, arm: str) -> Seen:
    """What the run counted of the claim's metric on ``arm``, against the claim's own baseline."""
    infos = (one for one in run.metrics if (one.feature, one.id) == (feature, claim.metric))
    metric = next(infos, None)
    if metric is None:
        return _nothing(f"this run has no {claim.metric}")
    if claim.against not in run.arms:
        return _nothing(f"the claim is against {claim.against}, which is no arm of this run")
    pair = [levels.arm_level(run, name, metric) for name in (claim.against, arm)]
    before, after = (one.level for one in pair)
    if before is None or after is None:
        return _nothing("; ".join(f"{one.variant}: {one.reason}" for one in pair if one.reason))
    unit, change = levels.unit_of(metric, run.clock), after / before - 1
    told = f"{metric.id} {change:+.1%} {unit} against {claim.against} ({before:.4g} to {after:.4g})"
    if run.clock.value == claim.clock:
        gain = f", which is {before / after - 1:+.1%} throughput"
        return Seen(Standing.COMPARABLE, told + gain, unit, before, after, change)
    why = f"the claim is of {_COUNTED[Clock(claim.clock)]}, this run counts {_COUNTED[run.clock]}"
    return Seen(Standing.NOT_COMPARABLE, f"{told}; {why}", unit, before, after, change)


def _nothing(why: str) -> Seen:
    return Seen(Standing.NOT_MEASURED, why)

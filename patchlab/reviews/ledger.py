# SPDX-License-Identifier: GPL-2.0-or-later
"""A stored run -> which demands of the reviewers each revision meets, answers or leaves open. Pure.

A demand is decided by checks, which ran in the arm's check boot, and by static rules, which
read its patches. Any that went wrong leaves it open; one that nobody could see leaves it
undecided. Checks that a probe found unsupported decide nothing, so with no other check the
demand is moot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from patchlab.model import Series
from patchlab.record import CheckInfo, Outcome, StoredRun
from patchlab.review import Asked, Demand, RuleResult, Ruling
from patchlab.reviews import rules
from patchlab.verdicts import compare, levels

CONTROL = "control"


class Standing(StrEnum):
    """How a demand stands on a revision."""

    MET = "met"
    ANSWERED = "answered"  # asked, and the code is right as it is
    OPEN = "open"
    MOOT = "moot"  # the question cannot arise here
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Ground:
    """One check or static rule that a demand rests on, and what became of it."""

    name: str  # the check's id, or the rule with its argument
    sentence: str
    outcome: str  # of the check, or the rule's ruling
    seen: str
    standing: Standing  # what it alone would make of the demand


@dataclass(frozen=True, slots=True)
class Entry:
    """One demand on one arm. ``why`` is one line: what decided it."""

    standing: Standing
    why: str
    answer: str  # "" but for an answered demand
    grounds: tuple[Ground, ...]


@dataclass(frozen=True, slots=True)
class Column:
    arm: str
    revision: str
    label: str  # the revision, or the arm where several have it


@dataclass(frozen=True, slots=True)
class Row:
    demand: Demand
    entries: tuple[Entry, ...]  # one a column


@dataclass(frozen=True, slots=True)
class Ledger:
    """The demands on one series against every arm that has a revision of it."""

    series: str
    title: str
    columns: tuple[Column, ...]  # in the order of the revisions
    rows: tuple[Row, ...]


def asked(series: Series) -> Asked:
    """The part of a series that is stored with a run."""
    names = tuple(revision.name for revision in series.revisions)
    return Asked(series.name, series.title, series.feature, names, series.ledger, series.claims)


def ledgers(run: StoredRun) -> tuple[Ledger, ...]:
    """One a series that has demands and a revision among the arms; controls have none."""
    found = (_ledger(run, one) for one in run.asked if one.demands)
    return tuple(ledger for ledger in found if ledger.columns)


def _ledger(run: StoredRun, one: Asked) -> Ledger:
    columns = columns_of(run, one)
    return Ledger(
        one.series,
        one.title,
        columns,
        tuple(
            Row(demand, tuple(entry(run, one, demand, column) for column in columns))
            for demand in one.demands
        ),
    )


def columns_of(run: StoredRun, one: Asked) -> tuple[Column, ...]:
    """The arms that have a revision of the series, in the revisions' order; no control."""
    having = [(_revision(arm, one.series), arm) for arm in levels.ordered_arms(run)]
    pairs = [
        (revision, arm)
        for name in dict.fromkeys([*one.revisions, *(revision for revision, _ in having)])
        for revision, arm in having
        if revision == name and revision not in ("", CONTROL)
    ]
    revisions = [revision for revision, _ in pairs]
    return tuple(
        Column(arm, revision, revision if revisions.count(revision) == 1 else arm)
        for revision, arm in pairs
    )


def _revision(arm: str, series: str) -> str:
    """The revision of ``series`` in a variant's canonical name, or ""."""
    for part in arm.split(" + "):
        name, _, revision = part.partition("@")
        if name == series:
            return revision
    return ""


# ---------------------------------------------------------------- one demand, one arm


def entry(run: StoredRun, one: Asked, demand: Demand, column: Column) -> Entry:
    """How a demand stands on an arm."""
    checks = tuple(_check(run, one, check, column.arm) for check in demand.checks)
    said = tuple(_rule(run, one, rule, column) for rule in demand.rules)
    grounds = (*checks, *said)
    standing = _decide(checks, said)
    answer = demand.answered.get(column.revision, "")
    if standing is Standing.MET and answer:
        return Entry(Standing.ANSWERED, answer, answer, grounds)
    why = _why(standing, grounds)
    if not grounds and answer:
        why = f"{why}; the series says: {answer}"
    return Entry(standing, why, "", grounds)


def _decide(checks: Sequence[Ground], said: Sequence[Ground]) -> Standing:
    found = {ground.standing for ground in (*checks, *said)}
    for worst in (Standing.OPEN, Standing.UNDECIDED):
        if worst in found:
            return worst
    if not found:
        return Standing.UNDECIDED
    # A rule that holds says nothing of a question that cannot arise.
    unsupported = checks and all(ground.standing is Standing.MOOT for ground in checks)
    return Standing.MOOT if unsupported else Standing.MET


def _why(standing: Standing, grounds: Sequence[Ground]) -> str:
    if not grounds:
        return "no check and no rule is bound to it"
    if standing is Standing.MET:
        return ", ".join(f"{ground.name} {ground.outcome}" for ground in grounds)
    mine = [ground for ground in grounds if ground.standing is standing]
    return "; ".join(f"{ground.name} {ground.outcome}: {ground.seen}" for ground in mine)


_STANDINGS = {
    Outcome.PASSED: Standing.MET,
    Outcome.FAILED: Standing.OPEN,
    Outcome.SPLAT: Standing.OPEN,
    Outcome.CRASHED: Standing.OPEN,
    Outcome.TIMED_OUT: Standing.OPEN,
    Outcome.UNSUPPORTED: Standing.MOOT,
    Outcome.SKIPPED: Standing.UNDECIDED,
    Outcome.LOST: Standing.UNDECIDED,
    Outcome.NOT_RUN: Standing.UNDECIDED,
}
NO_CHECK = "no such check"


def _check(run: StoredRun, one: Asked, check: str, arm: str) -> Ground:
    info = _info(run, one.feature, check)
    if info is None:
        wanted = one.feature in run.features
        why = (
            f"{one.feature} has none of that id" if wanted else f"the run is without {one.feature}"
        )
        return Ground(check, "", NO_CHECK, why, Standing.UNDECIDED)
    result = compare.check_result(run, arm, info)
    seen = result.seen or "nothing was said"
    return Ground(check, info.sentence, result.outcome.value, seen, _STANDINGS[result.outcome])


def _info(run: StoredRun, feature: str, check: str) -> CheckInfo | None:
    infos = (
        info for info in compare.check_infos(run) if (info.feature, info.id) == (feature, check)
    )
    return next(infos, None)


_RULINGS = {
    Ruling.HOLDS: Standing.MET,
    Ruling.BROKEN: Standing.OPEN,
    Ruling.UNDECIDED: Standing.UNDECIDED,
}


def _rule(run: StoredRun, one: Asked, rule: str, column: Column) -> Ground:
    wanted = (column.arm, one.series, column.revision, rule)
    known = rules.RULES.get(rule.partition(":")[0])
    sentence = known.sentence if known else ""
    for result in run.rules:
        if (result.variant, result.series, result.revision, result.rule) == wanted:
            return Ground(
                rule, sentence, result.ruling.value, _said(result), _RULINGS[result.ruling]
            )
    return Ground(rule, sentence, "not run", "this run has no result of it", Standing.UNDECIDED)


def _said(result: RuleResult) -> str:
    return f"{result.seen}\n{result.remedy}".rstrip()


# ---------------------------------------------------------------- in one sentence


def headline(ledger: Ledger) -> str:
    """``v2 meets 9 of 10 demands (v1: 4 of 10); open: …`` for the newest revision."""
    newest = len(ledger.columns) - 1
    others = [
        f"{column.label}: {_share(ledger, index)}"
        for index, column in enumerate(ledger.columns[:-1])
    ]
    parts = [
        f"{ledger.series}: {ledger.columns[newest].label} meets {_share(ledger, newest)} demands"
        + (f" ({', '.join(others)})" if others else "")
    ]
    for standing in (Standing.OPEN, Standing.UNDECIDED, Standing.MOOT):
        ids = [row.demand.id for row in ledger.rows if row.entries[newest].standing is standing]
        if ids:
            parts.append(f"{standing}: {', '.join(ids)}")
    return "; ".join(parts)


def _share(ledger: Ledger, index: int) -> str:
    """How many demands are met or answered, of those that can arise."""
    standings = [row.entries[index].standing for row in ledger.rows]
    met = sum(s in (Standing.MET, Standing.ANSWERED) for s in standings)
    return f"{met} of {len(standings) - standings.count(Standing.MOOT)}"

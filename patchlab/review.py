# SPDX-License-Identifier: GPL-2.0-or-later
"""Frozen values of a review: what was asked of a series, and what static rules say of it.

Imports nothing of ours; model.py builds on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Demand:
    """One demand of a reviewer, and the checks and static rules that decide it."""

    id: str
    who: str
    date: str
    demand: str
    checks: tuple[str, ...]
    rules: tuple[str, ...] = ()  # name, or name:argument; rules.py has the names
    # Revision -> why the code is right although it was asked.
    answered: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Claim:
    """What somebody says that a series gains, and the metric that comes nearest to it."""

    id: str
    who: str
    date: str
    claim: str
    metric: str
    against: str  # the arm that the gain is over
    clock: str  # what the claim is a number of: "wall" for time, "icount" for instructions
    setup: str = ""  # how it was measured there
    link: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """The review ledger of one series, and what is claimed for it, as stored with a run."""

    series: str
    title: str
    feature: str
    revisions: tuple[str, ...]  # in the order of series.toml: the newest last
    demands: tuple[Demand, ...]
    claims: tuple[Claim, ...] = ()


class Ruling(StrEnum):
    """What a static rule says of a revision."""

    HOLDS = "holds"
    BROKEN = "does not hold"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class RuleResult:
    """One static rule on one revision, as an arm has it applied."""

    variant: str
    series: str
    revision: str
    rule: str
    ruling: Ruling
    seen: str
    remedy: str = ""  # of an undecided rule: what to do

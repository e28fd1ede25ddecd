# SPDX-License-Identifier: GPL-2.0-or-later
"""What a feature is made of, and how a check says that it did not pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any


class CheckError(Exception):
    """The assertion did not hold; the text is what was seen instead."""


class Unsupported(Exception):
    """The feature is absent here; found by a probe of the check's own."""


class Skipped(Exception):
    """A precondition, named by the text, is missing."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a check or a metric is given: a private folder, its random numbers, the settings."""

    scratch: Path
    random: Random
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Check:
    """``run`` returns what was seen; it raises CheckError, Unsupported or Skipped otherwise."""

    id: str
    sentence: str
    source: str
    expected: str
    run: Callable[[Context], str]
    red: str = ""
    green: str = "base"  # the variant on which it has been seen to pass
    patience: float = 1.0  # how many times the lab's limit for a check it may take


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Bench:
    """``window`` is timed and does ``units`` units of work; the other two are not timed."""

    window: Callable[[], object]
    units: int
    before: Callable[[], object] = _nothing
    after: Callable[[], object] = _nothing


@dataclass(frozen=True, slots=True)
class Metric:
    """``bench(context, rounds)`` sets up for that many calls of the window, and undoes it."""

    id: str
    sentence: str
    unit: str
    bench: Callable[[Context, int], AbstractContextManager[Bench]]
    primary: bool = False
    polarity: str = "lower"
    clocks: tuple[str, ...] = ("icount", "wall")
    margin: float = 0.001  # relative change that matters under icount
    absolute_margin: float = 1.0  # and in instructions a unit: the larger of the two counts
    wall_margin: float = 0.03
    wall_absolute_margin: float = 0.0  # nanoseconds a unit
    statistic: str = "median"
    operation: str = ""  # row of the report's table of levels; "" keeps it out of the table
    subject: str = ""  # what does it: "" the feature itself, else a comparator such as "tmpfs"


@dataclass(frozen=True, slots=True)
class Feature:
    """``prepare(settings)`` makes the machine ready and returns facts, str to str."""

    checks: tuple[Check, ...]
    metrics: tuple[Metric, ...]
    prepare: Callable[[Mapping[str, Any]], dict[str, str]]

    def check(self, name: str) -> Check:
        """Raises KeyError for an unknown id."""
        return {one.id: one for one in self.checks}[name]

    def metric(self, name: str) -> Metric:
        """Raises KeyError for an unknown id."""
        return {one.id: one for one in self.metrics}[name]

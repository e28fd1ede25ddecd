# SPDX-License-Identifier: GPL-2.0-or-later
"""Planned looks: when a run may end early, and what a p value must be below at each. Pure.

Who looks at results while they come in, and stops when they please, finds a change in one
comparison of nine where there is none. A run that plans its looks pays for them with a stricter
threshold, the same at each (Pocock 1977, Biometrika 64:191).
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from patchlab.model import Sampling
from patchlab.record import BootKind, StoredRun
from patchlab.runs import resume
from patchlab.verdict import Comparison, Verdict
from patchlab.verdicts import stats

_NODES = 64  # of the quadrature; 32 give the same six digits
_ORDINALS = ("first", "second", "third", "fourth", "fifth")


def _scipy(module: str) -> Any:
    return importlib.import_module(f"scipy.{module}")


def alpha_of(sampling: Sampling) -> float:
    """What an adjusted p must be below for a verdict: .05, or less with planned looks."""
    return threshold(sampling.looks)


@functools.cache
def threshold(looks: tuple[int, ...], alpha: float = stats.ALPHA) -> float:
    """The two-sided p below which each look may call a change, so that all do in ``alpha``.

    ``looks`` are rising numbers of blocks, equally far apart or not; with one or none it is
    ``alpha`` itself. For a normal mean of known spread; with t tests of few blocks the whole
    is a little above ``alpha``, as docs/evidence/statistics.md shows.
    """
    if len(looks) < 2:
        return alpha
    low, high = alpha / len(looks) / 2, alpha
    return float(_scipy("optimize").brentq(lambda p: crossing(looks, p) - alpha, low, high))


def crossing(looks: Sequence[int], p: float) -> float:
    """The chance that at least one look at pure noise has a two-sided p below ``p``.

    The density of the sum that no look has stopped yet, from look to look (Armitage, McPherson
    & Rowe 1969, JRSS A 132:235), by Gauss-Legendre quadrature.
    """
    reach = float(_scipy("special").ndtri(1 - p / 2))
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    sums, mass, before = np.zeros(1), np.ones(1), 0
    for blocks in looks:
        here = reach * math.sqrt(blocks) * nodes
        step = blocks - before
        kernel = np.exp(-((here[:, None] - sums) ** 2) / (2 * step)) / math.sqrt(2 * math.pi * step)
        mass = (kernel @ mass) * (reach * math.sqrt(blocks) * weights)
        sums, before = here, blocks
    return 1 - float(mass.sum())


# ---------------------------------------------------------------- a run


def ahead(run: StoredRun) -> tuple[int, ...]:
    """The numbers of blocks after which the run is still to be looked at; the last ends it.

    A look is over once a boot after it is stored: what it decided is not decided again.
    """
    return tuple(n for n in _ends(run.sampling) if n >= resume.planned_blocks(run))


def _ends(sampling: Sampling) -> tuple[int, ...]:
    return sampling.looks or (sampling.blocks,)


def seen(run: StoredRun) -> int:
    """The blocks that a verdict may rest on: those of the last look that was reached; 0 of none.

    Without looks all that were planned.
    """
    blocks = resume.planned_blocks(run)
    if run.finished or not run.sampling.looks:
        return blocks
    lacking = (block for _, kind, block in resume.missing(run) if kind is BootKind.BENCH)
    whole = min(lacking, default=blocks)
    return max((look for look in run.sampling.looks if look <= whole), default=0)


def early(run: StoredRun) -> str:
    """Why there is no verdict yet, or "": the first planned look has not come."""
    if not run.sampling.looks or seen(run):
        return ""
    return f"no verdict before the first planned look, after {run.sampling.looks[0]} blocks"


def at_look(run: StoredRun) -> StoredRun:
    """The run without the bench boots that no look has come to; all of them before the first."""
    blocks = seen(run)
    if not run.sampling.looks or not blocks:
        return run
    return replace(run, boots=tuple(boot for boot in run.boots if boot.block < blocks))


def open_metrics(comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """What keeps a run going at a look: its primary metrics without a verdict, each once."""
    return tuple(
        dict.fromkeys(
            one.metric.id
            for comparison in comparisons
            for one in comparison.metrics
            if one.metric.primary and one.verdict is Verdict.INCONCLUSIVE
        )
    )


def sentence(run: StoredRun) -> str:
    """Which look a run's verdicts are of, and what it cost; "" of a run without planned looks."""
    planned = run.sampling.looks
    if not planned or BootKind.BENCH not in run.kinds:
        return ""
    blocks = seen(run)
    listed = ", ".join(map(str, planned))
    plan = (
        f"looks were planned after {listed} blocks, before the first boot; each asks for p below"
        f" {threshold(planned):.4f} instead of {stats.ALPHA} (Pocock)"
    )
    if not blocks:
        return f"{plan}; the first has not come, so there is no verdict"
    which = f"the {ordinal(planned.index(blocks) + 1)} look, after {blocks} blocks,"
    if not run.finished:
        return f"{plan}; the verdicts are those of {which} and the run did not finish"
    last = "as the last one" if blocks == planned[-1] else "since no primary metric was left open"
    return f"{plan}; {which} ended the run, {last}"


def ordinal(number: int) -> str:
    return _ORDINALS[number - 1] if number <= len(_ORDINALS) else f"{number}th"

# SPDX-License-Identifier: GPL-2.0-or-later
"""The vectorised rules of the proof decide as patchlab/verdicts does, run by run."""

from __future__ import annotations

import numpy as np
import pytest

from patchlab.record import Clock
from patchlab.verdict import Verdict
from patchlab.verdicts import looks, stats
from tests.proving import rules

CALLED = (Verdict.FASTER, Verdict.SLOWER)
MARGIN = 0.001


def verdicts(d: rules.Floats, alpha: float) -> list[Verdict]:
    """Of one run: a row a metric, a column a block."""
    ones = [1.0] * d.shape[1]
    effects = [
        stats.paired(ones, list(np.exp(row)), margin=MARGIN, confidence=1 - alpha) for row in d
    ]
    adjusted = stats.adjust(effects, [True] * len(effects))
    return [
        stats.verdict(effect, values, clock=Clock.ICOUNT, alpha=alpha).verdict
        for effect, values in zip(effects, adjusted, strict=True)
    ]


@pytest.mark.parametrize("alpha", [0.05, looks.threshold((5, 10, 15))])
@pytest.mark.parametrize("change", [0.0, 0.002, 0.005])
def test_the_chosen_rule_is_that_of_the_verdicts(alpha: float, change: float) -> None:
    runs = np.concatenate(
        [rules.d_of(sd, 5, change, tries=25, seed=3) for sd in (0.0001, 0.0005, 0.002)]
    )
    now = rules.seen(runs, MARGIN)
    called, left = now.called(alpha), now.open(alpha)
    expected = [verdicts(run, alpha) for run in runs]
    assert called.tolist() == [[one in CALLED for one in run] for run in expected]
    assert left.tolist() == [[one is Verdict.INCONCLUSIVE for one in run] for run in expected]


def test_the_rows_of_holm_are_holms() -> None:
    p = np.random.default_rng(1).uniform(0, 0.1, (20, 6))
    for row, adjusted in zip(p, rules.holm(p), strict=True):
        assert adjusted == pytest.approx(stats.holm(list(row)))


def test_a_run_ends_at_the_first_look_that_leaves_nothing_open() -> None:
    quiet = rules.Case("", 0.00001, 0, MARGIN)
    found = rules.looking((5, 10, 15), 0.0221, quiet, tries=50)
    assert (found.blocks, found.ended.hits) == (5.0, 0)
    loud = rules.Case("", 0.02, 0, MARGIN)
    assert rules.looking((5, 10, 15), 0.0221, loud, tries=50).blocks == 15.0


def test_few_runs_already_show_which_rules_keep_the_promises() -> None:
    alarms = rules.shares(rules.QUIET, tries=5000)
    found = rules.shares(rules.FOUND, tries=5000)
    before = next(iter(alarms))
    assert alarms[rules.CHOSEN].share < 0.01 < alarms[before].share
    assert found[rules.CHOSEN].share == found[before].share > 0.94

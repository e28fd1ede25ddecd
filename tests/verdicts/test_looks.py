# SPDX-License-Identifier: GPL-2.0-or-later
"""Planned looks: their price, and which of a run's boots a verdict may rest on."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

import pytest

from patchlab.record import BootKind, BootRecord, Outcome, Sample, StoredRun
from patchlab.runs import resume
from patchlab.verdict import Verdict
from patchlab.verdicts import compare, looks
from tests.report import sample_run
from tests.report.sample_run import BASE, CONTROL, FUSE

LOOKS = (4, 8, 12)
FAULT = sample_run.metric_info("fault", FUSE, "a fault", "page", True)


def timed(arm: str, block: int, value: float) -> BootRecord:
    samples = (Sample("fault", FUSE, 0, value, False, False),)
    return dataclasses.replace(sample_run.boot(arm, BootKind.BENCH, block), samples=samples)


def run_of(boots: Sequence[BootRecord], *, finished: str = "") -> StoredRun:
    run = sample_run.sample_run()
    return dataclasses.replace(
        run,
        boots=tuple(boots),
        checks=(),
        metrics=(FAULT,),
        kinds=(BootKind.BENCH,),
        sampling=dataclasses.replace(run.sampling, blocks=12, looks=LOOKS),
        finished=finished,
    )


def blocks(count: int, spread: float = 0.0002, change: float = 0.0) -> list[BootRecord]:
    """The first ``count`` blocks of one and the same run."""
    chance = random.Random(4)
    boots = []
    for block in range(count):
        for arm, level in ((BASE, 2000.0), (CONTROL, 2000.0 * (1 + change))):
            boots.append(timed(arm, block, level * (1 + chance.gauss(0, spread))))
    return boots


# Pocock 1977, Biometrika 64:191, table 1: nominal levels for 5 %, two-sided.
@pytest.mark.parametrize(("count", "nominal"), [(2, 0.0294), (3, 0.0221), (4, 0.0182), (5, 0.0158)])
def test_the_thresholds_are_pococks(count: int, nominal: float) -> None:
    planned = tuple(10 * look for look in range(1, count + 1))
    assert looks.threshold(planned) == pytest.approx(nominal, abs=0.00005)
    assert looks.threshold(tuple(7 * look for look in planned)) == pytest.approx(nominal, abs=5e-5)


def test_looks_that_lie_close_together_cost_less_and_one_costs_nothing() -> None:
    assert looks.threshold((10, 20)) < looks.threshold((18, 20)) < 0.05
    assert looks.threshold((10,)) == looks.threshold(()) == 0.05


def test_the_chance_of_crossing_is_that_of_simulated_looks() -> None:
    chance = random.Random(5)
    planned, hits, tries = (4, 8, 20), 0, 4000
    for _ in range(tries):
        total, seen = 0.0, []
        for block in range(1, 21):
            total += chance.gauss(0, 1)
            if block in planned:
                seen.append(abs(total) / block**0.5)
        hits += max(seen) > 1.959964
    assert looks.crossing(planned, 0.05) == pytest.approx(hits / tries, abs=0.015)


def test_a_run_goes_on_from_where_it_is_and_never_looks_back() -> None:
    assert looks.ahead(run_of([])) == LOOKS
    assert looks.ahead(run_of(blocks(3))) == LOOKS
    assert looks.ahead(run_of(blocks(4))) == LOOKS  # the look itself may have been missed
    assert looks.ahead(run_of(blocks(5))) == (8, 12)
    assert looks.ahead(run_of(blocks(12))) == (12,)
    fixed = run_of([])
    fixed = dataclasses.replace(fixed, sampling=dataclasses.replace(fixed.sampling, looks=()))
    assert looks.ahead(fixed) == (12,)


def test_a_run_lacks_the_boots_up_to_the_look_that_it_is_in() -> None:
    assert resume.made(run_of(blocks(3))) == "6 of 8 boots"
    assert resume.made(run_of(blocks(5))) == "10 of 16 boots"
    assert resume.made(run_of(blocks(8), finished="now")) == "16 of 16 boots"


def test_between_looks_the_verdict_is_that_of_the_last_one() -> None:
    (at_look,) = compare.compare_all(run_of(blocks(4)))
    (later,) = compare.compare_all(run_of(blocks(7)))
    assert at_look.metrics == later.metrics
    assert at_look.metrics[0].blocks == 4
    assert at_look.alpha == looks.threshold(LOOKS)


def test_before_the_first_look_there_is_no_verdict_however_clear() -> None:
    (comparison,) = compare.compare_all(run_of(blocks(3, change=0.1)))
    (metric,) = comparison.metrics
    assert metric.verdict is Verdict.INCONCLUSIVE
    assert metric.reason == "no verdict before the first planned look, after 4 blocks"
    assert metric.ratio == pytest.approx(0.1, rel=0.01)


def test_a_boot_that_was_lost_twice_does_not_hold_up_a_look() -> None:
    boots = blocks(4)
    lost = [dataclasses.replace(boots[5], outcome=Outcome.LOST, attempt=n) for n in (1, 2)]
    run = run_of([*boots[:5], *lost, *boots[6:]])
    assert looks.seen(run) == 4
    assert looks.seen(run_of([*boots[:5], lost[0], *boots[6:]])) == 0


def test_what_keeps_a_run_going_is_an_open_primary_metric() -> None:
    noisy = run_of(blocks(4, spread=0.01))
    assert looks.open_metrics(compare.compare_all(noisy)) == ("fault",)
    other = dataclasses.replace(FAULT, primary=False)
    assert not looks.open_metrics(compare.compare_all(dataclasses.replace(noisy, metrics=(other,))))
    clear = run_of(blocks(4, change=0.02))
    assert not looks.open_metrics(compare.compare_all(clear))


def test_each_look_asks_for_more_than_a_run_without_looks() -> None:
    boots = blocks(4, spread=0.0012, change=0.0045)
    planned = run_of(boots, finished="now")
    fixed = dataclasses.replace(planned, sampling=dataclasses.replace(planned.sampling, looks=()))
    (strict,), (plain,) = compare.compare_all(planned), compare.compare_all(fixed)
    one, other = strict.metrics[0], plain.metrics[0]
    assert one.p == other.p
    assert one.low is not None and other.low is not None
    assert one.low < other.low
    assert other.verdict is Verdict.SLOWER
    assert one.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("count", "finished", "said"),
    [
        (3, "", "the first has not come, so there is no verdict"),
        (7, "", "the verdicts are those of the first look, after 4 blocks, and the run did not"),
        (8, "now", "the second look, after 8 blocks, ended the run, since no primary metric was"),
        (12, "now", "the third look, after 12 blocks, ended the run, as the last one"),
    ],
)
def test_the_report_says_which_look_it_was_and_that_it_was_planned(
    count: int, finished: str, said: str
) -> None:
    run = run_of(blocks(count), finished=finished)
    (comparison,) = compare.compare_all(run)
    (note,) = [one for one in comparison.notes if "looks were planned after 4, 8, 12" in one]
    assert "p below 0.0221 instead of 0.05" in note
    assert said in note


def test_a_run_without_looks_says_nothing_of_them() -> None:
    (comparison,) = compare.compare_all(sample_run.sample_run())
    assert not [note for note in comparison.notes if "look" in note]
    assert comparison.alpha == 0.05

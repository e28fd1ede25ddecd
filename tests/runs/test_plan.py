# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from patchlab import config
from patchlab.model import RunPlan
from patchlab.record import Clock, StoredRun
from patchlab.runs import plan
from patchlab.runs.plan import Forecast
from patchlab.verdicts import stats
from tests.config import small_lab
from tests.report import sample_run


@pytest.fixture
def wanted(tmp_path: Path) -> RunPlan:
    lab = config.load(small_lab.make(tmp_path), features=tmp_path / "features")
    return lab.runs[lab.default_run]


def forecast(wanted: RunPlan, history: StoredRun | None, blocks: int = 5) -> Forecast:
    run = sample_run.sample_run()
    sampling = replace(run.sampling, blocks=blocks)
    return plan.forecast(wanted, sampling, Clock.ICOUNT, run.metrics, history, at_once=2)


def test_every_arm_boots_once_for_its_checks_and_once_a_block(wanted: RunPlan) -> None:
    found = forecast(wanted, None, blocks=7)
    assert found.check_boots == len(wanted.arms)
    assert found.bench_boots == 7 * len(wanted.arms)
    assert not found.known and found.source == ""
    assert {one.smallest for one in found.metrics} == {None}


def test_two_guests_at_once_halve_the_time(wanted: RunPlan) -> None:
    history = sample_run.sample_run()
    found = forecast(wanted, history, blocks=10)
    seconds = sorted(b.seconds for b in history.boots if b.kind == "bench")
    assert found.known
    rounds = math.ceil(10 * len(wanted.arms) / 2)
    assert seconds[0] * rounds <= found.bench_seconds <= seconds[-1] * rounds


def test_more_blocks_see_less_and_the_blocks_needed_see_the_margin(wanted: RunPlan) -> None:
    history = sample_run.sample_run()
    few, many = forecast(wanted, history, 5).metrics, forecast(wanted, history, 50).metrics
    seen = [(a, b) for a, b in zip(few, many, strict=True) if a.smallest and b.smallest]
    assert len(seen) > 5
    assert all((b.smallest or 0) < (a.smallest or 0) for a, b in seen)
    enough = next(a for a, _ in seen if a.needed and a.needed > 5)
    assert enough.needed and enough.spread
    family = sum(one.metric.primary is enough.metric.primary for one in few)
    told = stats.smallest_effect(enough.spread, enough.needed, alpha=0.05 / family)
    assert told <= enough.margin


def test_planned_looks_have_their_price_and_their_places(wanted: RunPlan) -> None:
    run = sample_run.sample_run()
    sampling = replace(run.sampling, blocks=15, looks=(5, 10, 15))
    found = plan.forecast(wanted, sampling, Clock.ICOUNT, run.metrics, run, at_once=1)
    arms = len(wanted.arms)
    assert [(one.blocks, one.bench_boots) for one in found.looks] == [
        (blocks, blocks * arms) for blocks in (5, 10, 15)
    ]
    assert found.bench_boots == 15 * arms
    assert found.alpha == pytest.approx(0.0221, abs=1e-4)
    plain = forecast(wanted, run, blocks=15)
    assert plain.looks == () and plain.alpha == 0.05
    pairs = [(a, b) for a, b in zip(found.metrics, plain.metrics, strict=True) if a.smallest]
    assert all(a.smallest > (b.smallest or 0) for a, b in pairs if a.smallest)


def test_a_metric_of_one_arm_alone_has_a_spread_too() -> None:
    run = sample_run.sample_run()
    gone = next(metric for metric in run.metrics if metric.id == "redirty")
    found = plan.spread_of(run, gone)
    assert found is not None
    spread, boots = found
    assert 0 < spread < 0.1 and boots >= 4


def test_every_other_cpu_model_boots_every_arm_again(wanted: RunPlan) -> None:
    both = forecast(replace(wanted, sensitivity=("erms", "slow")), None, blocks=5)
    assert both.bench_boots == 3 * forecast(wanted, None, blocks=5).bench_boots
    assert both.check_boots == len(wanted.arms)


def test_no_verdict_with_fewer_blocks_than_the_clock_asks_for(wanted: RunPlan) -> None:
    needed = [one.needed for one in forecast(wanted, sample_run.sample_run()).metrics]
    assert min(n for n in needed if n) >= stats.MIN_BLOCKS[Clock.ICOUNT]

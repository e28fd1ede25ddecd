# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import dataclasses
import functools

import pytest

from patchlab.calibration import AGENT, KERNEL, Calibration, MetricCalibration, Slowed
from patchlab.record import Outcome
from patchlab.verdicts import calibration
from tests.report import calibration_run
from tests.report.calibration_run import REBUILT, A, B


@functools.cache
def _found(blocks: int = 8, spread: float = 0.0003, shift: float = 0.0) -> Calibration:
    return calibration.summarise(calibration_run.run(blocks, spread, shift))


def _of(
    metric: str, *, blocks: int = 8, spread: float = 0.0003, shift: float = 0.0
) -> MetricCalibration:
    found = _found(blocks, spread, shift)
    (one,) = (one for one in found.metrics if one.metric == metric)
    return one


def _slowed(metric: MetricCalibration, where: str) -> Slowed:
    (one,) = (one for one in metric.slowed if one.where == where)
    return one


@pytest.mark.parametrize("where", [KERNEL, AGENT])
def test_a_known_slowdown_is_seen_with_its_size(where: str) -> None:
    one = _slowed(_of("fault"), where)
    assert one.asked == 0.005
    assert one.true == pytest.approx(0.005, abs=2e-5)
    assert one.seen == pytest.approx(one.true, abs=5e-4)
    assert one.error < 5e-4
    assert (one.found, one.slower, one.within) == (1, 1, 1)


def test_a_slowdown_below_the_spread_is_not_found_and_not_called_found() -> None:
    one = _slowed(_of("fault", spread=0.02), KERNEL)
    assert one.found < 0.5
    assert one.slower < 0.5
    assert one.within < 1


def test_alike_arms_are_called_unlike_only_when_the_rebuilt_one_is() -> None:
    still = _found()
    assert still.full.value == 0
    assert (still.unadjusted.value or 0) < 0.15
    moved = calibration.summarise(calibration_run.run(shift=0.01))
    assert moved.full.value == pytest.approx(1)  # judged by the rebuilt kernel alone
    assert moved.full_runs.value == pytest.approx(1)
    assert moved.equivalent.value == 0


def test_the_shift_of_a_rebuilt_kernel_is_named() -> None:
    alike = {one.arm: one for one in _of("store", shift=0.004).alike}
    assert set(alike) == {B, REBUILT}
    assert alike[REBUILT].ratio == pytest.approx(0.004, abs=5e-4)
    assert alike[B].ratio == pytest.approx(0, abs=5e-4)
    assert (alike[REBUILT].low or 0) > 0.003


def test_the_spread_is_that_of_the_boots_of_the_first_arm() -> None:
    assert _of("fault", blocks=25, spread=0.002).spread == pytest.approx(0.002, rel=0.3)
    wide = _of("fault", blocks=25, spread=0.002)
    assert wide.loosest == max(wide.spread or 0, *(one.boots or 0 for one in wide.alike))
    assert _of("fault").level == pytest.approx(4000, rel=0.001)


def test_a_metric_without_a_kernel_path_says_so_and_is_not_called_unseen() -> None:
    one = _of("touch")
    assert [each.where for each in one.slowed] == [AGENT]
    assert {why for _, why in one.missing} == {
        "skipped: no system call and no fault in its window: there is no kernel path"
    }


def test_tries_are_sets_of_five_blocks_and_all_of_them_where_they_are_few() -> None:
    found = _found()
    assert (found.blocks, found.draw, found.tries, found.every) == (8, 5, 56, True)
    assert found.full.count == 56 * 3  # one rebuilt kernel, three metrics
    assert found.full.apart == 1
    many = calibration.summarise(calibration_run.run(blocks=12))
    assert (many.tries, many.every) == (300, False)


def test_a_block_with_a_dead_boot_is_left_out_of_every_arm() -> None:
    run = calibration_run.run(blocks=6)
    boots = [
        dataclasses.replace(boot, outcome=Outcome.CRASHED)
        if (boot.variant, boot.block) == (B, 2)
        else boot
        for boot in run.boots
    ]
    found = calibration.summarise(dataclasses.replace(run, boots=tuple(boots)))
    assert (found.blocks, found.tries) == (5, 1)
    assert found.full.low is None  # one try has no interval


def test_arms_are_told_by_their_names() -> None:
    kernel = calibration.arm_of(calibration_run.slow(KERNEL, 0.02))
    assert (kernel.where, kernel.share) == (KERNEL, 0.02)
    assert calibration.arm_of(A).where == ""
    assert calibration.arm_of(REBUILT).where == ""

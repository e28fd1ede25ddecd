# SPDX-License-Identifier: GPL-2.0-or-later
"""What the evidence page of the instrument says, over calibrations whose truth is known."""

from __future__ import annotations

from patchlab.verdicts import calibration
from tests.proving import calibrations
from tests.proving.calibrations import Instrument
from tests.report import calibration_run


def shown(spread: float = 0.0003, shift: float = 0.0) -> Instrument:
    found = calibration.summarise(calibration_run.run(spread=spread, shift=shift))
    return Instrument("key", found, "04749a7", "2026-11-22T00:00:00+00:00")


def test_a_good_instrument_breaks_no_promise() -> None:
    good = shown()
    assert calibrations.wrong([good.found]) == []
    text = calibrations.page([good])
    assert "All hold." in text
    assert "| four of five metrics | 3 of 3 |" in text
    assert "## On `base`" in text


def test_metrics_that_spread_are_counted_and_named() -> None:
    said = calibrations.wrong([shown(spread=0.003).found])
    assert any("spread too much: fault, store" in line for line in said)
    assert "Not as promised: " in calibrations.page([shown(spread=0.003)])


def test_a_shift_of_a_rebuilt_kernel_is_a_false_alarm_and_a_margin_too_small() -> None:
    said = calibrations.wrong([shown(shift=0.004).found])
    assert any("false alarms" in line for line in said)
    assert "fault: its margin is too small" in said


def test_loose_metrics_are_counted_over_all_calibrations_together() -> None:
    good, loose = shown().found, shown(spread=0.003).found
    assert any("3 of 6 metrics" in line for line in calibrations.wrong([good, loose]))
    assert calibrations.wrong([good, good]) == []

# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import dataclasses
import io
from datetime import datetime, timedelta

from rich.console import Console

from patchlab.report import calibrated
from patchlab.verdicts import calibration
from tests.report import calibration_run, sample_run


def _text() -> str:
    console = Console(file=io.StringIO(), width=160, color_system=None)
    found = calibration.summarise(calibration_run.run(shares=(0.001, 0.005)))
    console.print(calibrated.whole(found))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_what_the_verb_prints() -> None:
    text = _text()
    assert "every set of 5 of them" in text
    assert "-cpu max,-erms,-fsrm" in text
    assert "+0.5 %" in text
    assert "+0.1 %" in text
    assert "touch: skipped: no system call and no fault in its window" in text


def test_every_report_says_how_old_the_last_figures_are() -> None:
    found = calibration.summarise(calibration_run.run(shares=(0.001, 0.005)))
    run = dataclasses.replace(sample_run.sample_run(), calibration=found)
    later = datetime.fromisoformat(found.started) + timedelta(hours=7)
    said = calibrated.sentence(run, later)
    assert said.startswith("Calibrated 7 h before this report (run 7, 8 blocks, on base)")
    assert (
        "0.5 % longer in the kernel is found in 100.0 % of tries with 5 blocks (2 metrics" in said
    )
    assert "12 days" in calibrated.sentence(run, later + timedelta(days=12))


def test_a_run_without_a_calibration_says_so_and_what_to_do() -> None:
    said = calibrated.sentence(sample_run.sample_run())
    assert "Not calibrated" in said
    assert "runner.py calibrate" in said


def test_a_margin_that_a_mere_rebuild_passes_is_named() -> None:
    steady = calibration.summarise(calibration_run.run())
    assert not any(one.narrow for one in steady.metrics)
    shifted = calibration.summarise(calibration_run.run(shift=0.004))
    assert {one.metric for one in shifted.metrics if one.narrow} >= {"fault", "store"}
    run = dataclasses.replace(sample_run.sample_run(), calibration=shifted)
    assert "below the shift of a kernel that does the same work: fault (±" in calibrated.sentence(
        run
    )
    console = Console(file=io.StringIO(), width=200, color_system=None)
    console.print(calibrated.whole(shifted))
    assert isinstance(console.file, io.StringIO)
    assert "; widen it" in console.file.getvalue()

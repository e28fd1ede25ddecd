# SPDX-License-Identifier: GPL-2.0-or-later
"""A boot that explains a metric has the devices of the boots that it explains."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from patchlab import config
from patchlab.commands import explain
from tests.report import sample_run


def test_the_disk_is_the_run_s() -> None:
    lab = config.load(Path(__file__).parents[2] / "lab.toml")
    run = sample_run.sample_run()
    assert lab.machine.disk == 0
    assert explain.as_stored(lab, run).machine.disk == 0
    plan = lab.runs["map-direct"]
    with_disk = dataclasses.replace(run, ground={**run.ground, "disk": str(plan.disk)})
    assert explain.as_stored(lab, with_disk).machine.disk == plan.disk > 0

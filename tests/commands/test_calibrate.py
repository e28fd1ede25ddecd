# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from patchlab import config
from patchlab.commands import calibrate
from patchlab.errors import UsageError
from patchlab.verdicts import calibration

LAB = Path(__file__).parents[2] / "lab.toml"


def test_the_arms_of_a_calibration() -> None:
    plan = calibrate.plan_of(config.load(LAB), "base", (0.001, 0.005), [])
    assert [arm.name for arm in plan.arms] == [
        "base + cmdline:lab.arm=a",
        "base + cmdline:lab.arm=b",
        "calibration@padding-1",
        "calibration@padding-2",
        "calibration@spin + cmdline:lab.slow=kernel:0.0000",
        "calibration@spin + cmdline:lab.slow=kernel:0.0010",
        "calibration@spin + cmdline:lab.slow=kernel:0.0050",
        "base + cmdline:lab.slow=agent:0.0000",
        "base + cmdline:lab.slow=agent:0.0050",
    ]
    assert plan.baseline == plan.arms[0].name
    assert calibration.arm_of(plan.arms[5].name).share == 0.001


def test_a_series_is_calibrated_on_itself_with_its_feature() -> None:
    plan = calibrate.plan_of(config.load(LAB), "fuse-direct-mmap@v2", (0.005,), [])
    assert all(arm.name.startswith("fuse-direct-mmap@v2 + c") for arm in plan.arms)
    assert plan.features[0] == "fuse_direct_mmap"


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "0.5,nan", "50", "1,,2"])
def test_sizes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--sizes"):
        calibrate.sizes(text)


def test_sizes_are_per_cents_in_rising_order() -> None:
    assert calibrate.sizes("5,0.1,1") == (0.001, 0.01, 0.05)

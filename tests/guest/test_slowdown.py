# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest

from guest import slowdown
from guest.words import Bench, Skipped
from patchlab import calibration
from patchlab.verdicts.levels import NS_PER_INSTRUCTION


@pytest.mark.parametrize("where", [calibration.KERNEL, calibration.AGENT])
def test_the_agent_reads_the_option_that_the_lab_writes(where: str) -> None:
    option = calibration.slow_option(where, 0.005)
    assert slowdown.asked(f"quiet {option} panic=-1") == (where, 0.005)
    assert slowdown.asked(option) == (where, 0.005)
    assert slowdown.asked(calibration.slow_option(where, 0)) == (where, 0)


@pytest.mark.parametrize(
    "cmdline", ["quiet", "lab.slow=", "lab.slow=moon:1", "xlab.slow=agent:1", "lab.slow=agent:-1"]
)
def test_a_boot_that_asks_for_nothing_is_left_alone(cmdline: str) -> None:
    assert slowdown.asked(cmdline) is None


def test_an_instruction_is_as_long_for_the_agent_as_for_the_lab() -> None:
    assert slowdown.NS == NS_PER_INSTRUCTION


def test_a_kernel_without_the_loop_says_so() -> None:
    with pytest.raises(Skipped, match="no lab_spin"):
        slowdown.slowed(Bench(lambda: None, 1), 3, 1, (calibration.KERNEL, 0.1))


def test_the_agents_loop_is_timed_and_the_quiet_rounds_have_next_to_none() -> None:
    bench, added = slowdown.slowed(
        Bench(lambda: sum(range(100_000)), 10), 6, 2, (calibration.AGENT, 3.0)
    )
    for _ in range(6):
        bench.before()
        bench.window()
        bench.after()
    assert bench.units == 10
    # Three times the window against the two readings of a clock: no load blurs that.
    assert min(added[2:]) > 5 * min(added[:2]) > 0

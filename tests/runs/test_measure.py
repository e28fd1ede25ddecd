# SPDX-License-Identifier: GPL-2.0-or-later
"""What a boot became: the host's view and the log's, on logs of real kernels."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from patchlab import config
from patchlab.guests import console
from patchlab.record import Clock, Outcome
from patchlab.runs import measure
from tests.report.sample_run import BASE, sample_run

LOGS = Path(__file__).parents[1] / "data" / "console"
BANNER = "[    0.000000] Linux version 6.12.117 (build@lab) (gcc 12.2.0) #1 SMP\n"


def judged(
    outcome: Outcome, reason: str, text: str, clock: Clock = Clock.TCG
) -> tuple[Outcome, str]:
    findings = console.scan(text.split("\n"), (), date(2026, 1, 1))
    return measure.judge(outcome, reason, findings, text, clock)


def log(name: str) -> str:
    text = (LOGS / f"{name}.log").read_text(errors="replace")
    return text if "Linux version" in text else BANNER + text


def test_a_clean_log_leaves_a_passed_boot_passed() -> None:
    assert judged(Outcome.PASSED, "", log("clean")) == (Outcome.PASSED, "")


def test_an_oops_beats_a_lost_connection() -> None:
    outcome, reason = judged(Outcome.LOST, "SSH broke", log("oops-null"))
    assert outcome is Outcome.CRASHED
    assert reason == "SSH broke"


def test_an_oops_is_never_green_though_the_guest_went_on() -> None:
    outcome, reason = judged(Outcome.PASSED, "", log("oops-null"))
    assert outcome is Outcome.CRASHED
    assert "NULL pointer" in reason


def test_a_warning_makes_a_boot_that_worked_unclean() -> None:
    outcome, reason = judged(Outcome.PASSED, "", log("warn"))
    assert outcome is Outcome.SPLAT
    assert "WARNING" in reason


def test_a_warning_does_not_hide_that_the_guest_stopped_answering() -> None:
    assert judged(Outcome.TIMED_OUT, "late", log("warn")) == (Outcome.TIMED_OUT, "late")


# As a guest of QEMU 7.2 wrote it: kernel 6.12.117, unpatched, two vCPUs.
GONE = log("int3-gone")
BYTES = "18 48 8b 42 10 48 85 c0 0f 84 18 01 00 00 48 89 43 30 0f <1f>"


def test_a_breakpoint_that_the_emulator_ran_too_late_loses_the_boot() -> None:
    outcome, reason = judged(Outcome.CRASHED, "oops before the guest was ready", GONE)
    assert outcome is Outcome.LOST
    assert "at key_set_index_key+0x9a/0x1e0" in reason
    assert "the emulator" in reason


@pytest.mark.parametrize(
    ("clock", "text"),
    [
        # No CPU does that, and neither does a QEMU with one thread.
        (Clock.WALL, GONE),
        (Clock.ICOUNT, GONE),
        # The breakpoint is there: somebody put it there.
        (Clock.TCG, GONE.replace(BYTES, BYTES.replace("0f <", "cc <"))),
        # Nobody can tell.
        (Clock.TCG, re.sub("Code: .*", "Code: Unable to access opcode bytes.", GONE)),
        # The second oops comes from the first one's damage.
        (Clock.TCG, GONE.replace("int3: 0000 [#1]", "int3: 0000 [#2]")),
        (Clock.TCG, log("oops-null") + GONE),
    ],
)
def test_any_other_breakpoint_is_the_kernel_s(clock: Clock, text: str) -> None:
    assert judged(Outcome.CRASHED, "", text, clock)[0] is Outcome.CRASHED


@pytest.mark.parametrize("text", ["", "\n \n", "hello from no kernel\n"])
def test_a_log_that_cannot_be_scanned_is_no_pass(text: str) -> None:
    outcome, reason = judged(Outcome.PASSED, "", text)
    assert outcome is Outcome.LOST
    assert "console log" in reason


def test_a_debug_kernel_gets_six_times_the_time() -> None:
    lab = config.load(Path(__file__).parents[2] / "lab.toml")
    image = sample_run().images[BASE]
    assert measure.patient(lab, image) == lab
    slow = measure.patient(lab, replace(image, fragments=(*image.fragments, "debug"))).limits
    assert (slow.boot, slow.check) == (6 * lab.limits.boot, 6 * lab.limits.check)
    assert (slow.build, slow.measure) == (lab.limits.build, lab.limits.measure)

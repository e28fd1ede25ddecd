# SPDX-License-Identifier: GPL-2.0-or-later
"""What a script that calls the lab is told: news, bad or none."""

from __future__ import annotations

import dataclasses
import re

import pytest

from patchlab.commands.report import exit_code
from patchlab.errors import LostInstrument
from patchlab.record import BootKind, BootRecord, CheckResult, Outcome, StoredRun
from patchlab.report import cover, html, text, words
from patchlab.verdicts import compare
from tests.report import sample_run
from tests.report.sample_run import BASE, CONTROL, FUSE

OTHER = "fuse-writable-mmap@v2"


def run(red: str, arm: str, outcome: Outcome, check: str = "B2") -> StoredRun:
    """Two arms that pass every check but one, which is seen red on ``red``."""
    sample = sample_run.only_checks()
    boots = []
    for variant in (BASE, OTHER):
        found = [
            CheckResult(info.id, info.feature, Outcome.PASSED, "", "", 0.1)
            if (variant, info.id) != (arm, check)
            else CheckResult(check, FUSE, outcome, "", "it did not", 0.1)
            for info in sample.checks
        ]
        one = sample_run.boot(variant, BootKind.CHECK)
        boots.append(dataclasses.replace(one, checks=tuple(found)))
    infos = [
        dataclasses.replace(info, red=red if info.id == check else info.red)
        for info in sample.checks
    ]
    return dataclasses.replace(
        sample, arms=(BASE, OTHER), boots=tuple(boots), checks=tuple(infos), images={}
    )


@pytest.mark.parametrize(
    ("red", "arm", "outcome", "code"),
    [
        ("", OTHER, Outcome.PASSED, 0),
        (OTHER, OTHER, Outcome.FAILED, 0),
        (f"{CONTROL}; {OTHER}", OTHER, Outcome.FAILED, 0),
        (BASE, BASE, Outcome.FAILED, 0),
        ("", BASE, Outcome.FAILED, 1),
        (CONTROL, OTHER, Outcome.FAILED, 1),
        (OTHER, BASE, Outcome.FAILED, 1),
        # Known of a planted kernel with its fault switched on: not of the kernel as it is.
        (f"{OTHER} fw.plant=x", OTHER, Outcome.FAILED, 1),
        # What is known is that it fails, not that it hangs or takes the kernel with it.
        (OTHER, OTHER, Outcome.TIMED_OUT, 1),
        (OTHER, OTHER, Outcome.CRASHED, 1),
        (OTHER, OTHER, Outcome.SPLAT, 1),
        # A feature that is gone where it should be is a regression.
        (OTHER, OTHER, Outcome.UNSUPPORTED, 1),
    ],
)
def test_only_a_failure_that_is_known_of_the_arm_is_no_news(
    red: str, arm: str, outcome: Outcome, code: int
) -> None:
    stored = run(red, arm, outcome)
    assert exit_code(stored, compare.compare_all(stored)) == code


def test_what_a_base_without_a_revision_lacks_is_no_regression() -> None:
    stored = dataclasses.replace(run("", BASE, Outcome.UNSUPPORTED), baseline=OTHER)
    [lacking] = compare.compare_all(stored)
    assert lacking.candidate == BASE
    assert [check.regression for check in lacking.checks].count(True) == 1
    assert exit_code(stored, [lacking]) == 0


def test_a_crashed_boot_is_news_though_its_check_is_known_to_fail() -> None:
    stored = run(OTHER, OTHER, Outcome.FAILED)
    last = dataclasses.replace(stored.boots[-1], outcome=Outcome.CRASHED)
    crashed = dataclasses.replace(stored, boots=(*stored.boots[:-1], last))
    assert exit_code(crashed, compare.compare_all(crashed)) == 1


@pytest.mark.parametrize(("red", "known"), [(OTHER, True), ("", False)])
def test_the_report_says_which_failure_is_known(red: str, known: bool) -> None:
    stored = run(red, OTHER, Outcome.FAILED)
    comparisons = compare.compare_all(stored)
    said = text.render(stored, comparisons, 200)
    assert (f"failed on {OTHER}, as it is known to: it did not" in said) == known
    page = html.render(stored, comparisons)
    assert ('<span class="small known-failure">known failure</span>' in page) == known


def test_a_boot_that_was_lost_counts_only_when_it_was_not_made_again() -> None:
    stored = run("", OTHER, Outcome.PASSED)
    good = stored.boots[-1]
    lost = dataclasses.replace(good, outcome=Outcome.LOST, checks=())
    last = dataclasses.replace(lost, attempt=2)
    assert good.attempt == 1

    def code(*boots: BootRecord) -> int:
        return exit_code(dataclasses.replace(stored, boots=(*stored.boots[:-1], *boots)), ())

    assert code(lost, dataclasses.replace(good, attempt=2)) == 0
    assert code(lost, last) == LostInstrument.exit_code
    assert code(lost) == LostInstrument.exit_code


def test_two_arms_are_no_worse_for_what_a_third_one_did() -> None:
    stored = run("", OTHER, Outcome.FAILED)
    third = dataclasses.replace(stored, arms=(BASE, CONTROL, OTHER))
    assert exit_code(third, (), {BASE, CONTROL}) == 0
    assert exit_code(third, (), {BASE, OTHER}) == 1
    assert exit_code(third, ()) == 1


def test_a_known_failure_is_called_one_wherever_it_is_said() -> None:
    stored = run(OTHER, OTHER, Outcome.FAILED)
    comparisons = compare.compare_all(stored)
    [said] = [line for line in words.headlines(stored, comparisons) if OTHER in line]
    assert "1 known failure" in said
    shown = cover.render(stored, comparisons[0])
    assert "known failure:" in shown
    assert re.search(r"regressions: +none", shown)
    assert "known-failure" in html.render(stored, comparisons)

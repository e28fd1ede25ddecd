# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from patchlab.record import StoredRun
from patchlab.report import plain, text
from patchlab.verdicts import compare
from tests.report import review_run, sample_run

INCOMPLETE = [
    (sample_run.one_arm, "nothing to compare with"),
    (sample_run.only_checks, "No bench boot is stored"),
    (sample_run.interrupted, "This run did not finish."),
    (sample_run.before_the_first_boot, "No check boot is stored"),
]


def render(run: StoredRun, width: int = plain.WIDTH) -> str:
    return text.render(run, compare.compare_all(run), width)


def flat(run: StoredRun) -> str:
    return " ".join(render(run).split())


def test_it_is_plain_and_fits_a_hundred_columns() -> None:
    shown = render(sample_run.sample_run())
    assert "\x1b" not in shown and "\x07" not in shown
    assert max(len(line) for line in shown.splitlines()) <= 100


def test_checks_stand_side_by_side_and_say_what_was_seen() -> None:
    lines = render(sample_run.sample_run()).splitlines()
    (head,) = [line for line in lines if "what it asserts" in line]
    (b12,) = [line for line in lines if line.startswith(" B12")]
    assert head.split()[1:3] == [sample_run.BASE, sample_run.CONTROL]
    assert b12.split()[1:3] == ["passed", "failed"]
    assert "B1, B2, B3, B4, B5, B11: unsupported on fuse-writable-mmap@control" in flat(
        sample_run.sample_run()
    )


def test_a_metric_has_its_change_interval_and_verdict_on_its_row() -> None:
    lines = render(sample_run.sample_run()).splitlines()
    (row,) = [i for i, line in enumerate(lines) if line.startswith(" dax-first*")]
    assert " ".join(lines[row].split()) == ("dax-first* 4,514 4,495 −18.9 −0.419 % faster < 0.001")
    assert "−0.459 … −0.379" in lines[row + 1]


def test_the_clock_the_notes_and_the_wall_clock_are_there() -> None:
    shown = flat(sample_run.sample_run())
    assert "It counts path length, not caches, stalls or parallelism." in shown
    assert "block 2 of base: attempt 1 was lost (SSH never came" in shown
    assert "wall clock of the run 14 min 3 s: source 14.2 s" in shown


def test_a_guest_cannot_steer_the_terminal_or_speak_markup() -> None:
    run = sample_run.sample_run()
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system="standard")
    for part in text.renderables(run, compare.compare_all(run)):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "\x1b]0;" not in shown and "\x07" not in shown
    assert "[bold]not" in shown
    assert "\\x1b]0;title\\x07" in shown


@pytest.mark.parametrize(("make", "said"), INCOMPLETE)
def test_an_incomplete_run_renders_and_says_what_it_lacks(
    make: Callable[[], StoredRun], said: str
) -> None:
    assert said in flat(make())


def test_one_arm_shows_its_levels() -> None:
    assert "39,186" in flat(sample_run.one_arm())


def test_the_ledger_comes_first_and_says_what_decided_it() -> None:
    shown = flat(review_run.review_run())
    lines = render(review_run.review_run()).splitlines()
    assert lines[3].startswith("demo: v2 meets 3 of 7 demands (v1: 2 of 8); undecided: killable")
    (leak,) = [line for line in lines if line.startswith(" no-leak ")]
    assert leak.split()[1:3] == ["open", "met"]
    assert f"no-leak open on v1: D2 failed: {review_run.LEAK}" in shown
    assert "return-fd answered on v1: mmap returns the error that COMMIT carries" in shown
    assert "return-fd moot on v2: D3 unsupported: no descriptor is passed" in shown
    assert "\\x1b]0;title\\x07" in shown and "[red]no markup" in shown
    assert max(len(line) for line in lines) <= 100


def test_levels_stand_in_one_table() -> None:
    lines = render(review_run.review_run()).splitlines()
    (row,) = [i for i, line in enumerate(lines) if line.startswith(" map and unmap ")]
    assert lines[row].split()[3:] == ["40,000", "30,000", "20,000", "not", "timed"]
    assert lines[row + 1].split()[0] == "instructions/map"
    assert "±0.1" in lines[row + 1]

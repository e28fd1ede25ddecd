# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from collections.abc import Callable

import pytest

from patchlab.record import StoredRun
from patchlab.report import cover
from patchlab.verdicts import compare
from tests.report import review_run, sample_run


def render(run: StoredRun) -> str:
    (comparison,) = compare.compare_all(run)
    return cover.render(run, comparison)


def row(text: str, start: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    return line.removeprefix(start).split()


RUNS = [sample_run.sample_run, review_run.review_run, sample_run.interrupted]


@pytest.mark.parametrize("make", RUNS)
def test_it_can_be_pasted_into_a_mail(make: Callable[[], StoredRun]) -> None:
    run = make()
    for comparison in compare.compare_all(run):
        text = cover.render(run, comparison)
        assert max(len(line) for line in text.splitlines()) <= 72
        assert text.isascii() and "\x1b" not in text
        assert text.count("[1]") == 2  # the head points at the one footnote


def test_a_change_has_its_levels_and_interval_and_the_same_has_its_margin() -> None:
    text = render(sample_run.sample_run())
    first = row(text, "dax-first, a page")
    assert first == ["4,514", "4,495", "-18.9", "-0.419%", "+-0.040"]
    assert row(text, "fault-minor, a page")[-2:] == ["same", "+-0.1%"]
    assert row(text, "redirty, a page")[-1] == "gone"
    assert row(text, "write-1k, a call")[-1] == "?"
    assert "not comparable: dax-sync" in text


def test_checks_say_what_became_of_them() -> None:
    text = render(sample_run.sample_run())
    assert row(text, "  regression:") == ["B12"]
    assert row(text, "  gone:") == ["B1", "B2", "B3", "B4", "B5", "B11"]
    assert "regressions:" not in text


def test_demands_stand_under_the_candidate() -> None:
    run = review_run.review_run()
    (comparison,) = [c for c in compare.compare_all(run) if c.candidate == review_run.V2]
    text = cover.render(run, comparison)
    assert "Demands of the reviews of" in text
    assert row(text, "  met:")


def test_what_a_guest_wrote_cannot_steer_the_terminal() -> None:
    run = review_run.review_run()
    for comparison in compare.compare_all(run):
        lines = cover.render(run, comparison).splitlines()
        assert all(line.isprintable() for line in lines)

# SPDX-License-Identifier: GPL-2.0-or-later
"""What was claimed stands beside what was seen, and nothing is refuted."""

from __future__ import annotations

import dataclasses

import pytest

from patchlab.record import Clock, StoredRun
from patchlab.report import html, text
from patchlab.reviews import claims
from patchlab.reviews.claims import Seen, Standing
from tests.report import review_run
from tests.report.review_run import V1, V2


def cells(run: StoredRun) -> dict[tuple[str, str], Seen]:
    (one,) = claims.tables(run)
    return {
        (row.claim.id, column.revision): seen
        for row in one.rows
        for column, seen in zip(one.columns, row.cells, strict=True)
    }


def by_wall_clock() -> StoredRun:
    run = review_run.review_run()
    boots = tuple(
        dataclasses.replace(boot, clock=Clock.WALL) if boot.clock is Clock.ICOUNT else boot
        for boot in run.boots
    )
    return dataclasses.replace(run, clock=Clock.WALL, boots=boots)


def test_a_claim_of_time_is_not_comparable_with_instructions_and_the_number_is_shown() -> None:
    seen = cells(review_run.review_run())["faster", "v2"]
    assert seen.standing is Standing.NOT_COMPARABLE
    assert seen.change == pytest.approx(-0.25, abs=0.02)
    assert seen.text.startswith(f"map-direct {seen.change:+.1%} instructions/map against {V1} (")
    assert seen.text.endswith(
        "the claim is of time on the wall clock, this run counts guest instructions"
    )


def test_on_the_claims_own_clock_it_is_comparable_and_told_as_throughput() -> None:
    seen = cells(by_wall_clock())["faster", "v2"]
    assert seen.standing is Standing.COMPARABLE
    assert seen.before is not None and seen.after is not None
    assert seen.text.endswith(f"which is {seen.before / seen.after - 1:+.1%} throughput")


def test_a_claim_of_instructions_is_comparable_under_icount() -> None:
    assert cells(review_run.review_run())["shorter", "v2"].standing is Standing.COMPARABLE
    assert cells(by_wall_clock())["shorter", "v2"].standing is Standing.NOT_COMPARABLE


def test_what_was_not_measured_says_why() -> None:
    found = cells(review_run.review_run())
    assert found["gone", "v1"].text == "this run has no nothing"
    assert found["other", "v1"].text == "the claim is against demo@v0, which is no arm of this run"
    assert "base: " in found["base", "v1"].text
    reasons = {id: seen.standing for (id, revision), seen in found.items() if revision == "v1"}
    assert [id for id, how in reasons.items() if how is Standing.NOT_MEASURED] == [
        "gone",
        "other",
        "base",
    ]


def test_the_reports_show_it_and_escape_what_it_says() -> None:
    run = review_run.review_run()
    plain = text.render(run, [])
    assert "Claimed, and seen here: Demo of a series" in plain
    assert "faster on v2" in plain
    page = html.render(run, [])
    assert "Claimed, and seen here: Demo of a series" in page
    assert review_run.HOSTILE not in page


def test_a_run_without_claims_or_without_a_revision_has_no_table() -> None:
    run = review_run.review_run()
    without = dataclasses.replace(run.asked[0], claims=())
    assert claims.tables(dataclasses.replace(run, asked=(without,))) == ()
    assert claims.tables(dataclasses.replace(run, arms=("base",))) == ()
    assert {column.arm for column in claims.tables(run)[0].columns} == {V1, V2}

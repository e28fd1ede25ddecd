# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import dataclasses

import pytest

from patchlab.record import BootKind, CheckResult, Outcome, StoredRun
from patchlab.review import Ruling
from patchlab.reviews import ledger
from patchlab.reviews.ledger import Entry, Standing
from tests.report import review_run
from tests.report.review_run import V1, V2


def entries(run: StoredRun) -> dict[tuple[str, str], Entry]:
    (one,) = ledger.ledgers(run)
    return {
        (row.demand.id, column.revision): entry
        for row in one.rows
        for column, entry in zip(one.columns, row.entries, strict=True)
    }


def with_check(run: StoredRun, arm: str, check: str, outcome: Outcome, seen: str) -> StoredRun:
    def changed(result: CheckResult) -> CheckResult:
        if result.id != check:
            return result
        return dataclasses.replace(result, outcome=outcome, seen=seen)

    boots = tuple(
        dataclasses.replace(boot, checks=tuple(changed(result) for result in boot.checks))
        if boot.variant == arm
        else boot
        for boot in run.boots
    )
    return dataclasses.replace(run, boots=boots)


def test_each_demand_stands_as_its_checks_and_rules_say() -> None:
    found = {key: entry.standing for key, entry in entries(review_run.review_run()).items()}
    v1 = {demand: standing for (demand, revision), standing in found.items() if revision == "v1"}
    v2 = {demand: standing for (demand, revision), standing in found.items() if revision == "v2"}
    assert v1 == {
        "works": Standing.MET,
        "no-leak": Standing.OPEN,
        "return-fd": Standing.ANSWERED,
        "killable": Standing.OPEN,
        "clean": Standing.OPEN,
        "argued": Standing.OPEN,
        "later": Standing.UNDECIDED,
        "unbound": Standing.UNDECIDED,
    }
    assert v2 == v1 | {
        "no-leak": Standing.MET,
        "return-fd": Standing.MOOT,
        "killable": Standing.UNDECIDED,
        "clean": Standing.UNDECIDED,
        "argued": Standing.MET,
    }


def test_what_decided_it_is_said() -> None:
    found = entries(review_run.review_run())
    assert found["no-leak", "v1"].why == f"D2 failed: {review_run.LEAK}"
    assert found["killable", "v1"].why == "D4 timed out: no end after 60 s"
    assert found["return-fd", "v2"].why == "D3 unsupported: no descriptor is passed"
    assert found["return-fd", "v1"].answer == "mmap returns the error that COMMIT carries"
    assert found["works", "v1"].why == "D1 passed"
    assert found["killable", "v2"].why == "D4 skipped: one vCPU"
    assert found["clean", "v2"].why == "checkpatch undecided: this host has no perl\nget it"
    assert found["later", "v1"].why == "D99 no such check: demo has none of that id"
    assert found["unbound", "v1"].why == "no check and no rule is bound to it"


def test_base_and_control_have_no_column_and_a_run_of_them_no_ledger() -> None:
    run = review_run.review_run()
    (one,) = ledger.ledgers(run)
    assert [(c.arm, c.revision, c.label) for c in one.columns] == [
        (V1, "v1", "v1"),
        (V2, "v2", "v2"),
    ]
    alone = dataclasses.replace(run, arms=("base", review_run.CONTROL))
    assert ledger.ledgers(alone) == ()


def test_an_arm_of_two_series_is_in_the_ledger_of_each() -> None:
    run = review_run.review_run()
    other = dataclasses.replace(review_run.ASKED, series="other", title="Other")
    stacked = dataclasses.replace(
        run, arms=("base", "demo@v2", "demo@v2 + other@v1"), asked=(run.asked[0], other)
    )
    first, second = ledger.ledgers(stacked)
    assert [column.label for column in first.columns] == ["demo@v2", "demo@v2 + other@v1"]
    assert [(column.arm, column.label) for column in second.columns] == [
        ("demo@v2 + other@v1", "v1")
    ]


@pytest.mark.parametrize(
    ("outcome", "standing"),
    [
        (Outcome.PASSED, Standing.MET),
        (Outcome.FAILED, Standing.OPEN),
        (Outcome.SPLAT, Standing.OPEN),
        (Outcome.CRASHED, Standing.OPEN),
        (Outcome.TIMED_OUT, Standing.OPEN),
        (Outcome.UNSUPPORTED, Standing.MOOT),
        (Outcome.SKIPPED, Standing.UNDECIDED),
        (Outcome.LOST, Standing.UNDECIDED),
        (Outcome.NOT_RUN, Standing.UNDECIDED),
    ],
)
def test_every_outcome_of_a_check_has_its_standing(outcome: Outcome, standing: Standing) -> None:
    run = with_check(review_run.review_run(), V1, "D1", outcome, "seen")
    assert entries(run)["works", "v1"].standing is standing


def test_an_answer_does_not_excuse_a_failed_check() -> None:
    run = with_check(review_run.review_run(), V1, "D3", Outcome.FAILED, "mmap gave 0")
    entry = entries(run)["return-fd", "v1"]
    assert (entry.standing, entry.answer) == (Standing.OPEN, "")


def test_what_a_series_says_where_nothing_decides_is_shown_and_decides_nothing() -> None:
    run = review_run.review_run()
    (one,) = run.asked
    said = tuple(
        dataclasses.replace(d, answered={"v1": "by <design>"}) if d.id == "unbound" else d
        for d in one.demands
    )
    found = entries(dataclasses.replace(run, asked=(dataclasses.replace(one, demands=said),)))
    assert found["unbound", "v1"].standing is Standing.UNDECIDED
    assert found["unbound", "v1"].why.endswith("; the series says: by <design>")
    assert found["unbound", "v2"].why == "no check and no rule is bound to it"


def test_an_unsupported_check_leaves_the_decision_to_the_others() -> None:
    run = review_run.review_run()
    gone = with_check(run, V2, "D2", Outcome.UNSUPPORTED, "no descriptors")
    assert entries(gone)["no-leak", "v2"].standing is Standing.MET
    both = with_check(gone, V2, "D1", Outcome.UNSUPPORTED, "no mmap")
    assert entries(both)["no-leak", "v2"].standing is Standing.MOOT
    # A rule that holds does not make a question arise; one that does not hold is an answer.
    assert entries(both)["argued", "v2"].standing is Standing.MOOT
    broken = tuple(dataclasses.replace(rule, ruling=Ruling.BROKEN) for rule in both.rules)
    assert (
        entries(dataclasses.replace(both, rules=broken))["argued", "v2"].standing is Standing.OPEN
    )


def test_a_run_without_boots_or_rules_decides_nothing() -> None:
    run = dataclasses.replace(review_run.review_run(), boots=(), rules=())
    found = entries(run)
    assert {entry.standing for entry in found.values()} == {Standing.UNDECIDED}
    assert found["works", "v1"].why == "D1 not run: no check boot"
    assert found["clean", "v1"].why == "checkpatch not run: this run has no result of it"
    other = dataclasses.replace(run, features=("pmem",), checks=())
    assert entries(other)["works", "v1"].why == "D1 no such check: the run is without demo"


def test_a_check_boot_that_died_leaves_what_it_did_not_reach_undecided() -> None:
    run = review_run.review_run()
    boots = tuple(
        dataclasses.replace(b, outcome=Outcome.CRASHED, reason="Oops", checks=b.checks[:1])
        if (b.variant, b.kind) == (V1, BootKind.CHECK)
        else b
        for b in run.boots
    )
    found = entries(dataclasses.replace(run, boots=boots))
    assert found["works", "v1"].standing is Standing.MET
    assert found["no-leak", "v1"].why == "D2 not run: the boot ended as crashed (Oops)"


def test_the_headline_counts_for_the_newest_revision() -> None:
    (one,) = ledger.ledgers(review_run.review_run())
    assert ledger.headline(one) == (
        "demo: v2 meets 3 of 7 demands (v1: 2 of 8); "
        "undecided: killable, clean, later, unbound; moot: return-fd"
    )

# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import dataclasses

import pytest

from patchlab.record import StoredRun
from patchlab.verdicts import operations
from patchlab.verdicts.operations import OperationTable
from tests.report import review_run, sample_run
from tests.report.review_run import V1, V2


def table(run: StoredRun) -> OperationTable:
    found = operations.table(run)
    assert found is not None
    return found


def test_revisions_and_comparators_stand_in_one_row() -> None:
    found = table(review_run.review_run())
    assert found.arms == (V1, V2)
    assert found.subjects == ("tmpfs", "DIRECT_IO")
    first, second = found.rows
    assert (first.operation, first.unit) == ("map and unmap", "instructions/map")
    assert (second.operation, second.unit) == ("read 4 KiB", "instructions/read")
    # An instruction is 2 ns under icount.
    own = [round(cell.level or 0) for cell in first.cells]
    assert own == [40_000, 30_000, 20_000, 0]
    assert first.cells[3].reason == "not timed"
    assert [cell.metric for cell in second.cells] == ["read-direct", "read-direct", "", "read-dio"]


def test_a_comparator_is_from_the_baseline_or_the_first_arm_that_has_it() -> None:
    found = table(review_run.review_run())
    assert found.sources == ("base", V1)
    assert found.rows[0].cells[2].arm == "base"


def test_a_level_has_the_spread_of_its_boots() -> None:
    cell = table(review_run.review_run()).rows[0].cells[0]
    assert (cell.low, cell.high, cell.boots) == pytest.approx((39_960, 40_040, 3))
    assert cell.spread == pytest.approx(0.001, rel=1e-3)
    alone = dataclasses.replace(cell, boots=1)
    assert alone.spread is None


def test_unlike_units_and_a_second_metric_get_rows_of_their_own() -> None:
    run = review_run.review_run()
    metrics = [dataclasses.replace(metric, unit="page") for metric in run.metrics[2:4]]
    twice = review_run.metric("open-close", "map and unmap", "", "map")
    found = table(
        dataclasses.replace(run, metrics=(*run.metrics[:2], metrics[0], *run.metrics[3:], twice))
    )
    assert [(row.operation, row.unit) for row in found.rows] == [
        ("map and unmap", "instructions/map"),
        ("read 4 KiB", "instructions/page"),
        ("read 4 KiB", "instructions/read"),
        ("map and unmap", "instructions/map"),
    ]
    assert found.rows[3].cells[0].metric == "open-close"


def test_a_run_without_operations_has_no_table_and_one_without_boots_says_why() -> None:
    assert operations.table(sample_run.sample_run()) is None
    bare = table(dataclasses.replace(review_run.review_run(), boots=()))
    assert bare.arms == ()
    assert [cell.reason for cell in bare.rows[0].cells] == ["no bench boot", "not timed"]

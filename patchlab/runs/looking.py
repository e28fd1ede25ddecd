# SPDX-License-Identifier: GPL-2.0-or-later
"""The bench boots of a run: up to each planned look, until one leaves no primary metric open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from patchlab.progress import Progress
from patchlab.record import BootRecord
from patchlab.runs import measure
from patchlab.store.results import Results
from patchlab.verdicts import compare, looks

STAGE = "bench boots"


class Maker(Protocol):
    """Makes and stores those of the tasks that are not stored, so many at a time."""

    def __call__(
        self, stage: str, tasks: Sequence[measure.Task], stored: Sequence[BootRecord], at_once: int
    ) -> None: ...


def make(
    run_id: int,
    tasks: Sequence[measure.Task],
    make_boots: Maker,
    at_once: int,
    results: Results,
    progress: Progress,
) -> None:
    """``tasks`` are those of all blocks; without planned looks all are made.

    What is stored decides where the run is, so it does not matter how often it was interrupted.
    """
    run = results.load_run(run_id)
    planned = looks.ahead(run)
    for blocks in planned:
        due = [task for task in tasks if task.block < blocks]
        make_boots(STAGE, due, run.boots, at_once)
        if blocks == planned[-1]:
            return
        run = results.load_run(run_id)
        left = looks.open_metrics(compare.compare_all(run))
        end = (
            f"still open: {', '.join(left)}" if left else "no primary metric is open, it ends here"
        )
        progress.note(f"planned look after {blocks} blocks: {end}")
        if not left:
            return

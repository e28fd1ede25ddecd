# SPDX-License-Identifier: GPL-2.0-or-later
"""A run with planned looks, boot by boot into a real results file, killed at any moment."""

from __future__ import annotations

import contextlib
import dataclasses
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchlab.guests import command_line
from patchlab.progress import Silent
from patchlab.record import BootKind, BootRecord, Clock, Sample, StoredRun
from patchlab.runs import looking, measure, resume, run, schedule
from patchlab.store.results import Results
from patchlab.verdicts import compare, looks
from tests.config import small_lab
from tests.report import sample_run
from tests.report.sample_run import CONTROL, FUSE
from tests.store.test_results import begin

LOOKS = (4, 8, 12)
FAULT = sample_run.metric_info("fault", FUSE, "a fault", "page", True)
RUN = sample_run.sample_run()
PLAN = dataclasses.replace(
    RUN,
    checks=(),
    metrics=(FAULT,),
    boots=(),
    kinds=(BootKind.BENCH,),
    sampling=dataclasses.replace(RUN.sampling, blocks=12, looks=LOOKS),
    finished="",
)
TASKS = [
    measure.Task(
        command_line.Start(RUN.images[one.variant], BootKind.BENCH, Clock.ICOUNT, one.seed),
        one.variant,
        one.block,
        one.order,
        (),
        (FAULT,),
    )
    for block in schedule.blocks(PLAN.arms, PLAN.sampling)
    for one in block
]


class Killed(BaseException):
    pass


@dataclasses.dataclass
class Host:
    """Stands for guests: the same boot always gives the same value."""

    results: Results
    run_id: int
    spread: float
    change: float = 0.01
    patience: int = 10**6  # boots until it is killed
    made: list[tuple[str, int]] = dataclasses.field(default_factory=list)

    def boot(
        self, stage: str, tasks: Sequence[measure.Task], stored: Sequence[BootRecord], at_once: int
    ) -> None:
        assert (stage, at_once) == ("bench boots", 2)
        for todo in resume.left(tasks, stored):
            if len(self.made) >= self.patience:
                raise Killed
            task = todo.task
            self.made.append((task.variant, task.block))
            self.results.save_boot(self.run_id, self.record(task, todo.attempt))

    def record(self, task: measure.Task, attempt: int) -> BootRecord:
        noise = random.Random(f"{task.variant} {task.block}").gauss(0, self.spread)
        value = 2000 * (1 + noise) * (1 + self.change * (task.variant == CONTROL))
        samples = (Sample("fault", FUSE, 0, value, False, False),)
        boot = sample_run.boot(task.variant, BootKind.BENCH, task.block, task.order)
        return dataclasses.replace(boot, attempt=attempt, samples=samples)

    def sit(self) -> None:
        looking.make(self.run_id, TASKS, self.boot, 2, self.results, Silent())


def whole(file: Path, spread: float, change: float = 0.01) -> StoredRun:
    with Results.open(file) as results:
        host = Host(results, begin(results, PLAN), spread, change)
        host.sit()
        results.finish_run(host.run_id, 1.0)
        return results.load_run(host.run_id)


@pytest.mark.parametrize(("spread", "blocks"), [(0.0005, 4), (0.0045, 8), (0.05, 12)])
def test_a_run_ends_at_the_first_look_that_leaves_nothing_open(
    tmp_path: Path, spread: float, blocks: int
) -> None:
    done = whole(tmp_path / "r.db", spread)
    assert {boot.block for boot in done.boots} == set(range(blocks))
    assert looks.seen(done) == blocks
    assert resume.missing(done) == ()
    (comparison,) = compare.compare_all(done)
    assert comparison.metrics[0].blocks == blocks
    assert not [note for note in comparison.notes if "no bench boot" in note]


def test_without_looks_all_blocks_are_made(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, sampling=dataclasses.replace(PLAN.sampling, looks=()))
    with Results.open(tmp_path / "r.db") as results:
        host = Host(results, begin(results, plan), 0.0005)
        host.sit()
    assert len(host.made) == 12 * len(PLAN.arms)


@settings(
    deadline=None, max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kills=st.lists(st.integers(0, 9), max_size=5), spread=st.sampled_from([0.0005, 0.0045, 0.05])
)
def test_however_often_it_is_killed_it_makes_the_same_boots_once(
    tmp_path_factory: pytest.TempPathFactory, kills: list[int], spread: float
) -> None:
    folder = tmp_path_factory.mktemp("kills")
    expected = whole(folder / "whole.db", spread)
    made: list[tuple[str, int]] = []
    with Results.open(folder / "killed.db") as results:
        run_id = begin(results, PLAN)
        for patience in [*kills, 10**6]:
            host = Host(results, run_id, spread, patience=patience)
            with contextlib.suppress(Killed):
                host.sit()
            made += host.made
        results.finish_run(run_id, 1.0)
        found = results.load_run(run_id)
    assert len(made) == len(set(made))
    assert sorted(made) == sorted((boot.variant, boot.block) for boot in expected.boots)
    one, other = compare.compare_all(found), compare.compare_all(expected)
    assert [c.metrics for c in one] == [c.metrics for c in other]


def test_every_arm_is_booted_again_under_each_model_the_run_names(tmp_path: Path) -> None:
    lab_file = small_lab.make(tmp_path)
    small_lab.edit(lab_file, "cpus = 2", 'cpus = 2\nmodels = { erms = "max", old = "qemu64" }')
    small_lab.edit(lab_file, '["mapping"]', '["mapping"]\nsensitivity = ["erms", "old"]')
    small_lab.edit(lab_file, '"alpha@v1"', '"alpha@v1 + cpu:old"')
    lab = small_lab.load(lab_file)
    booted = run.booted(lab.runs["main"])
    assert [(name, arm.name, model) for name, (arm, model) in booted.items()] == [
        ("base", "base", ""),
        ("alpha@v1 + cpu:old", "alpha@v1 + cpu:old", "old"),
        ("alpha@v2 + beta@v1", "alpha@v2 + beta@v1", ""),
        ("base + cpu:erms", "base", "erms"),
        ("alpha@v2 + beta@v1 + cpu:erms", "alpha@v2 + beta@v1", "erms"),
        ("base + cpu:old", "base", "old"),
        ("alpha@v2 + beta@v1 + cpu:old", "alpha@v2 + beta@v1", "old"),
    ]

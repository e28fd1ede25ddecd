# SPDX-License-Identifier: GPL-2.0-or-later
"""What an interrupted run still lacks: decided on runs that were stored in real files."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchlab import config
from patchlab.guests import command_line
from patchlab.model import Image, RunPlan, Sampling
from patchlab.record import BootKind, BootRecord, Clock, Outcome, StoredRun
from patchlab.runs import measure, resume, schedule
from patchlab.store.content import digest
from patchlab.store.results import Results
from patchlab.verdicts import levels
from tests.report import sample_run
from tests.store.test_results import begin

LAB = Path(__file__).parents[2] / "lab.toml"
ARMS = ("base", "v1", "v2")
PLAN = Sampling(blocks=3, seed=7, parallel=0, samples=3, warmup=1)


RUN = sample_run.sample_run()


def image(name: str) -> Image:
    return dataclasses.replace(RUN.images["base"], variant=name, key=name)


@functools.cache
def tasks(kind: BootKind) -> list[measure.Task]:
    """What a run of ARMS makes, in the plan's order."""
    if kind is BootKind.CHECK:
        start = command_line.Start(image("base"), kind, Clock.TCG, PLAN.seed)
        return [measure.Task(start, arm, -1, order, (), ()) for order, arm in enumerate(ARMS)]
    return [
        measure.Task(
            command_line.Start(image(one.variant), kind, Clock.ICOUNT, one.seed),
            one.variant,
            one.block,
            one.order,
            (),
            (),
        )
        for block in schedule.blocks(ARMS, PLAN)
        for one in block
    ]


def boot(task: measure.Task, attempt: int = 1, outcome: Outcome = Outcome.PASSED) -> BootRecord:
    made = sample_run.boot(task.variant, task.start.kind, task.block)
    return dataclasses.replace(
        made,
        block=task.block,
        order=task.order,
        attempt=attempt,
        outcome=outcome,
        seed=task.start.seed,
    )


def stored(file: Path, boots: Sequence[BootRecord]) -> StoredRun:
    """The run as the next process finds it."""
    run = dataclasses.replace(RUN, arms=ARMS, baseline="base", sampling=PLAN, images={})
    with Results.open(file) as results:
        run_id = begin(results, run)
        for record in boots:
            results.save_boot(run_id, record)
    with Results.open(file) as results:
        return results.load_run(run_id)


def both() -> list[measure.Task]:
    return [*tasks(BootKind.CHECK), *tasks(BootKind.BENCH)]


def todo(run: StoredRun) -> list[tuple[measure.Task, int]]:
    return [
        (one.task, one.attempt) for kind in BootKind for one in resume.left(tasks(kind), run.boots)
    ]


def test_a_run_without_a_boot_lacks_all_of_them(tmp_path: Path) -> None:
    run = stored(tmp_path / "r.db", ())
    assert todo(run) == [(task, 1) for task in both()]
    assert resume.made(run) == "0 of 12 boots"


def test_what_is_stored_stays_and_the_rest_keeps_its_place_and_its_draw(tmp_path: Path) -> None:
    # Two guests at once end in any order, so the gaps may be anywhere.
    have = [0, 1, 2, 3, 5, 6, 10]
    run = stored(tmp_path / "r.db", [boot(both()[n]) for n in have])
    assert todo(run) == [(task, 1) for n, task in enumerate(both()) if n not in have]
    assert resume.made(run) == "7 of 12 boots"
    numbers = [one.number for one in resume.left(tasks(BootKind.BENCH), run.boots)]
    assert numbers == [1, 4, 5, 6, 8]


def test_a_lost_boot_keeps_its_second_try_and_has_no_third(tmp_path: Path) -> None:
    first, second, third, *_ = tasks(BootKind.BENCH)
    lost = Outcome.LOST
    boots = [boot(first, 1, lost), boot(second, 1, lost), boot(second, 2, lost)]
    boots += [boot(third, 1, lost), boot(third, 2)]
    run = stored(tmp_path / "r.db", boots)
    left = resume.left(tasks(BootKind.BENCH), run.boots)
    assert (left[0].task, left[0].attempt) == (first, 2)
    assert {one.task.variant for one in left if one.task.block == 0} == {first.variant}
    assert resume.made(run) == "2 of 12 boots"


@pytest.mark.parametrize(
    ("first", "outcomes", "made"),
    [
        (1, [Outcome.PASSED], [1]),
        (1, [Outcome.CRASHED], [1]),
        (1, [Outcome.LOST, Outcome.PASSED], [1, 2]),
        (1, [Outcome.LOST, Outcome.LOST], [1, 2]),
        (2, [Outcome.LOST], [2]),
    ],
)
def test_only_a_lost_boot_is_made_again_and_once(
    first: int, outcomes: list[Outcome], made: list[int]
) -> None:
    task, left = tasks(BootKind.CHECK)[0], iter(outcomes)
    found = list(resume.attempts(lambda attempt: boot(task, attempt, next(left)), first))
    assert [one.attempt for one in found] == made
    assert [one.outcome for one in found] == outcomes


def test_a_crashed_kernel_is_a_result_and_not_tried_again(tmp_path: Path) -> None:
    first, *_ = tasks(BootKind.CHECK)
    run = stored(tmp_path / "r.db", [boot(first, 1, Outcome.CRASHED)])
    assert [task.variant for task, _ in todo(run)[:2]] == ["v1", "v2"]


@given(st.lists(st.tuples(st.integers(0, 11), st.sampled_from(Outcome)), max_size=30))
def test_whatever_was_stored_the_end_has_every_boot_once(
    events: list[tuple[int, Outcome]],
) -> None:
    """Kills at any moment: each sitting makes some of the boots that are left."""
    boots: list[BootRecord] = []
    for pick, outcome in events:
        left = [o for kind in BootKind for o in resume.left(tasks(kind), boots)]
        if left:
            one = left[pick % len(left)]
            boots.append(boot(one.task, one.attempt, outcome))
    for kind in BootKind:
        boots += [boot(one.task, one.attempt) for one in resume.left(tasks(kind), boots)]
    assert not [one for kind in BootKind for one in resume.left(tasks(kind), boots)]
    places = [(b.variant, b.kind, b.block, b.order, b.attempt) for b in boots]
    assert len(places) == len(set(places))
    settled = levels.settled(boots)
    assert sorted((b.variant, b.kind, b.block, b.order) for b in settled) == sorted(
        (t.variant, t.start.kind, t.block, t.order) for t in both()
    )


def test_what_is_missing_is_said_by_arm_and_block(tmp_path: Path) -> None:
    run = stored(tmp_path / "r.db", [boot(task) for task in both()[:-1]])
    last = both()[-1]
    assert resume.missing(run) == ((last.variant, BootKind.BENCH, 2),)
    only_checks = dataclasses.replace(run, kinds=(BootKind.CHECK,))
    assert resume.missing(only_checks) == ()
    assert resume.planned(only_checks) == 3


def test_folders_are_those_of_the_boots(tmp_path: Path) -> None:
    lost = boot(both()[5], 1, Outcome.LOST)
    run = stored(tmp_path / "r.db", [boot(both()[1]), lost, boot(both()[5], 2)])
    assert resume.folders(run) == {"check-001-1", "bench-002-1", "bench-002-2"}


# ---------------------------------------------------------------- the ground


def ground(keys: dict[str, str], clock: Clock = Clock.ICOUNT, **lab: str) -> dict[str, str]:
    keys = {arm: digest(key) for arm, key in keys.items()}
    base = config.find_variant(config.load(LAB), "base")
    plan = RunPlan("main", "", tuple(dataclasses.replace(base, name=n) for n in keys), "base", ())
    images = {name: dataclasses.replace(image(name), key=key) for name, key in keys.items()}
    provenance = dataclasses.replace(
        RUN.provenance, clock=clock, host={"cpu": "one", "kernel": lab.pop("host", "6.1")}
    )
    return resume.ground(plan, PLAN, tuple(BootKind), images, provenance, lab)


def test_the_same_ground_has_no_changes() -> None:
    keys = {"base": "k1", "v1": "k2"}
    assert resume.changes(ground(keys), ground(keys)) == ()
    assert resume.changes(ground(keys, host="6.1"), ground(keys, host="6.2")) == ()


def test_every_change_is_named() -> None:
    was = ground({"base": "k1", "v1": "k2"}, agent="a" * 24)
    assert resume.changes(was, ground({"base": "k1", "v1": "k3"}, agent="a" * 24)) == (
        "image of v1 has changed",
    )
    assert resume.changes(was, ground({"base": "k1"}, agent="b" * 24)) == (
        "arms: base, v1 then, base now",
        "agent has changed",
    )
    (said, *_) = resume.changes(was, was | {"samples": "5 after 1"})
    assert said == "samples: 3 after 1 then, 5 after 1 now"


def test_with_the_wall_clock_the_host_counts() -> None:
    keys = {"base": "k1"}
    old, new = (ground(keys, Clock.WALL, host=kernel) for kernel in ("6.1", "6.2"))
    assert resume.changes(old, new) == ("kernel of the host: 6.1 then, 6.2 now",)


def test_a_run_of_an_older_lab_is_not_gone_on_with() -> None:
    assert "did not note" in resume.changes({}, ground({"base": "k"}))[0]

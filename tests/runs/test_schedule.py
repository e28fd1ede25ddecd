# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from patchlab.model import Sampling
from patchlab.record import Clock
from patchlab.runs import schedule

PLAN = Sampling(blocks=5, seed=1, parallel=0, samples=3, warmup=1)
ARMS = st.lists(st.text("abc@", min_size=1, max_size=4), min_size=1, max_size=5, unique=True)


@given(ARMS, st.integers(1, 12), st.integers(0, 2**31))
def test_every_block_boots_every_arm_once(arms: list[str], blocks: int, seed: int) -> None:
    made = schedule.blocks(arms, replace(PLAN, blocks=blocks, seed=seed))
    assert len(made) == blocks
    for number, block in enumerate(made):
        assert sorted(place.variant for place in block) == sorted(arms)
        assert [place.order for place in block] == list(range(len(arms)))
        assert {place.block for place in block} == {number}
        assert len({place.seed for place in block}) == 1


def test_same_seed_same_plan_and_another_seed_another() -> None:
    arms = ["base", "v1", "v2"]
    assert schedule.blocks(arms, PLAN) == schedule.blocks(arms, PLAN)
    assert schedule.blocks(arms, PLAN) != schedule.blocks(arms, replace(PLAN, seed=2))


def test_blocks_are_replicates_with_draws_of_their_own() -> None:
    made = schedule.blocks(["base", "v1"], replace(PLAN, blocks=50))
    assert len({block[0].seed for block in made}) == 50
    first = [block[0].variant for block in made]
    assert 10 < first.count("base") < 40


def test_only_icount_guests_run_side_by_side() -> None:
    assert schedule.workers(Clock.ICOUNT, PLAN, 2) == 2
    assert schedule.workers(Clock.ICOUNT, replace(PLAN, parallel=3), 2) == 3
    assert schedule.workers(Clock.WALL, replace(PLAN, parallel=3), 8) == 1

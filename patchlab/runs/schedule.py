# SPDX-License-Identifier: GPL-2.0-or-later
"""Which boot comes when: randomised complete blocks, drawn from one stored seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from patchlab.model import Sampling
from patchlab.record import Clock


@dataclass(frozen=True, slots=True)
class Placement:
    """One bench boot of one arm.

    ``seed`` is the block's draw of sampling phase, heap offset and command-line padding. The
    arms of a block share it, so that what an address layout does to a metric (250
    instructions a DAX fault on one image) cancels in the block's difference.
    """

    variant: str
    block: int
    order: int
    seed: int


def blocks(arms: Sequence[str], sampling: Sampling) -> tuple[tuple[Placement, ...], ...]:
    """``sampling.blocks`` blocks; each boots every arm once, in a random order."""
    chance = random.Random(sampling.seed)
    made = []
    for block in range(sampling.blocks):
        order = list(arms)
        chance.shuffle(order)
        seed = chance.getrandbits(31)
        made.append(tuple(Placement(arm, block, place, seed) for place, arm in enumerate(order)))
    return tuple(made)


def workers(clock: Clock, sampling: Sampling, cores: int) -> int:
    """Guests at once: host load does not disturb icount; a wall guest has the host to itself."""
    if clock is not Clock.ICOUNT:
        return 1
    return sampling.parallel or max(1, cores)

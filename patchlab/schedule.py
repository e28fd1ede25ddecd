# SPDX-License-Identifier: GPL-2.0-or-later
"""Which boot comes when: randomised complete blocks, drawn from one stored seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from patchlab.model import Clock, Sampling


@dataclass(frozen=True, slots=True)
class Placement:
    """One bench boot of one arm. ``seed`` is the boot's own draw (phase, heap, padding)."""

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
        made.append(
            tuple(
                Placement(variant, block, place, chance.getrandbits(31))
                for place, variant in enumerate(order)
            )
        )
    return tuple(made)


def workers(clock: Clock, sampling: Sampling, cores: int) -> int:
    """Guests at once: host load does not disturb icount; a wall guest has the host to itself."""
    if clock is not Clock.ICOUNT:
        return 1
    return sampling.parallel or max(1, cores)

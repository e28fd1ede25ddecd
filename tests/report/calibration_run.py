# SPDX-License-Identifier: GPL-2.0-or-later
"""A stored calibration whose truth is known: simulated boots, one metric of which has no path."""

from __future__ import annotations

import dataclasses
import random

from patchlab import calibration
from patchlab.calibration import AGENT, KERNEL
from patchlab.record import BootKind, BootRecord, Clock, MetricOutcome, Outcome, Sample, StoredRun
from tests.report import sample_run
from tests.report.sample_run import FUSE

A, B = "base + cmdline:lab.arm=a", "base + cmdline:lab.arm=b"
REBUILT = calibration.PADDINGS[0]
LEVELS = {"fault": 4000.0, "store": 900.0}  # instructions a unit
_NS = 2  # an instruction under icount
_UNTOUCHED = "touch"  # no kernel path: unmeasured where the kernel is slowed down


def slow(where: str, share: float) -> str:
    head = calibration.SPIN if where == KERNEL else "base"
    return f"{head} + cmdline:{calibration.slow_option(where, share)}"


def run(
    blocks: int = 8,
    spread: float = 0.0003,
    shift: float = 0.0,
    shares: tuple[float, ...] = (0.005,),
) -> StoredRun:
    """``spread`` is the sd of a boot's log, ``shift`` what the rebuilt kernel adds (a ratio)."""
    chance = random.Random(3)
    slowed = [(KERNEL, share) for share in (0.0, *shares)] + [(AGENT, x) for x in (0.0, shares[0])]
    arms = [A, B, REBUILT, *(slow(*one) for one in slowed)]
    boots = []
    for block in range(blocks):
        for order, arm in enumerate(arms):
            where, share = dict(zip(arms[3:], slowed, strict=True)).get(arm, ("", 0.0))
            boots.append(
                _boot(arm, block, order, where, share, shift * (arm == REBUILT), spread, chance)
            )
    whole = sample_run.sample_run()
    metrics = [
        sample_run.metric_info(name, FUSE, name, "page", True) for name in (*LEVELS, _UNTOUCHED)
    ]
    return dataclasses.replace(
        whole,
        name=calibration.RUN,
        baseline=A,
        arms=tuple(arms),
        features=(FUSE,),
        boots=tuple(boots),
        checks=(),
        metrics=tuple(metrics),
        kinds=(BootKind.BENCH,),
        sampling=dataclasses.replace(whole.sampling, blocks=blocks),
        images={arm: sample_run.image(arm) for arm in arms},
    )


def _boot(
    arm: str,
    block: int,
    order: int,
    where: str,
    share: float,
    shift: float,
    spread: float,
    chance: random.Random,
) -> BootRecord:
    samples: list[Sample] = []
    unmeasured: tuple[MetricOutcome, ...] = ()
    for name, level in (*LEVELS.items(), (_UNTOUCHED, 50.0)):
        if name == _UNTOUCHED and where == KERNEL:
            why = "no system call and no fault in its window: there is no kernel path"
            unmeasured = (MetricOutcome(name, FUSE, Outcome.SKIPPED, why),)
            continue
        value = level * (1 + shift) * (1 + chance.gauss(0, spread)) + share * level
        added = share * level * (_NS if where == AGENT else 1) if where else None
        samples += [
            Sample(name, FUSE, 0, 9 * level, True, False, 0.0 if where else None),
            Sample(name, FUSE, 1, value * _NS, False, False, added),
        ]
    record = sample_run.boot(arm, BootKind.BENCH, block, order)
    assert record.clock is Clock.ICOUNT
    return dataclasses.replace(record, samples=tuple(samples), unmeasured=unmeasured)

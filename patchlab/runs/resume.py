# SPDX-License-Identifier: GPL-2.0-or-later
"""What an interrupted run still lacks, and whether it may be gone on with. Pure.

A run may be gone on with when its ground is the same as today's: all that decides what one
of its boots means, by name. It is stored with the plan, before the first boot.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from patchlab.model import Image, RunPlan, Sampling, bench_arms
from patchlab.record import BootKind, BootRecord, Clock, Outcome, Provenance, StoredRun
from patchlab.runs import schedule

if TYPE_CHECKING:  # reports need no machine
    from patchlab.runs.measure import Task

ATTEMPTS = 2  # a boot that was lost is tried once more
_LONG = 60  # characters of a value; of a longer one only its name is said
_IMAGE = "image of "
_DIGEST = re.compile(r"[0-9a-f]{24}")
_Place = tuple[str, BootKind, int]


@dataclass(frozen=True, slots=True)
class Todo:
    """One boot that is still to be made."""

    task: Task
    number: int  # its place in the whole plan; names its folder
    attempt: int  # the one to begin with: 2 when the first was lost


def attempts(
    make: Callable[[int], BootRecord], first: int = 1, last: int = ATTEMPTS
) -> Iterator[BootRecord]:
    """What became of each attempt at one boot, whose number ``make`` gets: up to one not lost."""
    for attempt in range(first, last + 1):
        record = make(attempt)
        yield record
        if record.outcome is not Outcome.LOST:
            return


def left(tasks: Sequence[Task], boots: Iterable[BootRecord]) -> tuple[Todo, ...]:
    """The boots of ``tasks`` (all of a kind, in the plan's order) that ``boots`` lacks."""
    tried = _tried(boots)
    return tuple(
        Todo(task, number, tried.get(place, 0) + 1)
        for number, task in enumerate(tasks)
        for place in [_place(task.variant, task.start.kind, task.block, task.order)]
        if tried.get(place, 0) < ATTEMPTS
    )


def missing(run: StoredRun) -> tuple[tuple[str, BootKind, int], ...]:
    """Arm, kind and block (-1 in a check boot) of each boot that the run plans and lacks."""
    tried, blocks = _tried(run.boots), planned_blocks(run)
    checks = [(arm, BootKind.CHECK, -1, order) for order, arm in enumerate(run.arms)]
    benches = [
        (one.variant, BootKind.BENCH, one.block, one.order)
        for block in schedule.blocks(bench_arms(run.arms, run.sensitivity), run.sampling)
        for one in block
        if one.block < blocks
    ]
    return tuple(
        (arm, kind, block)
        for arm, kind, block, order in (*checks, *benches)
        if kind in run.kinds and tried.get(_place(arm, kind, block, order), 0) < ATTEMPTS
    )


def planned_blocks(run: StoredRun) -> int:
    """The blocks that the run plans: with planned looks, those up to the look that it is in."""
    begun = 1 + max((boot.block for boot in run.boots if boot.kind is BootKind.BENCH), default=-1)
    return next((look for look in run.sampling.looks if look >= begun), run.sampling.blocks)


def planned(run: StoredRun) -> int:
    """How many boots the run plans."""
    boots = {
        BootKind.CHECK: len(run.arms),
        BootKind.BENCH: len(bench_arms(run.arms, run.sensitivity)) * planned_blocks(run),
    }
    return sum(boots[kind] for kind in run.kinds)


def made(run: StoredRun) -> str:
    """``13 of 14 boots``."""
    return f"{planned(run) - len(missing(run))} of {planned(run)} boots"


def folder(kind: BootKind, number: int, attempt: int) -> str:
    """Name of a boot's folder in that of its run."""
    return f"{kind}-{number:03d}-{attempt}"


def folders(run: StoredRun) -> set[str]:
    """Names of the folders of all boots that the run has."""
    wide = len(bench_arms(run.arms, run.sensitivity))

    def number(boot: BootRecord) -> int:
        return boot.block * wide + boot.order

    return {
        folder(b.kind, b.order if b.kind is BootKind.CHECK else number(b), b.attempt)
        for b in run.boots
    }


def ground(
    plan: RunPlan,
    sampling: Sampling,
    kinds: Sequence[BootKind],
    images: Mapping[str, Image],
    provenance: Provenance,
    lab: Mapping[str, str],
) -> dict[str, str]:
    """All that decides what a boot of the run means: name -> value.

    ``lab`` is the lab's own share: the agent's code, the kernel's options. Deadlines and the
    number of guests at once are no part of it, and under icount the host is none.
    """
    wall = {"CPU": "cpu", "kernel of the host": "kernel"}
    host = wall if provenance.clock is Clock.WALL else {}
    return {
        "arms": ", ".join(arm.name for arm in plan.arms),
        "baseline": plan.baseline,
        "features": ", ".join(plan.features),
        "kinds of boots": ", ".join(kinds),
        "blocks": str(sampling.blocks),
        **({"looks": ", ".join(map(str, sampling.looks))} if sampling.looks else {}),
        "seed": str(sampling.seed),
        "samples": f"{sampling.samples} after {sampling.warmup}",
        "clock": provenance.clock.value,
        "guest root": provenance.root.get("key", ""),
        "QEMU": provenance.qemu,
        "virtme-ng": provenance.virtme,
        **{f"machine: {name}": value for name, value in provenance.machine.items()},
        **{name: provenance.host.get(key, "") for name, key in host.items()},
        **{f"{_IMAGE}{arm}": image.key for arm, image in images.items()},
        **lab,
    }


def changes(was: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """What of the ground is another today, one line each; nothing when all is the same."""
    if not was:
        return ("it was made by a lab that did not note what its boots stood on",)
    names = dict.fromkeys((*was, *now))
    return tuple(
        _change(name, was.get(name), now.get(name))
        for name in names
        if was.get(name) != now.get(name)
        # An arm that came or went is said with the arms.
        and not (name.startswith(_IMAGE) and (name not in was or name not in now))
    )


def _change(name: str, was: str | None, now: str | None) -> str:
    values = (was or "", now or "")
    if max(map(len, values)) > _LONG or any(_DIGEST.fullmatch(value) for value in values):
        return f"{name} has changed"
    return f"{name}: {was or 'none'} then, {now or 'none'} now"


def _place(variant: str, kind: BootKind, block: int, order: int) -> _Place:
    return (variant, kind, order if kind is BootKind.CHECK else block)


def _tried(boots: Iterable[BootRecord]) -> dict[_Place, int]:
    """Place -> attempts made; all of them, once a boot there was not lost."""
    tried: dict[_Place, int] = {}
    for boot in boots:
        place = _place(boot.variant, boot.kind, boot.block, boot.order)
        count = boot.attempt if boot.outcome is Outcome.LOST else ATTEMPTS
        tried[place] = max(tried.get(place, 0), count)
    return tried

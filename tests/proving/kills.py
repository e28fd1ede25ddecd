# SPDX-License-Identifier: GPL-2.0-or-later
"""A run that is killed with kill -9, again and again, in each of its stages, and goes on."""

from __future__ import annotations

import functools
import os
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchlab import config, proc
from patchlab.building import build
from patchlab.guests import command_line, root
from patchlab.model import Variant
from patchlab.sources import source
from patchlab.store import content
from tests.proving import evidence, killing
from tests.proving.desk import (
    BASE,
    RECIPE,
    REPOSITORY,
    Proving,
    agent_code,
    lab_commit,
    machine_key,
    now,
)
from tests.proving.evidence import Kill
from tests.proving.killing import Place

CONTROL_ARM = "fuse-writable-mmap@control"
ARMS = (BASE, CONTROL_ARM)
FEATURE = "virtio_pmem"
BLOCKS = 2
SEED = 20
RUN = f"""
[run.kills]
title = "Killed again and again"
base = "linux-6.12"
baseline = "{BASE}"
arms = ["{BASE}", "{CONTROL_ARM}"]
features = ["{FEATURE}"]
fragments = []
"""
_SMALL = (
    ('kernels = "kernels"', f'kernels = "{REPOSITORY / "kernels"}"'),
    ('patches = ["patches"]', f'patches = ["{REPOSITORY / "patches"}"]'),
    ("blocks = 5", f"blocks = {BLOCKS}"),
    ("samples = 12", "samples = 3"),
)


@dataclass(frozen=True, slots=True)
class Stage:
    """How often a stage is killed, and within how many seconds of its beginning."""

    kills: int
    within: float
    lent: tuple[str, ...] = ()  # rooms that are lent by the user's cache before it


STAGES: Mapping[str, Stage] = {
    "start": Stage(1, 2.0),
    "source": Stage(4, 40.0),
    "base build": Stage(5, 30.0, ("sources",)),
    "variant build": Stage(4, 25.0, ("trees",)),
    "guest root": Stage(4, 40.0, ("images",)),
    "KVM proof": Stage(2, 0.8, ("roots",)),
    "check boot": Stage(3, 25.0),
    "bench boot": Stage(5, 35.0),
    "report": Stage(2, 1.0),
}


def kills(proving: Proving, stages: Mapping[str, Stage] = STAGES) -> list[str]:
    """Kill the runner in every stage; at the end every boot of the run is there once."""
    file = proving.evidence / "kills.json"
    variants = [config.find_variant(proving.lab, name) for name in ARMS]
    keys = [build.plan_key(variant, proving.lab, proving.cache) for variant in variants]
    code = agent_code(command_line.GUEST_CODE, FEATURE)
    key = content.digest(RECIPE, *keys, machine_key(proving.lab), code, repr(sorted(stages)))
    plan = moments(stages)
    shown = [one for one in evidence.load(file, Kill) if one.key == key]
    if len(shown) > len(plan) and any(one.problems for one in shown):
        shown = []
    if len(shown) <= len(plan):
        shown = _go_on(proving, key, stages, plan, shown, variants)
    evidence.write(file.with_suffix(".md"), evidence.kills_page(shown))
    return [f"kill {n} ({o.stage}): {p}" for n, o in enumerate(shown, 1) for p in o.problems]


def moments(stages: Mapping[str, Stage]) -> list[tuple[str, float]]:
    """The stage of each kill, and how many seconds after its beginning: from one seed."""
    chance = random.Random(SEED)
    return [
        (name, chance.uniform(0.0, stage.within))
        for name, stage in stages.items()
        for _ in range(stage.kills)
    ]


def _go_on(
    proving: Proving,
    key: str,
    stages: Mapping[str, Stage],
    plan: Sequence[tuple[str, float]],
    shown: list[Kill],
    variants: Sequence[Variant],
) -> list[Kill]:
    """The kills that are left, then the whole run. What was shown is kept after each."""
    place = _place(proving)
    if not shown or not place.folder.is_dir():
        shutil.rmtree(place.folder, ignore_errors=True)
        shown = []
        _furnish(place)
    known: set[Path] = set()
    file = proving.evidence / "kills.json"
    with killing.guardian():
        for number in range(len(shown), len(plan) + 1):
            moment = plan[number] if number < len(plan) else None
            title = f"kill {number + 1} of {len(plan)}: {moment[0]}" if moment else "the whole run"
            reached = moment[0] if moment else list(stages)[-1]
            _lend(proving, place, _rooms(stages, reached), variants)
            if reached == "KVM proof":  # or the answer of an earlier start is good enough
                for answer in (place.cache / "hosts").glob("kvm-*"):
                    answer.unlink()
            with proving.progress.step(title):
                shown.append(_one(place, key, moment, known))
            evidence.store(file, "kills", shown)
    shutil.rmtree(place.folder)
    return shown


def _one(place: Place, key: str, moment: tuple[str, float] | None, known: set[Path]) -> Kill:
    """One start of the command; killed at ``moment``, to the end without one."""
    leftovers, before = killing.half_done(place), killing.stored(place)
    mounted = killing.mounts(place)
    ended = killing.run(place, ("run", "kills", "--resume"), moment)
    after = killing.stored(place)
    problems = [
        *(f"{line} outlived the runner" for line in ended.left),
        *(f"mounted: {line}" for line in killing.mounts(place) if line not in mounted),
        *killing.not_whole(place, known),
        *killing.bad_results(place, before),
    ]
    if ended.stage != "start":
        problems += [f"{path.name} was not removed" for path in leftovers if path.exists()]
    if moment and moment[0] == "report" and ended.code == 0:
        # It was faster than the kill: take the page away, as if it had not been.
        for page in place.results.glob("report-*.html"):
            page.unlink()
    elif moment and ended.code != -9:
        problems.append(f"it ended with {ended.code} before it was killed: {_last(ended.said)}")
    if not moment:
        problems += [f"it ended with {ended.code}: {_last(ended.said)}"] * (ended.code != 0)
        problems += killing.incomplete(after, ARMS, BLOCKS)
        problems += ["more than one run was begun"] * (len({row.run for row in after}) > 1)
    return Kill(
        key=key,
        wanted=moment[0] if moment else "",
        stage=ended.stage,
        seconds=ended.seconds,
        boots=len(after),
        left=len(killing.half_done(place)),
        found=tuple(killing.findings(ended.said)),
        problems=tuple(problems),
        commit=lab_commit(REPOSITORY),
        when=now(),
    )


def _last(said: str) -> str:
    return " | ".join(said.strip().splitlines()[-3:])


# ---------------------------------------------------------------- the place


def _place(proving: Proving) -> Place:
    """Beside the user's cache, so that what is lent are hard links."""
    folder = proving.cache.folder.parent / "patchlab-kills"
    return Place(folder, folder / "lab" / "lab.toml")


def _furnish(place: Place) -> None:
    text = (REPOSITORY / "lab.toml").read_text(encoding="utf-8")
    for old, new in _SMALL:
        if old not in text:
            raise ValueError(f"lab.toml has no {old}")
        text = text.replace(old, new)
    place.lab.parent.mkdir(parents=True)
    place.lab.write_text(text + RUN, encoding="utf-8")


def _rooms(stages: Mapping[str, Stage], reached: str) -> list[str]:
    names = list(stages)
    return [room for name in names[: names.index(reached) + 1] for room in stages[name].lent]


def _lend(
    proving: Proving, place: Place, rooms: Sequence[str], variants: Sequence[Variant]
) -> None:
    """What the kills did not let the runner finish, as hard links of the user's own."""
    base, *_ = variants
    own = {
        "sources": lambda: source.fetch(base.base, proving.cache, proving.progress).key,
        "trees": lambda: build.plan_key(base, proving.lab, proving.cache),
        "images": lambda: build.plan_key(variants[-1], proving.lab, proving.cache),
        "roots": lambda: root.make(proving.lab.machine, proving.cache, proving.progress).key,
    }
    if "trees" in rooms:
        build.build(base, proving.lab, proving.cache, proving.progress)
    if "images" in rooms:
        build.build(variants[-1], proving.lab, proving.cache, proving.progress)
    for room in rooms:
        entry = proving.cache.room(room) / own[room]()
        content.publish(place.cache / room, entry.name, functools.partial(_link, entry))


def _link(entry: Path, to: Path) -> None:
    proc.run(["cp", "-al", "--", f"{entry}/.", str(to)], deadline=600)
    os.utime(to)

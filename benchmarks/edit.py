# SPDX-License-Identifier: GPL-2.0-or-later
"""From saving a one-line edit of a fs/fuse patch to the verdict against the previous revision."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmarks.bench import (
    REPOSITORY,
    SERIES,
    Bench,
    edit_line,
    lab_of,
    timed,
    without_images,
)
from benchmarks.record import Bar, Found, Row
from patchlab import config
from patchlab.paths import Cache
from patchlab.record import BootKind, StoredRun
from patchlab.store.results import Results

LIKE = "fuse-direct-mmap"
PATCHES = REPOSITORY / "patches" / LIKE / "v3"
# The name of the memory of a mapping, in fs/fuse/direct_mmap.c: it shows in /proc/PID/maps.
OLD = '"fuse-region"'
_BLOCKS, _QUICK_BLOCKS = 5, 1
_LIMIT = 3600.0


@dataclass(frozen=True, slots=True)
class _Turn:
    seconds: float
    began: float  # seconds since the epoch
    stored: StoredRun


def edit(bench: Bench) -> Found:
    """v1 is built before; v2 differs from it by one line, another one each turn."""
    blocks = _QUICK_BLOCKS if bench.quick else _BLOCKS
    turns = []
    with (
        without_images(bench.cache) as cache,
        lab_of({"v1": PATCHES, "v2": PATCHES}, LIKE, blocks) as lab,
    ):
        log = bench.folder("edit") / "runner.log"
        bench.root()
        with bench.progress.step("build the previous revision"):
            timed(lab, ["build", f"{SERIES}@v1"], cache, log, _LIMIT)
        for turn in range(bench.times(3)):
            with bench.progress.step(f"a one-line edit, to its verdict ({turn + 1})"):
                turns.append(_turn(turn, lab, cache, log))
    middle = sorted(turns, key=lambda one: one.seconds)[len(turns) // 2]
    return Found(
        _rows(turns, middle, blocks), tuple(timeline(middle.stored, middle.seconds, middle.began))
    )


def _turn(turn: int, lab: Path, cache: Cache, log: Path) -> _Turn:
    feature = _feature(lab)
    edited = lab.parent / "patches" / SERIES / "v2"
    for file in PATCHES.iterdir():
        (edited / file.name).write_bytes(file.read_bytes())
    edit_line(edited, OLD, OLD[:-1] + f'-{turn}"')
    began = time.time()
    words = ["bench", f"{SERIES}@v1", f"{SERIES}@v2", "--feature", feature]
    seconds = timed(lab, words, cache, log, _LIMIT)
    with Results.open(lab.parent / "results" / "lab.sqlite") as results:
        return _Turn(seconds, began, results.load_run(results.latest_run()))


def _feature(lab: Path) -> str:
    return config.load(lab).series[SERIES].feature


def _rows(turns: Sequence[_Turn], middle: _Turn, blocks: int) -> tuple[Row, ...]:
    stored = middle.stored
    image = stored.images[f"{SERIES}@v2"]
    boots = [boot for boot in stored.boots if boot.kind is BootKind.BENCH]
    rest = middle.seconds - sum(stored.stages.values())
    return (
        Row(
            "from the saved edit to the verdict",
            "s",
            tuple(t.seconds for t in turns),
            180,
            note=f"{blocks} block{'s' * (blocks != 1)}, feature {stored.features[0]}",
        ),
        Row(
            "of it: build",
            "s",
            (stored.stages.get("build", 0.0),),
            note=f"make {image.build_seconds:.1f} s, {image.build_steps} steps",
        ),
        Row("of it: bench boots", "s", (stored.stages.get("bench boots", 0.0),)),
        Row("of it: all else", "s", (rest,), note="Python's start, lab.toml, the report"),
        Row("a boot, to the agent's first reply", "s", tuple(b.ready_seconds for b in boots)),
        Row("a boot, after it", "s", tuple(b.seconds - b.ready_seconds for b in boots)),
    )


def timeline(stored: StoredRun, seconds: float, began: float) -> list[Bar]:
    """What went on when, in seconds since the command began.

    The stages follow each other and end with the run; before them is Python's start, after
    them the report. Boots are known to the second; each goes into the first lane that is free.
    """
    end = _when(stored.finished) - began
    at = max(0.0, min(end, seconds) - sum(stored.stages.values()))
    bars = [Bar(0, "rest", "start", 0.0, at)]
    for name, spent in stored.stages.items():
        bars.append(Bar(0, name, name, at, at + spent))
        at += spent
    bars.append(Bar(0, "rest", "report", at, max(at, seconds)))
    lanes: list[float] = []
    for boot in sorted(stored.boots, key=lambda one: one.started):
        begin = max(0.0, _when(boot.started) - began)
        lane = next((n for n, free in enumerate(lanes) if free <= begin + 1), len(lanes))
        lanes[lane:] = [begin + boot.seconds, *lanes[lane + 1 :]]
        ready = begin + boot.ready_seconds
        name = f"{boot.variant}, block {boot.block + 1}"
        bars.append(Bar(lane + 1, "coming up", f"{name}: to the first reply", begin, ready))
        bars.append(Bar(lane + 1, "measuring", f"{name}: metrics", ready, begin + boot.seconds))
    return bars


def _when(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()

# SPDX-License-Identifier: GPL-2.0-or-later
"""What more work costs: 1, 4, 16 variants in a lab; 10, 100, 1,000 boots in the store."""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from benchmarks.bench import REPOSITORY, Bench, lab_of, timed
from benchmarks.record import Found, Row
from patchlab import config
from patchlab.building import build
from patchlab.errors import LabError, MissingTool
from patchlab.record import BootKind, BootRecord, Outcome, StoredRun
from patchlab.report import html, json_, text
from patchlab.store.results import Results
from patchlab.store.rows import Plan
from patchlab.verdicts import compare

VARIANTS = (1, 4, 16)
BOOTS, QUICK_BOOTS = (10, 100, 1000), (10, 100)
SAMPLES, _COMPARED_IN = 10_000, 1.0  # seconds
_LIKE = "fuse-direct-mmap"
_PATCHES = REPOSITORY / "patches" / _LIKE / "v3"
_LIMIT = 120.0
Seconds = dict[str, list[float]]  # what was timed -> seconds, one a size


def growth(bench: Bench) -> Found:
    variants: Seconds = {}
    for count in VARIANTS:
        with bench.progress.step(f"a lab of {count} variants"):
            _add(variants, _variants(count, bench))
    sizes = QUICK_BOOTS if bench.quick else BOOTS
    boots: Seconds = {}
    like = _real()
    for count in sizes:
        with bench.progress.step(f"a run of {count} boots"):
            _add(boots, _boots(count, like))
    with bench.progress.step(f"a comparison of {SAMPLES:,} samples"):
        comparing = _comparing(like)
    said = f"boots like those of a run of {len(like.arms)} arms and {len(like.metrics)} metrics"
    return Found(
        (*_rows("variants", VARIANTS, variants), *_rows("boots", sizes, boots, said), comparing)
    )


def _add(to: Seconds, found: Mapping[str, float]) -> None:
    for what, seconds in found.items():
        to.setdefault(what, []).append(seconds)


def _rows(of: str, sizes: Sequence[int], seconds: Seconds, note: str = "") -> list[Row]:
    """For each thing: its seconds at the largest size, and how it grew from step to step."""
    rows = []
    for what, taken in seconds.items():
        steps = " → ".join(f"{1000 * one:.0f}" for one in taken)
        counts = " → ".join(str(size) for size in sizes)
        grew = tuple(after / before for before, after in itertools.pairwise(taken))
        said = f"{steps} ms for {counts} {of}"
        each = sizes[1] / sizes[0]
        rows.append(Row(f"{what}, for {each:g} times the {of}", "×", grew, note=said))
    return [replace_note(rows[0], note), *rows[1:]] if rows and note else rows


def replace_note(row: Row, note: str) -> Row:
    return Row(row.what, row.unit, row.values, row.aim, row.at_least, f"{row.note}; {note}")


def clocked(what: Callable[[], object], times: int = 3) -> float:
    """Seconds of the median call."""
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        what()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


# ---------------------------------------------------------------- variants


def _variants(count: int, bench: Bench) -> dict[str, float]:
    with lab_of({f"v{n + 1}": _PATCHES for n in range(count)}, _LIKE) as file:
        lab = config.load(file)
        arms = lab.runs[lab.default_run].arms
        log = bench.folder("growth") / "list.log"
        return {
            "reading lab.toml": clocked(lambda: config.load(file), 5),
            "keys of all images": clocked(
                lambda: [build.plan_key(a, lab, bench.cache) for a in arms]
            ),
            "runner.py list": clocked(lambda: timed(file, ["list"], bench.cache, log, _LIMIT)),
        }


# ---------------------------------------------------------------- boots


def _real() -> StoredRun:
    """The newest stored run with bench boots: what a boot holds is not made up."""
    file = REPOSITORY / "results" / "lab.sqlite"
    if file.is_file():
        with Results.open(file) as results:
            for line in results.runs():
                stored = results.load_run(line.id)
                if any(boot.samples for boot in stored.boots):
                    return stored
    raise MissingTool(
        f"{file.relative_to(REPOSITORY)} has no run with bench boots to copy",
        hint="runner.py run makes one",
    )


def _boots(count: int, like: StoredRun) -> dict[str, float]:
    boots = copies(like, count)
    with tempfile.TemporaryDirectory(prefix="patchlab-bench-") as name, ExitStack() as stack:
        results = stack.enter_context(Results.open(Path(name) / "lab.sqlite"))
        begun = time.perf_counter()
        run = _save(like, boots, results)
        saved = time.perf_counter() - begun
        stored = results.load_run(run)
        found = compare.compare_all(stored)
        times = 1 if count >= 1000 else 3
        return {
            "saving": saved,
            "loading": clocked(lambda: results.load_run(run), times),
            "comparing": clocked(lambda: compare.compare_all(stored), times),
            "the report as text": clocked(lambda: text.render(stored, found), times),
            "the report as JSON": clocked(lambda: json_.render(stored, found), times),
            "the report as HTML": clocked(lambda: html.render(stored, found), times),
        }


def _comparing(like: StoredRun) -> Row:
    """Two arms, as many whole blocks as have so many samples."""
    arms = (like.baseline, next(arm for arm in like.arms if arm != like.baseline))
    boots = [
        boot
        for boot in like.boots
        if boot.samples and boot.variant in arms and boot.outcome is Outcome.PASSED
    ]
    made: list[BootRecord] = []
    for block in itertools.count():
        if sum(len(boot.samples) for boot in made) >= SAMPLES:
            break
        for arm in arms:
            own = [boot for boot in boots if boot.variant == arm]
            made.append(replace(own[block % len(own)], block=block, attempt=1))
    sampling = replace(like.sampling, blocks=made[-1].block + 1, looks=())
    run = replace(like, boots=tuple(made), arms=arms, sampling=sampling)
    count = sum(len(boot.samples) for boot in made)
    taken = tuple(clocked(lambda: compare.compare(run, *arms), 1) for _ in range(5))
    said = f"{count:,} samples, {len(made)} boots, {len(run.metrics)} metrics"
    return Row(f"comparing {SAMPLES:,} samples", "s", taken, _COMPARED_IN, note=said)


def copies(like: StoredRun, count: int) -> list[BootRecord]:
    """``count`` boots: the check boots of ``like``, then its bench boots in ever new blocks."""
    checks = [boot for boot in like.boots if boot.kind is BootKind.CHECK][:count]
    bench = [boot for boot in like.boots if boot.samples]
    if not bench:
        raise LabError("no bench boot to copy")
    arms: dict[str, int] = {}
    made = list(checks)
    while len(made) < count:
        boot = bench[len(made) % len(bench)]
        block = arms[boot.variant] = arms.get(boot.variant, -1) + 1
        made.append(replace(boot, block=block))
    return made


def _save(like: StoredRun, boots: Sequence[BootRecord], results: Results) -> int:
    blocks = max(boot.block for boot in boots) + 1
    sampling = replace(like.sampling, blocks=max(blocks, 1), looks=())
    plan = replace(Plan.of(like), sampling=sampling)
    run = results.begin_run(like.name, like.title, plan, images=like.images)
    for boot in boots:
        results.save_boot(run, boot)
    results.finish_run(run, like.seconds)
    return run

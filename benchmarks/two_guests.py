# SPDX-License-Identifier: GPL-2.0-or-later
"""Two guests at once in icount mode: how many more boots, and do they count the same?"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.bench import BASE, Bench
from benchmarks.record import Found, Row
from patchlab.errors import LostInstrument, MissingTool
from patchlab.guests import command_line, machine
from patchlab.model import Image, Root
from patchlab.progress import Silent
from patchlab.record import BootKind, BootRecord, Clock, MetricInfo, Outcome
from patchlab.runs import features, measure

AT_ONCE = 2
_FEATURE, _QUICK_FEATURE = "fuse_writable_mmap", "virtio_pmem"


def two_guests(bench: Bench) -> Found:
    """Each turn makes the same two boots twice: one after the other, and both at once."""
    if machine.host_cores() < AT_ONCE:
        raise MissingTool(f"this host has {machine.host_cores()} core")
    image, guest_root = bench.image(BASE), bench.root()
    feature = _QUICK_FEATURE if bench.quick else _FEATURE
    catalogue = features.catalogue().of([feature])
    metrics = tuple(m for m in catalogue.metrics if Clock.ICOUNT in m.clocks)
    ratios: list[float] = []
    boots: dict[int, list[BootRecord]] = {1: [], AT_ONCE: []}
    for turn in range(bench.times(3)):
        seconds: dict[int, float] = {}
        seeds = [bench.lab.sampling.seed + AT_ONCE * turn + n for n in range(AT_ONCE)]
        # Every other turn the other way round: the host may get faster or slower.
        for guests in (1, AT_ONCE) if turn % 2 == 0 else (AT_ONCE, 1):
            with bench.progress.step(f"{AT_ONCE} boots, {guests} at once ({turn + 1})"):
                begun = time.monotonic()
                boots[guests] += _make(bench, image, guest_root, metrics, seeds, guests)
                seconds[guests] = time.monotonic() - begun
        ratios.append(seconds[1] / seconds[AT_ONCE])
    apart = {m.id: _apart(m, boots[1], boots[AT_ONCE]) for m in metrics}
    known = {name: value for name, value in apart.items() if math.isfinite(value)}
    worst = max(known, key=lambda name: known[name], default="")
    said = f"the most of {len(known)} metrics of {feature}: {worst}"
    return Found(
        (
            Row("boots a minute, against one guest", "×", tuple(ratios), 1.8, at_least=True),
            Row(
                "medians apart",
                "%",
                (known[worst],) if worst else (),
                0.1,
                note=said,
                missing="no metric gave samples",
            ),
        )
    )


def _make(
    bench: Bench,
    image: Image,
    guest_root: Root,
    metrics: tuple[MetricInfo, ...],
    seeds: Sequence[int],
    guests: int,
) -> list[BootRecord]:
    def one(seed: int) -> BootRecord:
        start = command_line.Start(image, BootKind.BENCH, Clock.ICOUNT, seed)
        task = measure.Task(start, image.variant, 0, 0, (), metrics)
        folder = bench.folder("two-guests") / f"{guests}-{seed}"
        with Silent().step("") as step:
            return measure.boot(task, guest_root, bench.lab, folder, 1, (), step)

    with ThreadPoolExecutor(guests) as pool:
        made = list(pool.map(one, seeds))
    for boot in made:
        if boot.outcome is not Outcome.PASSED:
            raise LostInstrument(f"a boot ended as {boot.outcome}: {boot.reason}")
    return made


def _apart(metric: MetricInfo, one: Sequence[BootRecord], other: Sequence[BootRecord]) -> float:
    """Per cent between the medians of the boots; NaN when a side has none."""
    sides = [[_median(boot, metric) for boot in side] for side in (one, other)]
    counted = [[value for value in side if math.isfinite(value)] for side in sides]
    if not all(counted):
        return math.nan
    first, second = (statistics.median(side) for side in counted)
    return 100 * abs(second / first - 1)


def _median(boot: BootRecord, metric: MetricInfo) -> float:
    values = [
        sample.value
        for sample in boot.samples
        if sample.metric == metric.id and not sample.warmup and not sample.idle
    ]
    return statistics.median(values) if values else math.nan

# SPDX-License-Identifier: GPL-2.0-or-later
"""runner.py plan: boots, time and the smallest effect of a run, before anything is built."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from patchlab.building import build
from patchlab.commands import options
from patchlab.commands.desk import Desk
from patchlab.commands.run import named_plan
from patchlab.errors import MissingTool
from patchlab.guests import kvm, machine
from patchlab.model import Lab, RunPlan
from patchlab.record import Clock, StoredRun
from patchlab.report import words
from patchlab.runs import features, schedule
from patchlab.runs.plan import Forecast, MetricForecast, forecast
from patchlab.store.results import Results

HELP = "what a run will take, and the smallest change that it can see"
EXAMPLE = "runner.py plan fuse-direct-mmap --blocks 8"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME")
    parser.add_argument("--blocks", type=options.count, metavar="N", help="as if lab.toml said so")


def run(args: argparse.Namespace, desk: Desk) -> int:
    lab = desk.lab()
    plan = named_plan(lab, args.name or lab.default_run)
    sampling = replace(lab.sampling, blocks=args.blocks, looks=()) if args.blocks else lab.sampling
    clock = kvm.clock(kvm.remembered(desk.cache))
    metrics = features.catalogue().of(plan.features).metrics
    with desk.results() as results:
        history = _history(results, plan, clock)
    at_once = schedule.workers(clock, sampling, machine.host_cores())
    found = forecast(plan, sampling, clock, metrics, history, at_once)
    desk.out.print(Group(_boots(plan, clock, found, _unbuilt(plan, lab, desk)), _metrics(found)))
    return 0


def _history(results: Results, plan: RunPlan, clock: Clock) -> StoredRun | None:
    """The newest finished run of the same features on the same clock."""
    for line in results.runs():
        if line.finished and line.clock is clock:
            stored = results.load_run(line.id)
            if set(stored.features) == set(plan.features) and len(stored.arms) > 1:
                return stored
    return None


def _unbuilt(plan: RunPlan, lab: Lab, desk: Desk) -> str:
    try:
        missing = [arm for arm in plan.arms if build.find(arm, lab, desk.cache) is None]
        trees = {(arm.base.name, arm.fragments): build.unpatched(arm) for arm in missing}
        cold = [one for one in trees.values() if build.find(one, lab, desk.cache) is None]
    except MissingTool as error:
        return f"not known: {error}"
    whole = [f"{one.base.name} whole, {one.base.build_steps:,} steps" for one in cold]
    patched = [arm.name for arm in missing if arm not in cold]
    return ", ".join([*whole, *patched]) or "none, every image is built"


def _boots(plan: RunPlan, clock: Clock, found: Forecast, unbuilt: str) -> Table:
    table = Table(box=None, show_header=False, title=Text(f"{plan.name}: {plan.title}"))
    table.title_justify = "left"
    table.title_style = ""
    guessed = "" if found.known else ", a guess: no boot of these features is stored"
    rows = {
        "to build": unbuilt,
        "clock": words.CLOCKS[clock],
        "check boots": f"{found.check_boots}, about {words.duration(found.check_seconds)}{guessed}",
        "bench boots": f"{found.bench_boots}, {found.at_once} at once, about "
        f"{words.duration(found.bench_seconds)}{guessed}",
        "planned looks": _looks(found),
        "other CPU models": ", ".join(plan.sensitivity),
        "from": found.source or "nothing stored: the first run tells",
    }
    for name, value in rows.items():
        if value:
            table.add_row(Text(name), Text(value))
    return table


def _looks(found: Forecast) -> str:
    """Where the run may end: it goes on while a primary metric is inconclusive."""
    ends = [
        f"after {one.blocks} blocks ({one.bench_boots} bench boots, about "
        f"{words.duration(one.bench_seconds)})"
        for one in found.looks
    ]
    return f"{', '.join(ends)}; p < {found.alpha:.4f} at each" if ends else ""


def _metrics(found: Forecast) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("metric", "spread of d", "smallest change seen", "margin"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    table.add_column("blocks for the margin", justify="right")
    table.add_column("samples a boot", justify="right")
    for one in found.metrics:
        table.add_row(*(Text(cell) for cell in _row(one)))
    table.caption = Text(
        "* primary. Seen: called faster or slower in 80 % of runs, p adjusted for all metrics of"
        " its family and the interval beyond the margin. Samples:"
        " what is worth its time (Kalibera & Jones); lab.toml decides."
    )
    table.caption_justify, table.caption_style = "left", ""
    return table


def _row(one: MetricForecast) -> tuple[str, ...]:
    metric = one.metric
    return (
        f"{metric.id}{'*' if metric.primary else ''}",
        _percent(one.spread),
        _percent(one.smallest),
        _percent(one.margin),
        "not known" if one.spread is None else _count(one.needed),
        _count(one.samples),
    )


def _percent(ratio: float | None) -> str:
    if ratio is None or not math.isfinite(ratio):
        return words.NONE
    return f"{100 * ratio:.2g} %"


def _count(value: int | None) -> str:
    return words.NONE if value is None else f"{value:,}"

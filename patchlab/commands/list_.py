# SPDX-License-Identifier: GPL-2.0-or-later
"""runner.py list: what can be run, built, checked and timed, and what was run."""

from __future__ import annotations

import argparse
from typing import Any

import msgspec
from rich.console import Group
from rich.table import Table

from patchlab.commands.desk import Desk
from patchlab.model import Lab, Series
from patchlab.record import CheckInfo
from patchlab.review import Demand
from patchlab.runs import features
from patchlab.sources import source
from patchlab.store.results import RunLine

HELP = "runs, bases, series and revisions, checks, metrics, stored runs"
EXAMPLE = "runner.py list --json"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the lists as JSON")


def run(args: argparse.Namespace, desk: Desk) -> int:
    lab = desk.lab()
    catalogue = features.catalogue()
    with desk.results() as results:
        stored = results.runs()
    if args.json:
        document = _document(lab, catalogue, stored)
        desk.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
    else:
        desk.out.print(_tables(lab, catalogue, stored))
    return 0


def seen_red(check: CheckInfo) -> str:
    """The image on which the check has failed, or that there is none."""
    return check.red or "unproved"


def _document(lab: Lab, catalogue: features.Catalogue, stored: list[RunLine]) -> dict[str, Any]:
    return {
        "format": "patchlab-list/1",
        "runs": [
            {
                "name": plan.name,
                "title": plan.title,
                "baseline": plan.baseline,
                "arms": [arm.name for arm in plan.arms],
                "features": plan.features,
                "default": plan.name == lab.default_run,
            }
            for plan in lab.runs.values()
        ],
        "bases": [
            {"name": b.name, "title": b.title, "source": source.words(b)}
            for b in lab.bases.values()
        ],
        "series": [
            {
                "name": s.name,
                "title": s.title,
                "feature": s.feature,
                "revisions": [
                    {"name": r.name, "about": r.about, "patches": len(r.patches)}
                    for r in s.revisions
                ],
                "ledger": [_demand(d, s, catalogue) for d in s.ledger],
            }
            for s in lab.series.values()
        ],
        "checks": [
            {
                "id": c.id,
                "feature": c.feature,
                "sentence": c.sentence,
                "source": c.source,
                "seen_red": seen_red(c),
            }
            for c in catalogue.checks
        ],
        "metrics": catalogue.metrics,
        "stored": stored,
    }


def _demand(demand: Demand, series: Series, catalogue: features.Catalogue) -> dict[str, Any]:
    return {
        "id": demand.id,
        "who": demand.who,
        "date": demand.date,
        "demand": demand.demand,
        "checks": demand.checks,
        "missing": unwritten(demand, series, catalogue),
        "rules": demand.rules,
        "answered": demand.answered,
    }


def unwritten(demand: Demand, series: Series, catalogue: features.Catalogue) -> list[str]:
    """Checks that a ledger names and the series' feature does not have."""
    known = {check.id for check in catalogue.checks if check.feature == series.feature}
    return [check for check in demand.checks if check not in known]


def _ledgers(lab: Lab, catalogue: features.Catalogue) -> Table:
    table = _table("review ledgers", "series", "demand", "who", "decided by")
    for series in lab.series.values():
        for demand in series.ledger:
            missing = unwritten(demand, series, catalogue)
            checks = [f"{c} (no such check)" if c in missing else c for c in demand.checks]
            bound = ", ".join([*checks, *demand.rules]) or "nothing: undecided"
            table.add_row(series.name, demand.id, f"{demand.who}, {demand.date}", bound)
    return table


def _tables(lab: Lab, catalogue: features.Catalogue, stored: list[RunLine]) -> Group:
    runs = _table("runs", "name", "arms", "features")
    for plan in lab.runs.values():
        star = " (default)" if plan.name == lab.default_run else ""
        runs.add_row(
            plan.name + star, "\n".join(a.name for a in plan.arms), "\n".join(plan.features)
        )
    bases = _table("bases", "name", "title", "source")
    for base in lab.bases.values():
        bases.add_row(base.name, base.title, source.words(base))
    variants = _table("series", "series@revision", "patches", "about")
    for series in lab.series.values():
        for revision in series.revisions:
            variants.add_row(str(revision), str(len(revision.patches)), revision.about)
    checks = _table("checks", "id", "what must hold", "seen red on")
    for check in catalogue.checks:
        checks.add_row(check.id, check.sentence, seen_red(check))
    metrics = _table("metrics", "id", "what is timed", "unit", "clocks")
    for metric in catalogue.metrics:
        metrics.add_row(metric.id, metric.sentence, metric.unit, ", ".join(metric.clocks))
    kept = _table("stored runs", "id", "name", "arms", "clock", "started", "boots", "finished")
    for line in stored:
        kept.add_row(
            str(line.id),
            line.name,
            ", ".join(line.arms),
            line.clock,
            line.started,
            str(line.boots),
            "yes" if line.finished else f"no: {line.boots} of {line.planned} boots",
        )
    return Group(runs, bases, variants, _ledgers(lab, catalogue), checks, metrics, kept)


def _table(title: str, *columns: str) -> Table:
    return Table(*columns, title=title, title_justify="left", title_style="bold", box=None)

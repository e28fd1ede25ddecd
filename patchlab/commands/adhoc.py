# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs of variants named on the command line: what check, bench and boot share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from patchlab import config
from patchlab.commands import options
from patchlab.commands.desk import Desk
from patchlab.commands.report import finish
from patchlab.config import names as names_of
from patchlab.model import Lab, RunPlan, Variant
from patchlab.runs.run import Wanted, execute


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("variants", nargs="+", metavar="VARIANT")
    options.base(parser)
    parser.add_argument(
        "--feature",
        action="append",
        default=[],
        metavar="NAME",
        help="check and time this feature; may be given again (default: the features of the "
        "variants' series; for variants without one, like base and patches of your own, those of "
        "lab.toml's default run)",
    )


def run(args: argparse.Namespace, desk: Desk, name: str, wanted: Wanted) -> int:
    """Make the run, print it, give its exit code. It is stored like any other."""
    lab = desk.ready_lab(args.base)
    plan = adhoc(lab, args.variants, name, args.feature)
    if said := where_from(lab, plan, args.feature):
        desk.progress.note(said)
    with desk.place() as place:
        run_id = execute(lab, plan, place, desk.progress, wanted)
        return finish(desk, place.results, run_id, "text", write_file=False)


def adhoc(lab: Lab, names: Sequence[str], title: str, features: Sequence[str]) -> RunPlan:
    """A run of variants named on the command line; the first one is the baseline."""
    known = config.feature_names(config.FEATURES)
    for feature in features:
        if feature not in known:
            raise names_of.unknown("feature", feature, known)
    variants: list[Variant] = [config.find_variant(lab, name) for name in names]
    arms = tuple({variant.name: variant for variant in variants}.values())
    wanted = tuple(features) or features_of(lab, arms)
    return RunPlan(
        name=title,
        title=title,
        arms=arms,
        baseline=arms[0].name,
        features=wanted,
        disk=_disk(lab, wanted),
    )


def where_from(lab: Lab, plan: RunPlan, named: Sequence[str]) -> str:
    """Which features are taken, for a user who has named none, nor a series that has; else ""."""
    if named or series_features(lab, plan.arms):
        return ""
    run = f"the default run '{lab.default_run}'"
    return f"features of {run}: {', '.join(plan.features)}; --feature NAME takes another"


def features_of(lab: Lab, variants: Sequence[Variant]) -> tuple[str, ...]:
    """Those that the variants' series are held to; without any, those of the default run."""
    return series_features(lab, variants) or lab.runs[lab.default_run].features


def series_features(lab: Lab, variants: Sequence[Variant]) -> tuple[str, ...]:
    """Those that the variants' series are held to; a user's own patches are in no series."""
    series = [part.series for variant in variants for part in variant.revisions]
    return tuple(dict.fromkeys(lab.series[name].feature for name in series if name in lab.series))


def _disk(lab: Lab, features: Sequence[str]) -> int:
    """Bytes of the largest disk of the runs of these features, 0 for none.

    A run's disk is for what its series are held to. What is checked beside it does without, and
    would be timed on another machine than in its own run.
    """
    return max(
        (
            run.disk
            for run in lab.runs.values()
            if not {*features}.isdisjoint(series_features(lab, run.arms) or run.features)
        ),
        default=0,
    )

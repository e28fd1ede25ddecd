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
        help="this feature, not those of the variants' series; may be given again",
    )


def run(args: argparse.Namespace, desk: Desk, name: str, wanted: Wanted) -> int:
    """Make the run, print it, give its exit code. It is stored like any other."""
    lab = desk.ready_lab(args.base)
    plan = adhoc(lab, args.variants, name, args.feature)
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
    return RunPlan(name=title, title=title, arms=arms, baseline=arms[0].name, features=wanted)


def features_of(lab: Lab, variants: Sequence[Variant]) -> tuple[str, ...]:
    """Those that the variants' series are held to; without any, those of the default run."""
    series = [part.series for variant in variants for part in variant.revisions]
    own = dict.fromkeys(lab.series[name].feature for name in series if name in lab.series)
    return tuple(own) or lab.runs[lab.default_run].features

# SPDX-License-Identifier: GPL-2.0-or-later
"""runner.py boot: does it come up, how fast, and what does its log say?"""

from __future__ import annotations

import argparse

from patchlab.commands import options
from patchlab.commands.adhoc import adhoc
from patchlab.commands.desk import Desk
from patchlab.commands.report import exit_code
from patchlab.runs import measure
from patchlab.runs.run import Wanted, execute

HELP = "boot variants once, scan their logs, power them off"
EXAMPLE = "runner.py boot base"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("variants", nargs="+", metavar="VARIANT")
    options.base(parser)


def run(args: argparse.Namespace, desk: Desk) -> int:
    lab = desk.ready_lab(args.base)
    plan = adhoc(lab, args.variants, "boot", ())
    with desk.place() as place:
        run_id = execute(
            lab, plan, place, desk.progress, Wanted(checks=False, bench=False, boot=True)
        )
        stored = place.results.load_run(run_id)
    for boot in stored.boots:
        desk.write(
            f"{boot.variant}: {boot.outcome} in {boot.seconds:.1f} s, "
            f"agent after {boot.ready_seconds:.1f} s{': ' if boot.reason else ''}{boot.reason}"
        )
        for finding in boot.findings:
            desk.write(f"  {finding.kind}: {finding.title} (console line {finding.line})")
    desk.write(f"consoles: {desk.results_folder / measure.run_folder(run_id)}")
    return exit_code(stored, ())

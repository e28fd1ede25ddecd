# SPDX-License-Identifier: GPL-2.0-or-later
"""runner.py run: build, boot, check, time, compare and report the arms of a run."""

from __future__ import annotations

import argparse

from patchlab.commands.desk import Desk
from patchlab.commands.report import finish
from patchlab.config import names
from patchlab.model import Lab, RunPlan
from patchlab.runs.run import Wanted, execute

HELP = "run the arms of a [run.NAME] of lab.toml and report (the default one without a name)"
EXAMPLE = "runner.py run fuse-writable-mmap"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the newest run of that name that was interrupted, if the same boots "
        "would be made today; else begin a new one. Of the other verbs only calibrate can",
    )


def run(args: argparse.Namespace, desk: Desk) -> int:
    lab = desk.ready_lab()
    plan = named_plan(lab, args.name or lab.default_run)
    with desk.place() as place:
        run_id = execute(lab, plan, place, desk.progress, Wanted(), resume=args.resume)
        return finish(desk, place.results, run_id, "json" if args.json else "text")


def named_plan(lab: Lab, name: str) -> RunPlan:
    if name in lab.runs:
        return lab.runs[name]
    raise names.unknown("run", name, lab.runs, where=f" in {lab.file.name}")

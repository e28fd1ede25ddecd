# SPDX-License-Identifier: GPL-2.0-or-later
"""runner.py check: one check boot a variant, no timings."""

from __future__ import annotations

import argparse

from patchlab.commands.desk import Desk, adhoc
from patchlab.commands.report import finish
from patchlab.run import Wanted, execute

HELP = "boot variants and run the checks of their features"
EXAMPLE = "runner.py check fuse-writable-mmap@control --feature fuse_writable_mmap"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("variants", nargs="+", metavar="VARIANT")
    parser.add_argument(
        "--feature", action="append", default=[], help="only this feature; may be given again"
    )


def run(args: argparse.Namespace, desk: Desk) -> int:
    lab = desk.ready_lab()
    plan = adhoc(lab, args.variants, "check", args.feature)
    with desk.place() as place:
        run_id = execute(lab, plan, place, desk.progress, Wanted(bench=False))
        return finish(desk, place.results, run_id, "text", write_file=False)

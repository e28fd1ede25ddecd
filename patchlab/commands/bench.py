# SPDX-License-Identifier: GPL-2.0-or-later
"""runner.py bench: bench boots of variants in blocks, no checks."""

from __future__ import annotations

import argparse

from patchlab.commands.desk import Desk, adhoc
from patchlab.commands.report import finish
from patchlab.run import Wanted, execute

HELP = "boot variants in random blocks and time their features"
EXAMPLE = "runner.py bench base fuse-writable-mmap@control"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("variants", nargs="+", metavar="VARIANT")
    parser.add_argument(
        "--feature", action="append", default=[], help="only this feature; may be given again"
    )


def run(args: argparse.Namespace, desk: Desk) -> int:
    lab = desk.ready_lab()
    plan = adhoc(lab, args.variants, "bench", args.feature)
    with desk.place() as place:
        run_id = execute(lab, plan, place, desk.progress, Wanted(checks=False))
        return finish(desk, place.results, run_id, "text", write_file=False)

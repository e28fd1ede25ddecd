# SPDX-License-Identifier: GPL-2.0-or-later
"""runner.py compare A B: two arms of a stored run, check by check and metric by metric."""

from __future__ import annotations

import argparse

from patchlab import config
from patchlab.commands.desk import Desk
from patchlab.commands.report import exit_code
from patchlab.config import names
from patchlab.errors import UsageError
from patchlab.report import cover
from patchlab.verdicts import compare as comparing
from patchlab.verdicts import sensitivity

HELP = "compare two arms of a stored run (the newest that has both)"
EXAMPLE = "runner.py compare base fuse-writable-mmap@control --format cover"
FORMATS = ("text", "json", "cover")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("baseline", metavar="A")
    parser.add_argument("candidate", metavar="B")
    parser.add_argument("--run", type=int, metavar="ID", help="a certain run; list shows them")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="text",
        help="text; json; cover: 72 columns for a cover letter",
    )
    parser.add_argument(
        "--explain",
        metavar="METRIC",
        help="why this metric moved: boots both arms once more and counts, function by function",
    )


def run(args: argparse.Namespace, desk: Desk) -> int:
    lab = desk.lab()
    with desk.results() as results:
        stored_arms = {arm for line in results.runs() for arm in line.arms}
        arms = [
            config.stored_name(lab, name, stored_arms) for name in (args.baseline, args.candidate)
        ]
        stored = results.load_run(args.run or results.latest_run(arms=arms))
    for arm in arms:
        if arm not in stored.arms:
            raise names.unknown("arm", arm, stored.arms, where=f" in run {stored.id}")
    comparison = comparing.compare(stored, *arms)
    if args.explain:
        if args.format != "text":
            raise UsageError(f"--explain has no format {args.format}", hint="leave --format out")
        from patchlab.commands import explain

        return explain.run(desk, desk.ready_lab(), stored, comparison, args.explain)
    if args.format == "cover":
        desk.write(cover.render(stored, comparison).rstrip("\n"))
    else:
        desk.show(args.format, stored, [comparison])
    models = sensitivity.pairs(stored, *arms).values()
    return exit_code(stored, [comparison], {*arms, *(arm for pair in models for arm in pair)})

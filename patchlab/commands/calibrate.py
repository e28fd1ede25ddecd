# SPDX-License-Identifier: GPL-2.0-or-later
"""runner.py calibrate: show the instrument differences of known size, and none, on this host."""

from __future__ import annotations

import argparse
from dataclasses import replace

from patchlab import calibration, config
from patchlab.calibration import AGENT, KERNEL
from patchlab.commands import options
from patchlab.commands.adhoc import adhoc, features_of
from patchlab.commands.desk import Desk
from patchlab.commands.report import exit_code
from patchlab.errors import UsageError
from patchlab.model import Lab, RunPlan
from patchlab.report import calibrated
from patchlab.runs.run import Wanted, execute
from patchlab.verdicts import calibration as reading

HELP = "compare a kernel with itself and with known slowdowns; every report prints the outcome"
EXAMPLE = "runner.py calibrate --sizes 0.1,0.2,0.5,1,2,5"
_BLOCKS = 10
_MOST = 20.0  # per cent


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("variant", nargs="?", default="base", metavar="VARIANT")
    options.base(parser)
    parser.add_argument(
        "--feature", action="append", default=[], help="only this feature; may be given again"
    )
    parser.add_argument(
        "--blocks",
        type=options.count,
        default=_BLOCKS,
        help=f"of every arm ({_BLOCKS}); tries have five",
    )
    parser.add_argument(
        "--sizes",
        default="0.5",
        metavar="PERCENT,...",
        help="of the slowdowns in the kernel's own path (0.5); the agent's is the middle one",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with an interrupted one, if nothing changed"
    )


def run(args: argparse.Namespace, desk: Desk) -> int:
    if args.blocks < 2:
        raise UsageError(f"--blocks {args.blocks}: one block has no spread", hint="give at least 2")
    lab = desk.ready_lab(args.base)
    lab = replace(lab, sampling=replace(lab.sampling, blocks=args.blocks, looks=()))
    plan = plan_of(lab, args.variant, sizes(args.sizes), args.feature)
    with desk.place() as place:
        run_id = execute(lab, plan, place, desk.progress, Wanted(checks=False), resume=args.resume)
        stored = place.results.load_run(run_id)
        found = reading.summarise(stored)
        place.results.save_calibration(found)
    desk.out.print(calibrated.whole(found))
    return exit_code(stored, ())


def sizes(text: str) -> tuple[float, ...]:
    """Shares from per cent, in rising order. Raises UsageError."""
    try:
        found = sorted({float(word) for word in text.split(",")})
    except ValueError:
        found = []
    if not found or not all(0 < one <= _MOST for one in found):
        raise UsageError(
            f"--sizes {text}: not a list of per cents above 0 and up to {_MOST:g}",
            hint="for example --sizes 0.1,0.5,2",
        )
    return tuple(one / 100 for one in found)


def plan_of(lab: Lab, text: str, shares: tuple[float, ...], features: list[str]) -> RunPlan:
    """The arms: the variant twice, rebuilt with paddings, and slowed down by each share.

    A slowed arm's partner has the same image and the same option, with a share of 0.
    """
    middle = shares[len(shares) // 2]
    extra = [*(f"cmdline:{option}" for option in calibration.ARMS), *calibration.PADDINGS]
    extra += [
        f"{calibration.SPIN} + cmdline:{calibration.slow_option(KERNEL, share)}"
        for share in (0.0, *shares)
    ]
    extra += [f"cmdline:{calibration.slow_option(AGENT, share)}" for share in (0.0, middle)]
    names = [f"{text} + {part}" for part in extra]
    variant = config.find_variant(lab, text)
    plan = adhoc(lab, names, calibration.RUN, features or features_of(lab, [variant]))
    return replace(plan, title=f"Calibration on {variant.name}")

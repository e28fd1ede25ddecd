# SPDX-License-Identifier: GPL-2.0-or-later
"""``make prove``: the evidence that takes too long for ``make check``.

``python -m tests.prove [STEP…]`` runs the steps named, or all of STEPS. Each keeps what it
has shown in docs/evidence/<step>.json, and does not show it again while the image, the
machine and the agent's code stay the same; <step>.md says it in words. Exit codes are the
lab's: 1 when something did not turn out as claimed.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence

from rich.console import Console

from patchlab import config, proc
from patchlab.commands.ui import Terminal
from patchlab.errors import LabError, UsageError
from patchlab.model import Lab
from patchlab.paths import default_cache
from patchlab.progress import Progress
from patchlab.runs import features
from tests.proving.boots import boots
from tests.proving.calibrations import calibrated
from tests.proving.clean_build import clean_build
from tests.proving.debug import CLEAN, debug
from tests.proving.desk import EVIDENCE, LAB, REPOSITORY, Proving, lab_commit
from tests.proving.faults import faults
from tests.proving.kills import kills
from tests.proving.machines import machines, machines_empty, user
from tests.proving.patches import patches, shipped
from tests.proving.seen_red import seen_red
from tests.proving.sources import sources
from tests.proving.statistics import simulated

INTERRUPTED, BUG = 130, 3  # exit codes

# Each step returns what did not turn out as claimed, one line each.
STEPS: dict[str, Callable[[Proving], list[str]]] = {
    "seen-red": seen_red,
    "clean-build": clean_build,
    "boots": boots,
    "patches": patches,
    "debug": debug,
    "kills": kills,
    "faults": faults,
    "sources": sources,
    "statistics": simulated,
    "calibration": calibrated,
    "user": user,
    "machines": machines,
    "machines-empty": machines_empty,
}

# What --only may name of the steps that can be made in part.
PARTS: dict[str, Callable[[Lab], Iterable[str]]] = {
    "seen-red": lambda _: (check.id for check in features.catalogue().checks),
    "patches": lambda lab: map(str, shipped(lab)),
    "debug": lambda _: CLEAN,
}


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.prove", description=__doc__)
    parser.add_argument("steps", nargs="*", choices=STEPS, metavar="STEP", help=", ".join(STEPS))
    parser.add_argument(
        "--only",
        default="",
        metavar="NAME,NAME",
        help="seen-red: these checks; debug, patches: these revisions. What else is due stays due",
    )
    arguments = parser.parse_args(argv)
    wanted = arguments.steps or list(STEPS)
    only = frozenset(filter(None, arguments.only.split(",")))
    errors = Console(stderr=True)
    with Terminal(errors) as progress:
        try:
            wrong = _prove(wanted, only, progress)
        except LabError as error:
            return _say(errors, [str(error), *([f"  → {error.hint}"] * bool(error.hint))], error)
        except KeyboardInterrupt as error:
            proc.terminate_all()
            return _say(errors, ["interrupted; what was shown is kept"], error)
        except Exception as error:
            return _say(errors, [traceback.format_exc(), "this is a bug in the lab"], error)
    return _say(errors, [f"not as claimed: {one}" for one in wrong], None)


def _prove(steps: Sequence[str], only: frozenset[str], progress: Progress) -> list[str]:
    lab = config.load(LAB)
    _require_parts(only, steps, lab)
    proving = Proving(
        lab=lab,
        cache=default_cache(),
        progress=progress,
        evidence=EVIDENCE,
        results=REPOSITORY / "results" / "prove",
        commit=lab_commit(REPOSITORY),
        only=only,
    )
    wrong = []
    for step in steps:
        wrong += STEPS[step](proving)
        progress.note(f"{step}: {EVIDENCE.relative_to(REPOSITORY) / step}.md")
    return wrong


def _require_parts(only: frozenset[str], steps: Sequence[str], lab: Lab) -> None:
    """UsageError for a name that no step has, and for a step that cannot be made in part."""
    if whole := [step for step in steps if step not in PARTS]:
        if only:
            raise UsageError(
                f"--only: {', '.join(whole)} cannot be made in part",
                hint=f"name steps of which parts can: {', '.join(PARTS)}",
            )
        return
    if unknown := only.difference(*(PARTS[step](lab) for step in steps)):
        raise UsageError(
            f"--only: {', '.join(steps)}: nothing there is named {', '.join(sorted(unknown))}",
            hint="seen-red has ids of checks (D1), patches and debug have SERIES@REVISION",
        )


def _say(errors: Console, lines: Sequence[str], error: BaseException | None) -> int:
    for line in lines:
        errors.print(line, markup=False, highlight=False, soft_wrap=True)
    if error is None:
        return 1 if lines else 0
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return error.exit_code if isinstance(error, LabError) else BUG


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""argv -> verb -> exit code; nothing else."""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from pathlib import Path

from rich.console import Console

from patchlab import full, proc
from patchlab.commands import VERBS, load
from patchlab.commands.desk import Desk
from patchlab.commands.ui import Terminal
from patchlab.errors import LabError
from patchlab.paths import default_cache

INTERRUPTED = 130
BUG = 3


def main(argv: list[str]) -> int:
    args = _parsed(argv)
    errors = Console(stderr=True)
    with Terminal(errors) as progress:
        desk = Desk(
            lab_file=args.lab.resolve(),
            cache=default_cache(),
            out=Console(width=None if sys.stdout.isatty() else 100),
            progress=progress,
            command=("runner.py", *argv),
        )
        try:
            code: int = load(args.verb).run(args, desk)
        except LabError as error:
            return _say(errors, str(error), error.hint, error.exit_code)
        except KeyboardInterrupt:
            proc.terminate_all()
            return _say(errors, "interrupted", "", INTERRUPTED)
        except Exception as error:
            places = {
                desk.cache.folder: full.CACHE_REMEDY,
                desk.results_folder: full.RESULTS_REMEDY,
                Path(tempfile.gettempdir()): full.TMP_REMEDY,
            }
            if no_room := full.located(error, places):
                return _say(errors, str(no_room), no_room.hint, no_room.exit_code)
            said = f"{traceback.format_exc()}\nthis is a bug in the lab"
            return _say(errors, said, "please report it with the lines above", BUG)
    return code


def _say(errors: Console, message: str, hint: str, code: int) -> int:
    errors.print(f"runner.py: {message}", markup=False, highlight=False, soft_wrap=True)
    if hint:
        errors.print(f"  → {hint}", markup=False, highlight=False, soft_wrap=True)
    return code


def _parsed(argv: list[str]) -> argparse.Namespace:
    parser = _parser(argv)
    args, left = parser.parse_known_args(argv)
    if left:
        early = any(word == "--lab" or word.startswith("--lab=") for word in left)
        hint = (
            f"\n  → --lab comes before the verb: runner.py --lab FILE {args.verb} …"
            if early
            else ""
        )
        parser.error(f"unrecognized arguments: {' '.join(left)}{hint}")
    return args


def _parser(argv: list[str]) -> argparse.ArgumentParser:
    """Of the verb that is asked for; of all of them when none of the arguments is one."""
    parser = argparse.ArgumentParser(
        prog="runner.py", description="Build, boot, check, time and compare kernel patch revisions."
    )
    parser.add_argument(
        "--lab",
        type=Path,
        default=Path(__file__).parent / "lab.toml",
        metavar="FILE",
        help="the lab to work with (default: lab.toml beside runner.py)",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    asked = [name for name in argv if name in VERBS]
    for name in asked or VERBS:
        verb = load(name)
        sub = verbs.add_parser(
            name, help=verb.HELP, description=f"{verb.HELP}.", epilog=f"example: {verb.EXAMPLE}"
        )
        verb.arguments(sub)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

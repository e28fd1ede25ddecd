# SPDX-License-Identifier: GPL-2.0-or-later
"""runner.py gc: give the cache's disk space back."""

from __future__ import annotations

import argparse
import math
import re
import tempfile
import time
from pathlib import Path

from patchlab.commands.desk import Desk
from patchlab.config.machine import size
from patchlab.store import content, space

HELP = "remove what killed runs left, and of the cache what is old or too much"
EXAMPLE = "runner.py gc --size 10G --dry-run"
_SIZE = re.compile(r"0|[1-9][0-9]{0,5}[KMGT]")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--days",
        type=_days,
        default=space.DEFAULT_DAYS,
        help="keep what was used in these last days (default %(default)g)",
    )
    parser.add_argument(
        "--size",
        type=_size,
        help="then keep no more than this, a size like 10G: what was used last and takes longest "
        "to make again",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")


def run(args: argparse.Namespace, desk: Desk) -> int:
    now = time.time()
    _half_done(desk, args.dry_run)
    plan = space.plan(
        space.entries(desk.cache, desk.progress), now=now, days=args.days, limit=args.size
    )
    removed = _remove(plan, desk, args.dry_run)
    _logs(desk, now, args)
    for entry, why in plan.kept:
        desk.write(f"kept {entry.name}: {why}")
    if args.size is not None and plan.after > args.size:
        desk.write(f"the cache stays above {megabytes(args.size)}: what is left is kept, see above")
    left = plan.before - removed
    word = "would hold" if args.dry_run else "holds"
    desk.write(f"the cache {word} {megabytes(left)} in entries, {megabytes(removed)} less")
    return 0


def megabytes(count: float) -> str:
    return f"{count / 1e6:,.0f} MB"


def _size(text: str) -> int:
    if not _SIZE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: a number and K, M, G or T")
    return 0 if text == "0" else size(text)


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = math.nan
    if not (math.isfinite(days) and days >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of days, 0 or more: 7, 0.5")
    return days


def _half_done(desk: Desk, dry_run: bool) -> None:
    """Half-done work of killed runs; private folders of boots are only reported."""
    find = content.leftovers if dry_run else content.clean_leftovers
    word = "would remove" if dry_run else "removed"
    for path in find(desk.cache.folder):
        desk.write(f"{word} {path}: half-done work of a killed run")
    for path, held in space.private_folders(Path(tempfile.gettempdir())):
        whose = (
            "of a boot that is going on" if held else "of a killed boot; the next run removes it"
        )
        desk.write(f"kept {path}: {whose}")


def _remove(plan: space.Plan, desk: Desk, dry_run: bool) -> int:
    """Take out what was planned; the bytes that it freed."""
    freed = 0
    for removal in plan.remove:
        entry = removal.entry
        room = desk.cache.room(entry.room)
        if not dry_run and not content.discard_unused(room, entry.key):
            desk.write(f"kept {entry.name}: a live process began to use it")
            continue
        word = "would remove" if dry_run else "removed"
        desk.write(f"{word} {entry.name}: {megabytes(removal.frees)}, {removal.why}")
        freed += removal.frees
        if not dry_run:
            space.forget(desk.cache, entry)
    return freed


def _logs(desk: Desk, now: float, args: argparse.Namespace) -> None:
    logs = space.old_logs(desk.cache, now=now, days=args.days)
    if not logs:
        return
    if not args.dry_run:
        for log in logs:
            log.unlink(missing_ok=True)
    word = "would remove" if args.dry_run else "removed"
    desk.write(f"{word} {len(logs)} logs of builds, not written for {args.days:g} days")

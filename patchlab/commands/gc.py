# SPDX-License-Identifier: GPL-2.0-or-later
"""runner.py gc: give the cache's disk space back."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from patchlab.commands.desk import Desk
from patchlab.store import content

HELP = "remove what killed runs left, and cached entries not used for some days"
EXAMPLE = "runner.py gc --days 30"
ROOMS = ("images", "trees", "sources", "roots", "reviews")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--days", type=float, default=30.0, help="keep what is younger than this (default 30)"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")


def run(args: argparse.Namespace, desk: Desk) -> int:
    limit = time.time() - args.days * 86400
    if not args.dry_run:
        for path in content.clean_leftovers(desk.cache.folder):
            desk.write(f"removed {path}: half-done work of a killed run")
    for room in (desk.cache.room(name) for name in ROOMS):
        for entry in sorted(room.iterdir()):
            if entry.stat().st_mtime > limit:
                continue
            size = _bytes(entry)
            if not args.dry_run:
                content.discard(room, entry.name)
            word = "would remove" if args.dry_run else "removed"
            desk.write(f"{word} {room.name}/{entry.name}: {size / 1e6:,.0f} MB")
    return 0


def _bytes(folder: Path) -> int:
    """Disk blocks of a folder, each inode counted once."""
    seen: dict[int, int] = {}
    for path in folder.rglob("*"):
        found = path.lstat()
        seen[found.st_ino] = found.st_blocks * 512
    return sum(seen.values())

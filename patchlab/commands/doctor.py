# SPDX-License-Identifier: GPL-2.0-or-later
"""runner.py doctor: what this host can do, the remedy for what it cannot, what the cache holds."""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
from rich.table import Table

from patchlab import host
from patchlab.commands.desk import Desk
from patchlab.commands.gc import megabytes
from patchlab.errors import MissingTool
from patchlab.guests import kvm
from patchlab.paths import Cache
from patchlab.progress import Progress
from patchlab.store import space

HELP = "tools, disk, cores, KVM and clock of this host, each with its remedy; what the cache holds"
EXAMPLE = "runner.py doctor --json"
_COLOURS = {"ok": "green", "warning": "yellow", "unproved": "yellow", "missing": "red"}


@dataclass(frozen=True, slots=True)
class Room:
    """One row of what the cache holds; sizes in bytes, links counted once."""

    name: str
    entries: int
    size: int
    oldest_use: str  # ISO 8601, UTC; "" for an empty room


@dataclass(frozen=True, slots=True)
class Holding:
    folder: str
    rooms: tuple[Room, ...]
    rest: int  # logs, locks, half-done work
    free: int  # on the disk
    gc_frees: int  # with its defaults


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(args: argparse.Namespace, desk: Desk) -> int:
    desk.cache.folder.mkdir(parents=True, exist_ok=True)
    found = host.diagnose(desk.cache.folder, kvm=_proof(desk))
    holding = hold(desk.cache, desk.progress, time.time())
    if args.json:
        document = {
            "format": "patchlab-doctor/1",
            "host": host.facts(),
            "findings": found,
            "cache": holding,
        }
        desk.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
    else:
        table = Table("", "what", "found", "remedy", box=None)
        for item in found:
            colour = _COLOURS.get(item.state, "white")
            table.add_row(f"[{colour}]{item.state}[/]", item.name, item.finding, item.remedy)
        desk.out.print(table, _table(holding))
        desk.write(_last_line(holding))
    return MissingTool.exit_code if any(item.state == "missing" for item in found) else 0


def hold(cache: Cache, progress: Progress, now: float) -> Holding:
    """What is in the cache. The first time after a build this takes seconds."""
    entries = space.entries(cache, progress)
    plan = space.plan(entries, now=now, days=space.DEFAULT_DAYS)
    return Holding(
        folder=str(cache.folder),
        rooms=tuple(_room(name, [e for e in entries if e.room == name]) for name in space.ROOMS),
        rest=space.rest(cache),
        free=shutil.disk_usage(cache.folder).free,
        gc_frees=plan.before - plan.after,
    )


def _room(name: str, entries: Sequence[space.Entry]) -> Room:
    # What trees share is counted with their source.
    oldest = min((entry.used for entry in entries), default=None)
    when = "" if oldest is None else datetime.fromtimestamp(oldest, UTC).isoformat(" ", "minutes")
    return Room(name, len(entries), sum(entry.own for entry in entries), when)


def _table(holding: Holding) -> Table:
    table = Table(
        *("cache", "entries", "size", "oldest use"),
        title=f"\n{holding.folder}",
        title_justify="left",
        box=None,
    )
    for room in holding.rooms:
        table.add_row(room.name, str(room.entries), megabytes(room.size), room.oldest_use)
    table.add_row("the rest", "", megabytes(holding.rest), "")
    return table


def _last_line(holding: Holding) -> str:
    gain = f"runner.py gc would free {megabytes(holding.gc_frees)}"
    return f"{megabytes(holding.free)} free on its disk; {gain}"


def _proof(desk: Desk) -> kvm.Proof | None:
    try:
        return kvm.remembered(desk.cache)
    except MissingTool:
        return None  # no QEMU yet: its own finding says so

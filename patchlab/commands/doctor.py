# SPDX-License-Identifier: GPL-2.0-or-later
"""runner.py doctor: what this host can do, and the remedy for what it cannot."""

from __future__ import annotations

import argparse

import msgspec
from rich.table import Table

from patchlab import host, kvm
from patchlab.commands.desk import Desk
from patchlab.errors import MissingTool

HELP = "tools, disk, cores, KVM and clock of this host, each with its remedy"
EXAMPLE = "runner.py doctor --json"
_COLOURS = {"ok": "green", "warning": "yellow", "unproved": "yellow", "missing": "red"}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(args: argparse.Namespace, desk: Desk) -> int:
    desk.cache.folder.mkdir(parents=True, exist_ok=True)
    found = host.diagnose(desk.cache.folder, kvm=_proof(desk))
    if args.json:
        document = {"format": "patchlab-doctor/1", "host": host.facts(), "findings": found}
        desk.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
    else:
        table = Table("", "what", "found", "remedy", box=None)
        for item in found:
            colour = _COLOURS.get(item.state, "white")
            table.add_row(f"[{colour}]{item.state}[/]", item.name, item.finding, item.remedy)
        desk.out.print(table)
    return MissingTool.exit_code if any(item.state == "missing" for item in found) else 0


def _proof(desk: Desk) -> kvm.Proof | None:
    try:
        return kvm.remembered(desk.cache)
    except MissingTool:
        return None  # no QEMU yet: its own finding says so

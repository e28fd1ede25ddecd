# SPDX-License-Identifier: GPL-2.0-or-later
"""runner.py check: one check boot a variant, no timings."""

from __future__ import annotations

import argparse

from patchlab.commands import adhoc
from patchlab.commands.desk import Desk
from patchlab.runs.run import Wanted

HELP = "boot variants and run the checks of their features"
EXAMPLE = "runner.py check fuse-writable-mmap@control --feature fuse_writable_mmap"
arguments = adhoc.arguments


def run(args: argparse.Namespace, desk: Desk) -> int:
    return adhoc.run(args, desk, "check", Wanted(bench=False))

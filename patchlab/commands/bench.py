# SPDX-License-Identifier: GPL-2.0-or-later
"""runner.py bench: bench boots of variants in blocks, no checks."""

from __future__ import annotations

import argparse

from patchlab.commands import adhoc
from patchlab.commands.desk import Desk
from patchlab.runs.run import Wanted

HELP = "boot variants in random blocks and time their features"
EXAMPLE = "runner.py bench base fuse-writable-mmap@control"
arguments = adhoc.arguments


def run(args: argparse.Namespace, desk: Desk) -> int:
    return adhoc.run(args, desk, "bench", Wanted(checks=False))

# SPDX-License-Identifier: GPL-2.0-or-later
"""``python3 /run/lab/guest/replay.py CHECK "LINE"``: a check once more, as its line says.

A30: ``SEED STEPS``. B20: ``SEED CLIENTS STORES``. B21: ``MODE SEED COUNT`` or ``MODE OPERATION…``.
Without a check's name it is A30.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from guest.fuse.client import sweep
from guest.words import CheckError, Context, Skipped, Unsupported


def lies(line: str) -> tuple[Callable[[Context], str], dict[str, str]]:
    from guest.features import fuse_direct_mmap_stress as stress

    return stress.lied_to, dict(zip(("fuzz_seed", "fuzz_steps"), line.split(), strict=False))


def bashing(line: str) -> tuple[Callable[[Context], str], dict[str, str]]:
    from guest.features import fuse_writable_mmap_stress as stress

    return stress.bashed, {"replay": line}


def operations(line: str) -> tuple[Callable[[Context], str], dict[str, str]]:
    from guest.features import fuse_writable_mmap_stress as stress

    return stress.random_operations, {"replay": line}


CHECKS = {"A30": lies, "B20": bashing, "B21": operations}


def main(arguments: list[str]) -> int:
    name, line = "A30", arguments
    if arguments and arguments[0] in CHECKS:
        name, line = arguments[0], arguments[1:]
    check, settings = CHECKS[name](" ".join(line))
    with tempfile.TemporaryDirectory(prefix="replay-", ignore_cleanup_errors=True) as folder:
        here = Path(folder).resolve()
        try:
            sys.stdout.write(check(Context(here, Random(0), settings)) + "\n")
        except (CheckError, Unsupported, Skipped) as error:
            sys.stdout.write(f"{type(error).__name__}: {error}\n")
            return 1
        finally:
            sweep(here)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

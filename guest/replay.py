# SPDX-License-Identifier: GPL-2.0-or-later
"""``python3 /run/lab/guest/replay.py SEED [STEPS]``: check A30 once more, with this seed."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from random import Random

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from guest.features import fuse_direct_mmap_stress as stress
from guest.fuse.client import sweep
from guest.words import CheckError, Context, Unsupported


def main(arguments: list[str]) -> int:
    settings = dict(zip(("fuzz_seed", "fuzz_steps"), arguments, strict=False))
    with tempfile.TemporaryDirectory(prefix="replay-") as name:
        folder = Path(name).resolve()
        try:
            sys.stdout.write(stress.lied_to(Context(folder, Random(0), settings)) + "\n")
        except (CheckError, Unsupported) as error:
            sys.stdout.write(f"{type(error).__name__}: {error}\n")
            return 1
        finally:
            sweep(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

# SPDX-License-Identifier: GPL-2.0-or-later
"""runner.py build: images of variants, from the cache or built now."""

from __future__ import annotations

import argparse

from patchlab import config
from patchlab.building import build as building
from patchlab.commands.desk import Desk

HELP = "build the images of variants (all arms of the default run without one)"
EXAMPLE = "runner.py build base fuse-writable-mmap@control"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("variants", nargs="*", metavar="VARIANT")


def run(args: argparse.Namespace, desk: Desk) -> int:
    lab = desk.ready_lab()
    names: list[str] = args.variants or [v.name for v in lab.runs[lab.default_run].arms]
    variants = [config.find_variant(lab, name) for name in names]
    for variant in variants:
        building.try_patches(variant, lab, desk.cache, desk.progress)
    for variant in variants:
        image = building.build(variant, lab, desk.cache, desk.progress)
        desk.write(f"{variant.name}  {image.release}  {image.bzimage}")
    return 0

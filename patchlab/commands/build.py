# SPDX-License-Identifier: GPL-2.0-or-later
"""runner.py build: images of variants, from the cache or built now."""

from __future__ import annotations

import argparse

from patchlab import config
from patchlab.building import build as building
from patchlab.commands import options
from patchlab.commands.desk import Desk
from patchlab.model import Lab

HELP = "build the images of variants (without one: the default run's arms, or just the --base)"
EXAMPLE = "runner.py build base fuse-writable-mmap@control"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("variants", nargs="*", metavar="VARIANT")
    options.base(parser)


def run(args: argparse.Namespace, desk: Desk) -> int:
    lab = desk.ready_lab(args.base)
    names: list[str] = args.variants or _all(lab, args.base)
    variants = [config.find_variant(lab, name) for name in names]
    for variant in variants:
        building.try_patches(variant, lab, desk.cache, desk.progress)
    for variant in variants:
        image = building.build(variant, lab, desk.cache, desk.progress)
        desk.write(f"{variant.name}  {image.release}  {image.bzimage}")
    return 0


def _all(lab: Lab, base: str) -> list[str]:
    """The arms of the default run; on another base, which their patches may not fit, that base."""
    return ["base"] if base else [arm.name for arm in lab.runs[lab.default_run].arms]

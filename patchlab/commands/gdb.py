# SPDX-License-Identifier: GPL-2.0-or-later
"""runner.py gdb: QEMU's stub on a unix socket, the image's symbols loaded."""

from __future__ import annotations

import argparse

from patchlab import config, proc
from patchlab.building import build
from patchlab.commands import options
from patchlab.commands.desk import Desk
from patchlab.guests import live

HELP = "debug a running guest of a variant with gdb; arguments after -- go to gdb"
EXAMPLE = "runner.py gdb base -- -batch -ex 'info address fuse_file_mmap'"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("variant", metavar="VARIANT")
    options.base(parser)
    parser.add_argument("words", nargs="*", metavar="ARGUMENT", help="after --: arguments of gdb")


def run(args: argparse.Namespace, desk: Desk) -> int:
    options.require_quotes(args.variant, args.words)
    lab = desk.ready_lab(args.base)
    variant = config.find_variant(lab, args.variant)
    with live.guest(variant, lab, desk.cache, desk.progress, features=(), gdb=True) as running:
        image = build.build(variant, lab, desk.cache, desk.progress)  # from the cache by now
        target = f"target remote {running.folder / 'gdb.sock'}"
        return proc.attach(["gdb", "-q", str(image.vmlinux), "-ex", target, *args.words])

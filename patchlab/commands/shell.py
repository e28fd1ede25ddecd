# SPDX-License-Identifier: GPL-2.0-or-later
"""runner.py shell: inside the guest, with its pmem devices mounted."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import shlex
import shutil
import sys
import termios
import tty
from collections.abc import Iterator
from typing import Any

import paramiko

from patchlab import config
from patchlab.commands import options
from patchlab.commands.desk import Desk
from patchlab.errors import LostInstrument
from patchlab.guests import live

HELP = "log into a guest of a variant, or run one command in it"
EXAMPLE = "runner.py shell base -- mount -t xfs"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("variant", metavar="VARIANT")
    options.base(parser)
    parser.add_argument("words", nargs="*", metavar="COMMAND", help="after --: run this and leave")


def run(args: argparse.Namespace, desk: Desk) -> int:
    options.require_quotes(args.variant, args.words)
    lab = desk.ready_lab(args.base)
    variant = config.find_variant(lab, args.variant)
    features = lab.runs[lab.default_run].features
    with live.guest(variant, lab, desk.cache, desk.progress, features=features) as running:
        transport = running.guest.client.get_transport()
        if transport is None:
            raise LostInstrument("the SSH connection to the guest closed")
        with contextlib.closing(transport.open_session(timeout=30)) as channel:
            if args.words:
                channel.exec_command(shlex.join(args.words))
                return _copy(channel)
            desk.progress.note("the guest's own shell; leave it with exit or ^D")
            size = shutil.get_terminal_size()
            channel.get_pty(os.environ.get("TERM", "vt100"), size.columns, size.lines)
            channel.invoke_shell()
            with _raw_terminal():
                return _copy(channel, interactive=True)


def _copy(channel: paramiko.Channel, *, interactive: bool = False) -> int:
    """Both ways until the channel ends; its exit code."""
    sources: list[Any] = [channel, sys.stdin] if interactive else [channel]
    while True:
        ready = select.select(sources, [], [], 0.2)[0]
        if sys.stdin in ready:
            typed = os.read(sys.stdin.fileno(), 4096)
            if typed:
                channel.sendall(typed)
            else:
                channel.shutdown_write()
                sources.remove(sys.stdin)
        while channel.recv_stderr_ready():
            os.write(2, channel.recv_stderr(1 << 16))
        if channel in ready and (data := channel.recv(1 << 16)):
            os.write(1, data)
        elif channel in ready or (channel.exit_status_ready() and not channel.recv_ready()):
            return channel.recv_exit_status()


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    if not sys.stdin.isatty():
        yield
        return
    kept = termios.tcgetattr(sys.stdin)
    try:
        tty.setraw(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, kept)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Options that several verbs have."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from patchlab.errors import UsageError


def base(parser: argparse.ArgumentParser) -> None:
    """``--base NAME``, for Desk.ready_lab()."""
    parser.add_argument(
        "--base",
        default="",
        metavar="NAME",
        help="the base that 'base' stands for, a file in kernels/ (default: that of lab.toml's "
        "default run)",
    )


def count(text: str) -> int:
    """A whole number of 1 or more, for ``type=`` of an argument."""
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return int(text)


def require_quotes(variant: str, words: Sequence[str]) -> None:
    """Raises UsageError for ``base + config:debug`` typed without quotes before a command."""
    if words[:1] == ["+"]:
        name = " ".join([variant, *words])
        raise UsageError(
            f"'{variant}' and '+' are two words", hint=f'quote the whole name: "{name}"'
        )

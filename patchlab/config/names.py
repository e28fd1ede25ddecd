# SPDX-License-Identifier: GPL-2.0-or-later
"""Names that do not exist: what was wanted, what there is, and what is near."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from patchlab.errors import UsageError

# Bases, series, revisions and runs become folder names and command-line words.
NAME = r"[a-z0-9][a-z0-9._-]*"
NAME_RULE = "lower-case letters, digits, '.', '_' and '-', and no '.', '_' or '-' first"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``did you mean 'memory'?``, or "" when nothing is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean '{near[0]}'?" if near else ""


def unknown(what: str, name: str, known: Iterable[str], *, where: str = "") -> UsageError:
    """The error for a name that is not among ``known``: its hint lists them."""
    names = sorted(known)
    there = f"there are: {', '.join(names)}" if names else f"there is no {what} at all"
    hint = " ".join(part for part in (did_you_mean(name, names), there) if part)
    return UsageError(f"no {what} '{name}'{where}", hint=hint)


def require_name(what: str, name: str) -> None:
    """Raises UsageError for a name that is no folder name and no command-line word."""
    if not re.fullmatch(NAME, name):
        raise UsageError(f"'{name}' is no name for a {what}", hint=f"use {NAME_RULE}")

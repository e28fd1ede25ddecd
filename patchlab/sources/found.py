# SPDX-License-Identifier: GPL-2.0-or-later
"""What every kind of source has in common."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from patchlab.config import toml
from patchlab.config.lines import scan
from patchlab.errors import UsageError
from patchlab.model import Base
from patchlab.paths import Cache
from patchlab.progress import Progress

TREE = "tree"
_VERSION = re.compile(r"^(VERSION|PATCHLEVEL)[ \t]*=[ \t]*\d+[ \t]*$", re.MULTILINE)

# Fills an empty folder: the source tree is then in its subfolder TREE.
Fill = Callable[[Path, Cache, Progress], None]


@dataclass(frozen=True, slots=True)
class Found:
    """A source as it is right now, found without unpacking anything."""

    key: str
    package: str
    version: str
    sha256: str
    fill: Fill


def fault(base: Base, field: str, message: str, *, hint: str) -> UsageError:
    """An error at the line of ``field`` in [source] of the base's TOML file."""
    line = 1
    with contextlib.suppress(OSError, UnicodeDecodeError):
        lines = scan(base.file.read_text(encoding="utf-8"))
        line = lines.get(("source", field)) or lines.get(("source",)) or 1
    return UsageError(f"{toml.shown(base.file)}:{line}: {message}", hint=hint)


def require_file(base: Base, field: str, path: Path) -> None:
    if not path.is_file():
        what = "a folder, not a file" if path.is_dir() else "no such file"
        hint = f"correct {field}, or put it there; paths start at the folder of this file"
        raise fault(base, field, f"{field}: {path}: {what}", hint=hint)


def lacks_of_a_kernel(makefile: str | None, names: Iterable[str]) -> str:
    """What a tree's top folder lacks to be a kernel's source; "" when it has all of it."""
    if makefile is None:
        return "no Makefile"
    if len(set(_VERSION.findall(makefile))) != 2:
        return "a Makefile without VERSION and PATCHLEVEL"
    missing = [name for name in ("Kbuild", "Kconfig") if name not in names]
    return f"no {' and no '.join(missing)}" if missing else ""


def short(digest: str) -> str:
    return digest[:12]

# SPDX-License-Identifier: GPL-2.0-or-later
"""Where built things and results live."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import platformdirs


@dataclass(frozen=True, slots=True)
class Cache:
    """The user's cache: everything here can be made again.

    ``sources/`` unpacked trees, ``trees/`` built unpatched trees, ``images/`` built kernels,
    ``roots/`` guest roots, ``hosts/`` what was proved about this host, ``tmp/`` half-done work.
    """

    folder: Path

    def room(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir(parents=True, exist_ok=True)
        return path


def default_cache() -> Cache:
    """``$XDG_CACHE_HOME/patchlab``, or ``~/.cache/patchlab``."""
    return Cache(Path(platformdirs.user_cache_dir("patchlab")))

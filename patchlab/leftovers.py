# SPDX-License-Identifier: GPL-2.0-or-later
"""What killed labs left, found by locks that nobody holds; what a live one has is not touched."""

from __future__ import annotations

import tempfile
from pathlib import Path

from patchlab import scratch
from patchlab.store import content


def clean(cache: Path) -> tuple[Path, ...]:
    """Remove half-built entries of the cache and private folders of boots; return them."""
    removed = content.clean_leftovers(cache)
    for room in (cache / "tmp", cache / "hosts", Path(tempfile.gettempdir())):
        removed += scratch.clean(room)
    return removed

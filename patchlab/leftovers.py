# SPDX-License-Identifier: GPL-2.0-or-later
"""What killed labs left, found by locks that nobody holds; what a live one has is not touched."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from patchlab import measure, resume, scratch, sitting
from patchlab.store import content
from patchlab.store.results import Results


def clean(cache: Path) -> tuple[Path, ...]:
    """Remove half-built entries of the cache and private folders of boots; return them."""
    removed = content.clean_leftovers(cache)
    for room in (cache / "tmp", cache / "hosts", Path(tempfile.gettempdir())):
        removed += scratch.clean(room)
    return removed


def clean_results(folder: Path, results: Results) -> tuple[Path, ...]:
    """Remove half-written pages, and the folders of boots that did not end; return them."""
    removed = list(scratch.clean(folder))
    for line in results.runs():
        if line.finished or not (folder / measure.run_folder(line.id)).is_dir():
            continue
        with sitting.free(folder, line.id) as free:
            if free:
                stored = resume.folders(results.load_run(line.id))
                removed += _half(folder / measure.run_folder(line.id), stored)
    return tuple(removed)


def _half(folder: Path, stored: set[str]) -> list[Path]:
    half = [path for path in folder.iterdir() if path.is_dir() and path.name not in stored]
    for path in half:
        shutil.rmtree(path, ignore_errors=True)
    return half

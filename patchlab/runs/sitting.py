# SPDX-License-Identifier: GPL-2.0-or-later
"""What one process does of a run: it has the run for itself, and keeps the time it took."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from patchlab import scratch
from patchlab.errors import StoreError
from patchlab.runs import measure, resume
from patchlab.store.results import Results


@contextlib.contextmanager
def free(results: Path, run_id: int) -> Iterator[bool]:
    """Whether no other process makes this run; if so, it is this one's inside the block."""
    folder = results / measure.run_folder(run_id)
    folder.mkdir(parents=True, exist_ok=True)
    with scratch.hold(folder) as held:
        yield held


@contextlib.contextmanager
def taken(results: Path, run_id: int) -> Iterator[None]:
    """Have the run for this process. Raises StoreError when another was faster."""
    with free(results, run_id) as held:
        if not held:
            raise StoreError(f"another process has gone on with run {run_id} already")
        yield


def clean(folder: Path, results: Results) -> tuple[Path, ...]:
    """Remove the half-written pages and unfinished boots of killed labs; return them."""
    removed = list(scratch.clean(folder))
    for line in results.runs():
        if line.finished or not (folder / measure.run_folder(line.id)).is_dir():
            continue
        with free(folder, line.id) as held:
            if held:
                stored = resume.folders(results.load_run(line.id))
                removed += _half(folder / measure.run_folder(line.id), stored)
    return tuple(removed)


def _half(folder: Path, stored: set[str]) -> list[Path]:
    half = [path for path in folder.iterdir() if path.is_dir() and path.name not in stored]
    for path in half:
        shutil.rmtree(path, ignore_errors=True)
    return half


class Sitting:
    """Keeps seconds: those of the process and of its stage are stored after each boot.

    ``begun`` is when the process began, on time.monotonic(); ``earlier`` is what other
    sittings took. All methods may be called from any thread.
    """

    def __init__(self, results: Results, run_id: int, begun: float, earlier: float) -> None:
        self._results, self._run = results, run_id
        self._begun, self._earlier = begun, earlier
        self._row = results.begin_sitting(run_id, time.monotonic() - begun)
        self._stage: tuple[int, float] | None = None  # its row, and when it began
        self._lock = threading.Lock()

    def add(self, stages: Mapping[str, float]) -> None:
        """What came before the boots, when the run is an earlier process's."""
        for stage, seconds in stages.items():
            self._results.save_stage(self._run, stage, seconds)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times a stage, also one that is interrupted."""
        self._stage = (self._results.save_stage(self._run, name, 0.0), time.monotonic())
        try:
            yield
        finally:
            self.tick()
            self._stage = None

    def tick(self) -> None:
        """A boot has ended."""
        if stage := self._stage:
            with self._lock:
                now = time.monotonic()
                row, begun = stage
                self._results.save_seconds(self._row, now - self._begun, row, now - begun)

    def finish(self) -> None:
        """All boots of the run are stored."""
        seconds = self._earlier + time.monotonic() - self._begun
        self._results.finish_run(self._run, seconds)

# SPDX-License-Identifier: GPL-2.0-or-later
"""What every verb works with: the lab, the cache, the results, and two places to write to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType

from patchlab import config, host, leftovers
from patchlab.errors import MissingTool
from patchlab.model import Lab
from patchlab.paths import Cache
from patchlab.progress import Progress

if TYPE_CHECKING:  # a verb that needs them imports them: they take longer than an unchanged build
    from patchlab.record import StoredRun
    from patchlab.runs.run import Place
    from patchlab.store.results import Results
    from patchlab.verdict import Comparison


@dataclass(frozen=True, slots=True)
class Desk:
    lab_file: Path
    cache: Cache
    out: Console  # results: what a pipe gets
    progress: Progress  # how far things are: standard error
    command: tuple[str, ...]

    def lab(self) -> Lab:
        """lab.toml, validated. Raises UsageError."""
        return config.load(self.lab_file)

    def ready_lab(self, base: str = "") -> Lab:
        """The lab, for verbs that build or boot: what this host lacks is said before they start.

        With ``base``, variants that the command line names are on that one. What killed labs
        left is removed. Raises UsageError, MissingTool.
        """
        lab = config.on_base(self.lab(), base) if base else self.lab()
        if missing := host.missing_packages():
            raise MissingTool(
                f"this host lacks {', '.join(missing)}", hint=host.install_line(missing)
            )
        self._say(leftovers.clean(self.cache.folder))
        return lab

    def _say(self, removed: Sequence[Path]) -> None:
        if removed:
            self.progress.note(f"removed what a killed lab left: {len(removed)} half-done things")

    @property
    def results_folder(self) -> Path:
        return self.lab_file.parent / "results"

    @property
    def results_file(self) -> Path:
        return self.results_folder / "lab.sqlite"

    @contextlib.contextmanager
    def results(self) -> Iterator[Results]:
        from patchlab.store.results import Results

        self.results_folder.mkdir(parents=True, exist_ok=True)
        with Results.open(self.results_file) as results:
            yield results

    @contextlib.contextmanager
    def place(self) -> Iterator[Place]:
        from patchlab.runs import sitting
        from patchlab.runs.run import Place

        with self.results() as results:
            self._say(sitting.clean(self.results_folder, results))
            yield Place(self.cache, results, self.results_folder, self.command)

    def show(self, form: str, stored: StoredRun, comparisons: Sequence[Comparison]) -> None:
        """A run as JSON or text; with colour on a terminal, plain for a pipe."""
        from patchlab.report import json_, text

        if form == "json":
            self.write(json_.render(stored, comparisons))
        else:
            self.tell(text.renderables(stored, comparisons))

    def tell(self, parts: Sequence[RenderableType]) -> None:
        """With colour on a terminal, plain for a pipe."""
        from patchlab.report import plain

        if self.out.is_terminal:
            self.out.print(*parts)
        else:
            self.write(plain.render(parts))

    def write(self, words: str) -> None:
        """Text as it is: no markup, no wrapping, no colour."""
        self.out.print(words, markup=False, highlight=False, soft_wrap=True)

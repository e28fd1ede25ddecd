# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests of real boots share."""

from __future__ import annotations

import tempfile
from pathlib import Path

from patchlab.guests import machine
from patchlab.model import Image, Lab, Root
from patchlab.record import BootKind, BootRecord, Clock
from patchlab.runs import features, measure


class Step:
    def advance(self, done: float, total: float) -> None:
        pass


def check_start(image: Image, **options: object) -> machine.Start:
    return machine.Start(image, BootKind.CHECK, Clock.TCG, 1, **options)  # type: ignore[arg-type]


def task(start: machine.Start, catalogue: features.Catalogue) -> measure.Task:
    """Every check in a check boot, every metric in a bench boot."""
    bench = start.kind is BootKind.BENCH
    return measure.Task(
        start,
        start.image.variant,
        block=0 if bench else -1,
        order=0,
        checks=() if bench else catalogue.checks,
        metrics=catalogue.metrics if bench else (),
    )


def boot(one: measure.Task, root: Root, lab: Lab, folder: Path) -> BootRecord:
    return measure.boot(one, root, lab, folder, 1, (), Step())


def leftovers() -> list[Path]:
    """Private folders of boots that are going on or left something behind."""
    return list(Path(tempfile.gettempdir()).glob("patchlab-*"))

# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests of real boots share."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from patchlab import config
from patchlab.building import build
from patchlab.guests import command_line
from patchlab.model import Image, Lab, Root
from patchlab.paths import Cache
from patchlab.progress import Silent
from patchlab.record import BootKind, BootRecord, CheckInfo, CheckResult, Clock, Outcome
from patchlab.runs import features, measure, resume

FINE = {Outcome.PASSED, Outcome.UNSUPPORTED}


class Step:
    def advance(self, done: float, total: float) -> None:
        pass


def check_start(image: Image, **options: object) -> command_line.Start:
    return command_line.Start(image, BootKind.CHECK, Clock.TCG, 1, **options)  # type: ignore[arg-type]


def task(start: command_line.Start, catalogue: features.Catalogue) -> measure.Task:
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
    """The boot's record, and its console in ``folder``; a lost one is made once more."""
    return kept(lambda attempt: measure.boot(one, root, lab, folder, attempt, (), Step()))


def kept(make: Callable[[int], BootRecord]) -> BootRecord:
    """What the last attempt at a boot became; a warning tells of one that was lost."""
    *lost, record = resume.attempts(make)
    for one in lost:
        warnings.warn(f"a boot was lost, and made again: {one.reason}", stacklevel=3)
    return record


def quick(feature: str, patience: float = 2) -> tuple[CheckInfo, ...]:
    """The feature's checks, but for those that do thousands of things.

    They run in `make prove`, and in the run of lab.toml.
    """
    every = features.catalogue().of([feature]).checks
    return tuple(check for check in every if check.patience <= patience)


def answers(
    variant: str, checks: tuple[CheckInfo, ...], lab: Lab, cache: Cache, root: Root, folder: Path
) -> dict[str, CheckResult]:
    """What a boot of the variant answers to each of ``checks``, with a clean log."""
    image = build.build(config.find_variant(lab, variant), lab, cache, Silent())
    record = boot(task(check_start(image), features.Catalogue(checks, ())), root, lab, folder)
    assert record.outcome is Outcome.PASSED, record.reason
    assert not record.findings
    seen = {check.id: check for check in record.checks}
    assert set(seen) == {check.id for check in checks}
    return seen


def surprises(
    variant: str, checks: tuple[CheckInfo, ...], seen: Mapping[str, CheckResult]
) -> dict[str, CheckResult]:
    """The answers that are not what ``red`` claims of the variant.

    It fails the checks that were seen red on it, and no others; what it lacks is no failure.
    """
    failed = {i for i, check in seen.items() if check.outcome not in FINE}
    claimed = {check.id for check in checks if variant in check.places}
    return {i: seen[i] for i in failed ^ claimed}


def leftovers() -> list[Path]:
    """Private folders of boots that are going on or left something behind."""
    return list(Path(tempfile.gettempdir()).glob("patchlab-*"))
